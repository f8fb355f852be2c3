"""Packed documents through training (mirrors scalejax/data/packing.py).

No token attends to another document, and the loss mask is respected everywhere.
"""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from scalejax.config import Data, Measure, Model, Optimizer, Placement, Run
from scalejax.data.packing import TokenArray, split_flags
from scalejax.data.preparation import prepare
from scalejax.evaluation.likelihood import unpack_rows
from scalejax.evaluation.loss import evaluate_loss
from scalejax.grids import run_id
from scalejax.model.parametrization import completep, mup, standard
from scalejax.model.transformer import abstract, initialize
from scalejax.optim.schedules import constant
from scalejax.training.evaluate import make_token_losses
from scalejax.training.loop import train
from scalejax.training.sharding import make_mesh
from scalejax.training.step import init_state, make_train_step

END, LENGTH = 9, 24
MODEL = Model(
    width=32, depth=2, heads=4, kv_heads=2, head_size=8, mlp_width=64, vocabulary=32, qk_norm=True
)
STANDARD = standard()
PARAMETRIZATIONS = [STANDARD, mup(base_width=16), completep(base_width=16, base_depth=1)]
MESH = make_mesh(Placement())


def packed_run(parametrization=STANDARD, packing: str = "documents", **changes) -> Run:
    """Eight sequences of 24 tokens."""
    return Run(
        model=MODEL,
        data=Data(sequence_length=LENGTH, packing=packing),
        optimizer=Optimizer(learning_rate=0.02, weight_decay=0.1, z_loss=1e-2, clip=0.5),
        schedule=constant(warmup=0),
        parametrization=parametrization,
        tokens=1920,
        batch_tokens=8 * LENGTH,
    ).replace(**changes)


def corpus(windows: int, *, prompts: bool = False) -> TokenArray:
    """Documents of 1 to 12 tokens, end to end.

    With `prompts`, up to half of the tokens of each document do not count in the loss.
    """
    rng, ids, loss_mask = np.random.default_rng(0), [END], [1]
    while len(ids) <= windows * LENGTH:
        size = int(rng.integers(1, 13))
        prompt = int(rng.integers(0, size // 2 + 1)) if prompts else 0
        ids += [*rng.integers(10, 32, size), END]
        loss_mask += [0] * prompt + [1] * (size - prompt + 1)
    mask = np.array(loss_mask, np.uint8) if prompts else None
    return TokenArray(np.array(ids, np.uint16), END, mask)[: windows * LENGTH + 1]


def rows(prompts: bool = False) -> np.ndarray:
    return corpus(8, prompts=prompts).windows(LENGTH).rows()


def test_no_logit_depends_on_another_document():
    ids = np.array([9, 10, 11, 9, 12, 13, 14, 9, 15])
    _, segments, _ = unpack_rows(jnp.asarray(TokenArray(ids, END).rows())[None], "documents")
    graphdef, _ = abstract(MODEL, standard())
    params, length = initialize(MODEL, standard(), jax.random.key(0)), len(ids) - 1
    direction = jax.random.normal(jax.random.key(2), (MODEL.vocabulary,))

    # One embedding row per position: the gradient tells positions apart, not only ids.
    def logits_of(embedding):
        network = nnx.merge(graphdef, params | {"embedding": embedding})
        return network(jnp.arange(length)[None], segments)[0] @ direction

    gradient = jax.jit(jax.jacrev(logits_of))(params["embedding"][:length])
    # [output position, input position]
    influence = np.abs(gradient).sum(-1)
    document = np.array([0, 0, 0, 1, 1, 1, 1, 2])
    within = (document[:, None] == document) & np.tril(np.ones((length, length), bool))
    assert np.all(influence[~within] == 0)
    assert np.all(influence[within] > 0), "a position ignores its own document"


@pytest.mark.parametrize("parametrization", PARAMETRIZATIONS, ids=lambda p: p.name)
def test_losses_are_those_of_each_document_by_itself(parametrization):
    run, tokens = packed_run(parametrization), corpus(1)
    params = init_state(run, MESH).params
    packed = np.asarray(make_token_losses(run, MESH)(params, tokens.rows()[None]))[0]
    plain = make_token_losses(packed_run(parametrization, "concatenate"), MESH)
    ends = np.flatnonzero(tokens.ids == END)
    separate = []
    for start, stop in zip(ends, [*ends[1:], len(tokens.ids) - 1], strict=True):
        # Padding comes after the document, where causal attention does not look.
        row = np.zeros((1, LENGTH + 1), np.int32)
        row[0, : stop - start + 1] = tokens.ids[start : stop + 1]
        separate.append(np.asarray(plain(params, row))[0, : stop - start])
    assert len(separate) >= 3
    np.testing.assert_allclose(packed, np.concatenate(separate), rtol=2e-5)
    together = np.asarray(plain(params, tokens.ids[None].astype(np.int32)))[0]
    assert np.abs(together - packed).max() > 1e-3, "packing makes no difference here"


def step(run: Run, batch: np.ndarray, placement: Placement | None = None):
    """(state, metrics) on the host after one step."""
    placement = placement or Placement()
    mesh = make_mesh(placement)
    train_step = make_train_step(run, mesh, placement)
    return jax.device_get(train_step(init_state(run, mesh), batch, np.float32(0.01)))


def test_micro_batches_and_devices_are_weighted_by_tokens_in_the_loss():
    run, batch = packed_run(mup(base_width=16)), rows(prompts=True)
    counts = np.sum(split_flags(batch)[2][:, 1:], axis=1)
    assert len(set(counts.tolist())) > 2, "all rows count alike: a mean of means would pass"

    whole, whole_metrics = step(run, batch)
    split, split_metrics = step(run, batch, Placement(accumulate=4))
    np.testing.assert_allclose(split_metrics["loss"], whole_metrics["loss"], rtol=1e-6)
    np.testing.assert_allclose(split_metrics["grad_norm"], whole_metrics["grad_norm"], rtol=1e-5)
    leaves = [jax.tree.leaves(state.optimizer_state) for state in (split, whole)]
    for actual, expected in zip(*leaves, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-6)
    if len(jax.devices()) >= 8:
        _, eight_metrics = step(run, batch, Placement(data=2, fsdp=2, tensor=2))
        for name in ("loss", "grad_norm"):
            np.testing.assert_allclose(eight_metrics[name], whole_metrics[name], rtol=1e-5)


def test_the_loss_of_a_step_is_the_mean_over_the_loss_mask():
    run, batch = packed_run(), rows(prompts=True)
    losses = np.asarray(make_token_losses(run, MESH)(init_state(run, MESH).params, batch))
    loss_mask = split_flags(batch)[2][:, 1:]
    assert loss_mask.mean() < 0.9
    _, metrics = step(run, batch)
    np.testing.assert_allclose(metrics["loss"], losses[loss_mask].mean(), rtol=1e-6)
    assert abs(metrics["loss"] - losses.mean()) > 1e-4


def test_a_target_outside_the_loss_mask_does_not_contribute_to_the_loss():
    run, loss_mask = packed_run(), np.zeros(LENGTH + 1, np.uint8)
    loss_mask[[0, LENGTH]] = 1
    ids = np.arange(LENGTH + 1) % 20 + 10
    _, metrics = step(run, np.tile(TokenArray(ids, END, loss_mask).rows(), (8, 1)))
    unmasked = np.tile(ids, (8, 1)).astype(np.int32)
    losses = np.asarray(make_token_losses(run, MESH)(init_state(run, MESH).params, unmasked))
    np.testing.assert_allclose(metrics["loss"], losses[0, -1], rtol=1e-5)


def test_a_batch_without_any_token_in_the_loss_is_skipped():
    ids = np.full((8, LENGTH + 1), 10)
    _, metrics = step(packed_run(), TokenArray(ids, END, np.zeros_like(ids)).rows())
    assert np.isnan(metrics["loss"]) and metrics["skipped"] == 8


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> Data:
    path = tmp_path_factory.mktemp("text") / "short.jsonl"
    documents = [{"text": f"{i} times {i} is {i * i}"} for i in range(400)]
    path.write_text("".join(json.dumps(document) + "\n" for document in documents))
    return Data(source=str(path), tokenizer="byte", sequence_length=LENGTH, packing="documents")


def test_training_and_evaluation_of_packed_documents_have_the_same_loss(
    text, tmp_path, monkeypatch
):
    monkeypatch.setenv("SCALEJAX_CACHE", str(tmp_path / "cache"))
    run = packed_run(data=text, model=dataclasses.replace(MODEL, vocabulary=257))
    plain = run.replace(data=dataclasses.replace(text, packing="concatenate"))
    measure = Measure(items=0)
    packed_row, plain_row = (
        train(each, out=tmp_path / run_id(each), measure=measure).row for each in (run, plain)
    )
    assert packed_row["packing"] == "documents"
    assert 0.001 < abs(packed_row["loss"] - plain_row["loss"]) < 1

    shards, params = prepare(text), init_state(run, MESH).params
    losses = make_token_losses(run, MESH)
    evaluated = evaluate_loss(
        lambda rows: np.asarray(losses(params, rows)),
        shards,
        sequence_length=LENGTH,
        tokens=8 * LENGTH,
        sequences=8,
        packing="documents",
    )
    batch = shards.tokens("validation", "documents").windows(LENGTH).rows(slice(8))
    np.testing.assert_allclose(step(run, batch)[1]["loss"], evaluated.loss, rtol=1e-6)


def test_documents_without_an_end_token_are_refused(tmp_path):
    np.arange(1_000, dtype=np.uint16).tofile(tmp_path / "ids.bin")
    shards = prepare(Data(source=str(tmp_path / "ids.bin"), tokenizer="ids:1000"))
    no_end = r"needs a token that ends a document, and .*ids\.bin has none; use packing="
    with pytest.raises(ValueError, match=no_end):
        shards.tokens("train", "documents")
    choices = r"Data\.packing must be one of concatenate, documents; got 'packed'"
    with pytest.raises(ValueError, match=choices):
        Data(packing="packed")


def test_packing_is_part_of_the_identity_of_a_run():
    assert run_id(packed_run(packing="concatenate")) != run_id(packed_run())
