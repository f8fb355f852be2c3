"""Meshes and shardings (mirrors scalejax/training/sharding.py)."""

import functools
import math
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from scalejax.config import Data, Model, Optimizer, Placement, Run
from scalejax.data.packing import TokenArray
from scalejax.optim.schedules import constant
from scalejax.training.sharding import make_mesh, mesh_over
from scalejax.training.step import init_state, make_train_step

MODEL = Model(width=32, depth=1, heads=4, kv_heads=2, head_size=8, mlp_width=64, vocabulary=64)
eight_devices = pytest.mark.skipif(
    len(jax.devices()) < 8, reason="needs 8 devices, virtual ones will do"
)


def shardings_of(tree):
    return jax.tree.map(lambda array: array.sharding, tree)


def test_a_mesh_names_its_axes_and_leaves_collectives_to_xla():
    mesh = make_mesh(Placement())
    assert dict(mesh.shape) == {"data": 1, "fsdp": 1, "tensor": 1}
    assert mesh.axis_types == (AxisType.Auto,) * 3


def test_a_mesh_of_too_many_devices_is_refused_with_their_number():
    devices = len(jax.devices())
    message = (
        rf"data 2 x fsdp {devices} x tensor 1 = {2 * devices} devices; "
        f"this process sees {devices}"
    )
    with pytest.raises(ValueError, match=message):
        make_mesh(Placement(data=2, fsdp=devices))


@eight_devices
def test_matrices_are_split_over_fsdp_and_tensor_and_moments_like_their_parameters(tiny_run):
    mesh = make_mesh(Placement(data=2, fsdp=2, tensor=2))
    state = init_state(tiny_run.replace(model=MODEL), mesh)
    block = state.params["blocks"][0]
    assert block["mlp"]["gate"].sharding.spec == PartitionSpec("fsdp", "tensor")
    assert block["attention"]["output"].sharding.spec == PartitionSpec("tensor", None, "fsdp")
    assert state.params["embedding"].sharding.spec == PartitionSpec("tensor", "fsdp")
    assert state.params["embedding"].addressable_shards[0].data.shape == (32, 16)
    assert block["mlp_norm"]["gain"].sharding.is_fully_replicated

    moments = state.optimizer_state["adam"]
    assert shardings_of(moments.mu) == shardings_of(state.params)
    assert shardings_of(moments.nu) == shardings_of(state.params)
    assert moments.count.sharding.is_fully_replicated


def losses(run: Run, placement: Placement) -> list[float]:
    """Loss and gradient norm of each of three steps."""
    mesh = make_mesh(placement)
    state, step = init_state(run, mesh), make_train_step(run, mesh, placement)
    values: list[float] = []
    for seed in range(3):
        ids = np.random.default_rng(seed).integers(0, run.model.vocabulary, (16, 17))
        rows = ids.astype(np.int32)
        if run.data.packing == "documents":
            # Token 0 ends a document, and every other row counts only to its middle.
            counts = np.ones(rows.shape, np.uint8)
            rows[:, 5], counts[::2, 9:] = 0, 0
            rows = TokenArray(rows, 0, counts).rows()
        state, metrics = step(state, rows, np.float32(0.01))
        values += [float(metrics["loss"]), float(metrics["grad_norm"])]
    return values


EVEN = {"depth": 1, "heads": 8, "kv_heads": 8, "vocabulary": 64}
# 6 query heads read 2 kv heads; 4 read one, in a tied model of 65 token ids: `tensor`
# divides neither.
GROUPED = {"depth": 2, "heads": 6, "kv_heads": 2, "vocabulary": 64, "qk_norm": True}
UNEVEN = {"depth": 2, "heads": 4, "kv_heads": 1, "vocabulary": 65, "tied": True}


@functools.cache
def run_of(name: str) -> Run:
    """A run of one of the three models; that of UNEVEN packs documents."""
    sizes: dict[str, Any] = {"EVEN": EVEN, "GROUPED": GROUPED, "UNEVEN": UNEVEN}[name]
    packing = "documents" if name == "UNEVEN" else "concatenate"
    return Run(
        model=Model(width=32, head_size=4, mlp_width=64, **sizes),
        data=Data(source="synthetic:64", tokenizer="own", sequence_length=16, packing=packing),
        optimizer=Optimizer(learning_rate=0.01, weight_decay=0.1, z_loss=1e-3),
        schedule=constant(warmup=0),
        tokens=256,
        batch_tokens=256,
    )


@functools.cache
def losses_on_one_device(name: str) -> list[float]:
    return losses(run_of(name), Placement())


@eight_devices
@pytest.mark.parametrize(
    ("model", "placement"),
    [
        ("EVEN", Placement(data=8)),
        ("EVEN", Placement(fsdp=8)),
        ("EVEN", Placement(tensor=8)),
        ("EVEN", Placement(data=2, fsdp=2, tensor=2, accumulate=2)),
        ("GROUPED", Placement(data=2, fsdp=2, tensor=2)),
        ("GROUPED", Placement(fsdp=8, accumulate=2, remat="block", scan_layers=True)),
        ("UNEVEN", Placement(fsdp=8, scan_layers=True)),
        ("UNEVEN", Placement(data=2, tensor=4, remat="dots")),
        ("UNEVEN", Placement(data=2, fsdp=2, tensor=2, accumulate=2, remat="block")),
    ],
    ids=str,
)
def test_every_mesh_gives_the_losses_of_one_device(model, placement):
    expected = losses_on_one_device(model)
    np.testing.assert_allclose(losses(run_of(model), placement), expected, rtol=1e-5)
    # The steps change the loss by far more than the tolerance.
    assert min(np.abs(np.diff(expected[::2]))) > 1e-3


@pytest.mark.parametrize("remat", ["block", "dots"])
def test_rematerialized_blocks_keep_less_and_change_no_loss(remat):
    run = run_of("GROUPED")
    placement = Placement(remat=remat, scan_layers=True)
    assert losses(run, placement) == pytest.approx(losses_on_one_device("GROUPED"), rel=1e-5)
    # In a loop, what a block keeps for the backward pass has to be stored.
    kept = temporaries(compiled_step(scan_layers=True))
    assert temporaries(compiled_step(scan_layers=True, remat=remat)) < 0.6 * kept


SEQUENCES = 56


@functools.cache
def compiled_step(**fields: Any) -> "jax.stages.Compiled":
    """The training step of a small model, compiled for a placement and 56 x 128 tokens.

    Of all sizes only that of the batch is divisible by 7.
    """
    run = Run(
        model=Model.sized(width=128, depth=2, head_size=32, vocabulary=512),
        data=Data(source="synthetic:512", tokenizer="own", sequence_length=128),
        optimizer=Optimizer(learning_rate=0.01),
        schedule=constant(warmup=0),
        tokens=SEQUENCES * 128,
        batch_tokens=SEQUENCES * 128,
    )
    placement = Placement(**fields)
    mesh = make_mesh(placement)
    state = jax.eval_shape(lambda: init_state(run, mesh))
    rows = jax.ShapeDtypeStruct((SEQUENCES, 129), jnp.int32)
    rate = jax.ShapeDtypeStruct((), jnp.float32)
    # The public type of a step is a function; only the jitted one can be lowered.
    step: Any = make_train_step(run, mesh, placement)
    return step.lower(state, rows, rate).compile()


def temporaries(compiled: "jax.stages.Compiled") -> int:
    """Bytes of intermediate arrays on one device."""
    memory = compiled.memory_analysis()
    assert memory is not None
    return memory.temp_size_in_bytes


def flops(compiled: "jax.stages.Compiled") -> float:
    """FLOPs of one device in a step, as XLA counts them."""
    analysis = compiled.cost_analysis()
    assert analysis is not None
    return analysis["flops"]


def collective_bytes(compiled: "jax.stages.Compiled") -> dict[str, int]:
    """Bytes that one device receives in a step, by kind of collective."""
    kinds = "all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute"
    total: dict[str, int] = {}
    for line in re.finditer(rf"= (.*?) ({kinds})(?:-start)?\(", compiled.as_text() or ""):
        shapes = re.findall(r"\w+\[([\d,]*)\]", line[1])
        sizes = [math.prod(int(n) for n in shape.split(",") if n) for shape in shapes]
        total[line[2]] = total.get(line[2], 0) + 4 * sum(sizes)
    return total


@eight_devices
def test_under_fsdp_a_device_computes_and_exchanges_only_its_share():
    """Without constraints on activations, fsdp all-reduces them: 36 times the bytes."""
    data, fsdp = compiled_step(data=8), compiled_step(fsdp=8)
    assert flops(fsdp) <= 1.1 * flops(data)
    # Data parallelism all-reduces the gradient once: 4 bytes per parameter.
    param_bytes = collective_bytes(data)["all-reduce"]
    assert sum(collective_bytes(fsdp).values()) <= 3.2 * param_bytes


@eight_devices
@pytest.mark.parametrize("axes", [{"fsdp": 8}, {"data": 2, "fsdp": 2, "tensor": 2}], ids=str)
def test_no_device_gathers_sequences_of_other_devices(axes):
    program = compiled_step(**axes).as_text() or ""
    gathered = re.findall(r"= \(?\w+\[([\d,]*)\].*? all-gather", program)
    assert gathered
    sizes = {int(size) for shape in gathered for size in shape.split(",")}
    assert not [size for size in sizes if size % 7 == 0]


@eight_devices
def test_tensor_parallelism_splits_heads_mlp_and_vocabulary():
    tensor, data = compiled_step(data=2, tensor=4), compiled_step(data=8)
    assert flops(tensor) <= 1.1 * flops(data)
    # A device exchanges the gradient of the parameters and its part of the residual
    # stream: of each of the two blocks, the outputs of attention and MLP, and the
    # gradients of query, key, value, gate and up, which XLA on CPU sums separately; and
    # the gradient of the head.
    residual_bytes = 4 * SEQUENCES // 2 * 128 * 128
    param_bytes = collective_bytes(data)["all-reduce"]
    assert sum(collective_bytes(tensor).values()) <= param_bytes + 15 * residual_bytes


@eight_devices
def test_a_mixed_mesh_computes_no_more_than_data_parallelism():
    mixed, data = compiled_step(data=2, fsdp=2, tensor=2), compiled_step(data=8)
    assert flops(mixed) <= 1.1 * flops(data)


class Chip:
    """What the arrangement of a mesh reads of one chip in a slice of v5e:16x16."""

    platform, device_kind, core_on_chip, slice_index, process_index = "tpu", "TPU v5 lite", 0, 0, 0

    def __init__(self, x: int, y: int):
        self.coords, self.id = (x, y, 0), 16 * y + x


@pytest.mark.parametrize("data, fsdp", [(1, 256), (4, 64), (16, 16), (32, 8)])
def test_a_mesh_covers_a_torus_whose_sides_its_axes_do_not_match(data, fsdp):
    chips = [Chip(x, y) for y in range(16) for x in range(16)]
    grid = mesh_over(chips, {"data": data, "fsdp": fsdp, "tensor": 1}).devices
    assert grid.shape == (data, fsdp, 1)
    assert {chip.id for chip in grid.flat} == set(range(256))
