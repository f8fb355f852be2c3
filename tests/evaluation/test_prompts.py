"""Prompts equal those of llm-foundry (mirrors scalejax/evaluation/prompts.py)."""

import hashlib
import json

import numpy as np
import pytest

from scalejax.data.tokenizers import Bytes
from scalejax.evaluation import gadre_tasks, prompts
from scalejax.evaluation.task_files import Item, read_items
from tests.published import reference

# Digests of the prompts that llm-foundry 0.22.0 (PyPI) builds for each task: with the
# published number of shots and leading spaces, and with 3 shots and no leading spaces.
# A digest is the sha256 of the JSON list of all texts, in the order in which
# llm-foundry's data set classes tokenize them: examples, contexts, answers.
LLM_FOUNDRY_DIGESTS = {
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


def multiple_choice(
    query: str, *choices: str, gold: int = 0, category: str = "", location: str = "here"
) -> Item:
    return Item((query,), choices, gold, category, location)


QUIZ = [multiple_choice(f"q{i}", f"yes{i}", f"no{i}", gold=i % 2) for i in range(4)]


@pytest.fixture(scope="module")
def files():
    return reference("eval_tasks")


@pytest.mark.replication
@pytest.mark.parametrize("task", LLM_FOUNDRY_DIGESTS)
def test_prompts_are_those_of_llm_foundry(files, task):
    published = gadre_tasks.TASKS[task]
    items = read_items(files / f"{task}.jsonl", allow_duplicates=True)
    settings = ((published.shots, True), (3, False))
    for (shots, leading_space), digest in zip(settings, LLM_FOUNDRY_DIGESTS[task], strict=True):
        built = prompts.build_prompts(items, shots=shots, delimiter=published.delimiter)
        texts = []
        for item, prompt in zip(items, built, strict=True):
            texts += prompts.prompt_texts(item, prompt, " " * leading_space)
        assert hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:16] == digest


def test_examples_come_first_and_the_item_follows_on_its_own_line():
    first = next(prompts.build_prompts(QUIZ, shots=2, delimiter="\nAnswer: "))
    answers = ["yes0", "no1", "yes2", "no3"]
    examples = prompts.few_shot_indices(QUIZ, 2)[0]
    assert first.examples == "\n".join(f"q{i}\nAnswer: {answers[i]}" for i in examples)
    assert first.contexts == ["\nq0\nAnswer:"]


def test_a_prompt_without_examples_contains_only_the_item():
    first = next(prompts.build_prompts(QUIZ, shots=0, delimiter=" "))
    assert first == ("", ["q0"])


def test_a_schema_item_has_a_context_for_each_option():
    items = [Item(("He", "She"), ("came",), gold, "", "here") for gold in (0, 1)]
    first = next(prompts.build_prompts(items, shots=0, delimiter=" "))
    assert first == ("", ["He", "She"])
    first = next(prompts.build_prompts(items, shots=1, delimiter=" "))
    assert first == ("She came", ["\nHe", "\nShe"])


def test_an_item_is_never_its_own_example_and_examples_differ():
    items = [multiple_choice(f"q{i}", "a", "b") for i in range(30)]
    indices = prompts.few_shot_indices(items, 10)
    for i, examples in enumerate(indices):
        assert i not in examples and len(set(examples)) == 10
    assert len({tuple(examples) for examples in indices}) == 30


def test_examples_come_from_the_items_category_as_if_it_were_a_task_of_its_own():
    items = [multiple_choice(f"q{i}", "a", "b", category="ab"[i % 2]) for i in range(12)]
    indices = prompts.few_shot_indices(items, 3)
    for i, examples in enumerate(indices):
        assert all(example % 2 == i % 2 for example in examples)
    of_category_a = prompts.few_shot_indices(items[::2], 3)
    assert indices[::2] == [[2 * example for example in examples] for examples in of_category_a]


def test_fewer_items_than_shots_use_all_other_items():
    indices = prompts.few_shot_indices(QUIZ[:3], 10)
    assert [sorted(examples) for examples in indices] == [[1, 2], [0, 2], [0, 1]]


class Words:
    """A tokenizer that attaches the space to the word after it."""

    vocabulary, end, end_token, hash, model = 1000, 0, "", "", b""

    def encode(self, texts):
        ids = []
        for text in texts:
            words = [word for word in text.replace(" ", "\0 ").split("\0") if word]
            ids.append(np.array([hash(word) % 1000 for word in words], np.int64))
        return ids

    def decode(self, ids):
        raise NotImplementedError


class OwnSpaces(Bytes):
    """A tokenizer that puts a space before every text itself, as Llama's does."""

    def encode(self, texts):
        return super().encode([f" {text}" for text in texts])


def first_request(tokenizer) -> prompts.Request:
    return next(prompts.build_requests(QUIZ, tokenizer, shots=0, delimiter=" "))


@pytest.mark.parametrize("tokenizer", [Bytes(), OwnSpaces()])
@pytest.mark.parametrize("shots", [0, 1])
def test_one_space_stands_before_the_answer_under_every_tokenizer(tokenizer, shots):
    request = next(prompts.build_requests(QUIZ, tokenizer, shots=shots, delimiter=" "))
    text = tokenizer.decode([*request.context, *request.continuation])
    assert text.endswith("q0 yes0")


def test_a_tokenizer_that_attaches_spaces_gets_one_with_every_delimiter():
    assert first_request(Words()).continuation.tolist() == [hash(" yes0") % 1000]
    assert prompts.answer_prefix(Words(), "\n") == " "
    # The stored text of the answer has no leading space.
    assert first_request(Words()).choice.text == first_request(Bytes()).choice.text == "yes0"


@pytest.mark.parametrize("delimiter", ["", "\n", "\nAnswer: ", "\nAnswer:\n"])
def test_bytes_keep_the_white_space_of_the_delimiter(delimiter):
    request = next(prompts.build_requests(QUIZ, Bytes(), shots=0, delimiter=delimiter))
    assert Bytes().decode([*request.context, *request.continuation]) == f"q0{delimiter}yes0"
    he = Item(("He", "She"), ("came",), 0, "", "here")
    request = next(prompts.build_requests([he], Bytes(), shots=0, delimiter=" "))
    assert Bytes().decode([*request.context, *request.continuation]) == "He came"


def test_parts_are_encoded_separately_and_every_choice_is_a_request():
    requests = list(prompts.build_requests(QUIZ, Bytes(), shots=1, delimiter=" "))
    choices = [(choice.item, choice.position, choice.gold) for choice, _, _ in requests[:4]]
    assert choices == [(0, 0, True), (0, 1, False), (1, 0, False), (1, 1, True)]
    prompt = next(prompts.build_prompts(QUIZ, shots=1, delimiter=" "))
    assert bytes(requests[1].context.tolist()).decode() == prompt.examples + prompt.contexts[0]


def test_requests_do_not_depend_on_the_number_of_items_per_call(monkeypatch):
    def summaries():
        requests = prompts.build_requests(QUIZ, Bytes(), shots=2, delimiter=" ")
        return [(choice, context.tolist()) for choice, context, _ in requests]

    expected = summaries()
    monkeypatch.setattr(prompts, "ITEMS_PER_CALL", 3)
    assert summaries() == expected


def test_an_answer_that_does_not_fit_the_window_is_refused_by_line():
    prompts.check_lengths(QUIZ, Bytes(), window=5, delimiter="")
    with pytest.raises(ValueError, match="an answer of 5 tokens"):
        prompts.check_lengths(QUIZ, Bytes(), window=5, delimiter=" ")
    message = (
        r"here: an answer of 4 tokens leaves no context in a window of 4 tokens \(3 other answers"
    )
    with pytest.raises(ValueError, match=message):
        prompts.check_lengths(QUIZ, Bytes(), window=4, delimiter="")


def test_the_message_names_the_longest_answer_and_a_window_that_fits_it():
    long = multiple_choice("q", "yes", "a" * 9, location="there")
    message = (
        r"there: an answer of 9 tokens .*; shorten it, or score with a window of at least 10 tokens"
    )
    with pytest.raises(ValueError, match=message):
        prompts.check_lengths([*QUIZ, long], Bytes(), window=8, delimiter="")
    prompts.check_lengths([*QUIZ, long], Bytes(), window=10, delimiter="")
