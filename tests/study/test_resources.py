"""What a plan needs (mirrors scalejax/study/resources.py)."""

import math

import numpy as np
import pandas as pd
import pytest

from scalejax.config import Measure, Model, Placement
from scalejax.files import write_json
from scalejax.grids import cooldowns
from scalejax.model.memory import state_bytes
from scalejax.optim.schedules import constant
from scalejax.study.cost import segment_flops
from scalejax.study.plan import plan
from scalejax.study.resources import (
    CORE_FLOPS,
    Speed,
    flops_per_token,
    measured_speed,
    resources,
)
from scalejax.study.study import Study
from scalejax.training.status import environment, utc_now


@pytest.fixture
def planned(tiny_run):
    base = tiny_run.replace(schedule=constant(warmup=640), tokens=64_000)
    return plan(Study("s@1", cooldowns(base, at=[32_000, 64_000], fraction=0.2)))


def finished(folder, run, *, flops_per_second, cpu=None, devices="1 x cpu"):
    """Write the files of a study with one finished run of some speed."""
    (segment,) = plan(Study("old@1", [run])).segments
    row = {"run": segment.id, "status": "done", "devices": devices, "tokens": run.tokens_read}
    row |= {"flops": segment_flops(segment)}
    row |= {"wall_seconds": row["flops"] / flops_per_second}
    (folder / "old@1" / segment.folder).mkdir(parents=True, exist_ok=True)
    pd.DataFrame([row]).to_parquet(folder / "old@1" / "results.parquet")
    where = environment(Placement()) | ({} if cpu is None else {"cpu": cpu})
    status = {"started": utc_now(), "placement": where, "placement_changed": False}
    status |= {"data_hash": "", "saved": 0, "status": "done"}
    write_json(folder / "old@1" / segment.folder / "status.json", status)


def test_without_results_the_hours_are_assumed_and_say_so(planned, tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    needs = resources(planned, tmp_path, price=3.0)
    assert needs["device_hours"] == pytest.approx(planned.flops / CORE_FLOPS / 3600)
    assert needs["speed"].startswith("assumed: 1e+10 FLOPs/s per CPU core")
    assert needs["dollars"] == pytest.approx(3 * needs["device_hours"])
    # The longer branch follows the trunk; the shorter one is trained beside it.
    assert 0 < needs["shortest_hours"] < needs["device_hours"]
    assert resources(planned, tmp_path)["dollars"] is None


def test_finished_runs_on_this_kind_of_machine_say_how_long_it_takes(
    planned, tiny_run, tmp_path, monkeypatch
):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    finished(tmp_path, tiny_run, flops_per_second=2e9)
    needs = resources(planned, tmp_path)
    assert needs["device_hours"] == pytest.approx(planned.flops / 2e9 / 3600)
    assert needs["speed"] == f"measured: 1 runs in {tmp_path} on cpu"
    # A run on another CPU, or on an accelerator, measures nothing here.
    finished(tmp_path, tiny_run, flops_per_second=2e9, cpu="another CPU")
    assert resources(planned, tmp_path)["speed"].startswith("assumed")
    finished(tmp_path, tiny_run, flops_per_second=2e9, devices="8 x TPU v5 lite")
    assert resources(planned, tmp_path)["speed"].startswith("assumed")
    speed = measured_speed(tmp_path, "TPU v5 lite")
    assert speed and speed.at(1e4) == pytest.approx(2e9 / 8)


def test_the_speed_of_a_model_lies_between_those_of_its_neighbours(tiny_run, tmp_path):
    models = [Model.sized(width=w, depth=1, head_size=8, vocabulary=32) for w in (8, 16, 64)]
    small, middle, large = (flops_per_token(model, 16) for model in models)
    speed = Speed(np.array([small, large]), np.array([1e9, 1e10]), "")
    share = math.log(middle / small) / math.log(large / small)
    assert speed.at(middle) == pytest.approx(1e9 * 10**share)


def test_memory_falls_with_the_parts_of_a_mesh_and_disk_counts_every_segment(tiny_run, tmp_path):
    def needs(placement, **measure):
        study = Study("s@1", [tiny_run], placement=placement, measure=Measure(**measure))
        return resources(plan(study), tmp_path)

    one, two = needs(Placement()), needs(Placement(fsdp=2))
    assert two["bytes_per_device"] == pytest.approx(one["bytes_per_device"] / 2, rel=0.01)
    assert two["device_hours"] == one["device_hours"] == 2 * two["shortest_hours"]
    assert needs(Placement(remat="block"))["bytes_per_device"] < one["bytes_per_device"]
    assert one["disk_bytes"] == 2 * state_bytes(tiny_run, 0)
