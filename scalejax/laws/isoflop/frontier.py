"""The loss of the compute-optimal run against compute, from isoFLOP curves.

C training FLOPs, L nats per token.

Shapes: [draws] noise draws; [budgets] budgets with an optimum.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.special import chdtrc

from scalejax.laws.forms import power
from scalejax.laws.inference.convergence import converged
from scalejax.laws.law import ParametricLaw
from scalejax.laws.solver.losses import parse_loss
from scalejax.laws.solver.multistart import Optimum, find_optimum, refit
from scalejax.laws.solver.problem import parameters_in_table_units

# Probability of a misfit by chance below which it is reported, and intervals are
# widened.
SIGNIFICANT = 1e-3

# Least squares of the logarithm: few budgets leave a robust loss nothing to judge by.
LOSS = parse_loss("log-mse")


class Frontier(NamedTuple):
    """L*(C) = E + K C^-g: the loss of the compute-optimal run at C training FLOPs.

    E: irreducible loss, nats per token.  K: nats per token times FLOPs^g.  g: exponent.
    A Chinchilla law has exactly this frontier, with its own E and g = alpha beta /
    (alpha + beta) (Hoffmann et al. 2022, equation 4).
    """

    E: float | np.ndarray
    K: float | np.ndarray
    g: float | np.ndarray

    def loss(self, C: float | np.ndarray) -> float | np.ndarray:
        """Loss of the compute-optimal run of C training FLOPs, nats per token.

        >>> print(f"{Frontier(1.7, 1000.0, 0.15).loss(1e20):.3f}")
        2.700
        """
        # Logarithms keep K C^-g finite where K alone is large and C^-g small.
        return self.E + np.exp(np.log(self.K) - self.g * np.log(C))

    def flops(self, loss: float | np.ndarray) -> float | np.ndarray:
        """Training FLOPs at which the compute-optimal run has a loss; inf at E or less.

        >>> f"{Frontier(1.7, 1000.0, 0.15).flops(2.7):.3g}"
        '1e+20'
        """
        above = np.maximum(np.asarray(loss) - self.E, 0.0)
        with np.errstate(divide="ignore"):
            return np.exp((np.log(self.K) - np.log(above)) / self.g)


class FrontierFit(NamedTuple):
    """A frontier, its noise draws, and what to tell about it."""

    law: Frontier
    """nan where the budgets are fewer than the free parameters."""
    draws: Float[np.ndarray, "draws 3"]
    """The frontier of every noise draw, in the order of Frontier; nan where it has
    none."""
    reasons: list[str]


def fit_frontier(
    flops: Float[np.ndarray, " budgets"],
    loss: Float[np.ndarray, " budgets"],
    loss_draws: Float[np.ndarray, "draws budgets"] | None,
    fixed: Mapping[str, float] | None = None,
) -> FrontierFit:
    """Fit L*(C) to the lowest losses of isoFLOP curves.

    loss: of the minimum of each budget's curve, as measured. loss_draws: the same with
    noise added to all losses, or None; nan where a draw has no minimum. Budgets are
    weighted by one over the variance over the draws. Where the losses scatter about the
    law by more than this noise explains, the draws are spread by as much. fixed:
    parameters of `Frontier` that are held.
    """
    held = fixed or {}
    law = power("flops", **_as_power(held))
    draws = 0 if loss_draws is None else len(loss_draws)
    nothing = Frontier(np.nan, np.nan, np.nan), np.full((draws, 3), np.nan)
    if len(loss) < law.free:
        return FrontierFit(
            *nothing,
            [f"{len(loss)} budgets with an optimum: L*(C) has {law.free} free parameters"],
        )
    relative = np.ones(len(loss)) if loss_draws is None else _spread(loss_draws) / loss
    # Weights are relative, so that the objective is of the size of one residual.
    weights = (relative.min() / relative) ** 2
    at = find_optimum(law, [flops], loss, weights, LOSS)
    fitted = _frontiers(law, at, at.theta[:, None])[0]
    point = Frontier(*(float(value) for value in fitted))
    if not converged(at.state, at.problem, at.weights)[0]:
        return FrontierFit(*nothing, ["the solver found no L*(C) that fits the optimal losses"])
    if point.g <= 0:
        return FrontierFit(*nothing, ["the optimal loss does not fall with compute: no L*(C)"])
    reasons = []
    if len(loss) == law.free:
        reasons.append(f"{len(loss)} budgets determine L*(C): no budget is left to check it with")
    if point.E == 0 and "E" not in held:
        reasons.append("E of L*(C) is at its bound of 0: no irreducible loss shows at the optima")
    of_draws = nothing[1]
    if loss_draws is not None:
        widening, misfit = _widening(np.log(loss / point.loss(flops)) / relative, law.free)
        reasons += misfit
        of_draws = _redrawn(law, at, loss, loss_draws, weights, widening)
    return FrontierFit(point, of_draws, reasons)


def _as_power(held: Mapping[str, float]) -> dict[str, float]:
    """Return the held parameters in the letters of the power law a x^b + c."""
    names = {"E": ("c", 1.0), "K": ("a", 1.0), "g": ("b", -1.0)}
    return {names[name][0]: names[name][1] * value for name, value in held.items()}


def _spread(loss_draws: Float[np.ndarray, "draws budgets"]) -> Float[np.ndarray, " budgets"]:
    return np.maximum(np.nanstd(loss_draws, axis=0), 1e-12)


def _frontiers(
    law: ParametricLaw, at: Optimum, theta: Float[np.ndarray, "p draws"]
) -> Float[np.ndarray, "draws 3"]:
    fitted = parameters_in_table_units(law, at.problem, theta)
    return np.stack([np.asarray(fitted.c), np.asarray(fitted.a), -np.asarray(fitted.b)], 1)


def _widening(standardized: Float[np.ndarray, " budgets"], free: int) -> tuple[float, list[str]]:
    """Return the factor by which intervals are widened for a misfit, and the reason."""
    squares, degrees = float(np.sum(standardized**2)), len(standardized) - free
    if not degrees or chdtrc(degrees, squares) >= SIGNIFICANT:
        return 1.0, []
    # Birge's ratio: the scatter that is seen, over the one that is expected.
    widening = float(np.sqrt(squares / degrees))
    return widening, [
        "the optimal losses scatter about L*(C) by more than the noise explains: weighted squares "
        f"{squares:.3g} on {degrees} degrees of freedom; intervals are {widening:.2g} times wider "
        "for it"
    ]


def _redrawn(
    law: ParametricLaw,
    at: Optimum,
    loss: Float[np.ndarray, " budgets"],
    loss_draws: Float[np.ndarray, "draws budgets"],
    weights: Float[np.ndarray, " budgets"],
    widening: float,
) -> Float[np.ndarray, "draws 3"]:
    """Fit the frontier of every noise draw."""
    # The minimum of a noisy curve is too low, and noise on top of the measured losses
    # lowers it once more. So the draws tell how losses scatter about their median, not
    # where they lie.
    shifts = np.log(loss_draws) - np.log(np.nanmedian(loss_draws, axis=0))
    present = np.isfinite(shifts)
    targets = loss * np.exp(widening * np.where(present, shifts, 0.0))
    state = refit(law, at, weights * present, targets)
    ok = converged(state, at.problem, at.weights) & (present.sum(1) >= law.free)
    return np.where(ok[:, None], _frontiers(law, at, np.asarray(state.theta)), np.nan)
