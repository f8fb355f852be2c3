"""The jobs of a study, in a file that every worker reads: jobs.json."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

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
    write_json(study / JOBS, {"complete": not records["later"], **records})


def read_jobs(study: Path) -> Jobs:
    """Read the jobs that may be trained now.

    Raises ValueError when the folder has no jobs.
    """
    content = _read(study)
    jobs = [TrainingJob.from_record(record, study / JOBS) for record in content["jobs"]]
    return Jobs(jobs, content["complete"])


def read_plan(study: Path) -> list[TrainingJob]:
    """Read all jobs of a study, with those that wait until the laws are fitted.

    Raises ValueError when the folder has no jobs.
    """
    content = _read(study)
    records = content["jobs"] + content["later"]
    return [TrainingJob.from_record(record, study / JOBS) for record in records]


def _read(study: Path) -> dict[str, Any]:
    if not (study / JOBS).exists():
        raise ValueError(
            f"{study} is not the folder of a study with work to do: it has no {JOBS}; give "
            "OUT/<study>, and start `scalejax run` on the study first"
        )
    path = study / JOBS
    content = read_json(path)
    kinds = {"complete": bool, "jobs": list, "later": list}
    if wrong := wrong_field(content, kinds):
        raise ValueError(
            f"{path} is damaged: its field {wrong} is missing or has a value that it cannot have; "
            "`scalejax run` writes it again"
        )
    return content


def in_order(jobs: Iterable[TrainingJob], priority: Mapping[str, float]) -> list[TrainingJob]:
    """Sort jobs by the priority of their segment's folder, the highest at the top.

    Jobs of equal priority keep their order.
    """
    return sorted(jobs, key=lambda job: -priority[job.segment.folder])
