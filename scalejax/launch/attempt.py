"""An attempt of one process to train one segment of a study."""

import contextlib
import traceback
from collections.abc import Callable
from pathlib import Path

from scalejax.files import fenced, read_json, write_json
from scalejax.launch.claims import ClaimLost, Claims
from scalejax.launch.events import Event

# The file in a segment's folder that says why the last attempt failed.
FAILED = "failed.json"


def import_training() -> None:
    """Import what the first attempt needs, which takes seconds, before it is due."""
    import orbax.checkpoint

    import scalejax.training.loop

    del orbax, scalejax


def attempt(
    claims: Claims,
    folder: Path,
    *,
    report: Callable[[int, float], None],
    stopping: Callable[[], bool],
) -> Event:
    """Claim the segment in `folder`, train it, and return how that ended.

    The folder is STUDY/runs/ID or STUDY/trunks/ID and holds a config.json; the claims
    are those of the study. report, stopping: as for `train_segment`.
    """
    # Not at the top of the file: a process is pinned before jax is imported.
    from scalejax.training.loop import Preempted, train_segment
    from scalejax.training.result import is_finished
    from scalejax.training.segment import TrainingJob

    try:
        claim = claims.take(folder.name)
        if claim is None:
            return Event(kind="claimed")
        with claim, fenced(claim.check):
            job = TrainingJob.read(folder)
            # Between the caller's look and the claim, its owner may have finished it.
            if is_finished(job, folder):
                return Event(kind="claimed")
            parent = folder.parent.parent / job.segment.parent if job.segment.parent else None
            try:
                train_segment(job, folder, parent, report=report, stopping=stopping)
            except (Preempted, ClaimLost):
                raise
            except Exception:
                # A process that was paused fails when the new owner of the segment has
                # removed what it reads. That is no failure of the segment.
                claim.check()
                raise
    except Preempted:
        return Event(kind="preempted")
    except ClaimLost:
        return Event(kind="claimed")
    # Whatever went wrong, the other runs go on. The file tells all processes of it.
    except Exception as error:
        traceback.print_exc()
        text = f"{type(error).__name__}: {error}"
        record_failure(folder, text)
        return Event(kind="failed", error=text)
    return Event(kind="done")


def record_failure(folder: Path, error: str) -> None:
    """Tell all processes that the segment in a folder has failed."""
    # The error may be that of a folder that is gone, or of a full disk.
    with contextlib.suppress(OSError):
        write_json(folder / FAILED, {"error": error})


def failure(folder: Path) -> str | None:
    """Return the error of the last attempt in a segment's folder, None without one."""
    path = folder / FAILED
    return read_json(path)["error"] if path.exists() else None


def forget_failure(folder: Path) -> None:
    """Let the segment in a folder be tried again."""
    (folder / FAILED).unlink(missing_ok=True)
