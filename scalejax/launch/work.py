"""A worker on a shared study folder: it takes what is free until nothing is left."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from scalejax.launch.attempt import Companions, attempt, failure, is_ready
from scalejax.launch.claims import Claims
from scalejax.launch.jobs import read_jobs
from scalejax.training.result import is_finished
from scalejax.training.segment import TrainingJob

# How long to wait when all that is left is being trained by others.
LOOK_AGAIN_SECONDS = 2.0

# How long to wait for the runs to forecast, which a study adds when its laws are
# fitted. When nobody is there to fit them, workers must not wait for ever.
FITTING_SECONDS = 120.0


@dataclass
class WorkResult:
    """What one worker did in a study."""

    trained: list[str] = field(default_factory=list)
    """Folders of the segments that it finished, relative to the study's."""
    failed: dict[str, str] = field(default_factory=dict)
    """Error message of every segment that failed, here or in another process, by the
    segment's folder."""
    preempted: bool = False
    """Whether it was asked to stop before nothing was left."""


def work(study: Path, *, say: Callable[[str], None], stopping: Callable[[], bool]) -> WorkResult:
    """Train segments of a study until every one is finished or has failed.

    Any number of processes may call this on one folder, on any machines that see it. A
    segment whose process died is taken over and continues from its last checkpoint.

    say: called with a line of text when a segment begins or ends. stopping: when it
    returns True, the state is saved, the claim released and the result `preempted`.

    Raises ValueError when the folder is not one of a study, and when the files that its
    runs name or the devices that they need are not here: another worker may have them.
    """
    claims, result, idle_since = Claims(study), WorkResult(), time.monotonic()
    companions = Companions(claims, study)
    while not result.preempted:
        # Read anew each time: a study adds its forecast runs when its laws are fitted.
        jobs, complete = read_jobs(study)
        left = [job for job in jobs if _is_left(job, study, result)]
        if left:
            idle_since = time.monotonic()
        elif complete or time.monotonic() - idle_since > FITTING_SECONDS:
            return result
        before = len(result.trained) + len(result.failed)
        for job in left:
            if is_ready(job.segment, study) and not result.preempted:
                _train(job, study, claims, companions, result, say, stopping)
        if before == len(result.trained) + len(result.failed):
            time.sleep(LOOK_AGAIN_SECONDS)
        result.preempted |= stopping()
    return result


def _is_left(job: TrainingJob, study: Path, result: WorkResult) -> bool:
    """Whether a segment is still to be trained, by this process or another one."""
    segment = job.segment
    if segment.needs in result.failed:
        result.failed.setdefault(segment.folder, f"{segment.needs}, from which it begins, failed")
    elif error := failure(study / segment.folder):
        result.failed[segment.folder] = error
    return segment.folder not in result.failed and not is_finished(job, study / segment.folder)


def _train(
    job: TrainingJob,
    study: Path,
    claims: Claims,
    companions: Companions,
    result: WorkResult,
    say: Callable[[str], None],
    stopping: Callable[[], bool],
) -> None:
    folder = study / job.segment.folder
    # Another worker may have finished it since the list was made.
    if is_finished(job, folder):
        return
    _check_machine(job)
    job.write(folder)
    event = attempt(
        claims,
        folder,
        report=lambda step, loss: None,
        stopping=stopping,
        companions=companions,
    )
    if event.kind == "done":
        for finished in [job.segment.folder, *event.others]:
            result.trained.append(finished)
            say(f"{finished} done")
    elif event.kind == "failed":
        result.failed[job.segment.folder] = event.error
        say(f"{job.segment.folder} failed: {event.error}")
    elif event.kind == "preempted":
        result.preempted = True


def _check_machine(job: TrainingJob) -> None:
    """Raise ValueError unless this machine has the files and the devices of a job.

    A segment that fails here would be tried by no other worker either.
    """
    # Not at the top of the file: a process is pinned before jax is imported.
    from scalejax.training.loop import check_files
    from scalejax.training.sharding import make_mesh

    try:
        check_files(job)
        make_mesh(job.placement)
    except ValueError as error:
        raise ValueError(
            f"this worker cannot train {job.segment.folder}: {error}. The segment is left to "
            "others; start workers in the folder of the command `scalejax run`, where relative "
            "paths hold, and on machines that see the data and have the devices"
        ) from error
