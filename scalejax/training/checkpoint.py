"""Checkpoints: orbax folders, with a record of what they hold beside them.

    <step>/       the arrays, written by orbax
    <step>.json   whose state it is; dtype, shape and checksum of every array; notes of
                  the training loop

A checkpoint counts only once its `.json` exists, which is written when everything else
is on the disk: a kill or a power cut at any moment leaves the previous one in force.
The record catches a flipped byte, a renamed folder and a checkpoint of another run
before they are trained on.

On many hosts, every process calls `save` and `restore` and handles its own part of the
arrays; only process 0 writes the records. All processes see the same folder.
"""

import contextvars
import functools
import logging
import re
import shutil
import threading
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import jax
import numpy as np

from scalejax.files import check_fence, content_hash, read_json, refuse_link, sync, write_json
from scalejax.training import distributed

# Number of checkpoints that are kept. With two, a damaged newest one costs only the
# steps since the one before.
KEEP = 2

# Elements whose checksum is computed at once: few enough for the temporary arrays to
# stay in the CPU's cache.
CHECKSUM_BLOCK = 32_768

# The name of a step, and of a folder that this module makes, with orbax's suffix.
STEP = re.compile(r"0|[1-9][0-9]*")
STEP_FOLDER = re.compile(rf"({STEP.pattern})(\.orbax-checkpoint-tmp.*)?")

# A state is any nested structure of arrays. `restore` returns the structure it is
# given.
State = Any

# Orbax runs an event loop in each thread that saves, and two at a time disturb each
# other. The runs of a population save in threads of their own.
_orbax_lock = threading.Lock()

log = logging.getLogger("scalejax")


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message names the folder and the reason."""


class NotFinite(ValueError):
    """A state with NaN or infinity, which must not replace a good checkpoint."""


class Origin(NamedTuple):
    """Whose state a checkpoint holds. `restore` refuses one of another origin."""

    segment: str
    """Id of the run or trunk."""
    data_hash: str
    """Hash of the data that it is trained on."""


class Restored(NamedTuple):
    """A checkpoint as `restore` returns it."""

    step: int
    state: State
    notes: dict[str, Any]


def save(folder: Path, step: int, state: State, origin: Origin, notes: dict[str, Any]) -> None:
    """Write the checkpoint of `step`, then delete all but the newest KEEP.

    `notes` are JSON values that `restore` returns. Raises NotFinite, and writes
    nothing, when an array holds NaN or infinity.
    """
    checksums = _checksums(state, f"at step {step}: not saved in {folder}")

    check_fence()
    # Where no folder can be made, orbax leaves threads behind that fail minutes later.
    folder.mkdir(parents=True, exist_ok=True)

    import orbax.checkpoint as ocp  # takes 1.5 s, which a plan or a status must not pay

    with _orbax_lock, ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder.absolute() / str(step), state, force=True)
    # Leaving the block waits until every process has written its part.
    if distributed.is_main():
        # Only what is on the disk may be declared valid: after a power cut, a record
        # without its arrays would replace the checkpoint before.
        for path in [*(folder / str(step)).rglob("*"), folder / str(step), folder]:
            sync(path)
        arrays = {name: [*layout, checksums[name]] for name, layout in _layouts(state).items()}
        record = {"step": step, **origin._asdict(), "arrays": arrays, "notes": notes}
        write_json(folder / f"{step}.json", {**record, "seal": _seal(record)})

        # The record goes first, so that no half-deleted checkpoint ever counts.
        for old in steps(folder)[:-KEEP]:
            (folder / f"{old}.json").unlink()
            shutil.rmtree(folder / str(old))
    distributed.wait_for_all(f"saved {folder} {step}")


class Saver:
    """Saves checkpoints in a thread while training goes on, at most one at a time.

    Training waits only while the state is copied to the host; writing, hashing and
    flushing to the disk happen behind its back. With many processes it waits for all of
    it: the processes of a save exchange checksums, which must not mix with what the
    training steps exchange.

    Leaving its `with` block waits for the save in flight.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._saving: Future[int] | None = None

    def __enter__(self) -> "Saver":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._thread.shutdown()

    @property
    def is_busy(self) -> bool:
        """Whether a save has begun that `completed` has not returned or raised yet."""
        return self._saving is not None

    def start(
        self, folder: Path, step: int, state: State, origin: Origin, notes: dict[str, Any]
    ) -> None:
        """Begin to do what `save` does.

        The state may change as soon as this returns.
        """
        assert not self.is_busy
        many = jax.process_count() > 1
        copy = state if many else _copy_on_host(state)

        def write() -> int:
            save(folder, step, copy, origin, notes)
            return step

        # In this context, the thread has the fence of whoever trains.
        self._saving = self._thread.submit(contextvars.copy_context().run, write)
        if many:
            wait([self._saving])

    def completed(self, *, wait_for_it: bool = False) -> int | None:
        """Return the step of a save that has ended since the last call, or None.

        Raises what the save raised: NotFinite, or OSError for a disk that is full.
        """
        if self._saving is None or not (wait_for_it or self._saving.done()):
            return None
        # Forgotten before its error is raised: an error is raised only once.
        saving, self._saving = self._saving, None
        return saving.result()


def restore(
    folder: Path,
    like: State,
    segment: str,
    *,
    data_hash: str | None = None,
    step: int | None = None,
) -> Restored | None:
    """Load the newest sound checkpoint, or that of `step`; None if there is none.

    `like` is an abstract state (see `abstract`): the arrays come back with its
    structure, shapes, dtypes and shardings, on whatever mesh they were saved. Averages
    that it lacks are not loaded. `segment` and `data_hash` are compared with those of
    the checkpoint's origin; without a `data_hash`, the data are not compared.

    A checkpoint that is damaged, or of another origin, is skipped with a warning, and
    the one before is tried. Raises CheckpointError when there are checkpoints but none
    can be used: training never starts over silently.
    """
    saved = [other for other in reversed(steps(folder)) if step in (None, other)]
    reasons = []
    # Process 0 lists the folder for all: a slow network drive may show them different
    # files, and every process must try the same steps.
    for candidate in distributed.from_main(saved):
        restored, reason = None, "another process could not read its part"
        try:
            record = _read_record(folder, candidate)
            _check_record(record, like, segment, data_hash)
            restored = _load(folder, record, like)
        except CheckpointError as error:
            reason = str(error)
        if distributed.all_true(restored is not None):
            return restored
        reasons.append(f"{folder / str(candidate)}: {reason}")
        log.warning("checkpoint passed over: %s", reasons[-1])
    if reasons:
        raise CheckpointError(
            f"no checkpoint can be used; {'; '.join(reasons)}; "
            "delete the run's folder to train it anew"
        )
    return None


def steps(folder: Path) -> list[int]:
    """Steps with a record and a folder, ascending; unfinished ones do not count."""
    recorded = [path.stem for path in folder.glob("*.json") if STEP.fullmatch(path.stem)]
    return sorted(int(step) for step in recorded if (folder / step).is_dir())


def array_names(folder: Path) -> list[str]:
    """Names of the newest checkpoint's arrays, such as `.params['head']`, or []."""
    for step in reversed(steps(folder)):
        try:
            return list(_read_record(folder, step)["arrays"])
        except CheckpointError:
            continue  # `restore` passes this checkpoint over, with a warning.
    return []


def fingerprint(folder: Path) -> str:
    """Return 16 hex digits that say what the newest checkpoint's arrays hold.

    They are a hash of the arrays' names, shapes and checksums, and no array is read.
    Raises CheckpointError when there is no checkpoint, or its record is damaged.
    """
    saved = steps(folder)
    if not saved:
        raise CheckpointError(f"{folder} has no checkpoint")
    return content_hash(_read_record(folder, saved[-1])["arrays"])[:16]


def abstract(state: State) -> State:
    """The shapes, dtypes and shardings of a state's arrays, without their values."""
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )


def clean(folder: Path) -> None:
    """Delete the temporary and unfinished folders that a killed save left behind.

    Raises ValueError for a link: it may name a folder that holds other things.
    """
    refuse_link(folder)
    if not folder.is_dir():
        return
    complete = {str(step) for step in steps(folder)}
    for path in folder.iterdir():
        is_ours = STEP_FOLDER.fullmatch(path.name) and path.is_dir() and not path.is_symlink()
        if is_ours and path.name not in complete:
            shutil.rmtree(path)


def _copy_on_host(state: State) -> State:
    """Return a copy of the state in the host's memory, split as the state is.

    A training step overwrites the arrays of the state that it is given.
    """
    shardings = jax.tree.map(lambda x: x.sharding.with_memory_kind("pinned_host"), state)
    return jax.block_until_ready(jax.device_put(state, shardings))


def _read_record(folder: Path, step: int) -> dict[str, Any]:
    """Read the record of a step; raises CheckpointError when it is not as written."""
    path = folder / f"{step}.json"
    try:
        record = read_json(path)
    except (ValueError, OSError) as error:
        raise CheckpointError(f"its record is damaged ({error})") from error
    seal = record.pop("seal", None)
    del record["format"]
    if seal != _seal(record):
        raise CheckpointError(f"its record {path.name} is not as it was written")
    if record["step"] != step:
        raise CheckpointError(f"it was renamed: it holds step {record['step']}")
    return record


def _check_record(record: dict[str, Any], like: State, segment: str, data_hash: str | None) -> None:
    """Raise CheckpointError when a checkpoint is not one of this run."""
    if record["segment"] != segment:
        raise CheckpointError(f"it belongs to run {record['segment']}, not to {segment}")
    if data_hash not in (None, record["data_hash"]):
        raise CheckpointError(
            f"it was trained on data with the hash {record['data_hash']}; those at hand have "
            f"{data_hash}"
        )
    saved, expected = record["arrays"], _layouts(like)
    # Averages may stay unread. Any other array without a place in `like` shows that the
    # checkpoint belongs to another model or optimizer.
    surplus = [name for name in saved.keys() - expected if not name.startswith(".averages")]
    for name in [*expected, *surplus]:
        in_file, in_run = saved.get(name, ["absent"])[:2], expected.get(name, ["absent"])
        if in_file != in_run:
            raise CheckpointError(f"{name} is {in_file}, this run's is {in_run}")


def _load(folder: Path, record: dict[str, Any], like: State) -> Restored:
    """Load a checkpoint; raises CheckpointError when a value is not what was saved."""
    try:
        state = _load_arrays(folder.absolute() / str(record["step"]), like)
    # A file that is missing or cut makes orbax and TensorStore raise errors of many
    # kinds, some of them a plain Exception.
    except Exception as error:
        reason = re.split(r"\n| \[tensorstore_spec", str(error))[0] or type(error).__name__
        raise CheckpointError(f"its arrays cannot be read ({reason})") from error
    for name, checksum in _checksums(state, "in the checkpoint").items():
        if checksum != record["arrays"][name][2]:
            raise CheckpointError(f"{name} is not what was saved (its checksum differs)")
    return Restored(record["step"], state, record["notes"])


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


def _seal(record: dict[str, Any]) -> str:
    """First 16 hex digits of the sha256 of a record's content."""
    return content_hash(record)[:16]


def _layouts(state: State) -> dict[str, list[str | list[int]]]:
    """Dtype and shape of every array by name, as JSON has them."""
    return {
        jax.tree_util.keystr(path): [str(leaf.dtype), list(leaf.shape)]
        for path, leaf in jax.tree.leaves_with_path(state)
    }


def _checksums(state: State, where: str) -> dict[str, str]:
    """The checksum of every array by name, 16 hex digits.

    An array's checksum is the sum modulo 2^64 of a hash of each (position, value). It
    does not depend on how the array is split: each process adds up its own elements, no
    array is gathered, and a checkpoint can be checked on any mesh. To change one value
    without changing the sum is impossible, because for every position the hash is a
    bijection of the value's bits.

    Raises NotFinite, with `where` in the message, when a value is NaN or infinite.
    """
    names, sums, finite = [], [], []
    for path, leaf in jax.tree.leaves_with_path(state):
        # Of the copies of a part that several devices hold, one is number 0.
        parts = [shard for shard in leaf.addressable_shards if shard.replica_id == 0]
        values = [np.asarray(shard.data) for shard in parts]
        starts = [tuple(axis.start or 0 for axis in shard.index) for shard in parts]
        names.append(jax.tree_util.keystr(path))
        finite.append(all(np.all(np.isfinite(part)) for part in values))
        part_sums = map(functools.partial(_checksum, leaf.shape), starts, values)
        sums.append(sum(part_sums) % 2**64)
    everywhere = np.all(distributed.gather(np.array(finite)), axis=0).tolist()
    for name, is_finite in zip(names, everywhere, strict=True):
        if not is_finite:
            raise NotFinite(f"{name} is not finite {where}")
    # As pairs of 32 bits, because JAX has no 64-bit integers by default.
    halves = distributed.gather(np.array(sums, np.uint64).view(np.uint32))
    totals = np.ascontiguousarray(halves).view(np.uint64).sum(0)
    return {name: f"{int(total):016x}" for name, total in zip(names, totals, strict=True)}


def _checksum(shape: tuple[int, ...], start: tuple[int, ...], part: np.ndarray) -> int:
    """What a part of an array adds to its checksum.

    `shape` is that of the whole array; the part begins at the index `start` in it.
    """
    # The position of an element in the whole array is a sum over its axes. The first
    # axis is kept apart, so that the array can be walked in blocks of rows.
    strides = [int(np.prod(shape[axis + 1 :])) for axis in range(len(shape))]
    axes = [
        (np.arange(size, dtype=np.uint64) + np.uint64(first)) * np.uint64(stride)
        for size, first, stride in zip(part.shape, start, strides, strict=True)
    ] or [np.zeros(1, np.uint64)]
    in_row = functools.reduce(np.add.outer, axes[1:], np.zeros((), np.uint64)).ravel()
    bits = np.ascontiguousarray(part).view(f"u{part.dtype.itemsize}")
    rows = bits.reshape(len(axes[0]), len(in_row))

    total, block = 0, max(1, CHECKSUM_BLOCK // max(1, len(in_row)))
    for row in range(0, len(rows), block):
        z = np.add.outer(axes[0][row : row + block], in_row)
        # The multiplier, and the three lines below, are those of the generator
        # SplitMix64 (Steele et al. 2014): a bijection of 64 bits that mixes them well.
        z *= np.uint64(0x9E3779B97F4A7C15)
        z ^= rows[row : row + block]
        z ^= z >> np.uint64(30)
        z *= np.uint64(0xBF58476D1CE4E5B9)
        z ^= z >> np.uint64(27)
        z *= np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
        total += int(z.sum())
    return total % 2**64
