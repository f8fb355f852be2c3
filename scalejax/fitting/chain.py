"""Two laws in a row, (params, tokens) -> loss -> top-1 error, with both errors."""

from typing import Any, NamedTuple

import numpy as np

from scalejax.fitting.parametric.evaluate import evaluate
from scalejax.fitting.parametric.result import ParametricFit
from scalejax.fitting.result import LEVEL, Estimate, Fit


def predict(loss_fit: Fit[Any], error_fit: Fit[Any], **inputs: float) -> Estimate:
    """Predict the top-1 error that a run will measure (Gadre et al. 2024).

    loss_fit: of a law of the loss. error_fit: of a law of error against loss. inputs:
    those of the loss law.

    The value is Err(L(run)) at the best parameters. Its 95% interval carries the errors
    of both laws. The loss of a run deviates from the law of the loss by a residual. Its
    error follows this loss, and deviates from the law of the error by another residual.
    The interval is the percentile range over bootstrap draws of both laws and residuals
    of both.

    If both fits drew pairs of the same rows with the same seed, draw i of both laws is
    of the same rows, and so is residual j. This keeps the errors that the laws share.
    Otherwise draws and residuals are combined at random. `method` of the result says
    which.

    Raises ValueError when one law does not follow the other, or they read different
    losses.
    """
    loss_fit, error_fit = _checked(loss_fit, error_fit)
    loss = loss_fit.estimate(**inputs)
    error = error_fit.estimate(loss=loss.value)
    distance = [*loss_fit.extrapolation(inputs), *error_fit.extrapolation({"loss": loss.value})]
    if not (loss_fit.draws and error_fit.draws):
        missing = [one for one in (loss_fit, error_fit) if not one.draws]
        why = [f"of the {one.law.name} law, {one.no_draws}" for one in missing]
        method = "; ".join(["no interval: both laws need bootstraps", *why, *distance])
        return Estimate(error.value, None, None, LEVEL, method)
    # Where one of the laws bounds nothing (the method says why), the chain does not
    # either.
    for estimate in (loss, error):
        if estimate.low is None:
            return estimate._replace(value=error.value)

    same_rows = _drew_the_same_rows(loss_fit, error_fit)
    measured = _measured_errors(loss_fit, error_fit, inputs, same_rows)
    low, high = np.nanpercentile(measured, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    how = "of the same rows in both laws" if same_rows else "of each law, independent"
    method = f"{len(measured)} bootstrap draws {how} x {len(loss_fit.residuals)} residuals"
    return Estimate(error.value, float(low), float(high), LEVEL, "; ".join([method, *distance]))


def measured_errors(loss_fit: Fit[Any], error_fit: Fit[Any], **inputs: float) -> np.ndarray:
    """Return draws of the error that a run will measure, (draws, residuals).

    Their percentiles are the interval of `predict`. Without bootstraps of both laws
    there are none, (0, 0).
    """
    loss_fit, error_fit = _checked(loss_fit, error_fit)
    if not (loss_fit.draws and error_fit.draws):
        return np.zeros((0, 0))
    same_rows = _drew_the_same_rows(loss_fit, error_fit)
    return _measured_errors(loss_fit, error_fit, inputs, same_rows)


def _measured_errors(
    loss_fit: ParametricFit, error_fit: ParametricFit, inputs: dict[str, float], same_rows: bool
) -> np.ndarray:
    """Draws of the error, with draws and residuals of the two laws in pairs or not."""
    pairs = _paired(loss_fit, error_fit) if same_rows else _at_random(loss_fit, error_fit)
    run = [np.array([float(inputs[name])]) for name in loss_fit.law.inputs]
    # One loss per draw, (draws, 1), deviates by each residual, (draws, residuals).
    # Every one of these losses has an error, which deviates by a residual of its own.
    predicted = evaluate(loss_fit.law, pairs.loss_draws, run)[:, None]
    losses = loss_fit.measured(predicted, loss_fit.residuals)
    errors = evaluate(error_fit.law, pairs.error_draws, [losses])
    return error_fit.measured(errors, pairs.error_residuals)


class _Pairs(NamedTuple):
    """Draws and residuals of the error law for each one of the loss law."""

    loss_draws: dict[str, np.ndarray]
    """Parameters of the loss law, (draws,) each."""
    error_draws: dict[str, np.ndarray]
    """Parameters of the error law, each of a shape that broadcasts to (draws,
    residuals)."""
    error_residuals: np.ndarray
    """Residuals of the error law, of a shape that broadcasts to (draws, residuals)."""


def _paired(loss_fit: ParametricFit, error_fit: ParametricFit) -> _Pairs:
    """Pairs draw i with draw i, and residual j with residual j."""
    # The fits may have different numbers of draws; the first ones are of the same rows.
    count = min(_number_of_draws(fit) for fit in (loss_fit, error_fit))
    loss_draws = {name: values[:count] for name, values in loss_fit.draws.items()}
    error_draws = {name: values[:count, None] for name, values in error_fit.draws.items()}
    return _Pairs(loss_draws, error_draws, error_fit.residuals[None, : len(loss_fit.residuals)])


def _at_random(loss_fit: ParametricFit, error_fit: ParametricFit) -> _Pairs:
    """Combine each draw and residual of the loss law with random ones."""
    rng = np.random.default_rng(error_fit.seed)
    size = (_number_of_draws(loss_fit), len(loss_fit.residuals))
    draw = rng.integers(_number_of_draws(error_fit), size=size)
    residual = rng.integers(len(error_fit.residuals), size=size)
    error_draws = {name: values[draw] for name, values in error_fit.draws.items()}
    return _Pairs(loss_fit.draws, error_draws, error_fit.residuals[residual])


def _number_of_draws(fit: ParametricFit) -> int:
    return len(next(iter(fit.draws.values())))


def _drew_the_same_rows(first: ParametricFit, second: ParametricFit) -> bool:
    """Whether both fits drew the same rows: pairs, with the same seed."""
    same = [(fit.rows, fit.seed, fit.clusters, fit.resample) for fit in (first, second)]
    return same[0] == same[1] and first.resample == "pairs"


def _checked(loss_fit: Fit[Any], error_fit: Fit[Any]) -> tuple[ParametricFit, ParametricFit]:
    names = f"{loss_fit.law.name} and {error_fit.law.name}"
    if (
        not isinstance(loss_fit, ParametricFit)
        or not isinstance(error_fit, ParametricFit)
        or loss_fit.law.target != "loss"
        or error_fit.law.inputs != ("loss",)
    ):
        raise ValueError(
            f"got the laws {names}; expected a law of a run's loss, and a law that reads the "
            "loss, such as downstream"
        )
    reads, predicts = error_fit.columns["loss"], loss_fit.columns["loss"]
    if reads != predicts:
        raise ValueError(
            f"the {names} laws must share one loss; the first predicts {predicts!r}, "
            f"the second reads {reads!r}"
        )
    return loss_fit, error_fit
