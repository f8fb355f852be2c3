"""`scalejax eval` scores a suite on a finished run; bad input exits with code 2.

Mirrors scalejax/cli/run_folder.py.
"""

import functools
import json
import re

import pytest

from scalejax.config import Data, Measure, Model, Optimizer, Run
from scalejax.data.preparation import write
from scalejax.optim.schedules import cosine
from scalejax.training.loop import train

GOOD_LINE = json.dumps({"query": "the old", "choices": ["cat", "dog"], "gold": 1}).encode() + b"\n"

# File name, what follows the good line in it, and what the message says.
MALFORMED_FILES = [
    ("gold.jsonl", b'{"query": "q", "choices": ["a", "b"]}\n', "line 2: gold missing"),
    (
        "equal.jsonl",
        b'{"query": "q", "choices": ["a", "a"], "gold": 0}\n',
        "line 2: two choices are equal",
    ),
    (
        "empty.jsonl",
        b'{"query": " ", "choices": ["a", "b"], "gold": 0}\n',
        "line 2: query is empty",
    ),
    (
        "long.jsonl",
        b'{"query": "q", "choices": ["a", "' + b"x" * 40 + b'"], "gold": 0}\n',
        "line 2: an answer of 41 tokens leaves no context in a window of 32 tokens; shorten it",
    ),
    (
        "mixed.jsonl",
        b'{"context": "a", "continuation": "b"}\n',
        "line 2: a language_modeling item in a multiple_choice file",
    ),
    (
        "separator.jsonl",
        GOOD_LINE[:-1] + "\u2028".encode() + GOOD_LINE,
        "line 2 is not JSON",
    ),
    ("bom.jsonl", b"\xef\xbb\xbf" + GOOD_LINE, "line 2 begins with a byte-order mark"),
    ("utf8.jsonl", b'{"query": "\xff"}\n', "line 2 is not UTF-8"),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run on a small text of bytes."""
    folder = tmp_path_factory.mktemp("run")
    texts = [
        f"the {adjective} {animal} sees the {letter}"
        for adjective in ("old", "red", "big", "tame")
        for animal in ("cat", "dog", "hen")
        for letter in "abcdefgh"
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


@pytest.mark.parametrize(
    ("name", "content", "message"), MALFORMED_FILES, ids=[name for name, *_ in MALFORMED_FILES]
)
def test_a_malformed_task_file_is_refused(call, run, tmp_path, name, content, message):
    path, scores = tmp_path / name, tmp_path / "scores"
    path.write_bytes(GOOD_LINE + content)
    code, out, err = call(run, "--suite", f"local:{path}", "--out", scores, "--json")
    assert (code, out) == (2, "")
    assert f"{path}, {message}" in err and "Traceback" not in err
    assert not scores.exists()


def test_a_suite_gives_one_json_object_or_a_table(call, run, tmp_path):
    path, scores = tmp_path / "quiz.jsonl", tmp_path / "scores"
    path.write_bytes(GOOD_LINE * 3)
    code, out, _ = call(run, "--suite", f"local:{path}", "--out", scores, "--json")
    result = json.loads(out)
    assert code == 0
    assert result["suite"] == "local-quiz" and result["tasks"]["quiz"]["n"] == 3
    assert set(result["tasks"]["quiz"]["errors"]) == {"per_token", "sum", "per_char", "per_byte"}
    assert (scores / "local-quiz" / "quiz.parquet").is_file()
    code, out, _ = call(run, "--suite", f"local:{path}", "--out", scores)
    assert code == 0 and "quiz" in out and "mean of tasks" in out


def test_a_line_on_stderr_reports_every_finished_task(call, run, tmp_path):
    for name in ("first", "second"):
        (tmp_path / f"{name}.jsonl").write_bytes(GOOD_LINE)
    _, _, err = call(run, "--suite", f"local:{tmp_path}", "--out", tmp_path / "scores")
    assert re.search(r"first: error \d\.\d+ ± \d\.\d+; 1 task to go\n", err)
    assert re.search(r"second: error \d\.\d+ ± \d\.\d+; 0 tasks to go\n", err)


def test_without_a_suite_it_repeats_the_measurements_of_the_run(call, run):
    code, out, _ = call(run, "--json")
    row = json.loads(out)
    assert code == 0
    assert row["loss"] == json.loads((run / "result.json").read_text())["loss"]
    assert "loss_se" in call(run)[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--suite", "foundry-18"], "there is no suite 'foundry-18'"),
        (["--suite", "local:/no/such/file.jsonl"], "names no task file"),
        (["--suite", "foundry-17:/no/such/folder"], "is not a folder"),
        (["--suite", "continuation", "--window", "1"], "--window 1 is too short"),
        (["--window", "64"], "only apply to a suite; add --suite"),
    ],
)
def test_bad_arguments_are_refused(call, run, arguments, message):
    code, out, err = call(run, *arguments)
    assert (code, out) == (2, "") and message in err


def test_a_folder_that_is_not_a_run_is_refused(call, tmp_path):
    code, _, err = call(tmp_path, "--suite", "continuation")
    assert code == 2 and "is not a run's folder" in err and "runs/<id>" in err


def test_an_incomplete_suite_is_refused_with_the_names_of_the_missing_tasks(call, run, tmp_path):
    (tmp_path / "copa.jsonl").write_bytes(GOOD_LINE * 100)
    scores = tmp_path / "scores"
    code, _, err = call(run, "--suite", f"foundry-17:{tmp_path}", "--out", scores)
    assert code == 2 and "lacks 16 of the 17 tasks" in err
    assert "arc_easy" in err and "foundry-17-available" in err
    suite = f"foundry-17-available:{tmp_path}"
    code, out, _ = call(run, "--suite", suite, "--out", scores, "--json")
    result = json.loads(out)
    assert code == 0
    assert list(result["tasks"]) == ["copa"] and len(result["missing"]) == 16
