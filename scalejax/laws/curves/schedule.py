"""The learning-rate schedule that is best under a whole-curve law.

Shapes: [steps] one entry per optimizer step; [knots] one per interval between two
knots.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from scalejax.laws.curves.forms import CurveFormula, FittedCurves, curve_law
from scalejax.laws.curves.rates import checked_rates

# The softmax parameters stay in this range: a share outside of it is zero in effect,
# and the gradient would be too.
SOFTMAX_BOUNDS = (-30, 30)

# A schedule leaves the range of the fitted curves when it exceeds it by this fraction.
RANGE_TOLERANCE = 1e-3


class BestSchedule(NamedTuple):
    """A schedule that minimizes the predicted final loss."""

    learning_rates: Float[np.ndarray, " steps"]
    loss: float
    """Predicted loss after the last step, nats per token."""
    reasons: tuple[str, ...]
    """Where the schedule leaves the range of the curves that the law was fitted to."""


def best_schedule(
    fit: CurveFormula | FittedCurves,
    *,
    steps: int,
    peak: float,
    floor: float,
    warmup: int = 0,
    knots: int = 64,
    seen: Sequence[ArrayLike] = (),
    params: float | None = None,
) -> BestSchedule:
    """Find the learning rates that minimize the predicted final loss.

    The schedule is a linear warm-up, after which the learning rate never rises and
    never falls below the floor. It is piecewise linear between `knots` + 1 equidistant
    knots, and L-BFGS chooses the drops with gradients through the law.

    fit: a law or a fit, and params: the size of the model, both as in `predict_curve`.
    steps, warmup: counts of steps. peak, floor: learning rates. The floor has no
    default, because the annealing law is linear in S2 and asks for ever more annealing.
    seen: the learning rates of the curves that the law was fitted to, one array per
    curve.

    Warns where the schedule leaves the range of `seen`: in its learning rates, its
    number of steps or its summed rate.

    Raises ValueError unless 0 < floor < peak and warmup + knots < steps.
    """
    # Takes a second to import on a slow machine, which other laws need not pay.
    import scipy.optimize

    if not 0 < floor < peak:
        raise ValueError(f"best_schedule needs 0 < floor < peak; got floor={floor}, peak={peak}")
    if not 0 <= warmup < steps - knots:
        raise ValueError(
            "best_schedule needs 0 <= warmup and warmup + knots < steps; "
            f"got warmup={warmup}, knots={knots}, steps={steps}"
        )
    schedule = _parametrized(steps, peak, floor, warmup, knots)
    with jax.enable_x64(True):
        law = curve_law(fit, params)
        final_loss = jax.jit(jax.value_and_grad(lambda z: law.loss(schedule(z))[-1]))
        result = scipy.optimize.minimize(
            lambda z: [np.asarray(x) for x in final_loss(z)],
            # With all logits zero the decay is linear and ends just above the floor.
            np.zeros(knots + 1),
            jac=True,
            method="L-BFGS-B",
            bounds=[SOFTMAX_BOUNDS] * (knots + 1),
        )
        rates = np.asarray(schedule(jnp.asarray(result.x)))
    reasons = _extrapolations(rates, [checked_rates(curve) for curve in seen])
    for reason in reasons:
        warnings.warn(reason, stacklevel=2)
    return BestSchedule(rates, float(result.fun), reasons)


def _parametrized(
    steps: int, peak: float, floor: float, warmup: int, knots: int
) -> Callable[[jax.Array], jax.Array]:
    """Map unconstrained parameters (knots + 1,) to a schedule (steps,).

    The parameters are the logits of a softmax whose shares are positive and sum to one.
    The first `knots` shares are what the rate drops by between two knots, as a fraction
    of peak - floor; the last is what it never drops by. The schedule thus falls
    monotonically and stays above the floor without any constraint.
    """
    position = np.linspace(0, knots, steps - warmup)
    warmup_rates = peak * np.arange(1, warmup + 1) / (warmup + 1)

    def schedule(z):
        dropped = jnp.concatenate([jnp.zeros(1), jnp.cumsum(jax.nn.softmax(z))[:-1]])
        dropped_at_step = jnp.interp(position, np.arange(knots + 1), dropped)
        return jnp.concatenate([jnp.asarray(warmup_rates), peak - (peak - floor) * dropped_at_step])

    return schedule


def _extrapolations(
    rates: Float[np.ndarray, " steps"], curves: list[Float[np.ndarray, " steps_of_curve"]]
) -> tuple[str, ...]:
    """Where a schedule leaves the range of the fitted curves, in words."""
    if not curves:
        return (
            "best_schedule cannot tell where the law extrapolates; pass the learning rates of "
            "the fitted curves as `seen`",
        )
    above, below = 1 + RANGE_TOLERANCE, 1 - RANGE_TOLERANCE
    # The rise of the warm-up does not count: it goes through every low rate.
    lowest = min(curve[np.argmax(curve) :].min() for curve in curves)
    reasons = []
    if rates[-1] < below * lowest:
        reasons.append(
            f"the last rate {rates[-1]:.3g} is below {lowest:.3g}, the lowest after the peak"
        )
    if rates.max() > above * max(curve.max() for curve in curves):
        reasons.append(f"the peak {rates.max():.3g} is above every peak")
    if len(rates) > max(map(len, curves)):
        reasons.append(f"the {len(rates)} steps are more than those of the longest")
    if rates.sum() > above * max(curve.sum() for curve in curves):
        reasons.append(f"the summed rate {rates.sum():.3g} is above the largest")
    return tuple(
        f"the law extrapolates: {reason} of the curves it was fitted to" for reason in reasons
    )
