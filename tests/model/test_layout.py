"""How arrays are split over a mesh (mirrors scalejax/model/layout.py)."""

import itertools

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from scalejax.config import Data, Model, Optimizer, Placement, Run, Schedule
from scalejax.config.placement import check_placement
from scalejax.model.layout import Layout
from scalejax.model.parametrization import standard
from scalejax.model.transformer import HEADS, HIDDEN, LOGITS, RESIDUAL, abstract

eight_devices = pytest.mark.skipif(
    len(jax.devices()) < 8, reason="needs 8 devices, virtual ones will do"
)


def layout_of(data: int, fsdp: int, tensor: int) -> Layout:
    devices = np.asarray(jax.devices()[: data * fsdp * tensor]).reshape(data, fsdp, tensor)
    return Layout(Mesh(devices, ("data", "fsdp", "tensor")))


@eight_devices
def test_a_mesh_axis_splits_one_axis_of_an_array_and_the_batch_comes_first():
    layout = layout_of(2, 2, 2)
    assert layout.sharding(("width", "mlp_width"), (8, 8)).spec == PartitionSpec("fsdp", "tensor")
    residual = layout.sharding(RESIDUAL, (8, 16, 8)).spec
    assert residual == PartitionSpec(("data", "fsdp"), None, None)
    assert layout.shard_size(LOGITS, (8, 16, 10)) == 2 * 16 * 5


@eight_devices
def test_an_uneven_vocabulary_and_few_kv_heads_stay_whole():
    layout = layout_of(1, 2, 4)
    assert layout.sharding(("vocabulary", "width"), (65, 8)).spec == PartitionSpec(None, "fsdp")
    key = layout.sharding(("width", "kv_heads", "head_size"), (8, 2, 4)).spec
    assert key == PartitionSpec("fsdp", None, None)
    with pytest.raises(ValueError, match="partitioned 4 times, but the dimension size is 6"):
        layout.sharding(("heads",), (6,)).shard_shape((6,))


def splits_evenly(layout: Layout, run: Run) -> bool:
    """Whether JAX can split every parameter and activation of a run."""
    model, b, t = run.model, run.first_batch_sequences, run.data.sequence_length
    _, specs = abstract(model, standard())
    arrays = [(spec.axes, spec.shape) for spec in jax.tree.leaves(specs) if not spec.is_gain]
    arrays += [
        (RESIDUAL, (b, t, model.width)),
        (HEADS, (b, t, model.heads, model.head_size)),
        (HIDDEN, (b, t, model.mlp_width)),
    ]
    try:
        for axes, shape in arrays:
            layout.sharding(axes, shape).shard_shape(shape)
    except ValueError:
        return False
    return True


@eight_devices
def test_a_placement_is_refused_exactly_when_an_array_cannot_be_split():
    """The check needs no device; this is what makes sure that it forgets no size."""
    verdicts = []
    meshes = [(1, 1, 8), (1, 8, 1), (8, 1, 1), (2, 2, 2), (1, 2, 3), (1, 3, 2), (3, 1, 1)]
    sizes = itertools.product((24, 32), (4, 6), (1, 2), (48, 64), (64, 65), (6, 8))
    for width, heads, kv_heads, mlp_width, vocabulary, sequences in sizes:
        run = Run(
            model=Model(
                width=width,
                depth=1,
                heads=heads,
                kv_heads=kv_heads,
                head_size=2,
                mlp_width=mlp_width,
                vocabulary=vocabulary,
            ),
            data=Data(sequence_length=16),
            optimizer=Optimizer(learning_rate=0.1),
            schedule=Schedule(shape="constant", warmup=0),
            tokens=1e4,
            batch_tokens=sequences * 16,
        )
        for data, fsdp, tensor in meshes:
            try:
                check_placement(run, Placement(data=data, fsdp=fsdp, tensor=tensor))
                accepted = True
            except ValueError:
                accepted = False
            assert accepted == splits_evenly(layout_of(data, fsdp, tensor), run)
            verdicts.append(accepted)
    assert 0.1 < np.mean(verdicts) < 0.9
