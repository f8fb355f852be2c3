"""What `plan`, `run` and `status` print."""

from collections import Counter
from pathlib import Path
from typing import Any

from scalejax.cli.fit_text import fit_text
from scalejax.report.summary import VERDICTS, bounds, where
from scalejax.study.plan import Plan, segment_flops
from scalejax.study.results import run_state
from scalejax.study.run import Conclusion


def plan_text(plan: Plan) -> str:
    """The plan on one screen: segments by size, FLOPs, what shared prefixes save, warnings."""
    summary = plan.summary()
    lines = [
        f"{plan.study.name}: {summary['runs']} runs, {summary['trunks']} shared trunks, {len(plan.study.forecast)} to forecast"
    ]
    sizes: dict[Any, list[Any]] = {}
    for segment in plan.segments:
        sizes.setdefault(segment.run.model, []).append(segment)
    for model, segments in sizes.items():
        runs = [segment.run for segment in segments if segment.final]
        budgets = ", ".join(f"{tokens:.3g}" for tokens in sorted({run.tokens for run in runs}))
        flops = sum(segment_flops(segment) for segment in segments)
        lines.append(
            f"  width {model.width}, depth {model.depth}: {len(runs)} runs, tokens {budgets}; {flops:.3g} FLOPs"
        )
    lines.append(flops_text(plan))
    return "\n".join([*lines, *(f"warning: {warning}" for warning in summary["warnings"])])


def flops_text(plan: Plan) -> str:
    """What sharing prefixes saves."""
    return f"{plan.flops:.3g} FLOPs, {plan.saved:.0%} less than the {plan.flops_separate:.3g} of runs trained one by one"


def conclusion_text(conclusion: Conclusion) -> str:
    """What a study came to: laws with intervals and verdicts, forecasts beside what was measured, FLOPs saved, the report."""
    table = conclusion.table
    found = conclusion.outcome.found
    lines = [
        f"{conclusion.plan.study.name}: {_counts(table)}"
        + (f"; {found} of them before this call" if found else "")
    ]
    for made in conclusion.fits.values():
        lines += ["", fit_text(made), f"  verdict {made.verdict}: {VERDICTS[made.verdict]}"]
    lines += [
        f"\nlaw {name} was not fitted: {reason}" for name, reason in conclusion.unfitted.items()
    ]
    lines += [""] + [_forecast_line(forecast) for forecast in conclusion.forecasts]
    lines.append(flops_text(conclusion.plan))
    lines += [f"failed: {folder}: {error}" for folder, error in conclusion.outcome.failed.items()]
    if conclusion.report:
        lines.append(f"report: {conclusion.report}")
    return "\n".join(lines)


def status(plan: Plan, folder: Path) -> dict[str, Any]:
    """What `scalejax status --json` prints: the study, its folder, how many runs are in each state, and each run's state."""
    runs = {
        segment.id: run_state(folder / segment.folder) for segment in plan.segments if segment.final
    }
    totals = Counter(state["status"] for state in runs.values())
    return {"study": plan.study.name, "folder": str(folder), "totals": dict(totals), "runs": runs}


def status_text(state: dict[str, Any]) -> str:
    """One line per run."""
    totals = ", ".join(f"{count} {name}" for name, count in state["totals"].items())
    lines = [f"{state['study']} in {state['folder']}: {totals}"]
    for name, run in state["runs"].items():
        loss = "" if run["loss"] is None else f", loss {run['loss']:.4f}"
        lines.append(f"  {name}  {run['status']}, step {run['step']}{loss}")
    return "\n".join(lines)


def _counts(table: Any) -> str:
    if table is None or not len(table):
        return "no finished run"
    diverged = int((table["status"] == "diverged").sum())
    return f"{len(table) - diverged} runs done" + (
        f", {diverged} diverged (left out of the fits)" if diverged else ""
    )


def _forecast_line(forecast: dict[str, Any]) -> str:
    head = f"forecast of {forecast['metric']} by {forecast['law']}: {forecast['value']:.3f}{bounds(forecast, 3)}"
    if "measured" not in forecast:
        return f"{head}; not measured yet (run {forecast['run']})"
    return f"{head}; measured {forecast['measured']:.3f}, {where(forecast)}, error {forecast['error']:+.3f}"
