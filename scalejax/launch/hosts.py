"""Train one segment with many processes, on one host or on many.

    srun -N2 -n2 python -m scalejax.launch.hosts FOLDER

FOLDER is the segment's folder in a study, with a config.json that `TrainingJob.write`
wrote; every process must see it. Process 0 claims the segment, as a worker does. How
the processes find each other is described in training/distributed.py. Exit codes are
those of the command line: 75 asks for another start, which continues from the last
checkpoint.
"""

import contextlib
import os
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

from scalejax.files import fenced
from scalejax.launch.attempt import forget_failure
from scalejax.launch.claims import HEARTBEAT_SECONDS, STALE_SECONDS, ClaimLost, Claims

# How long to wait for a claim: it may be that of an earlier start, whose process 0 was
# lost together with its machine.
WAIT_SECONDS = STALE_SECONDS + 2 * HEARTBEAT_SECONDS
LOOK_AGAIN_SECONDS = 2.0

DONE, FAILED, BAD_INPUT, RUN_AGAIN = 0, 1, 2, 75


def main() -> None:
    """Train the segment, and end this process with an exit code."""
    try:
        code = _train(_folder(sys.argv[1:]))
    # Whatever the error is, this process must not stay: the others wait for it.
    except Exception as error:
        if lost := _lost_peer(error):
            print(
                f"error: another process of this run has stopped ({lost}). Start all of them "
                "again: training continues from the last checkpoint.",
                file=sys.stderr,
            )
            code = RUN_AGAIN
        elif isinstance(error, ValueError):
            print(f"error: {error}", file=sys.stderr)
            code = BAD_INPUT
        else:
            traceback.print_exc()
            code = FAILED
    sys.stdout.flush()
    sys.stderr.flush()
    if code != DONE:
        # Not sys.exit: JAX would wait at exit for processes that may be dead.
        os._exit(code)


def _folder(arguments: list[str]) -> Path:
    """Return the folder that is trained; raises ValueError when there is none."""
    if len(arguments) != 1 or not Path(arguments[0], "config.json").is_file():
        raise ValueError(
            "give the folder of one run, OUT/<study>/runs/<id>, with the config.json that "
            f"`scalejax run` wrote; got {' '.join(arguments) or 'nothing'}"
        )
    return Path(arguments[0])


def _train(folder: Path) -> int:
    # Not at the top of the file: processes are connected before JAX sees its devices.
    from scalejax.training import distributed
    from scalejax.training.segment import TrainingJob

    job = TrainingJob.read(folder)
    # A segment lies in STUDY/runs/ID or STUDY/trunks/ID.
    study = folder.absolute().parent.parent
    parent = study / job.segment.parent if job.segment.parent else None
    if job.segment.needs and not (study / job.segment.needs / "DONE").exists():
        raise ValueError(
            f"{folder} begins from {study / job.segment.needs}, which is not finished; train that "
            "one first"
        )
    distributed.connect()
    from scalejax.training.loop import Preempted, train_segment

    try:
        with _claimed(study, folder.name):
            # It may have failed before, which workers remember.
            if distributed.is_main():
                forget_failure(folder)
            train_segment(job, folder, parent)
    # When process 0 ends, JAX ends the others.
    except (Preempted, ClaimLost) as error:
        print(error, file=sys.stderr)
        return RUN_AGAIN
    return DONE


@contextlib.contextmanager
def _claimed(study: Path, segment: str) -> Iterator[None]:
    """Hold the claim of a segment in process 0, and let no process begin without it.

    Raises ClaimLost on every process when the claim of another job does not end within
    WAIT_SECONDS.
    """
    from scalejax.training import distributed

    claims, waiting_since = Claims(study), time.monotonic()
    has_waited = False
    while True:
        claim = claims.take(segment) if distributed.is_main() else None
        is_late = time.monotonic() - waiting_since > WAIT_SECONDS
        # Every process does what process 0 has found, by its clock.
        is_taken, is_late = distributed.from_main([claim is not None, is_late])
        if is_taken:
            break
        if is_late:
            raise ClaimLost(
                f"another process trains {segment} (see {claims.folder}); start this one again "
                "when that one has ended"
            )
        if distributed.is_main() and not has_waited:
            has_waited = True
            print(f"waiting: another process trains {segment}", file=sys.stderr, flush=True)
        time.sleep(LOOK_AGAIN_SECONDS)
    if claim is None:
        yield
    else:
        with claim, fenced(claim.check):
            yield


def _lost_peer(error: Exception) -> str:
    """What JAX says about a process that is gone; empty when the error is another one.

    A collective fails with a JaxRuntimeError when a process that takes part in it has
    died. So does a program that needs too much memory, which would fail again. On CPUs,
    where Gloo does the communication, jax may raise a ValueError instead.
    """
    import jax

    text = str(error).splitlines()[0] if str(error) else ""
    ours = text.startswith(("RESOURCE_EXHAUSTED", "INVALID_ARGUMENT"))
    is_jax = isinstance(error, jax.errors.JaxRuntimeError) or text.startswith("UNKNOWN: Gloo")
    return text if is_jax and not ours else ""


if __name__ == "__main__":
    main()
