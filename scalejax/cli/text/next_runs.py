"""What `plan --next` prints."""

from typing import TYPE_CHECKING

from scalejax.fitting.display import tables

if TYPE_CHECKING:
    from scalejax.study.next_runs import NextRuns


def next_runs_text(proposal: "NextRuns") -> str:
    """The proposed runs with their costs, and what they do for each forecast."""
    head = ["width", "depth", "params", "tokens", "seed", "further FLOPs"]
    cells = [
        [
            str(run["width"]),
            str(run["depth"]),
            f"{run['params_with_head']:.3g}",
            f"{run['tokens']:.3g}",
            str(run["seed"]),
            f"{run['flops']:.3g}",
        ]
        for run in proposal.summary()["runs"]
    ]
    lines = [
        f"next, by the {proposal.law} law: {len(cells)} runs, {sum(proposal.flops):.3g} of "
        f"{proposal.budget:.3g} FLOPs; branches of one trunk count as correlated by "
        f"{proposal.correlation:.2f}",
        tables.plain(head, cells),
    ]
    lines += [
        f"forecast of {one.run}, {one.value:.4f}: expected width of its 95% interval "
        f"{one.before:.4f} -> {one.after:.4f}"
        for one in proposal.forecasts
    ]
    return "\n".join([*lines, *(f"note: {reason}" for reason in proposal.reasons)])
