"""The real lm-eval harness evaluates a run of ours, offline, on a task of our own.

Mirrors scalejax/evaluation/lm_eval.py.

Marked `hf`: skipped where lm-eval is not installed; `make test-hf` runs it.
"""

import importlib.util
import json
import random

import numpy as np
import pandas as pd
import pytest

from scalejax import Data, Measure, Model, train
from scalejax.training import export
from scalejax.training.evaluate import evaluate_suite, last_weights

pytestmark = [
    pytest.mark.hf,
    pytest.mark.skipif(
        importlib.util.find_spec("lm_eval") is None,
        reason="lm-eval not installed: pip install 'scalejax[eval]'",
    ),
    pytest.mark.filterwarnings("default"),  # its own
]

TASK = """
task: animals
dataset_path: json
dataset_kwargs:
  data_files:
    test: {path}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{query}}}}"
doc_to_target: gold
doc_to_choice: "{{{{choices}}}}"
target_delimiter: ""
metric_list:
  - metric: acc
"""


@pytest.fixture(scope="module")
def folder(tiny_run, tmp_path_factory):
    """A run of 60 steps on sentences, and two task folders.

    The text of the second is longer than the window.
    """
    root = tmp_path_factory.mktemp("lm_eval")
    rng = random.Random(0)
    animals = ["cat", "dog", "horse", "mouse", "sheep", "goat"]
    (root / "text").mkdir()
    for i in range(60):
        text = " ".join(
            f"the {rng.choice(animals)} saw the {rng.choice(animals)}." for _ in range(40)
        )
        (root / "text" / f"{i}.txt").write_text(f"{i} {text}")
    run = tiny_run.replace(
        data=Data(source=str(root / "text"), tokenizer="byte", sequence_length=16),
        model=Model.sized(width=16, depth=1, head_size=8, vocabulary=257),
    )
    train(run, out=root / "run", measure=Measure(tokens=512, items=0))
    with (root / "animals.jsonl").open("w") as file:
        for i in range(100):
            choices = rng.sample(animals, 4)
            query = f"{'once ' * (i % 8)}the {rng.choice(animals)} saw the"
            file.write(json.dumps({"query": query, "choices": choices, "gold": i % 4}) + "\n")
    (root / "tasks").mkdir()
    (root / "tasks" / "animals.yaml").write_text(TASK.format(path=root / "animals.jsonl"))
    return root


def test_both_scorers_choose_the_same_answer_to_every_item(folder, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(folder / "cache"))
    import lm_eval
    from lm_eval.tasks import TaskManager

    found = lm_eval.simple_evaluate(
        model=export.lm_eval_model(folder / "run"),
        tasks=["animals"],
        task_manager=TaskManager(include_path=str(folder / "tasks"), include_defaults=False),
        bootstrap_iters=0,
    )
    samples = sorted(found["samples"]["animals"], key=lambda sample: sample["doc_id"])
    theirs = np.array(
        [[choice[0] for choice in sample["filtered_resps"]] for sample in samples], np.float32
    )
    evaluate_suite(folder / "run", f"local:{folder / 'animals.jsonl'}", folder=folder / "scores")
    (table,) = (folder / "scores").rglob("animals.parquet")
    ours = (
        pd.read_parquet(table)
        .sort_values(["item", "choice"])["log_likelihood"]
        .to_numpy()
        .reshape(100, 4)
    )
    assert np.abs(theirs - ours).max() < 1e-4
    assert (theirs.argmax(axis=1) == ours.argmax(axis=1)).all()
    assert len(set(ours.argmax(axis=1))) == 4, "one answer everywhere: this test could not fail"
    assert found["results"]["animals"]["acc,none"] == pytest.approx(
        (ours.argmax(axis=1) == np.arange(100) % 4).mean()
    )


def test_a_long_text_is_predicted_once_in_every_token(folder):
    """Against the same tokens in rows, each with as much context as fits the window."""
    import jax
    from lm_eval.api.instance import Instance

    from scalejax.training.evaluate import make_token_losses

    model, weights = export.lm_eval_model(folder / "run"), last_weights(folder / "run")
    text = "the cat saw the dog. the dog saw the mouse"
    request = Instance(request_type="loglikelihood_rolling", doc={}, arguments=(text,), idx=0)
    (found,) = model.loglikelihood_rolling([request])
    ids = np.array([256, *text.encode()])
    token_losses = make_token_losses(weights.run, weights.mesh)
    length, total = 15, 0.0  # of the 16 tokens of a window, 15 are predicted
    for start in range(0, len(ids) - 1, length):
        stop = min(start + length, len(ids) - 1)
        row = ids[stop - length : stop + 1]  # the last window reaches back for context
        total -= float(
            np.asarray(jax.device_get(token_losses(weights.params, np.tile(row, (4, 1)))))[
                0, -(stop - start) :
            ].sum()
        )
    assert found == pytest.approx(total, abs=1e-3)


def test_tasks_that_generate_are_refused(folder):
    with pytest.raises(ValueError, match="scores continuations and does not generate them"):
        export.lm_eval_model(folder / "run").generate_until([])
