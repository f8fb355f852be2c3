"""Tasks from files to stored scores, compared with a slow second implementation.

Mirrors scalejax/evaluation/tasks.py.
"""

import collections
import dataclasses
import itertools
import json
import shutil
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from configs import models
from experiments import quickstart
from scalejax.config import Data, Measure, Model, Optimizer, Placement, Run
from scalejax.data.preparation import prepare, write
from scalejax.evaluation import prompts, tasks
from scalejax.evaluation.metrics import Scores, TaskMetadata, item_accuracies
from scalejax.evaluation.run_metrics import held_out_metrics, tasks_hash
from scalejax.evaluation.scoring import SpanScorer, score
from scalejax.evaluation.suites import Task, find_suite
from scalejax.files import read_json, read_lines
from scalejax.model.transformer import initialize
from scalejax.optim.schedules import cosine
from scalejax.training.evaluate import (
    bind_token_losses,
    evaluate,
    evaluate_suite,
    last_weights,
    make_span_scores,
    make_token_losses,
    scored_model,
)
from scalejax.training.loop import Preempted, train, train_segment
from scalejax.training.result import Result
from scalejax.training.segment import TrainingJob
from scalejax.training.sharding import make_mesh
from tests.evaluation import slow_scorer
from tests.evaluation.slow_scorer import ThreeLetters
from tests.published import reference
from tests.training.runs import reproducible_row

WINDOW = 192

# Items of each published task that the slow implementation scores.
ITEMS = 2


@pytest.fixture(scope="module")
def files():
    return reference("eval_tasks")


@pytest.fixture(scope="module")
def quickstart_model():
    """The quickstart's run of width 64, and weights without gains of 1 or kernels of 0.

    The logits spread like those of a trained model.
    """
    run = quickstart.base.replace(model=models.TINY[2])
    rng = np.random.default_rng(0)
    params = initialize(run.model, run.parametrization, jax.random.key(0))

    def with_noise(x):
        is_constant = x.ndim == 1 or not x.any()
        return x + 0.2 * rng.normal(size=x.shape).astype(np.float32) * is_constant

    params = jax.tree.map(with_noise, params)
    return run, params | {"head": params["head"] * 8}


def span_scorer(run: Run, params, placement: Placement | None = None) -> SpanScorer:
    scores = make_span_scores(run, make_mesh(placement or Placement()))
    return lambda rows, starts, counts, width: scores(params, rows, starts, counts, width)


def test_requests_that_share_a_row_do_not_see_each_other(quickstart_model):
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, [WINDOW // 3, 40], (60, 2))
    requests = [(rng.integers(1, 512, a), rng.integers(1, 512, b)) for a, b in lengths]
    scorer = span_scorer(*quickstart_model)
    padded = score(scorer, requests, window=WINDOW)
    packed = score(scorer, requests, window=WINDOW, packed=True)
    np.testing.assert_allclose(packed.log_likelihood, padded.log_likelihood, rtol=1e-5, atol=1e-4)
    assert np.array_equal(packed.greedy, padded.greedy)
    assert np.array_equal(packed.tokens, padded.tokens)


class SlowScore(NamedTuple):
    """What the slow implementation gives for one choice."""

    log_likelihood: float
    greedy: bool
    tokens: int


def slow_scores(run: Run, params, task: Task, records: list[dict], item: int) -> list[SlowScore]:
    """The scores of every choice of an item."""
    scores = []
    for parts, answer in slow_scorer.prompt(records, item, task.shots, task.delimiter):
        *context_ids, answer_ids = (ids.tolist() for ids in ThreeLetters().encode([*parts, answer]))
        tokens = [*itertools.chain(*context_ids), *answer_ids][-WINDOW:]
        first = len(tokens) - len(answer_ids)
        # The token at position i is predicted by the log-probabilities at i - 1.
        steps = slow_scorer.log_probabilities(run, params, tokens)[first - 1 : -1]
        total = sum(step[token] for step, token in zip(steps, answer_ids, strict=True))
        greedy = [int(step.argmax()) for step in steps] == answer_ids
        scores.append(SlowScore(total, greedy, len(answer_ids)))
    return scores


def first_requests(task: Task) -> list[prompts.Request]:
    """The requests of the first ITEMS items of a task."""
    requests = prompts.build_requests(
        task.read(), ThreeLetters(), shots=task.shots, delimiter=task.delimiter
    )
    return list(itertools.takewhile(lambda request: request.choice.item < ITEMS, requests))


@pytest.mark.replication
def test_scores_and_choices_are_those_of_the_slow_implementation(files, quickstart_model):
    run, params = quickstart_model
    accuracies_seen = collections.defaultdict(set)
    for task in find_suite(f"foundry-46-available:{files}").tasks:
        records = [json.loads(line) for line in task.path.read_bytes().split(b"\n") if line]
        requests = first_requests(task)
        pairs = [(context, continuation) for _, context, continuation in requests]
        likelihoods = score(span_scorer(run, params), pairs, window=WINDOW)
        metadata: TaskMetadata = {
            "task": task.name,
            "format": "",
            "chance": 0.0,
            "category": "",
            "duplicates": 0,
        }
        choices = [request.choice for request in requests]
        scores = Scores.from_likelihoods(metadata, choices, likelihoods)
        slow_accuracies = []
        for item in range(ITEMS):
            where = (task.name, item)
            slow = slow_scores(run, params, task, records, item)
            of_item = scores.item == item
            log_likelihood, tokens = scores.log_likelihood[of_item], scores.tokens[of_item]
            slow_log_likelihood = np.array([choice.log_likelihood for choice in slow])
            assert log_likelihood == pytest.approx(slow_log_likelihood, abs=2e-4), where
            assert scores.greedy[of_item].tolist() == [choice.greedy for choice in slow], where
            assert tokens.tolist() == [choice.tokens for choice in slow], where
            answer = (log_likelihood / tokens).argmax()
            assert answer == (slow_log_likelihood / tokens).argmax(), where
            gold = records[item].get("gold")
            is_right = slow[0].greedy if gold is None else answer == gold
            slow_accuracies.append(float(is_right))
        assert item_accuracies(scores, ties="first").tolist() == slow_accuracies, task.name
        accuracies_seen["gold" in records[0]].update(slow_accuracies)
    assert accuracies_seen[True] == {0.0, 1.0}, "all right or all wrong: this test could not fail"


def test_log_likelihoods_are_sums_of_the_training_loss(quickstart_model):
    run, params = quickstart_model
    rows = np.random.default_rng(0).integers(0, 512, (8, WINDOW + 1)).astype(np.int32)
    losses = np.asarray(make_token_losses(run, make_mesh(Placement()))(params, rows))
    starts, counts = np.arange(1, 9, dtype=np.int32) * 20, np.full(8, 32, np.int32)
    values, _ = span_scorer(run, params)(rows, starts[:, None], counts[:, None], 32)
    expected = [-losses[i, start - 1 : start + 31].sum() for i, start in enumerate(starts)]
    assert np.asarray(values)[:, 0] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("placement", [Placement(data=8), Placement(data=2, fsdp=2, tensor=2)])
def test_scores_do_not_depend_on_the_mesh(quickstart_model, placement, packed):
    run, params = quickstart_model
    rng = np.random.default_rng(0)
    lengths = rng.integers(5, 180, 40)
    requests = [(rng.integers(0, 512, n), rng.integers(0, 512, 5)) for n in lengths]
    on_one_device = score(span_scorer(run, params), requests, window=WINDOW)
    on_mesh = score(
        span_scorer(run, params, placement),
        requests,
        window=WINDOW,
        batch_multiple=placement.data * placement.fsdp,
        packed=packed,
    )
    assert on_mesh.log_likelihood == pytest.approx(on_one_device.log_likelihood, rel=1e-5)


SENTENCES = [
    f"the {adjective} {animal} sees the {thing} and {verb} it"
    for adjective in ("old", "red", "big")
    for animal in ("cat", "dog", "hen", "fox")
    for thing in ("sea", "sun", "hut")
    for verb in ("likes", "eats", "fears")
]


class Trained(NamedTuple):
    """A run on a small text of bytes in two domains, measured on two tasks."""

    folder: Path
    """Contains `run`, the run's folder, and `tasks`, the task files."""
    run: Run
    result: Result

    @property
    def suite(self) -> str:
        return f"local:{self.folder / 'tasks'}"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tasks")
    documents = [{"text": text, "kind": "ab"[i % 2]} for i, text in enumerate(SENTENCES)]
    write(documents, folder / "text", tokenizer="byte", domain="kind")
    (folder / "tasks").mkdir()
    choices = ["cat sees", "zzzzzzzz"]
    items = [{"query": "the old", "choices": choices, "gold": i % 2} for i in range(6)]
    lines = "".join(json.dumps(item) + "\n" for item in items)
    (folder / "tasks" / "quiz.jsonl").write_text(lines)
    line = json.dumps({"context": "the red cat sees", "continuation": "t"})
    (folder / "tasks" / "next.jsonl").write_text(line + "\n")
    run = Run(
        model=Model.sized(width=16, depth=1, head_size=8, vocabulary=257),
        data=Data(source=str(folder / "text"), tokenizer="own", sequence_length=32),
        optimizer=Optimizer(learning_rate=0.02),
        schedule=cosine(warmup=0),
        tokens=100 * 256,
        batch_tokens=256,
    )
    measure = Measure(every=25 * 256, tokens=1024, items=0, suites=(f"local:{folder / 'tasks'}",))
    return Trained(folder, run, train(run, out=folder / "run", measure=measure))


def test_a_run_measures_its_suites_and_stores_every_score(trained):
    row = trained.result.row
    assert row["error_quiz"] == 0.5
    assert {"error_next", "top1_error", "top1_error_se", "top1_chance"} <= set(row)
    assert row["top1_error"] == pytest.approx((row["error_quiz"] + row["error_next"]) / 2)
    assert row["top1_chance"] == pytest.approx((0.5 + 1) / 2)
    assert {"loss_a", "loss_a_se", "loss_b", "bits_per_byte_b", "bits_per_byte_b_se"} <= set(row)
    stored = trained.folder / "run" / "evaluations" / "local-tasks"
    names = sorted(path.name for path in stored.iterdir())
    assert names == ["local-tasks.json", "next.parquet", "quiz.parquet"]
    scores = Scores.load(stored / "quiz.parquet")
    assert len(scores.item) == 12
    assert scores.metadata.get("step") == trained.run.steps


def test_a_run_that_is_stopped_between_two_tasks_goes_on_with_the_next(trained, tmp_path):
    """A time limit may leave less time than all tasks of a large model take."""
    folder = tmp_path / "run"
    shutil.copytree(trained.folder / "run", folder)
    for name in ("DONE", "result.json"):
        (folder / name).unlink()
    shutil.rmtree(folder / "evaluations")
    job = TrainingJob.read(folder)
    with pytest.raises(Preempted, match=r"1 task\(s\) are left"):
        train_segment(job, folder, None, stopping=lambda: True)
    (stored,) = folder.glob("evaluations/*/*.parquet")
    written = stored.stat().st_mtime_ns
    assert not (folder / "DONE").exists()
    train_segment(job, folder, None)
    assert reproducible_row(Result.load(folder)) == reproducible_row(trained.result)
    assert stored.stat().st_mtime_ns == written


def test_every_evaluation_in_training_has_the_loss_of_every_domain(trained):
    metrics = read_lines(trained.folder / "run" / "metrics.jsonl")
    evaluations = [row for row in metrics if "weights" in row]
    names = {
        f"{metric}{domain}{suffix}"
        for metric in ("loss", "bits_per_byte")
        for domain in ("", "_a", "_b")
        for suffix in ("", "_se")
    }
    assert len(evaluations) == 4 and all(names <= set(row) for row in evaluations)
    final = {name: evaluations[-1][name] for name in names}
    assert {name: trained.result.row[name] for name in names} == final
    assert evaluations[0]["loss_a"] > evaluations[-1]["loss_a"]


def test_a_run_on_a_mesh_measures_what_one_device_measures(trained, tmp_path):
    measure = Measure(tokens=1024, items=0, suites=(trained.suite,))
    # A vocabulary of 257 is prime, and could not be split over devices.
    model = dataclasses.replace(trained.run.model, vocabulary=258)
    run = trained.run.replace(tokens=4 * 256, model=model)
    placement = Placement(data=2, fsdp=2, tensor=2)
    row = train(run, placement, tmp_path / "run", measure=measure).row
    _, step, params, mesh = last_weights(tmp_path / "run")
    assert mesh.size == 8 and not params["head"].sharding.is_fully_replicated

    one_device, shards = make_mesh(Placement()), prepare(run.data)
    sharding = jax.sharding.NamedSharding(one_device, P())
    params = jax.device_put(jax.device_get(params), sharding)
    losses = held_out_metrics(bind_token_losses(params, run, one_device), shards, run, measure)
    assert losses == pytest.approx({name: row[name] for name in losses}, rel=1e-5)
    scored = scored_model(tmp_path / "run", step, run, one_device, shards, lambda: params)
    result = tasks.score_suite(trained.suite, scored, items=0, folder=tmp_path / "one")
    errors = {f"error_{task}": metrics["error"] for task, metrics in result["tasks"].items()}
    assert errors == {name: row[name] for name in row if name.startswith("error_")}
    for task in result["tasks"]:
        file = f"local-tasks/{task}.parquet"
        on_mesh = Scores.load(tmp_path / "run/evaluations" / file)
        on_one_device = Scores.load(tmp_path / "one" / file)
        assert on_mesh.log_likelihood == pytest.approx(on_one_device.log_likelihood, rel=1e-5)


def test_evaluating_the_last_checkpoint_gives_the_numbers_of_the_run(trained):
    metrics = evaluate(trained.folder / "run")
    assert metrics and metrics == {name: trained.result.row[name] for name in metrics}


def test_the_row_of_a_run_says_on_which_task_files_it_was_scored(trained):
    assert trained.result.row["tasks_hash"] == tasks_hash(trained.result.measure)


def test_stored_scores_are_read_without_loading_the_model(trained, monkeypatch):
    folder = trained.folder
    with monkeypatch.context() as patch:
        # Calling None would fail.
        patch.setattr("scalejax.training.evaluate._load_weights", None)
        again = evaluate_suite(folder / "run", trained.suite)
    assert again["averages"]["mean_of_tasks"]["error"] == trained.result.row["top1_error"]
    elsewhere = evaluate_suite(folder / "run", trained.suite, folder=folder / "elsewhere")
    assert elsewhere == again
    stored = read_json(folder / "elsewhere/local-tasks/local-tasks.json")
    assert {name: value for name, value in stored.items() if name != "format"} == again


def test_a_file_that_was_changed_is_scored_again(trained, tmp_path):
    path, out = tmp_path / "quiz.jsonl", tmp_path / "out"
    item = {"query": "the old", "choices": ["cat sees", "zzzzzzzz"], "gold": 0}
    path.write_text(json.dumps(item) + "\n")
    first = evaluate_suite(trained.folder / "run", f"local:{path}", folder=out)
    path.write_text(json.dumps({**item, "gold": 1}) + "\n")
    second = evaluate_suite(trained.folder / "run", f"local:{path}", folder=out)
    assert first["tasks"]["quiz"]["error"] == 0
    assert second["tasks"]["quiz"]["error"] == 1


def test_weights_that_are_not_finite_are_refused_and_nothing_is_stored(trained, tmp_path):
    def load_broken_model() -> SpanScorer:
        return lambda rows, starts, counts, width: (
            np.full(starts.shape, np.nan, np.float32),
            np.ones(starts.shape, bool),
        )

    model = tasks.ScoredModel(
        load=load_broken_model,
        shards=prepare(trained.run.data),
        window=32,
        provenance=tasks.Provenance(run="", step=0, checkpoint=""),
    )
    with pytest.raises(ValueError, match="item 0, choice 0: the log-likelihood is nan"):
        tasks.score_suite(trained.suite, model, items=0, folder=tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
