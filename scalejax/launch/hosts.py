"""Train one segment with many processes, on one host or on many.

    srun -N2 -n2 python -m scalejax.launch.hosts FOLDER

FOLDER is the segment's folder in a study, with a config.json that `TrainingJob.write`
wrote; every process must see it. How the processes find each other is described in
training/distributed.py. Exit codes are those of the command line: 75 asks for another
start, which continues from the last checkpoint.
"""

import os
import sys
import traceback
from pathlib import Path

DONE, FAILED, BAD_INPUT, RUN_AGAIN = 0, 1, 2, 75


def main() -> None:
    """Train the segment, and end this process with an exit code."""
    try:
        code = _train(Path(sys.argv[1]))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        code = BAD_INPUT
    # Whatever the error is, this process must not stay: the others wait for it.
    except Exception as error:
        if lost := _lost_peer(error):
            print(
                f"error: another process of this run has stopped ({lost}). Start all of them "
                "again: training continues from the last checkpoint.",
                file=sys.stderr,
            )
        else:
            traceback.print_exc()
        code = RUN_AGAIN if lost else FAILED
    sys.stdout.flush()
    sys.stderr.flush()
    if code != DONE:
        # Not sys.exit: JAX would wait at exit for processes that may be dead.
        os._exit(code)


def _train(folder: Path) -> int:
    # Not at the top of the file: processes are connected before JAX sees its devices.
    from scalejax.training import distributed

    distributed.connect()
    from scalejax.training.loop import Preempted, train_segment
    from scalejax.training.segment import TrainingJob

    job = TrainingJob.read(folder)
    # A segment lies in STUDY/runs/ID or STUDY/trunks/ID.
    parent = folder.parent.parent / job.segment.parent if job.segment.parent else None
    try:
        train_segment(job, folder, parent)
    except Preempted as error:
        print(error, file=sys.stderr)
        return RUN_AGAIN
    return DONE


def _lost_peer(error: Exception) -> str:
    """What JAX says about a process that is gone; empty when the error is another one.

    A collective fails with a JaxRuntimeError when a process that takes part in it has
    died. So does a program that needs too much memory, which would fail again.
    """
    import jax

    text = str(error).splitlines()[0] if str(error) else ""
    ours = text.startswith(("RESOURCE_EXHAUSTED", "INVALID_ARGUMENT"))
    return text if isinstance(error, jax.errors.JaxRuntimeError) and not ours else ""


if __name__ == "__main__":
    main()
