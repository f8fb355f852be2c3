"""Checkpoints: orbax folders, with a hash of every array beside them.

    <step>/       the arrays, written by orbax
    <step>.json   dtype, shape and sha256 of every array, and notes of the training loop

The hashes catch a flipped byte before it is trained on. A checkpoint counts only once
its `.json` exists, so that a kill at any moment leaves the previous one in force.
"""

import hashlib
import logging
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from scalejax.files import read_json, write_json

# Number of checkpoints that are kept. With two, a damaged newest one costs only the
# steps since the one before.
KEEP = 2

# A state is any nested structure of arrays. `restore` returns the structure it is
# given.
State = Any

log = logging.getLogger("scalejax")


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message names the folder and the reason."""


class NotFinite(ValueError):
    """A state with NaN or infinity, which must not replace a good checkpoint."""


class Restored(NamedTuple):
    """A checkpoint as `restore` returns it."""

    step: int
    state: State
    notes: dict[str, Any]


def save(folder: Path, step: int, state: State, notes: dict[str, Any]) -> None:
    """Write the checkpoint of `step`, then delete all but the newest KEEP.

    `notes` are JSON values that `restore` returns. Raises NotFinite, and writes
    nothing, when an array holds NaN or infinity.
    """
    host = jax.device_get(state)
    for path, leaf in jax.tree.leaves_with_path(host):
        if not np.all(np.isfinite(leaf)):
            name = jax.tree_util.keystr(path)
            raise NotFinite(f"{name} is not finite at step {step}: not saved in {folder}")

    import orbax.checkpoint as ocp  # takes 1.5 s, which a plan or a status must not pay

    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder.absolute() / str(step), state, force=True)
    # Leaving the block waits until orbax has written everything: only then may the JSON
    # file declare the checkpoint valid.
    digests = _digests(host)
    arrays = {name: [*layout, digests[name]] for name, layout in _layouts(host).items()}
    write_json(folder / f"{step}.json", {"step": step, "arrays": arrays, "notes": notes})

    # The JSON file goes first, so that no half-deleted checkpoint ever counts.
    for old in steps(folder)[:-KEEP]:
        (folder / f"{old}.json").unlink()
        shutil.rmtree(folder / str(old))


def restore(folder: Path, like: State, *, step: int | None = None) -> Restored | None:
    """Load the newest sound checkpoint, or that of `step`; None when there is none at
    all.

    `like` is an abstract state (see `abstract`): the arrays come back with its
    structure, shapes, dtypes and shardings. Averages that it lacks are not loaded.

    A checkpoint whose bytes, shapes or dtypes are not what was saved is skipped with a
    warning, and the one before is tried. Raises CheckpointError when there are
    checkpoints but none is sound: training never starts over silently.
    """
    candidates = [saved for saved in reversed(steps(folder)) if step in (None, saved)]
    reasons = []
    for candidate in candidates:
        try:
            return _load(folder, candidate, like)
        except (CheckpointError, ValueError, OSError, KeyError) as error:
            reasons.append(f"{folder / str(candidate)}: {str(error).splitlines()[0]}")
            log.warning("checkpoint passed over: %s", reasons[-1])
    if reasons:
        raise CheckpointError(
            f"no sound checkpoint is left; {'; '.join(reasons)}; "
            "delete the run's folder to train it anew"
        )
    return None


def steps(folder: Path) -> list[int]:
    """Steps with a complete checkpoint, ascending; unfinished ones do not count."""
    recorded = [int(path.stem) for path in folder.glob("*.json") if path.stem.isdigit()]
    return sorted(step for step in recorded if (folder / str(step)).is_dir())


def array_names(folder: Path) -> list[str]:
    """Names of the newest checkpoint's arrays, such as `.params['head']`, or []."""
    saved = steps(folder)
    return list(read_json(folder / f"{saved[-1]}.json")["arrays"]) if saved else []


def abstract(state: State) -> State:
    """The shapes, dtypes and shardings of a state's arrays, without their values."""
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )


def clean(folder: Path) -> None:
    """Delete the temporary and unfinished folders that a killed save left behind."""
    if not folder.is_dir():
        return
    complete = {str(step) for step in steps(folder)}
    for path in folder.iterdir():
        if path.is_dir() and path.name not in complete:
            shutil.rmtree(path)


def _load(folder: Path, step: int, like: State) -> Restored:
    """Load one checkpoint; raises CheckpointError when it is not what was saved."""
    record = read_json(folder / f"{step}.json")
    saved, expected = record["arrays"], _layouts(like)
    # Averages may stay unread. Any other array without a place in `like` shows that the
    # checkpoint belongs to another model or optimizer.
    surplus = [name for name in saved.keys() - expected if not name.startswith(".averages")]
    for name in [*expected, *surplus]:
        in_file, in_run = saved.get(name, ["absent"])[:2], expected.get(name, ["absent"])
        if in_file != in_run:
            raise CheckpointError(f"{name} is {in_file}, this run's is {in_run}")

    state = _load_arrays(folder.absolute() / str(step), like)
    for name, digest in _digests(jax.device_get(state)).items():
        if digest != saved[name][2]:
            raise CheckpointError(f"{name} is not what was saved (its sha256 differs)")
    return Restored(step, state, record["notes"])


def _load_arrays(folder: Path, like: State) -> State:
    """Read the arrays that `like` names, placed as it says."""
    import orbax.checkpoint as ocp

    # A partial restore accepts a template that lacks a key of the checkpoint, but not
    # one where that key is an empty dict, as `averages` is in a run without averages.
    named = hasattr(like, "_asdict")
    parts = like._asdict() if named else like
    template = {name: part for name, part in parts.items() if jax.tree.leaves(part)}
    placement = ocp.checkpoint_utils.construct_restore_args(template)
    with ocp.PyTreeCheckpointer() as checkpointer:
        arguments = ocp.args.PyTreeRestore(template, placement, partial_restore=True)
        arrays = checkpointer.restore(folder, args=arguments)
    return like._replace(**arrays) if named else {**like, **arrays}


def _layouts(state: State) -> dict[str, list[str | list[int]]]:
    """Dtype and shape of every array by name, as JSON has them."""
    return {
        jax.tree_util.keystr(path): [str(leaf.dtype), list(leaf.shape)]
        for path, leaf in jax.tree.leaves_with_path(state)
    }


def _digests(state: State) -> dict[str, str]:
    """First 16 hex digits of the sha256 of every array's bytes, by name."""
    return {
        jax.tree_util.keystr(path): hashlib.sha256(
            np.ascontiguousarray(leaf).tobytes()
        ).hexdigest()[:16]
        for path, leaf in jax.tree.leaves_with_path(state)
    }
