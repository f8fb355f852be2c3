"""`scalejax eval`: a suite on a finished run; bad input is exit 2, one message, nothing written (mirrors scalejax/cli.py)."""

import functools
import json

import pytest

from scalejax.config import Data, Measure, Model, Optimizer, Run
from scalejax.data.preparation import write
from scalejax.optim.schedules import cosine
from scalejax.training.loop import train

GOOD = json.dumps({"query": "the old", "choices": ["cat", "dog"], "gold": 1}).encode() + b"\n"
MALFORMED = {  # file -> (content after a good line, what the message says)
    "gold.jsonl": (b'{"query": "q", "choices": ["a", "b"]}\n', "line 2: gold missing"),
    "equal.jsonl": (
        b'{"query": "q", "choices": ["a", "a"], "gold": 0}\n',
        "line 2: two choices are equal",
    ),
    "empty.jsonl": (
        b'{"query": " ", "choices": ["a", "b"], "gold": 0}\n',
        "line 2: query is empty",
    ),
    "long.jsonl": (
        b'{"query": "q", "choices": ["a", "' + b"x" * 40 + b'"], "gold": 0}\n',
        "line 2: an answer of 40 tokens leaves no context in a window of 32; shorten it",
    ),
    "mixed.jsonl": (
        b'{"context": "a", "continuation": "b"}\n',
        "line 2: a language_modeling item in a multiple_choice file",
    ),
    "parted.jsonl": (GOOD[:-1] + "\u2028".encode() + GOOD, "line 2 is not JSON"),
    "bom.jsonl": (b"\xef\xbb\xbf" + GOOD, "line 2 begins with a byte-order mark"),
    "utf8.jsonl": (b'{"query": "\xff"}\n', "line 2 is not UTF-8"),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Folder of a run on a small text of bytes."""
    folder = tmp_path_factory.mktemp("run")
    texts = [
        f"the {a} {b} sees the {c}"
        for a in ("old", "red", "big", "tame")
        for b in ("cat", "dog", "hen")
        for c in "abcdefgh"
    ]
    write([{"text": text} for text in texts], folder / "text", tokenizer="byte")
    run = Run(
        model=Model.sized(width=16, depth=1, head_size=8, vocabulary=257),
        data=Data(source=str(folder / "text"), tokenizer="own", sequence_length=32),
        optimizer=Optimizer(learning_rate=0.02),
        schedule=cosine(warmup=0),
        tokens=20 * 256,
        batch_tokens=256,
    )
    train(run, out=folder / "run", measure=Measure(tokens=1024, items=0))
    return folder / "run"


@pytest.fixture
def call(call):
    return functools.partial(call, "eval")


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_task_file_is_refused(call, run, tmp_path, name):
    content, said = MALFORMED[name]
    (tmp_path / name).write_bytes(GOOD + content)
    code, out, err = call(
        run, "--suite", f"local:{tmp_path / name}", "--out", tmp_path / "scores", "--json"
    )
    assert (code, out) == (2, "") and f"{tmp_path / name}, {said}" in err and "Traceback" not in err
    assert not (tmp_path / "scores").exists()


def test_a_suite_gives_a_table_or_one_json_object(call, run, tmp_path):
    (tmp_path / "quiz.jsonl").write_bytes(GOOD * 3)
    code, out, _ = call(
        run, "--suite", f"local:{tmp_path / 'quiz.jsonl'}", "--out", tmp_path / "scores", "--json"
    )
    found = json.loads(out)
    assert code == 0 and found["suite"] == "local-quiz" and found["tasks"]["quiz"]["n"] == 3
    assert set(found["tasks"]["quiz"]["errors"]) == {"per_token", "sum", "per_char", "per_byte"}
    assert (tmp_path / "scores" / "local-quiz" / "quiz.parquet").is_file()
    code, out, _ = call(
        run, "--suite", f"local:{tmp_path / 'quiz.jsonl'}", "--out", tmp_path / "scores"
    )
    assert code == 0 and "quiz" in out and "mean of tasks" in out


def test_without_a_suite_it_measures_what_the_run_did(call, run):
    code, out, _ = call(run, "--json")
    row = json.loads(out)
    assert code == 0 and row["loss"] == json.loads((run / "result.json").read_text())["loss"]
    assert "loss_se" in call(run)[1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--suite", "foundry-18"], "Measure.suites names continuation, foundry-17"),
        (["--suite", "local:/no/such/file.jsonl"], "names no task file"),
        (["--suite", "foundry-17:/no/such/folder"], "is no folder"),
        (["--suite", "continuation", "--window", "1"], "--window 1"),
        (["--window", "64"], "add --suite"),
    ],
)
def test_bad_arguments_are_refused(call, run, arguments, said):
    code, out, err = call(run, *arguments)
    assert (code, out) == (2, "") and said in err


def test_a_folder_without_a_run_is_refused(call, tmp_path):
    code, _, err = call(tmp_path, "--suite", "continuation")
    assert code == 2 and "is no run's folder" in err and "runs/<id>" in err


def test_an_incomplete_suite_is_refused_and_names_what_is_missing(call, run, tmp_path):
    (tmp_path / "copa.jsonl").write_bytes(GOOD * 100)
    code, _, err = call(run, "--suite", f"foundry-17:{tmp_path}", "--out", tmp_path / "scores")
    assert (
        code == 2
        and "lacks 16 of the 17 tasks" in err
        and "arc_easy" in err
        and "foundry-17-available" in err
    )
    code, out, _ = call(
        run, "--suite", f"foundry-17-available:{tmp_path}", "--out", tmp_path / "scores", "--json"
    )
    found = json.loads(out)
    assert code == 0 and list(found["tasks"]) == ["copa"] and len(found["missing"]) == 16
