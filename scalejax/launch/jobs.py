"""The jobs of a study, in a file that every worker reads: jobs.json."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from scalejax.files import read_json, write_json
from scalejax.training.segment import TrainingJob

JOBS = "jobs.json"


class Jobs(NamedTuple):
    """What there is to train in a study."""

    jobs: list[TrainingJob]
    """Jobs that may be trained now, those to start first at the top."""
    complete: bool
    """Whether these are all. Runs to forecast are added when the laws are fitted."""


def write_jobs(study: Path, jobs: Sequence[TrainingJob], *, complete: bool) -> None:
    """Write the jobs of a study; see `Jobs`."""
    records = [job.record() for job in jobs]
    write_json(study / JOBS, {"complete": complete, "jobs": records})


def read_jobs(study: Path) -> Jobs:
    """Read what `write_jobs` wrote.

    Raises ValueError when the folder has no jobs.
    """
    if not (study / JOBS).exists():
        raise ValueError(
            f"{study} is not the folder of a study with work to do: it has no {JOBS}; give "
            "OUT/<study>, and start `scalejax run` on the study first"
        )
    content = read_json(study / JOBS)
    jobs = [TrainingJob.from_record(record) for record in content["jobs"]]
    return Jobs(jobs, content["complete"])


def in_order(jobs: Iterable[TrainingJob], priority: Mapping[str, float]) -> list[TrainingJob]:
    """Sort jobs by the priority of their segment's folder, the highest at the top.

    Jobs of equal priority keep their order.
    """
    return sorted(jobs, key=lambda job: -priority[job.segment.folder])
