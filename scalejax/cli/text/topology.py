"""What `plan --topology` prints."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scalejax.study.topology.report import TopologyReport

GIB = 2**30
WHAT_BOUNDS = {
    "compute": "computing",
    "memory": "reading memory",
    "network": "communicating",
}


def topology_text(report: "TopologyReport") -> str:
    """Return the report as text: memory, collectives, a bound on the speed, advice."""
    mesh = " x ".join(f"{axis} {size}" for axis, size in report["mesh"].items())
    lines = [f"{report['name']}: run {report['run']} on {report['devices']} devices, {mesh}"]
    lines.append(f"  {_memory_line(report)}")
    if report["fused_attention"] is not None:
        kernel = "the chip's fused kernel" if report["fused_attention"] else "blocks of queries"
        lines.append(f"  attention by {kernel}")
    for kind, row in sorted(report["collectives"].items()):
        lines.append(f"  {row['count']} x {kind}: {row['bytes'] / 1e6:,.1f} MB per step and device")
    lines.append(f"  {report['flops_per_device']:.3g} FLOPs per step and device")
    if report["step_seconds"] is not None and report["bound"] is not None:
        lines.append(
            f"  at least {report['step_seconds']:.3g} s per step, bound by "
            f"{WHAT_BOUNDS[report['bound']]}; MFU at most {report['mfu']:.0%}"
        )
    return "\n".join([*lines, *(f"  tried: {advice}" for advice in report["advice"])])


def _memory_line(report: "TopologyReport") -> str:
    capacity = f"{report['capacity_bytes'] / GIB:.1f} GiB"
    if report["bytes_per_device"] is None:
        return f"cannot be compiled: {report['error']}"
    needed = f"needs {report['bytes_per_device'] / GIB:.2f} GiB of {capacity} per device"
    temporary = report["temporary_bytes_per_device"]
    part = "" if temporary is None else f" ({temporary / GIB:.2f} GiB of it temporary)"
    return f"{needed}{part}: {'fits' if report['fits'] else 'does not fit'}"
