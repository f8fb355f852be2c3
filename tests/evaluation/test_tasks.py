"""Tasks end to end, against an independent scorer in NumPy.

The scorer works in float64 and on one item at a time. Mirrors
scalejax/evaluation/tasks.py.
"""

import collections
import dataclasses
import itertools
import json
import random

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
from scalejax.evaluation.run_metrics import held_out_metrics
from scalejax.evaluation.scoring import score
from scalejax.evaluation.suites import find_suite
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
from scalejax.training.loop import train
from scalejax.training.sharding import make_mesh
from tests.published import reference

WINDOW = 192


@pytest.fixture(scope="module")
def files():
    return reference("eval_tasks")


@pytest.fixture(scope="module")
def quickstart_size():
    """The quickstart's run of width 64, with random weights.

    No weight is one or zero, and the logits are spread like those of a trained model.
    """
    run = quickstart.base.replace(model=models.TINY[2])
    rng = np.random.default_rng(0)
    params = initialize(run.model, run.parametrization, jax.random.key(0))
    params = jax.tree.map(
        lambda x: (
            x + 0.2 * rng.normal(size=x.shape).astype(np.float32) * (x.ndim == 1 or not x.any())
        ),
        params,
    )
    return run, params | {"head": params["head"] * 8}


def spans(run, params, placement=None):
    scores = make_span_scores(run, make_mesh(placement or Placement()))
    return lambda rows, starts, counts, width: scores(params, rows, starts, counts, width)


def slow_log_probabilities(run: Run, params, tokens: list[int]) -> np.ndarray:
    """Logits of the token after each of `tokens`, float64 [t, v].

    Written as in a textbook, one head at a time. muP divides the logits.
    """
    model = run.model
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)

    def norm(x, gain):
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * gain

    def turn(x):  # pairs (i, i + h/2) as complex numbers, turned by position x frequency
        half = model.head_size // 2
        pairs = x[:, :half] + 1j * x[:, half:]
        pairs = pairs * np.exp(
            1j * np.outer(np.arange(len(x)), 10_000.0 ** (-np.arange(half) / half))
        )
        return np.concatenate([pairs.real, pairs.imag], axis=1)

    x = p["embedding"][tokens]
    for block in (p["blocks"][i] for i in range(model.depth)):
        inside, a = norm(x, block["attention_norm"]["gain"]), block["attention"]
        for n in range(model.heads):
            q, k, v = (inside @ a[name][:, n] for name in ("query", "key", "value"))
            q, k = norm(q, a["query_norm"]["gain"]), norm(k, a["key_norm"]["gain"])
            weights = turn(q) @ turn(k).T / np.sqrt(model.head_size)
            weights = np.where(np.tri(len(x)) > 0, weights, -np.inf)
            weights = np.exp(weights - weights.max(1, keepdims=True))
            x = x + (weights / weights.sum(1, keepdims=True)) @ v @ a["output"][n]
        inside, m = norm(x, block["mlp_norm"]["gain"]), block["mlp"]
        gate = inside @ m["gate"]
        x = x + (gate / (1 + np.exp(-gate)) * (inside @ m["up"])) @ m["down"]
    logits = norm(x, p["norm"]["gain"]) @ p["head"] / (model.width / run.parametrization.base_width)
    return (
        logits
        - np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1, keepdims=True))
        - logits.max(1, keepdims=True)
    )


def slow_prompt(
    rows: list[dict], number: int, shots: int, delimiter: str
) -> list[tuple[list[str], str]]:
    """(parts of the context, answer) of every choice of item `number`, from the raw lines
    of a file and by the documented rules."""
    generator = random.Random(1234)
    for at in range(number + 1):
        count = min(len(rows) - 1, shots)
        drawn = set(generator.sample(range(len(rows)), count)) if count else set()
        if at in drawn:
            drawn.discard(at)
            new = generator.choice(range(len(rows)))
            while new in drawn or new == at:
                new = generator.choice(range(len(rows)))
            drawn.add(new)
    row = rows[number]

    def question(one):
        return (one["query"] if "query" in one else one["context"]).strip()

    def gold(one):
        return one["choices"][one["gold"]] if "choices" in one else one["continuation"].strip()

    if "context_options" in row:
        return [
            (["", option], " " + row["continuation"].strip()) for option in row["context_options"]
        ]
    head = "\n".join(question(rows[i]) + delimiter + gold(rows[i]) for i in drawn)
    context = (("\n" if head else "") + question(row) + delimiter).rstrip()
    wanted = row.get("choices") or [row["continuation"].strip()]
    return [([head, context], one if one.startswith(" ") else " " + one) for one in wanted]


class Pieces:
    """A quick stand-in with 512 ids: tokens are words and their beginnings.

    " a" is one token.
    """

    vocabulary, end, hash, model = 512, 0, "pieces", b""

    def encode(self, texts):
        return [
            np.array([self.token(text[i : i + 3]) for i in range(0, len(text), 3)], np.int64)
            for text in texts
        ]

    def token(self, piece):
        return int.from_bytes(piece.encode()) * 2_654_435_761 % 2**32 % 511 + 1


def test_prompts_that_share_a_row_do_not_see_each_other(quickstart_size):
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, [WINDOW // 3, 40], (60, 2))
    asked = [(rng.integers(1, 512, a), rng.integers(1, 512, b)) for a, b in sizes]
    alone, packed = (
        score(spans(*quickstart_size), asked, window=WINDOW, packed=packed)
        for packed in (False, True)
    )
    np.testing.assert_allclose(packed.log_likelihood, alone.log_likelihood, rtol=1e-5, atol=1e-4)
    assert np.array_equal(packed.greedy, alone.greedy) and np.array_equal(
        packed.tokens, alone.tokens
    )


@pytest.mark.replication
@pytest.mark.parametrize("count", [2, pytest.param(25, marks=pytest.mark.slow)])
def test_choices_are_those_of_a_slow_scorer_in_float64(files, quickstart_size, count):
    run, params = quickstart_size
    chosen = collections.defaultdict(set)
    for known in find_suite(f"foundry-46-available:{files}").tasks:
        lines = [json.loads(line) for line in known.path.read_bytes().split(b"\n") if line]
        asked = prompts.build_requests(
            known.read(), Pieces(), shots=known.shots, delimiter=known.delimiter
        )
        asked = [one for one in itertools.takewhile(lambda one: one.choice.item < count, asked)]
        found = score(
            spans(run, params), [(one.context, one.continuation) for one in asked], window=WINDOW
        )
        metadata: TaskMetadata = {
            "task": known.name,
            "format": "",
            "chance": 0.0,
            "category": "",
            "duplicates": 0,
        }
        scores = Scores.from_likelihoods(metadata, [one.choice for one in asked], found)
        slow_credit = []
        for number in range(count):
            mine = scores.item == number
            slow_sums, slow_greedy, sizes = [], [], []
            for parts, answer in slow_prompt(lines, number, known.shots, known.delimiter):
                before = [int(i) for part in parts for i in Pieces().encode([part])[0]]
                after = [int(i) for i in Pieces().encode([answer])[0]]
                kept = (before + after)[-WINDOW:]
                steps = slow_log_probabilities(run, params, kept)[len(kept) - len(after) - 1 : -1]
                slow_sums.append(sum(step[token] for step, token in zip(steps, after, strict=True)))
                slow_greedy.append([int(step.argmax()) for step in steps] == after)
                sizes.append(len(after))
            assert found.log_likelihood[mine] == pytest.approx(slow_sums, abs=2e-4), (
                known.name,
                number,
            )
            assert (
                found.greedy[mine].tolist() == slow_greedy and found.tokens[mine].tolist() == sizes
            )
            fast = (found.log_likelihood[mine] / found.tokens[mine]).argmax()
            assert fast == (np.array(slow_sums) / sizes).argmax(), (known.name, number)
            right = (
                fast == lines[number]["gold"] if "gold" in lines[number] else slow_greedy == [True]
            )
            slow_credit.append(float(right))
        assert item_accuracies(scores, ties="first").tolist() == slow_credit, known.name
        chosen["choices" if "gold" in lines[0] else "continuations"].update(slow_credit)
    assert chosen["choices"] == {0.0, 1.0}, "all right or all wrong: this test could not fail"


def test_token_sums_are_those_of_the_training_loss(quickstart_size):
    run, params = quickstart_size
    rows = np.random.default_rng(0).integers(0, 512, (8, WINDOW + 1)).astype(np.int32)
    losses = np.asarray(make_token_losses(run, make_mesh(Placement()))(params, rows))
    starts, counts = np.arange(1, 9, dtype=np.int32) * 20, np.full(8, 32, np.int32)
    sums, _ = spans(run, params)(rows, starts[:, None], counts[:, None], 32)
    wanted = [-losses[i, start - 1 : start + 31].sum() for i, start in enumerate(starts)]
    assert np.asarray(sums)[:, 0] == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("placement", [Placement(data=8), Placement(data=2, fsdp=2, tensor=2)])
def test_scores_do_not_depend_on_the_mesh(quickstart_size, placement, packed):
    run, params = quickstart_size
    rng = np.random.default_rng(0)
    asked = [(rng.integers(0, 512, n), rng.integers(0, 512, 5)) for n in rng.integers(5, 180, 40)]
    one = score(spans(run, params), asked, window=WINDOW)
    multiple = placement.data * placement.fsdp
    many = score(
        spans(run, params, placement), asked, window=WINDOW, batch_multiple=multiple, packed=packed
    )
    assert many.log_likelihood == pytest.approx(one.log_likelihood, rel=1e-5)


SENTENCES = [
    f"the {a} {b} sees the {c} and {d} it"
    for a in ("old", "red", "big")
    for b in ("cat", "dog", "hen", "fox")
    for c in ("sea", "sun", "hut")
    for d in ("likes", "eats", "fears")
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on a small text of bytes, measured on two suites: (its folder, the run, the
    folder of the tasks)."""
    folder = tmp_path_factory.mktemp("tasks")
    write(
        [{"text": text, "kind": "ab"[i % 2]} for i, text in enumerate(SENTENCES)],
        folder / "text",
        tokenizer="byte",
        domain="kind",
    )
    (folder / "tasks").mkdir()
    rows = [
        {"query": "the old", "choices": ["cat sees", "zzzzzzzz"], "gold": i % 2} for i in range(6)
    ]
    (folder / "tasks" / "quiz.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "tasks" / "next.jsonl").write_text(
        json.dumps({"context": "the red cat sees", "continuation": "t"}) + "\n"
    )
    run = Run(
        model=Model.sized(width=16, depth=1, head_size=8, vocabulary=257),
        data=Data(source=str(folder / "text"), tokenizer="own", sequence_length=32),
        optimizer=Optimizer(learning_rate=0.02),
        schedule=cosine(warmup=0),
        tokens=100 * 256,
        batch_tokens=256,
    )
    measure = Measure(every=25 * 256, tokens=1024, items=0, suites=(f"local:{folder / 'tasks'}",))
    return folder, run, train(run, out=folder / "run", measure=measure)


def test_a_run_measures_its_suites_and_keeps_every_score(trained):
    folder, run, result = trained
    row = result.row
    assert row["error_quiz"] == 0.5 and {
        "error_next",
        "top1_error",
        "top1_error_se",
        "top1_chance",
    } <= set(row)
    assert row["top1_error"] == pytest.approx((row["error_quiz"] + row["error_next"]) / 2)
    assert row["top1_chance"] == pytest.approx((0.5 + 1) / 2)
    assert {"loss_a", "loss_a_se", "loss_b", "bits_per_byte_b", "bits_per_byte_b_se"} <= set(row)
    kept = folder / "run" / "evaluations" / "local-tasks"
    assert sorted(path.name for path in kept.iterdir()) == [
        "local-tasks.json",
        "next.parquet",
        "quiz.parquet",
    ]
    scores = Scores.load(kept / "quiz.parquet")
    assert len(scores.item) == 12 and scores.metadata["step"] == run.steps


def test_in_the_loop_every_row_has_the_loss_of_every_domain(trained):
    folder, _, result = trained
    measured = [row for row in read_lines(folder / "run" / "metrics.jsonl") if "weights" in row]
    names = {
        f"{kind}{part}{se}"
        for kind in ("loss", "bits_per_byte")
        for part in ("", "_a", "_b")
        for se in ("", "_se")
    }
    assert len(measured) == 4 and all(names <= set(row) for row in measured)
    assert {name: result.row[name] for name in names} == {
        name: measured[-1][name] for name in names
    }
    assert measured[0]["loss_a"] > measured[-1]["loss_a"]


def test_a_run_on_a_mesh_measures_what_one_device_does(trained, tmp_path):
    folder, run, _ = trained
    measure = Measure(tokens=1024, items=0, suites=(f"local:{folder / 'tasks'}",))
    short = run.replace(
        tokens=4 * 256, model=dataclasses.replace(run.model, vocabulary=258)
    )  # 257 is prime
    row = train(short, Placement(data=2, fsdp=2, tensor=2), tmp_path / "run", measure=measure).row
    _, step, params, mesh = last_weights(tmp_path / "run")
    assert mesh.size == 8 and not params["head"].sharding.is_fully_replicated
    alone = make_mesh(Placement())
    params = jax.device_put(
        jax.device_get(params),
        jax.tree.map(lambda _: jax.sharding.NamedSharding(alone, P()), params),
    )
    losses = held_out_metrics(
        bind_token_losses(params, short, alone), prepare(short.data), short, measure
    )
    assert losses == pytest.approx({name: row[name] for name in losses}, rel=1e-5)
    one = scored_model(tmp_path / "run", step, short, alone, prepare(short.data), lambda: params)
    found = tasks.score_suite(measure.suites[0], one, items=0, folder=tmp_path / "one")
    assert {f"error_{task}": outcome["error"] for task, outcome in found["tasks"].items()} == {
        name: value for name, value in row.items() if name.startswith("error_")
    }
    for task in found["tasks"]:
        many, few = (
            Scores.load(at / "local-tasks" / f"{task}.parquet")
            for at in (tmp_path / "run/evaluations", tmp_path / "one")
        )
        assert many.log_likelihood == pytest.approx(few.log_likelihood, rel=1e-5)


def test_the_same_offline_reads_what_is_kept_and_loads_no_model(trained, monkeypatch):
    folder, _, result = trained
    found = evaluate(folder / "run")
    assert {name: result.row[name] for name in found} == found
    name = f"local:{folder / 'tasks'}"
    monkeypatch.setattr("scalejax.training.evaluate._load_weights", None)
    again = evaluate_suite(folder / "run", name)
    assert again["averages"]["mean_of_tasks"]["error"] == result.row["top1_error"]
    monkeypatch.undo()
    elsewhere = evaluate_suite(folder / "run", name, folder=folder / "elsewhere")
    assert (
        elsewhere
        == again
        == {
            k: v
            for k, v in read_json(folder / "elsewhere/local-tasks/local-tasks.json").items()
            if k != "format"
        }
    )


def test_a_changed_file_is_scored_anew(trained, tmp_path):
    folder, _, _ = trained
    path = tmp_path / "quiz.jsonl"
    path.write_text(
        json.dumps({"query": "the old", "choices": ["cat sees", "zzzzzzzz"], "gold": 0}) + "\n"
    )
    first = evaluate_suite(folder / "run", f"local:{path}", folder=tmp_path / "out")
    path.write_text(path.read_text().replace('"gold": 0', '"gold": 1'))
    second = evaluate_suite(folder / "run", f"local:{path}", folder=tmp_path / "out")
    assert first["tasks"]["quiz"]["error"] == 0 and second["tasks"]["quiz"]["error"] == 1


def test_weights_that_are_not_finite_are_refused_and_nothing_is_kept(trained, tmp_path):
    folder, run, _ = trained

    def broken():
        def scores(rows, starts, *_):
            return np.full(starts.shape, np.nan, np.float32), np.ones(starts.shape, bool)

        return scores

    subject = tasks.ScoredModel(
        load=broken,
        shards=prepare(run.data),
        window=32,
        provenance=tasks.Provenance(run="", step=0, checkpoint=""),
    )
    with pytest.raises(ValueError, match="item 0, choice 0: the log-likelihood is nan"):
        tasks.score_suite(f"local:{folder / 'tasks'}", subject, items=0, folder=tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
