"""The jobs of a study, in a file that every worker reads: jobs.json."""

import functools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from scalejax import __version__
from scalejax.files import read_json, write_json, wrong_field
from scalejax.training.segment import TrainingJob

JOBS = "jobs.json"


class Jobs(NamedTuple):
    """What there is to train in a study."""

    jobs: list[TrainingJob]
    """Jobs that may be trained now, those to start first at the top."""
    complete: bool
    """Whether these are all. Runs to forecast are added when the laws are fitted."""


def write_jobs(study: Path, jobs: Sequence[TrainingJob], later: Sequence[TrainingJob] = ()) -> None:
    """Write the jobs of a study.

    jobs: those that may be trained now, those to start first at the top.
    later: those that wait until the laws are fitted.
    """
    names = {job.segment.folder for job in jobs}
    records = {
        "jobs": [job.record() for job in jobs],
        "later": [job.record() for job in later if job.segment.folder not in names],
    }
    content = {"version": __version__, "complete": not records["later"], **records}
    write_json(study / JOBS, content)


def read_jobs(study: Path) -> Jobs:
    """Read the jobs that may be trained now.

    Workers call this again and again. Thousands of jobs take seconds to read, so they
    are read anew only when the file is another one.

    Raises ValueError when the folder has no jobs.
    """
    path = _find(study)
    # The file is replaced as a whole, by one with an inode and a time of its own.
    state = path.stat()
    jobs, complete = _jobs_of_file(path, state.st_ino, state.st_mtime_ns, state.st_size)
    return Jobs(list(jobs), complete)


@functools.lru_cache(maxsize=1)
def _jobs_of_file(path: Path, *state: int) -> tuple[tuple[TrainingJob, ...], bool]:
    """The jobs of a file in this state, and whether they are all."""
    content = _read(path)
    jobs = tuple(_parse(content, content["jobs"], path))
    return jobs, content["complete"]


def read_plan(study: Path) -> list[TrainingJob]:
    """Read all jobs of a study, with those that wait until the laws are fitted.

    Raises ValueError when the folder has no jobs.
    """
    path = _find(study)
    content = _read(path)
    records = content["jobs"] + content["later"]
    return _parse(content, records, path)


def _find(study: Path) -> Path:
    if not (study / JOBS).exists():
        raise ValueError(
            f"{study} is not the folder of a study with work to do: it has no {JOBS}; give "
            "OUT/<study>, and start `scalejax run` on the study first"
        )
    return study / JOBS


def _read(path: Path) -> dict[str, Any]:
    content = read_json(path)
    kinds = {"complete": bool, "jobs": list, "later": list}
    if wrong := wrong_field(content, kinds):
        raise ValueError(
            f"{path} is damaged: its field {wrong} is missing or has a value that it cannot have; "
            "`scalejax run` writes it again"
        )
    return content


def _parse(content: dict[str, Any], records: list[Any], path: Path) -> list[TrainingJob]:
    """The jobs in some of the records of a file with this content."""
    try:
        return [TrainingJob.from_record(record, path) for record in records]
    except ValueError as error:
        if (version := content.get("version")) == __version__:
            raise
        raise ValueError(
            f"{path} was written by scalejax {version or 'of an earlier version'}, and this is "
            f"scalejax {__version__}, which cannot read it; use one version for `scalejax run` and "
            f"its workers ({error})"
        ) from error


def in_order(jobs: Iterable[TrainingJob], priority: Mapping[str, float]) -> list[TrainingJob]:
    """Sort jobs by the priority of their segment's folder, the highest at the top.

    Jobs of equal priority keep their order.
    """
    return sorted(jobs, key=lambda job: -priority[job.segment.folder])
