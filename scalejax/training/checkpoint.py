"""Checkpoints: orbax folders, each with a hash per array beside it, so that a flipped byte is caught before it is trained on."""

import hashlib
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np

from scalejax.files import read_json, write_json

KEEP = 2
"""Newest checkpoints kept: an older one stays until a newer one is committed and hashed."""

log = logging.getLogger("scalejax")


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message names the folder and the reason."""


class NotFinite(ValueError):
    """A state that must not replace a good checkpoint: it holds NaN or infinity, and cannot train."""


def save(folder: Path, step: int, state: Any, notes: dict[str, Any]) -> None:
    """Writes `folder/<step>` (orbax, atomic) and then `folder/<step>.json`: dtype, shape and sha256 of every array, and `notes`.

    A checkpoint counts only once its `.json` is there, so a kill at any moment leaves the one before in force.
    Raises NotFinite, and saves nothing, when an array holds NaN or infinity.
    """
    host = jax.device_get(state)
    for path, leaf in jax.tree.leaves_with_path(host):
        if not np.all(np.isfinite(leaf)):
            raise NotFinite(
                f"{jax.tree_util.keystr(path)} is not finite at step {step}: not saved in {folder}"
            )
    with _checkpointer() as checkpointer:
        checkpointer.save(folder.absolute() / str(step), state, force=True)
    write_json(
        folder / f"{step}.json",
        {"step": step, "arrays": _record(host, hashed=True), "notes": notes},
    )
    for old in steps(folder)[:-KEEP]:
        (folder / f"{old}.json").unlink()
        shutil.rmtree(folder / str(old))


def steps(folder: Path) -> list[int]:
    """Steps with a committed and hashed checkpoint, ascending; strays and half-written ones do not count."""
    found = [int(path.stem) for path in folder.glob("*.json") if path.stem.isdigit()]
    return sorted(step for step in found if (folder / str(step)).is_dir())


def restore(
    folder: Path, like: Any, *, step: int | None = None
) -> tuple[int, Any, dict[str, Any]] | None:
    """The newest sound checkpoint (or that of `step`) as (step, state, notes), placed like the abstract state `like`.

    None when there is no checkpoint at all.

    Averages that `like` does not ask for are left where they are. A checkpoint whose bytes, shapes or dtypes are not what was
    saved is passed over with a warning, and the one before is tried. Raises CheckpointError when there are checkpoints and none
    of them is sound: never a silent start from zero.
    """
    candidates = [s for s in reversed(steps(folder)) if step in (None, s)]
    reasons = []
    for candidate in candidates:
        try:
            return candidate, *_read(folder, candidate, like)
        except (CheckpointError, ValueError, OSError, KeyError) as error:
            reasons.append(f"{folder / str(candidate)}: {str(error).splitlines()[0]}")
            log.warning("checkpoint passed over: %s", reasons[-1])
    if reasons:
        raise CheckpointError(
            "no sound checkpoint is left; "
            + "; ".join(reasons)
            + "; delete the run's folder to train it anew"
        )
    return None


def abstract(state: Any) -> Any:
    """The shapes, dtypes and shardings of a state: what `restore` needs to know of it."""
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )


def kept(folder: Path) -> list[str]:
    """Names of the arrays in the newest checkpoint, such as `.params['head']`; none without one."""
    return (
        list(read_json(folder / f"{newest[-1]}.json")["arrays"])
        if (newest := steps(folder))
        else []
    )


def clean(folder: Path) -> None:
    """Removes what a killed save left behind: temporary folders, and folders without their hashes."""
    if not folder.is_dir():
        return
    sound = {str(step) for step in steps(folder)}
    for path in folder.iterdir():
        if path.is_dir() and path.name not in sound:
            shutil.rmtree(path)


def _read(folder: Path, step: int, like: Any) -> tuple[Any, dict[str, Any]]:
    record = json.loads((folder / f"{step}.json").read_text())
    saved, wanted = record["arrays"], _record(like, hashed=False)
    strays = [name for name in saved.keys() - wanted.keys() if not name.startswith(".averages")]
    for name in [*wanted, *strays]:
        if saved.get(name, [])[:2] != wanted.get(name, []):
            raise CheckpointError(
                f"{name} is {saved.get(name, ['absent'])[:2]}, this run's is {wanted.get(name, ['absent'])}"
            )
    state = _restored(folder.absolute() / str(step), like)
    for name, found in _record(jax.device_get(state), hashed=True).items():
        if found != saved[name]:
            raise CheckpointError(f"{name} is not what was saved (its sha256 differs)")
    return state, record["notes"]


def _record(state: Any, *, hashed: bool) -> dict[str, list[Any]]:
    """name -> [dtype, shape] of every array, with 16 hex digits of its sha256 when `hashed`."""
    record = {}
    for path, leaf in jax.tree.leaves_with_path(state):
        digest = (
            [hashlib.sha256(np.ascontiguousarray(leaf).tobytes()).hexdigest()[:16]]
            if hashed
            else []
        )
        record[jax.tree_util.keystr(path)] = [str(leaf.dtype), list(leaf.shape), *digest]
    return record


def _checkpointer():
    import orbax.checkpoint as ocp  # 1.5 s to import

    return ocp.StandardCheckpointer()


def _restored(folder: Path, like: Any) -> Any:
    """What `like` asks for. Its empty parts stay out of orbax's template, which may lack a key but not hold an empty one."""
    import orbax.checkpoint as ocp

    named = hasattr(like, "_asdict")
    parts = like._asdict() if named else like
    template = {name: part for name, part in parts.items() if jax.tree.leaves(part)}
    placed = ocp.checkpoint_utils.construct_restore_args(template)
    with ocp.PyTreeCheckpointer() as checkpointer:
        found = checkpointer.restore(
            folder, args=ocp.args.PyTreeRestore(template, placed, partial_restore=True)
        )
    return like._replace(**found) if named else {**like, **found}
