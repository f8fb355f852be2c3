"""What `plan` and `run` print."""

from typing import TYPE_CHECKING

from scalejax.cli.text.fit import fit_text
from scalejax.report.analysis import conclusion_text
from scalejax.report.summary import VERDICTS, count, coverage_text, forecast_interval

if TYPE_CHECKING:
    import pandas as pd

    from scalejax.config import Model
    from scalejax.report.ledger_lines import ScoredForecast
    from scalejax.study.plan import Plan
    from scalejax.study.resources import Resources
    from scalejax.study.run import StudyResult
    from scalejax.training.segment import Segment

GB = 1e9


def plan_text(plan: "Plan") -> str:
    """A plan: runs and FLOPs by model size, what sharing trunks saves, warnings."""
    summary = plan.summary()
    runs, trunks = count(summary["runs"], "run"), count(summary["trunks"], "shared trunk")
    lines = [f"{summary['study']}: {runs}, {trunks}, {len(plan.study.forecast)} to forecast"]
    by_model: dict[Model, list[Segment]] = {}
    for segment in plan.segments:
        by_model.setdefault(segment.run.model, []).append(segment)
    for model, segments in by_model.items():
        budgets = [segment.run.tokens for segment in segments if segment.final]
        tokens = ", ".join(f"{budget:.3g}" for budget in sorted(set(budgets)))
        lines.append(
            f"  width {model.width}, depth {model.depth}: {count(len(budgets), 'run')} of "
            f"{tokens} tokens; {plan.flops_of(segments):.3g} FLOPs"
        )
    lines.append(cost_text(plan))
    lines += [f"warning: {warning}" for warning in summary["warnings"]]
    return "\n".join(lines)


def cost_text(plan: "Plan") -> str:
    """The FLOPs of a plan, and what sharing trunks saves."""
    return (
        f"{plan.flops:.3g} FLOPs, {plan.saved_fraction:.0%} less than the "
        f"{plan.flops_separate:.3g} FLOPs of training every run separately"
    )


def resources_text(needs: "Resources", *, compiled: bool = False) -> str:
    """What a plan needs: time, memory, disk, passes over the data, dollars.

    compiled: whether the step was compiled. Its memory is then known, and printed with
    its topology, and an estimate for the study's own placement would contradict it.
    """
    dollars = "" if needs["dollars"] is None else f", {needs['dollars']:,.2f} dollars"
    memory, disk = needs["bytes_per_device"] / GB, needs["disk_bytes"] / GB
    estimate = "" if compiled else f"about {memory:.2g} GB of memory per device, "
    epochs = "" if needs["epochs"] is None else f", {needs['epochs']:.3g} passes over the data"
    return (
        f"about {_hours(needs['device_hours'])} of one device{dollars}, at least "
        f"{_hours(needs['shortest_hours'])} on many ({needs['speed']})\n"
        f"{estimate}up to {disk:.2g} GB of checkpoints{epochs}"
    )


def _hours(hours: float) -> str:
    return f"{hours:,.1f} hours" if hours >= 1 else f"{60 * hours:.1f} minutes"


def study_text(result: "StudyResult") -> str:
    """The result of a study.

    Runs, laws with intervals and verdicts, forecasts beside what was measured, the
    cost, failures, and where the report is.
    """
    paragraphs = [_runs_line(result)]
    paragraphs += [
        f"{fit_text(fit)}\n  verdict {fit.verdict}: {VERDICTS[fit.verdict]}"
        for fit in result.fits.values()
    ]
    paragraphs += [f"law {law} was not fitted: {why}" for law, why in result.unfitted.items()]
    paragraphs.append("\n".join(map(_forecast_line, result.forecasts)))
    if result.analysis:
        paragraphs.append("\n".join(map(conclusion_text, result.analysis.conclusions)))
    if result.no_analysis:
        paragraphs.append(f"the analysis could not be made: {result.no_analysis}")
    last = [cost_text(result.plan)]
    last += [f"failed: {folder}: {error}" for folder, error in result.training.failed.items()]
    if result.report:
        last.append(f"report: {result.report}")
    paragraphs.append("\n".join(last))
    return "\n\n".join(filter(None, paragraphs))


def stopped_text(result: "StudyResult") -> str:
    """What a study prints when a signal stopped it."""
    return f"stopped; every run is saved in {result.folder}: the same command continues from there"


def _runs_line(result: "StudyResult") -> str:
    line = f"{result.plan.study.name}: {_counts(result.table)}"
    before = result.training.runs_already_done
    return line + (f"; {before} of them were done before this command" if before else "")


def _counts(table: "pd.DataFrame | None") -> str:
    if table is None or not len(table):
        return "no run has finished"
    diverged = list(table["status"]).count("diverged")
    done = f"{count(len(table) - diverged, 'run')} done"
    return f"{done}, {diverged} diverged (left out of the fits)" if diverged else done


def _forecast_line(scored: "ScoredForecast") -> str:
    forecast, score = scored
    line = (
        f"forecast of {forecast['metric']} by {forecast['law']}: "
        f"{forecast['value']:.3f} {forecast_interval(forecast, 3)}"
    )
    if score is None:
        return f"{line}; not measured yet (run {forecast['run']})"
    coverage = coverage_text(forecast, score["inside"])
    return f"{line}; measured {score['measured']:.3f}, {coverage}, error {score['error']:+.3f}"
