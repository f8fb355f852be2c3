"""What a plan needs: device-hours, memory, disk and dollars."""

import functools
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, TypedDict

import numpy as np

from scalejax.config import Model, Run
from scalejax.fitting.reading.files import read_parquet
from scalejax.launch.seats import has_accelerator
from scalejax.model.flops import PEAK_FLOPS, training_flops
from scalejax.model.memory import device_bytes, state_bytes
from scalejax.study.cost import longest_chains, segment_flops
from scalejax.study.plan import Plan
from scalejax.study.plan_warnings import most_epochs
from scalejax.training.checkpoint import KEEP
from scalejax.training.status import cpu_model, read_status

# What is assumed where nothing was measured: FLOPs per second on one CPU core, on which
# the runs of the quickstart reach 6e9 to 15e9, and the share of an accelerator's peak.
CORE_FLOPS = 1e10
ASSUMED_MFU = 0.4
# An accelerator of unknown kind counts as the slowest one whose peak is known.
SLOWEST_PEAK = min(PEAK_FLOPS.values())

COLUMNS = ["status", "devices", "flops", "tokens", "wall_seconds", "run"]


class Resources(TypedDict):
    """What `scalejax plan --json` prints as `resources`."""

    device_hours: float
    """Hours of training, summed over devices. A CPU core counts as a device."""
    shortest_hours: float
    """Hours of the longest chain of trunks and runs: no number of devices is faster."""
    speed: str
    """Where the hours come from: `measured` or `assumed`, with what."""
    bytes_per_device: int
    """Estimated memory of the run that needs most: parameters, gradients, optimizer
    state and activations. `--topology` compiles the run and knows."""
    disk_bytes: int
    """Checkpoints that stay: at most two for every run and trunk."""
    epochs: float | None
    """The most that a run reads its data; None if no data is prepared yet."""
    dollars: float | None
    """At the price per device-hour; None without one."""


class Speed(NamedTuple):
    """Training speed of one device by the size of the model."""

    flops_per_token: np.ndarray
    """Training FLOPs per token of measured models, ascending, (models,)."""
    flops_per_second: np.ndarray
    """Median FLOPs per second and device of each of them, (models,)."""
    source: str

    def at(self, flops_per_token: float) -> float:
        """Return FLOPs per second and device for a model, interpolated between models.

        Small models are slower. Beyond the measured models, the nearest one counts.
        """
        known = np.log(self.flops_per_token)
        rates = np.log(self.flops_per_second)
        return float(np.exp(np.interp(np.log(flops_per_token), known, rates)))


def resources(
    plan: Plan, results: Path, *, device_kind: str | None = None, price: float | None = None
) -> Resources:
    """Estimate what a plan needs, from earlier runs on this kind of machine if any.

    results: the folder of all studies.
    device_kind: `jax.Device.device_kind` of the accelerator; None for this machine.
    price: dollars per device-hour.
    """
    placement = plan.study.placement
    devices = placement.devices
    speed = measured_speed(results, device_kind) or _assumed_speed(device_kind)

    # Thousands of runs have few models.
    rate = functools.cache(lambda model, length: speed.at(flops_per_token(model, length)))
    seconds = {
        segment.folder: segment_flops(segment)
        / rate(segment.run.model, segment.run.data.sequence_length)
        / devices
        for segment in plan.segments
    }
    chains = longest_chains(plan.segments, lambda segment: seconds[segment.folder])
    hours = devices * sum(seconds.values()) / 3600
    averages = len(plan.study.measure.averages)
    return {
        "device_hours": hours,
        "shortest_hours": max(chains.values()) / 3600,
        "speed": speed.source,
        "bytes_per_device": max(device_bytes(run, placement, averages) for run in _sizes(plan)),
        "disk_bytes": KEEP * sum(state_bytes(s.run, averages) for s in plan.segments),
        "epochs": most_epochs(plan.study) or None,
        "dollars": None if price is None else hours * price,
    }


def measured_speed(results: Path, device_kind: str | None) -> Speed | None:
    """Return the speed of finished runs on one kind of device; None without any.

    Compilation and evaluations are part of their time, as they will be of the plan's.
    """
    paths = sorted(results.glob("*/results.parquet"))
    if not paths:
        return None
    import pandas as pd

    tables = []
    for path in paths:
        try:
            table = read_parquet(path, COLUMNS)
        # A table that is damaged, or of an older version, measures nothing.
        except (OSError, ValueError):
            continue
        table = table.loc[(table["status"] == "done") & (table["wall_seconds"] > 0), :]
        if len(table) and _is_kind(path.parent, table.iloc[-1].to_dict(), device_kind):
            tables.append(table)
    if not tables:
        return None
    rows = pd.concat(tables)
    devices = rows["devices"].str.partition(" x ")[0].astype(int)
    rates = rows["flops"] / rows["wall_seconds"] / devices
    medians = rates.groupby(rows["flops"] / rows["tokens"]).median()
    kinds = ", ".join(sorted(set(rows["devices"].str.partition(" x ")[2])))
    return Speed(
        medians.index.to_numpy(float),
        medians.to_numpy(float),
        f"measured: {len(rows)} runs in {results} on {kinds}",
    )


def _sizes(plan: Plan) -> Iterable[Run]:
    """One run for each model and batch of a plan."""
    runs = [segment.run for segment in plan.segments]
    return {(run.model, run.batch_tokens): run for run in runs}.values()


def flops_per_token(model: Model, sequence_length: int) -> float:
    """Return the training FLOPs of a token."""
    return training_flops(model, sequence_length, sequence_length) / sequence_length


def _is_kind(study: Path, row: dict[str, str], device_kind: str | None) -> bool:
    """Whether a study was trained on this kind of device, judged by one of its runs."""
    kind = row["devices"].partition(" x ")[2]
    if device_kind is not None or has_accelerator():
        return kind == device_kind or (device_kind is None and kind != "cpu")
    try:
        status = read_status(study / "runs" / row["run"])
    except ValueError:
        return False
    # All CPUs are of the kind `cpu`; their names tell them apart.
    return kind == "cpu" and status is not None and status["placement"]["cpu"] == cpu_model()


def _assumed_speed(device_kind: str | None) -> Speed:
    if device_kind is None and not has_accelerator():
        rate, source = CORE_FLOPS, f"{CORE_FLOPS:.0e} FLOPs/s per CPU core"
    else:
        rate = ASSUMED_MFU * PEAK_FLOPS.get(device_kind or "", SLOWEST_PEAK)
        name = device_kind or "an accelerator like TPU v5 lite"
        source = f"{ASSUMED_MFU:.0%} of the peak of {name}"
    one = np.ones(1)
    return Speed(one, rate * one, f"assumed: {source}; no run of this kind has finished")
