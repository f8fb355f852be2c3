"""The weights that a run's folder holds."""

from pathlib import Path
from typing import NamedTuple

import jax

from scalejax.config import Placement, Run
from scalejax.model.parameters import Params
from scalejax.training import checkpoint
from scalejax.training.segment import Job
from scalejax.training.sharding import make_mesh
from scalejax.training.step import init_state


class Weights(NamedTuple):
    """A run at one of its steps."""

    run: Run
    step: int
    params: Params
    mesh: jax.sharding.Mesh
    """Where `params` lie."""


def last_weights(folder: Path) -> Weights:
    """The last sound checkpoint in a run's folder, on the mesh of its training, or on one device where there are fewer.

    Raises ValueError when the folder is no run's, or has no sound checkpoint. Nothing is written.
    """
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder} is no run's folder (it has no config.json); give OUT/<study>/runs/<id>, or `out` of train()")
    job = Job.read(folder)
    there = job.placement.data * job.placement.fsdp * job.placement.tensor <= len(jax.devices())
    mesh = make_mesh(job.placement if there else Placement())
    initial = init_state(job.segment.run, mesh)
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), initial)
    found = checkpoint.restore(folder / "checkpoints", like)
    if found is None:
        raise checkpoint.CheckpointError(f"{folder} has no checkpoint yet: train the run first")
    step, state, _ = found
    return Weights(job.segment.run, step, state.params, mesh)
