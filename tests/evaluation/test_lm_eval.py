"""The real lm-eval scores a run, offline (mirrors scalejax/evaluation/lm_eval.py).

The tests are marked `hf` and are skipped where lm-eval is not installed; `make test-hf`
runs them in an environment of its own.
"""

import importlib.util
import json
import random
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pytest

from scalejax import Data, Measure, Model, train
from scalejax.training import export
from scalejax.training.evaluate import evaluate_suite, last_weights, make_token_losses

pytestmark = [
    pytest.mark.hf,
    pytest.mark.skipif(
        importlib.util.find_spec("lm_eval") is None,
        reason="lm-eval not installed: pip install 'scalejax[eval]'",
    ),
    # lm-eval raises warnings that are not ours.
    pytest.mark.filterwarnings("default"),
]

# A task of lm-eval that reads the same items as our task file.
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
target_delimiter: " "
metric_list:
  - metric: acc
"""

ANIMALS = ("cat", "dog", "horse", "mouse", "sheep", "goat")
ITEMS = 100


@pytest.fixture(scope="module")
def folder(tiny_run, tmp_path_factory):
    """Contain a run on sentences, a task file, and lm-eval's description of the task.

    Some questions are longer than the run's window.
    """
    folder = tmp_path_factory.mktemp("lm_eval")
    rng = random.Random(0)
    write_text(folder / "text", rng)
    run = tiny_run.replace(
        data=Data(source=str(folder / "text"), tokenizer="byte", sequence_length=16),
        model=Model.sized(width=16, depth=1, head_size=8, vocabulary=257),
    )
    train(run, out=folder / "run", measure=Measure(tokens=512, items=0))
    with (folder / "animals.jsonl").open("w") as file:
        for i in range(ITEMS):
            choices = rng.sample(ANIMALS, 4)
            query = f"{'once ' * (i % 8)}the {rng.choice(ANIMALS)} saw the"
            file.write(json.dumps({"query": query, "choices": choices, "gold": i % 4}) + "\n")
    (folder / "tasks").mkdir()
    (folder / "tasks" / "animals.yaml").write_text(TASK.format(path=folder / "animals.jsonl"))
    return folder


def write_text(folder: Path, rng: random.Random) -> None:
    """Write 60 documents of random sentences."""
    folder.mkdir()
    for i in range(60):
        sentences = [f"the {rng.choice(ANIMALS)} saw the {rng.choice(ANIMALS)}." for _ in range(40)]
        (folder / f"{i}.txt").write_text(f"{i} {' '.join(sentences)}")


def test_lm_eval_and_our_suites_choose_the_same_answers(folder, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(folder / "cache"))
    import lm_eval  # pyright: ignore[reportMissingImports]
    from lm_eval.tasks import TaskManager  # pyright: ignore[reportMissingImports]

    result = lm_eval.simple_evaluate(
        model=export.lm_eval_model(folder / "run"),
        tasks=["animals"],
        task_manager=TaskManager(include_path=str(folder / "tasks"), include_defaults=False),
        bootstrap_iters=0,
    )
    samples = sorted(result["samples"]["animals"], key=lambda sample: sample["doc_id"])
    theirs = [[choice[0] for choice in sample["filtered_resps"]] for sample in samples]

    evaluate_suite(folder / "run", f"local:{folder / 'animals.jsonl'}", folder=folder / "scores")
    (path,) = (folder / "scores").rglob("animals.parquet")
    table = pd.read_parquet(path).sort_values(["item", "choice"])
    ours = table["log_likelihood"].to_numpy().reshape(ITEMS, 4)
    assert np.abs(np.array(theirs, np.float32) - ours).max() < 1e-4
    answers = ours.argmax(axis=1)
    assert np.array_equal(np.array(theirs).argmax(axis=1), answers)
    assert len(set(answers)) == 4, "the same answer everywhere: this test could not fail"
    accuracy = (answers == np.arange(ITEMS) % 4).mean()
    assert result["results"]["animals"]["acc,none"] == pytest.approx(accuracy)


def test_every_token_of_a_long_text_is_predicted_once(folder):
    """The log-likelihood equals the sum of losses in windows that reach back for
    context."""
    from lm_eval.api.instance import Instance  # pyright: ignore[reportMissingImports]

    model, weights = export.lm_eval_model(folder / "run"), last_weights(folder / "run")
    text = "the cat saw the dog. the dog saw the mouse"
    request = Instance(request_type="loglikelihood_rolling", doc={}, arguments=(text,), idx=0)
    (log_likelihood,) = model.loglikelihood_rolling([request])

    ids = np.array([256, *text.encode()])
    token_losses = make_token_losses(weights.run, weights.mesh)
    # Of the 16 tokens in a window, 15 are predicted.
    length, total = 15, 0.0
    for start in range(0, len(ids) - 1, length):
        stop = min(start + length, len(ids) - 1)
        # The last window reaches back, so that it has as much context as the others.
        row = ids[stop - length : stop + 1]
        losses = np.asarray(jax.device_get(token_losses(weights.params, np.tile(row, (4, 1)))))
        total -= float(losses[0, -(stop - start) :].sum())
    assert log_likelihood == pytest.approx(total, abs=1e-3)


def test_tasks_that_generate_text_are_refused(folder):
    with pytest.raises(ValueError, match="scores continuations and does not generate them"):
        export.lm_eval_model(folder / "run").generate_until([])
