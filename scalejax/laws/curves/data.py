"""Measured losses along training curves, checked and gathered for the whole-curve laws.

Shapes: [rows] one entry per measured loss; [steps] one per optimizer step of a curve.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from scalejax.laws.curves.rates import checked_rates


class CurveData(NamedTuple):
    """Losses measured along some curves; `curve_data` builds and checks it."""

    rates: tuple[Float[np.ndarray, " steps"], ...]
    """For every curve the learning rate of every step."""
    curve: Int[np.ndarray, " rows"]
    """Index of the curve in `rates`."""
    step: Int[np.ndarray, " rows"]
    """Step after which the loss was measured, counted from 0."""
    loss: Float[np.ndarray, " rows"]
    """Nats per token."""
    params: Float[np.ndarray, " rows"]
    """Parameters of the model; ones where no law reads them."""


def curve_data(
    rates: Sequence[ArrayLike],
    curve: ArrayLike,
    step: ArrayLike,
    loss: ArrayLike,
    params: ArrayLike | None = None,
) -> CurveData:
    """Check measured losses and gather them; drop curves without a measurement.

    rates: `rates[c]` holds the learning rate of every step of curve c. curve, step,
    loss: one entry per measurement, the loss in nats per token. params: parameters of
    the model, for a law that reads them; a curve has one size.

    Raises ValueError for a step beyond its schedule, a learning rate that is negative
    or not finite, a loss or a size that is not positive, a loss before the first
    positive learning rate, and two sizes in one curve.
    """
    curve, step, loss = np.asarray(curve, int), np.asarray(step), np.asarray(loss, float)
    params = np.ones(len(loss)) if params is None else np.asarray(params, float)
    if not len(loss):
        raise ValueError("no measured loss: a whole-curve law needs rows of (curve, step, loss)")
    # Curves are numbered anew, so that every index has rows.
    used, curve = np.unique(curve, return_inverse=True)
    checked = tuple(checked_rates(rates[c], f"schedule {c}") for c in used)
    _check_steps(checked, curve, step)
    _check_positive("losses", loss)
    _check_positive("params", params)
    _check_one_size(curve, params)
    # Indices must be integers; the check above allows steps such as 500.0 from a table.
    step = step.astype(int)
    _check_rate_before_loss(checked, curve, step)
    return CurveData(checked, curve, step, loss, params)


def weights_by_curve(curve: Int[np.ndarray, " rows"]) -> Float[np.ndarray, " rows"]:
    """Weights under which all curves count alike, however many losses each of them has.

    They sum to the number of rows.

    >>> weights_by_curve(np.array([0, 0, 0, 1])).round(2).tolist()
    [0.67, 0.67, 0.67, 2.0]
    """
    count = np.bincount(curve)
    return len(curve) / np.count_nonzero(count) / count[curve]


def _check_steps(rates: tuple[np.ndarray, ...], curve: np.ndarray, step: np.ndarray) -> None:
    if (invalid := (step != np.round(step)) | (step < 0)).any():
        raise ValueError(f"steps must be whole numbers from 0; got {step[invalid][0]}")
    lengths = np.array([len(r) for r in rates])
    if (beyond := step >= lengths[curve]).any():
        row = np.flatnonzero(beyond)[0]
        raise ValueError(
            f"step {step[row]} is beyond the {lengths[curve[row]]} steps of schedule {curve[row]}"
        )


def _check_positive(name: str, values: np.ndarray) -> None:
    valid = np.isfinite(values) & (values > 0)
    if not valid.all():
        raise ValueError(f"{name} must be positive and finite; got {values[~valid][0]}")


def _check_one_size(curve: np.ndarray, params: np.ndarray) -> None:
    for c in range(curve.max() + 1):
        if len(sizes := np.unique(params[curve == c])) > 1:
            raise ValueError(
                f"curve {c} has params {sizes[0]:g} and {sizes[1]:g}, "
                "but one curve must come from one model"
            )


def _check_rate_before_loss(
    rates: tuple[np.ndarray, ...], curve: np.ndarray, step: np.ndarray
) -> None:
    """The laws have a power of the summed learning rate, which must not be zero."""
    first = np.array([np.argmax(r > 0) for r in rates])
    if (early := step < first[curve]).any():
        row = np.flatnonzero(early)[0]
        raise ValueError(
            f"the learning rate of schedule {curve[row]} sums to zero up to step {step[row]}; "
            "the laws need a positive learning rate before the first loss"
        )
