"""What a study's most expensive run needs on accelerators that are not at hand."""

import json
import os
import re
import subprocess
import tempfile
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from math import gcd
from pathlib import Path
from typing import Any, TypedDict

from scalejax.config import Placement, Run
from scalejax.config.placement import check_placement
from scalejax.files import write_json
from scalejax.grids import as_dict, run_id
from scalejax.model.flops import training_flops
from scalejax.study.cost import run_flops
from scalejax.study.study import Study
from scalejax.study.topology.chips import Topology
from scalejax.study.topology.program import Collective, collectives

PACKAGE_ROOT = Path(__file__).parents[3]
# Where `make aot` installs the compilers: in the checkout.
AOT_FOLDER = ".venv-aot"

# Parameters are gathered over at most this many devices by default. On a larger slice
# the batch is also split over replicas: a gather over all chips has more latency.
MAX_FSDP = 64

# A change to the placement that saves memory is tried only if it compiles; this many
# compilations are enough to tell the user what works.
MAX_REMEDIES = 3


# How a compiled program names the kernels of scalejax.model.fused_attention.
KERNELS = ('custom_call_target="tpu_custom_call"', "__cudnn$fmha")


class TopologyReport(TypedDict):
    """What `scalejax plan --topology` reports, per device and step."""

    name: str
    devices: int
    run: str
    """Id of the run whose step was compiled: the most expensive one."""
    mesh: dict[str, int]
    """Sizes of the axes data, fsdp and tensor."""
    placement: dict[str, Any]
    """The other fields of the placement that matter for memory."""
    fits: bool | None
    """None if the step could not be compiled for another reason than memory."""
    bytes_per_device: int | None
    temporary_bytes_per_device: int | None
    """The part of `bytes_per_device` that is neither state nor program."""
    capacity_bytes: int
    flops_per_device: int
    """Training FLOPs by the `exact` convention, recomputation not counted."""
    fused_attention: bool | None
    """Whether the step has the attention kernel of the chip; see
    `scalejax.model.fused_attention`."""
    collectives: dict[str, Collective]
    step_seconds: float | None
    """A lower bound: the longest of computing, reading memory and communicating, each
    at the chip's peak and overlapped with the others."""
    bound: str | None
    """Which of them it is: `compute`, `memory` or `network`."""
    mfu: float | None
    """Model FLOPs utilization at `step_seconds`: an upper bound."""
    compile_seconds: float | None
    error: str | None
    """Why the step could not be compiled."""
    advice: list[str]
    """What to change if it does not fit; every change was compiled."""


@dataclass(frozen=True, kw_only=True)
class CompiledStep:
    """What compile_step.py found, per device; only `error` counts if there is one."""

    seconds: float | None = None
    error: str | None = None
    argument_bytes: int = 0
    output_bytes: int = 0
    alias_bytes: int = 0
    temporary_bytes: int = 0
    code_bytes: int = 0
    flops: float = 0.0
    bytes_accessed: float = 0.0
    fused_attention: bool | None = None
    collectives: dict[str, Collective] = field(default_factory=dict)


def topology_report(study: Study, topology: Topology) -> TopologyReport:
    """Compile the step of the study's most expensive run, and say whether it fits.

    If it does not fit, changes to the placement that save memory are compiled too,
    until one fits.

    Raises ValueError if the study's placement has another number of devices, or if the
    compilers are not installed.
    """
    run = max([*study.runs, *study.forecast], key=run_flops)
    placement = placement_on(topology, run, study.placement)
    report = _report(run, topology, placement, compile_for(run, topology, placement))
    if report["fits"] is not False:
        return report
    for remedy in _remedies(run, placement):
        tried = _report(run, topology, remedy, compile_for(run, topology, remedy))
        report["advice"].append(_advice(placement, remedy, tried))
        if tried["fits"]:
            break
    return report


def placement_on(topology: Topology, run: Run, given: Placement) -> Placement:
    """Return the study's placement, or a default mesh if it is for a single device.

    By default fsdp splits the batch over up to 64 devices and data over the rest; what
    is left when the batch is too small goes to tensor.
    """
    devices = topology.devices
    used = given.devices
    if used not in (1, devices):
        raise ValueError(
            f"Study.placement uses data {given.data} x fsdp {given.fsdp} x tensor "
            f"{given.tensor} = {used} devices, but {topology.name} has {devices}; change the "
            "placement, or leave these fields out for a default mesh"
        )
    if used > 1:
        check_placement(run, given)
        return given
    parts = gcd(run.first_batch_sequences // given.accumulate, devices)
    fsdp = gcd(parts, MAX_FSDP)
    mesh = replace(given, data=parts // fsdp, fsdp=fsdp, tensor=devices // parts)
    try:
        check_placement(run, mesh)
    except ValueError as error:
        raise ValueError(
            f"the {devices} devices of {topology.name} have no default mesh for this run: {parts} "
            f"of them divide its batch of {run.first_batch_sequences} sequences, which leaves data "
            f"{mesh.data} x fsdp {mesh.fsdp} x tensor {mesh.tensor}, and {error}. Choose another "
            "topology or batch size, or set Study.placement"
        ) from None
    return mesh


def compile_for(run: Run, topology: Topology, placement: Placement) -> CompiledStep:
    """Compile the run's step in a child process."""
    python = aot_python()
    with tempfile.TemporaryDirectory() as scratch:
        request, result, program = (Path(scratch) / name for name in ("in.json", "out.json", "hlo"))
        content = {
            "run": as_dict(run),
            "placement": as_dict(placement),
            "topology": topology.compiler_options,
        }
        write_json(request, content)
        module = "scalejax.study.topology.compile_step"
        done = subprocess.run(
            [python, "-m", module, request, result, program],
            env=_environment(topology),
            capture_output=True,
            text=True,
        )
        if not result.exists():
            # The compiler ended the process: its last words say why.
            words = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
            return CompiledStep(error=words[0])
        compiled = CompiledStep(**json.loads(result.read_text()))
        if compiled.error is not None:
            return compiled
        text = program.read_text()
        fused = any(name in text for name in KERNELS)
        return replace(compiled, fused_attention=fused, collectives=collectives(text))


def aot_python() -> Path:
    """Return the interpreter that has the compilers.

    Raises ValueError if they are not installed.
    """
    for folder in (Path.cwd(), PACKAGE_ROOT):
        python = folder / AOT_FOLDER / "bin" / "python"
        if python.exists():
            return python
    raise ValueError(
        f"--topology needs the compilers of accelerators, and there is no {AOT_FOLDER} in "
        f"{Path.cwd()} or {PACKAGE_ROOT}; run `make aot` in the checkout (about 1 GB)"
    )


def _environment(topology: Topology) -> dict[str, str]:
    """Return the environment of the child process.

    libtpu would look for TPUs and ask Google Cloud about this machine. The variables
    answer in its place. It also lets one process at a time use the TPUs, of which there
    are none here: several plans may compile at once. For GPUs, XLA measures which tiles
    a matmul of Triton needs; where it cannot, it finds none for some shapes, and the
    matmuls of cuBLAS take their place.
    """
    left_out = ("XLA_FLAGS", "JAX_COMPILATION_CACHE_DIR")
    kept = {name: value for name, value in os.environ.items() if name not in left_out}
    kept |= {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(PACKAGE_ROOT)}
    if topology.chip.platform == "cuda":
        return kept | {"XLA_FLAGS": "--xla_gpu_enable_triton_gemm=false"}
    suffix = {"v5e": "v5litepod", "v5p": "v5p", "v6e": "v6e"}[topology.name.split(":")[0]]
    return kept | {
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
        "TPU_ACCELERATOR_TYPE": f"{suffix}-{topology.devices}",
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_WORKER_HOSTNAMES": "localhost",
    }


def _report(
    run: Run, topology: Topology, placement: Placement, compiled: CompiledStep
) -> TopologyReport:
    chip = topology.chip
    tokens = run.batch_tokens
    flops = training_flops(run.model, run.data.sequence_length, tokens) // topology.devices
    report: TopologyReport = {
        "name": topology.name,
        "devices": topology.devices,
        "run": run_id(run),
        "mesh": {"data": placement.data, "fsdp": placement.fsdp, "tensor": placement.tensor},
        "placement": {name: getattr(placement, name) for name in ("accumulate", "remat")},
        "fits": None,
        "bytes_per_device": None,
        "temporary_bytes_per_device": None,
        "capacity_bytes": chip.memory_bytes,
        "flops_per_device": flops,
        "fused_attention": compiled.fused_attention,
        "collectives": compiled.collectives,
        "step_seconds": None,
        "bound": None,
        "mfu": None,
        "compile_seconds": compiled.seconds,
        "error": compiled.error,
        "advice": [],
    }
    if report["error"] is not None:
        # XLA refuses a program that needs more memory than the chip has, and says so.
        if used := _bytes_used(report["error"]):
            report["fits"], report["bytes_per_device"] = False, used
        # What follows the first line describes the compiler, not the run.
        report["error"] = textwrap.shorten(report["error"].partition("\n")[0], 300)
        return report
    temporary = compiled.temporary_bytes
    # Outputs that reuse the buffer of an argument need no memory of their own.
    needed = compiled.argument_bytes + compiled.output_bytes - compiled.alias_bytes
    needed += temporary + compiled.code_bytes
    report["fits"] = needed <= chip.memory_bytes
    report["bytes_per_device"] = needed
    report["temporary_bytes_per_device"] = temporary
    seconds = _roofline(topology, flops, placement, compiled)
    bound = max(seconds, key=lambda name: seconds[name])
    report["step_seconds"], report["bound"] = seconds[bound], bound
    report["mfu"] = flops / chip.peak_flops / seconds[bound]
    return report


def _roofline(
    topology: Topology, flops: int, placement: Placement, compiled: CompiledStep
) -> dict[str, float]:
    """Return the seconds of a step for computing, reading memory and communicating."""
    chip = topology.chip
    # With remat the backward pass, two thirds of the FLOPs, repeats the forward pass.
    executed = flops * (4 / 3 if placement.remat == "block" else 1.0)
    # A reduced array travels twice: to where it is reduced, and back.
    moved = sum(
        row["bytes"] * (2 if kind == "all-reduce" else 1)
        for kind, row in compiled.collectives.items()
    )
    return {
        "compute": max(executed, compiled.flops) / chip.peak_flops,
        # XLA counts the inside of a loop once, and for GPUs nothing: too few, so that
        # this, too, bounds the time from below.
        "memory": compiled.bytes_accessed / chip.memory_bandwidth,
        "network": moved / topology.link_bandwidth,
    }


def _bytes_used(error: str) -> int | None:
    """Return the bytes that a program needs, from XLA's refusal, or None."""
    used = re.search(r"Used ([\d.]+)([KMGT]?) of [\d.]+[KMGT]? hbm", error)
    return int(float(used[1]) * 1024 ** " KMGT".index(used[2] or " ")) if used else None


def _remedies(run: Run, placement: Placement) -> Iterator[Placement]:
    """Yield placements that need less memory, those that cost the least time first."""
    per_device = run.first_batch_sequences // (placement.data * placement.fsdp)
    # Micro-batches as they are, of a quarter of the sequences, and of a single one.
    counts = (placement.accumulate, 4 * placement.accumulate, per_device)
    candidates = [
        replace(placement, remat="block", accumulate=accumulate)
        for accumulate in counts
        if per_device % accumulate == 0
    ]
    # Dictionaries keep their order, so that this leaves repeated placements out.
    different = [one for one in dict.fromkeys(candidates) if one != placement]
    yield from different[:MAX_REMEDIES]


def _advice(placement: Placement, remedy: Placement, tried: TopologyReport) -> str:
    """Say what a change to the placement does, as one sentence."""
    names = [name for name, value in as_dict(remedy).items() if getattr(placement, name) != value]
    change = ", ".join(f"{name}={getattr(remedy, name)!r}" for name in names)
    if tried["bytes_per_device"] is None:
        return f"Placement({change}) cannot be compiled: {tried['error']}"
    needs = f"needs {tried['bytes_per_device'] / 2**30:.1f} GiB per device"
    verdict = "fits" if tried["fits"] else "does not fit"
    return f"Placement({change}) {needs} and {verdict}"
