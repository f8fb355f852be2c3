"""An attempt of one process to train one segment of a study."""

import contextlib
import math
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from scalejax.files import fenced, read_json, write_json
from scalejax.launch.claims import Claim, ClaimLost, Claims
from scalejax.launch.events import Event
from scalejax.launch.jobs import JOBS, read_jobs
from scalejax.training.segment import Segment, TrainingJob

if TYPE_CHECKING:
    from scalejax.training.loops.population import Task

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
    companions: "Companions | None" = None,
) -> Event:
    """Claim the segment in `folder`, train it, and return how that ended.

    The folder is STUDY/runs/ID or STUDY/trunks/ID and holds a config.json; the claims
    are those of the study. report, stopping: as for `train_segment`. companions: finds
    segments to train in one population with it.
    """
    # Not at the top of the file: a process is pinned before jax is imported.
    from scalejax.training.loop import Preempted, train_segment
    from scalejax.training.result import is_finished

    try:
        claim = claims.take(folder.name)
        if claim is None:
            return Event(kind="claimed")
        with claim, fenced(claim.check):
            job = TrainingJob.read(folder)
            # Between the caller's look and the claim, its owner may have finished it.
            if is_finished(job, folder):
                return Event(kind="claimed")
            if companions and (others := companions.train(job, claim, report, stopping)):
                return Event(kind="done", others=others)
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


class Companions:
    """Trains a segment in a population with others of its study, where that is wanted.

    `Placement.population` says whether it is.
    """

    def __init__(self, claims: Claims, study: Path, workers: int = 1):
        """Find companions among the segments of a study.

        workers: the number of workers that take from them; each leaves the others their
        share.
        """
        self._claims, self._study, self._workers = claims, study, workers
        # What segments that could not be trained together have in common.
        self._refused: set[tuple[object, ...]] = set()

    def train(
        self,
        job: TrainingJob,
        claim: Claim,
        report: Callable[[int, float], None],
        stopping: Callable[[], bool],
    ) -> list[str]:
        """Train a segment with others; return their folders, or [] if there are none.

        claim: that of the segment. When the population cannot be trained, because it
        needs too much memory or something is wrong with one member, nothing is returned
        either: the segments are then trained one by one, so that an error becomes that
        of its own segment.
        """
        from scalejax.training.loop import Preempted
        from scalejax.training.loops.population import program_key, train_population

        with contextlib.ExitStack() as held:
            others, claims = [], [claim]
            for other, other_claim in self._take(job):
                claims.append(held.enter_context(other_claim))
                others.append(other)
            if not others:
                return []
            tasks = [self._task(member) for member in [job, *others]]

            def check() -> None:
                for one in claims:
                    one.check()

            def report_first(segment: Segment, step: int, loss: float) -> None:
                if segment == job.segment:
                    report(step, loss)

            with fenced(check):
                try:
                    for other in others:
                        other.write(self._study / other.segment.folder)
                    train_population(tasks, report=report_first, stopping=stopping)
                except (Preempted, ClaimLost):
                    raise
                except Exception:
                    check()
                    traceback.print_exc()
                    self._refused.add(program_key(job))
                    return []
            return [other.segment.folder for other in others]

    def _take(self, job: TrainingJob) -> Iterator[tuple[TrainingJob, Claim]]:
        """Claim companions of a segment."""
        from scalejax.training.loops.population import largest_population, program_key

        key, largest = program_key(job), largest_population(job)
        if largest == 1 or key in self._refused or not (self._study / JOBS).exists():
            return
        free = [
            other
            for other in read_jobs(self._study).jobs
            if other.segment.id != job.segment.id
            and program_key(other) == key
            and self._is_free(other)
        ]
        share = math.ceil((1 + len(free)) / self._workers)
        left = min(largest, share) - 1
        for other in free:
            if left < 1:
                return
            if (claim := self._claims.take(other.segment.id)) is not None:
                # Between the look and the claim, its owner may have finished it.
                if self._is_free(other):
                    left -= 1
                    yield other, claim
                else:
                    claim.release()

    def _task(self, job: TrainingJob) -> "Task":
        from scalejax.training.loops.population import Task

        parent = self._study / job.segment.parent if job.segment.parent else None
        return Task(job, self._study / job.segment.folder, parent)

    def _is_free(self, job: TrainingJob) -> bool:
        """Whether a segment can be trained now, as far as its files say."""
        if not is_ready(job.segment, self._study):
            return False
        folder = self._study / job.segment.folder
        return not (folder / "DONE").exists() and failure(folder) is None


def is_ready(segment: Segment, study: Path) -> bool:
    """Whether the trunk of a segment, or the run that it begins from, is done."""
    return not segment.needs or (study / segment.needs / "DONE").exists()


def record_failure(folder: Path, error: str) -> None:
    """Tell all processes that the segment in a folder has failed."""
    # The error may be that of a folder that is gone, or of a full disk.
    with contextlib.suppress(OSError):
        write_json(folder / FAILED, {"error": error})


def failure(folder: Path) -> str | None:
    """Return the error of the last attempt in a segment's folder, None without one."""
    path = folder / FAILED
    return str(read_json(path).get("error", f"{path} is damaged")) if path.exists() else None


def forget_failure(folder: Path) -> None:
    """Let the segment in a folder be tried again."""
    (folder / FAILED).unlink(missing_ok=True)
