"""Jobs with wrong types, cuts and paths: refused by the name of their file."""

import pytest

from scalejax.config import Placement
from scalejax.launch.jobs import read_plan, write_jobs
from scalejax.training.segment import Segment, TrainingJob
from tests.faults.mutations import mutate

SEEDS_PER_FILE = 200


@pytest.fixture
def job(tiny_run, tiny_measure):
    segment = Segment(run=tiny_run, start=3, stop=tiny_run.steps, parent=f"trunks/{'0' * 16}")
    return TrainingJob(segment=segment, study="made@1", measure=tiny_measure, placement=Placement())


@pytest.mark.parametrize("name", ["config.json", "jobs.json"])
def test_a_mutated_job_is_read_or_refused_but_never_a_traceback(name, job, tmp_path):
    job.write(tmp_path)
    write_jobs(tmp_path, [job], [job])
    path, refused = tmp_path / name, 0
    written = path.read_bytes()
    for seed in range(SEEDS_PER_FILE):
        path.write_bytes(written)
        change = mutate(path, seed)
        try:
            # A worker gets its folder, and whom to wait for, from the segment.
            for read in [TrainingJob.read(tmp_path), *read_plan(tmp_path)]:
                assert read.segment.folder and isinstance(read.segment.needs, str)
        except ValueError as error:
            refused += 1
            assert str(path) in str(error), f"seed {seed}: {change}: {error}"
        except Exception as error:
            pytest.fail(f"seed {seed}: {change}: {error!r}")
    assert refused > SEEDS_PER_FILE / 3


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("parent", "../../elsewhere", "its trunk is '../../elsewhere'"),
        ("start", -1, "steps -1 to"),
        ("stop", 10**6, "to 1000000 of a run of"),
        ("final", "yes", "its field final"),
        ("run", [], "its field run"),
    ],
)
def test_a_segment_that_no_plan_has_is_refused(field, value, message, job, tmp_path):
    record = job.record()
    record["segment"][field] = value
    with pytest.raises(ValueError, match=f"config.json holds no training job .*{message}"):
        TrainingJob.from_record(record, tmp_path / "config.json")
