"""How far a study is (mirrors scalejax/study/status.py)."""

import json
import time

import pytest

from scalejax.files import append_lines, write_json, write_text
from scalejax.grids import cooldowns, grid
from scalejax.launch import claims as claims_module
from scalejax.launch.claims import Claims
from scalejax.launch.jobs import write_jobs
from scalejax.optim.schedules import constant
from scalejax.study.plan import plan
from scalejax.study.status import StatusReader, is_over
from scalejax.study.study import Study
from scalejax.training.loop import train


@pytest.fixture
def planned(tiny_run):
    """A trunk with two cooldowns, and a run of its own."""
    base = tiny_run.replace(schedule=constant(warmup=640), tokens=6400)
    branches = cooldowns(base, at=[3200, 6400], fraction=0.2)
    return plan(Study("s@1", [*branches, tiny_run.replace(seed=1)]))


def reader(planned, folder):
    return StatusReader("s@1", folder, planned.segments)


def begin(folder, *rows):
    """Make the folder of a segment that was started and has logged rows."""
    folder.mkdir(parents=True)
    write_json(folder / "status.json", {"status": "running"})
    append_lines(folder / "metrics.jsonl", rows)


def row(step, seconds):
    losses = {"train_loss": 4.0 - step / 100, "learning_rate": 0.1}
    return {"step": step, "tokens": 64 * step, **losses, "seconds": seconds}


def states(status):
    return [run["state"] for run in status["runs"].values()]


def test_runs_wait_for_their_trunk_or_for_a_worker(planned, tmp_path):
    status = reader(planned, tmp_path).settle()
    assert states(status) == ["waiting-for-trunk", "waiting-for-trunk", "waiting"]
    assert status["flops_done"] == 0 and status["seconds_left"] is None
    assert not is_over(status)
    assert status["shared"]["learning_rate"] == 0.01
    assert status["runs"][planned.segments[-1].id]["settings"]["tokens"] == 3840


def test_a_run_reads_running_only_while_its_process_lives(planned, tmp_path):
    leaf = planned.segments[-1]
    begin(tmp_path / leaf.folder, row(20, 1.0), row(40, 2.0))
    look = reader(planned, tmp_path)
    assert look.settle()["runs"][leaf.id]["state"] == "stopped"
    with Claims(tmp_path).take(leaf.id) or pytest.fail("the segment is free"):
        run = look.settle()["runs"][leaf.id]
        assert run["state"] == "running" and run["worker"]
        assert (run["step"], run["steps"], run["loss"]) == (40, 60, pytest.approx(3.6))
        assert run["tokens_per_second"] == 64 * 20 and run["seconds_left"] == 1.0
        # The process that holds the claim is replaced by one that never lived.
        path = tmp_path / "claims" / f"{leaf.id}.json"
        content = json.loads(path.read_text())
        path.write_text(json.dumps(content | {"process": 2**30}))
        assert look.settle()["runs"][leaf.id]["state"] == "stopped"
        path.write_text(json.dumps(content))


def test_a_claim_of_another_machine_counts_when_its_heartbeat_is_seen_to_change(
    planned, tmp_path, monkeypatch
):
    monkeypatch.setattr(claims_module, "HEARTBEAT_SECONDS", 0.2)
    leaf = planned.segments[-1]
    begin(tmp_path / leaf.folder, row(20, 1.0))
    (tmp_path / "claims").mkdir()
    claim = {"host": "far", "process": 3, "machine": "other", "heartbeat": 0}
    write_json(tmp_path / "claims" / f"{leaf.id}.json", claim)
    look = reader(planned, tmp_path)
    status = look.settle()
    assert status["silent"] == {leaf.id: "far:3"}
    assert status["runs"][leaf.id]["state"] == "stopped"
    write_json(tmp_path / "claims" / f"{leaf.id}.json", claim | {"heartbeat": 1})
    run = look.read()["runs"][leaf.id]
    assert (run["state"], run["worker"]) == ("running", "far:3")


def test_the_trunk_says_what_its_branches_wait_for(planned, tmp_path):
    trunk, branch, *_ = planned.segments
    assert not trunk.final and branch.parent == trunk.folder
    begin(tmp_path / trunk.folder, row(20, 1.0))
    look = reader(planned, tmp_path)
    status = look.settle()
    assert status["runs"][branch.id]["state"] == "waiting-for-trunk"
    assert status["runs"][branch.id]["step"] == 20 and 0 < status["flops_done"] < 1
    write_json(tmp_path / trunk.folder / "failed.json", {"error": "ValueError: no data"})
    run = look.settle()["runs"][branch.id]
    assert (run["state"], run["error"]) == ("failed", "its trunk failed: ValueError: no data")
    (tmp_path / trunk.folder / "failed.json").unlink()
    write_json(tmp_path / trunk.folder / "status.json", {"status": "done"})
    write_text(tmp_path / trunk.folder / "DONE", "now\n")
    assert look.settle()["runs"][branch.id]["state"] == "waiting"


def test_a_run_that_is_done_has_its_held_out_loss(tiny_run, tiny_measure, tmp_path):
    planned = plan(Study("s@1", [tiny_run]))
    result = train(tiny_run, out=tmp_path / planned.segments[0].folder, measure=tiny_measure)
    status = reader(planned, tmp_path).settle()
    (run,) = status["runs"].values()
    assert (run["state"], run["step"], run["loss"]) == ("done", 60, result.loss)
    assert status["totals"] == {"done": 1} and status["flops_done"] == 1 and is_over(status)


def test_only_the_end_of_a_long_curve_is_read(tiny_run, tmp_path):
    planned = plan(Study("s@1", [tiny_run]))
    begin(tmp_path / planned.segments[0].folder, *(row(step, step) for step in range(1, 1000)))
    (run,) = reader(planned, tmp_path).read()["runs"].values()
    assert run["step"] == 999
    path = tmp_path / planned.segments[0].folder / "metrics.jsonl"
    path.write_bytes(path.read_bytes() + b'{"step": 1, "train_loss": "x"}\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl is damaged"):
        reader(planned, tmp_path).read()


def test_a_folder_is_enough(planned, tmp_path):
    jobs = planned.jobs(planned.study.runs)
    # In the order in which they start, which need not be that of the plan.
    (tmp_path / "s@1").mkdir()
    write_jobs(tmp_path / "s@1", jobs[::-1][:2], later=jobs)
    from_folder = StatusReader.of_folder(tmp_path / "s@1").read()
    from_plan = reader(planned, tmp_path / "s@1").read()
    assert from_folder["runs"] == from_plan["runs"] and from_folder["study"] == "s@1"


def test_a_status_takes_less_than_a_millisecond_a_run(tiny_run, tmp_path):
    planned = plan(Study("s@1", grid(tiny_run, seed=range(500))))
    for segment in planned.segments[:250]:
        begin(tmp_path / segment.folder, *(row(step, step) for step in range(1, 40)))
    started = time.process_time()
    status = reader(planned, tmp_path).read()
    assert time.process_time() - started < 0.5
    assert status["totals"] == {"stopped": 250, "waiting": 250}
