"""Prompts: by hand, and byte for byte those of llm-foundry 0.22.0 (mirrors scalejax/evaluation/prompts.py)."""

import hashlib
import json

import numpy as np
import pytest

from scalejax.data.tokenizers import Bytes
from scalejax.evaluation import gadre_tasks, prompts
from scalejax.evaluation.task_files import Item, read_items
from tests.published import reference

# task -> digest with the published shots and blanks before answers, digest with 3 shots and none: sha256 of the JSON list of all
# texts in the order in which the data set classes of llm-foundry 0.22.0 (PyPI) tokenize them: examples, contexts, answers.
FOUNDRY = {
    "arc_easy": ("c632ef0a56096617", "87bd5597fe2a544c"),
    "arc_challenge": ("fc25c2bf0141ef1a", "f3267d8de168a062"),
    "openbook_qa": ("772d9cc188dd215f", "7e406570399f3ba8"),
    "piqa": ("ff6bacb0c8b82a05", "1edc28d6e8fc86c8"),
    "copa": ("b3960ef7e60b8ca7", "0322c0534951fef0"),
    "commonsense_qa": ("aa3f603cdaea4e97", "97d55a31f530d1fb"),
    "winograd": ("6cdc19f4a80235ff", "5195ac370d942135"),
    "winogrande": ("41cb57cee486de06", "8dd0bf12fcc99ed6"),
    "pubmed_qa_labeled": ("38c917d58be30637", "9262897d2fc9e60e"),
    "bigbench_novel_concepts": ("aac27233f29cf77b", "52870ddace7f226b"),
    "bigbench_strange_stories": ("bceeef5a35cfc8a0", "6717402ff8bd07a6"),
    "bigbench_misconceptions": ("47669c49f688b064", "2d7ae11ef5959f17"),
    "bigbench_conceptual_combinations": ("5b85d74f62b51f4d", "09871f508b72ca02"),
    "bigbench_understanding_fables": ("c4940c264a86389b", "252e7c3140e90e19"),
    "bigbench_cs_algorithms": ("2ef71ce97aa7ffc7", "8f4d0dcb053572e8"),
    "bigbench_dyck_languages": ("92ec1a53c489c219", "59ba3f63bb26bd02"),
    "bigbench_operators": ("a16501e32b7ec6d2", "d304808a933d0388"),
    "bigbench_repeat_copy_logic": ("7c2c48c26b0086e8", "a2fcb49a2f31d26c"),
    "bigbench_qa_wikidata": ("a6316a35acb7e2fc", "a3670aff1b45152a"),
    "simple_arithmetic_nospaces": ("d179ef3117e0ddde", "722015a9faef98ff"),
    "simple_arithmetic_withspaces": ("a8e04b7dfd5d86a4", "0f90c1982ebb041d"),
}


def choice(query: str, *choices: str, gold: int = 0, category: str = "") -> Item:
    return Item((query,), choices, gold, category, "here")


QUIZ = [choice(f"q{i}", f"yes{i}", f"no{i}", gold=i % 2) for i in range(4)]


@pytest.fixture(scope="module")
def files():
    return reference("eval_tasks")


@pytest.mark.replication
@pytest.mark.parametrize("task", FOUNDRY)
def test_prompts_are_those_of_llm_foundry(files, task):
    published = gadre_tasks.TASKS[task]
    items = read_items(files / f"{task}.jsonl", duplicates=True)
    for shots, blank, digest in zip(
        (published.shots, 3), (True, False), FOUNDRY[task], strict=True
    ):
        built = prompts.prompts(items, shots=shots, delimiter=published.delimiter)
        texts = [
            text
            for item, prompt in zip(items, built, strict=True)
            for text in prompts._texts(item, prompt, blank)
        ]
        assert hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:16] == digest


def test_examples_come_first_and_the_item_follows_on_a_line_of_its_own():
    (first, *_), drawn = (
        prompts.prompts(QUIZ, shots=2, delimiter="\nAnswer: "),
        prompts.few_shots(QUIZ, 2),
    )
    answers = ["yes0", "no1", "yes2", "no3"]
    assert first.examples == "\n".join(f"q{i}\nAnswer: {answers[i]}" for i in drawn[0])
    assert first.contexts == ["\nq0\nAnswer:"]


def test_without_examples_the_item_stands_alone():
    (first, *_) = prompts.prompts(QUIZ, shots=0, delimiter=" ")
    assert first == ("", ["q0"])


def test_a_schema_has_a_context_for_each_option():
    options = [Item(("He", "She"), ("came",), i, "", "here") for i in (0, 1)]
    assert next(prompts.prompts(options, shots=0, delimiter=" ")) == ("", ["He", "She"])
    assert next(prompts.prompts(options, shots=1, delimiter=" ")) == ("She came", ["\nHe", "\nShe"])


def test_an_item_is_never_its_own_example_and_examples_differ():
    many = [choice(f"q{i}", "a", "b") for i in range(30)]
    drawn = prompts.few_shots(many, 10)
    assert all(i not in own and len(set(own)) == 10 for i, own in enumerate(drawn))
    assert len({tuple(own) for own in drawn}) == 30


def test_examples_are_of_the_items_category_and_as_if_it_were_alone():
    mixed = [choice(f"q{i}", "a", "b", category="ab"[i % 2]) for i in range(12)]
    drawn = prompts.few_shots(mixed, 3)
    assert all(number % 2 == i % 2 for i, own in enumerate(drawn) for number in own)
    alone = prompts.few_shots(mixed[::2], 3)
    assert drawn[::2] == [[2 * number for number in own] for own in alone]


def test_fewer_items_than_shots_give_all_others():
    assert [sorted(own) for own in prompts.few_shots(QUIZ[:3], 10)] == [[1, 2], [0, 2], [0, 1]]


class Words:
    """A tokenizer whose words carry the blank before them."""

    vocabulary, end, hash, model = 1000, 0, "", b""

    def encode(self, texts):
        return [
            np.array(
                [hash(word) % 1000 for word in text.replace(" ", "\0 ").split("\0") if word],
                np.int64,
            )
            for text in texts
        ]


def test_an_answer_gets_a_blank_iff_words_carry_it():
    assert prompts.wants_blank(Words()) and not prompts.wants_blank(Bytes())
    led, bare = (
        next(prompts.answers(QUIZ, tokenizer, shots=0, delimiter=" "))
        for tokenizer in (Words(), Bytes())
    )
    assert led.continuation.tolist() == [hash(" yes0") % 1000]
    assert bytes(bare.continuation.tolist()) == b"yes0" and bare.text == led.text == "yes0"


def test_parts_are_encoded_apart_and_every_choice_is_an_answer():
    found = list(prompts.answers(QUIZ, Bytes(), shots=1, delimiter=" "))
    assert [(one.item, one.choice, one.gold) for one in found[:4]] == [
        (0, 0, True),
        (0, 1, False),
        (1, 0, False),
        (1, 1, True),
    ]
    (prompt, *_) = prompts.prompts(QUIZ, shots=1, delimiter=" ")
    assert bytes(found[1].context.tolist()).decode() == prompt.examples + prompt.contexts[0]


def test_blocks_of_items_change_nothing(monkeypatch):
    whole = list(prompts.answers(QUIZ, Bytes(), shots=2, delimiter=" "))
    monkeypatch.setattr(prompts, "ITEMS_AT_ONCE", 3)
    parts = list(prompts.answers(QUIZ, Bytes(), shots=2, delimiter=" "))
    assert [(one.item, one.choice, one.context.tolist()) for one in parts] == [
        (one.item, one.choice, one.context.tolist()) for one in whole
    ]


def test_an_answer_longer_than_the_window_is_refused_by_line():
    prompts.check(QUIZ, Bytes(), window=5)
    with pytest.raises(
        ValueError,
        match=r"here: an answer of 4 tokens leaves no context in a window of 4, and neither do 3 sh",
    ):
        prompts.check(QUIZ, Bytes(), window=4)


def test_the_message_names_the_longest_answer_and_the_window_that_holds_it():
    long = choice("q", "yes", "a" * 9)._replace(place="there")
    with pytest.raises(
        ValueError,
        match=r"there: an answer of 9 tokens .*; shorten it, or score with a window of at least 10",
    ):
        prompts.check([*QUIZ, long], Bytes(), window=8)
    prompts.check([*QUIZ, long], Bytes(), window=10)
