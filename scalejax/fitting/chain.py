"""Two laws in a row: (params, tokens) -> loss -> top-1 error, with the errors of both carried to the end."""

from typing import Any

import numpy as np

from scalejax.fitting.parametric.evaluate import evaluate
from scalejax.fitting.parametric.result import ParametricFit
from scalejax.fitting.result import LEVEL, Estimate, Fit


def predict(loss_fit: Fit[Any], error_fit: Fit[Any], **inputs: float) -> Estimate:
    """The top-1 error that a run will measure, from a law of the loss and a law of error against loss (Gadre et al. 2024).

    value = Err(L(run)) at the best parameters. The 95% interval is the percentile range of Err_i(L_i(run) moved by r_j) moved by
    s_j over bootstrap draws i of the laws and residuals j of their rows, r of the loss and s of the error: the run's own loss
    will not lie on its law either, and the error follows the loss that it gets. Where both fits drew pairs of the same rows with
    the same seed, draw i and residual j are the same rows in both laws, which keeps what their errors share; otherwise they are
    combined at random. `method` says which.

    inputs: the loss law's own. Raises ValueError when the laws do not follow each other, or read different losses.
    """
    loss_fit, error_fit = _checked(loss_fit, error_fit)
    reached = loss_fit.estimate(**inputs)
    ended = error_fit.estimate(loss=reached.value)
    first, second = loss_fit.draws, error_fit.draws
    if not (first and second):
        return Estimate(ended.value, None, None, LEVEL, "no interval: both laws need bootstraps")
    for estimate in (reached, ended):
        if estimate.low is None:
            return estimate._replace(value=ended.value)
    r, s = loss_fit.residuals, error_fit.residuals
    paired = _together(loss_fit, error_fit)
    if paired:
        count = min(len(next(iter(x.values()))) for x in (first, second))
        i, j = np.arange(count)[:, None], np.arange(len(r))[None, :]
        first = {name: x[:count] for name, x in first.items()}
    else:
        rng = np.random.default_rng(error_fit.seed)
        size = (len(next(iter(first.values()))), len(r))
        i, j = (
            rng.integers(len(next(iter(second.values()))), size=size),
            rng.integers(len(s), size=size),
        )
    run = [np.array([float(inputs[name])]) for name in loss_fit.law.inputs]
    losses = loss_fit.measured(evaluate(loss_fit.law, first, run)[:, None], r)
    error = evaluate(error_fit.law, {name: x[i] for name, x in second.items()}, [losses])
    measured = error_fit.measured(error, s[j])
    low, high = np.nanpercentile(measured, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    how = "of the same rows in both laws" if paired else "of each law, independent"
    return Estimate(
        ended.value,
        float(low),
        float(high),
        LEVEL,
        f"{len(losses)} bootstrap draws {how} x {len(r)} residuals",
    )


def _together(first: ParametricFit, second: ParametricFit) -> bool:
    """Whether draw i of both fits stands for the same rows: pairs of the same rows, drawn with one seed, clustered alike."""
    alike = [(fit.rows, fit.seed, fit.clusters, fit.resample) for fit in (first, second)]
    return alike[0] == alike[1] and first.resample == "pairs"


def _checked(loss_fit: Fit[Any], error_fit: Fit[Any]) -> tuple[ParametricFit, ParametricFit]:
    names = f"{loss_fit.law.name} and {error_fit.law.name}"
    if (
        not isinstance(loss_fit, ParametricFit)
        or not isinstance(error_fit, ParametricFit)
        or loss_fit.law.target != "loss"
        or error_fit.law.inputs != ("loss",)
    ):
        raise ValueError(
            f"a chain is a law of the loss of one run and a law that reads the loss, such as downstream; got {names}"
        )
    read, wrote = error_fit.columns["loss"], loss_fit.columns["loss"]
    if read != wrote:
        raise ValueError(
            f"the {names} laws are chained by one loss: the first predicts {wrote!r}, the second reads {read!r}"
        )
    return loss_fit, error_fit
