"""What a fit of a whole-curve law minimizes: a robust loss and a prior.

Shapes: [rows] one entry per measured loss; [parameters] one per parameter of the law,
in the solver's coordinates; [residuals] the rows, then one entry per prior.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from scalejax.laws.curves.data import CurveData
from scalejax.laws.curves.separable import Prior, SeparableLaw, Term
from scalejax.laws.curves.terms import Basis
from scalejax.laws.solver.losses import Loss

# Keeps divisions by a residual of zero finite.
TINY = 1e-300

# Predictions are at least this many nats per token where their logarithm is taken.
MIN_PREDICTION = 1e-6


class Objective(NamedTuple):
    """The objective of one stage of the solution."""

    delta: float
    """Width of the Huber loss."""
    prior_weight: float
    """A prior adds this times half its squared distance in standard deviations."""
    correction: Float[np.ndarray, " rows"]
    """Exact minus approximate value of an approximated term, per unit of its linear
    parameter, at the last solution; zero before the first."""


class ResolvedTerm(NamedTuple):
    """A term with the places of its parameters and its basis on the data."""

    term: Term
    linear: int
    nonlinear: list[int]
    basis: Basis


class Problem:
    """One law, one data set and one loss, over the law's coordinates."""

    def __init__(
        self,
        law: SeparableLaw,
        data: CurveData,
        loss: Loss,
        held: Float[np.ndarray, " parameters"],
        weights: Float[np.ndarray, " rows"],
        *,
        use_prior: bool,
    ):
        self.law, self.data, self.loss, self.held, self.weights = law, data, loss, held, weights
        self.names = list(law.coordinates)
        self.free = np.isnan(held)
        self.low, self.high = np.array([(c.low, c.high) for c in law.coordinates.values()]).T
        self.terms = [self._resolve(term) for term in law.terms]
        # Places of the linear parameters; L0 is the first.
        self.linear = [0, *(term.linear for term in self.terms)]
        self.priors: list[tuple[int, Prior]] = [
            (self.names.index(prior.parameter), prior)
            for prior in law.priors
            if use_prior and self.free[self.names.index(prior.parameter)]
        ]
        # A row without weight, as in a bootstrap resample, does not count.
        used = weights > 0
        curves = np.unique(data.curve[used])
        self.n_curves = len(curves)
        self.n_schedules = len({data.rates[c].tobytes() for c in curves})
        self.n_sizes = len(np.unique(data.params[used]))

    def _resolve(self, term: Term) -> ResolvedTerm:
        nonlinear = [self.names.index(name) for name in term.nonlinear]
        return ResolvedTerm(term, self.names.index(term.linear), nonlinear, term.basis(self.data))

    def first_objective(self) -> Objective:
        """The objective before the first stage, which sets width and prior."""
        return Objective(np.inf, 0.0, np.zeros(len(self.data.loss)))

    def predict(
        self, x: Float[np.ndarray, " parameters"], correction: Float[np.ndarray, " rows"]
    ) -> tuple[Float[np.ndarray, " rows"], Float[np.ndarray, "rows parameters"]]:
        """The loss of every row and its Jacobian over all coordinates."""
        n_rows = len(self.data.loss)
        predicted, jacobian = np.full(n_rows, x[0]), np.ones((n_rows, len(x)))
        for term, linear, nonlinear, basis in self.terms:
            value, slope = basis(x[nonlinear])
            # The correction is constant: the Jacobian is that of the approximation.
            value = value + correction if term.exact else value
            predicted += term.sign * x[linear] * value
            jacobian[:, linear] = term.sign * value
            jacobian[:, nonlinear] = term.sign * x[linear] * slope
        return predicted, jacobian

    def residuals(
        self, x: Float[np.ndarray, " parameters"], objective: Objective
    ) -> tuple[Float[np.ndarray, " residuals"], Float[np.ndarray, "residuals parameters"]]:
        """Residuals of the data, then of the priors, and their Jacobian.

        A residual of the data is predicted minus measured, of the loss or of its
        logarithm.
        """
        predicted, jacobian = self.predict(x, objective.correction)
        r = predicted - self.data.loss
        if self.loss.residual == "log":
            predicted = np.maximum(predicted, MIN_PREDICTION)
            r, jacobian = np.log(predicted / self.data.loss), jacobian / predicted[:, None]
        scale = np.sqrt(objective.prior_weight)
        prior_jacobian = np.zeros((len(self.priors), len(x)))
        for row, (i, prior) in zip(prior_jacobian, self.priors, strict=True):
            row[i] = scale / prior.std
        prior_r = [scale * (x[i] - prior.mean) / prior.std for i, prior in self.priors]
        return np.r_[r, prior_r], np.vstack([jacobian, prior_jacobian])

    def irls_weights(
        self, r: Float[np.ndarray, " residuals"], delta: float
    ) -> Float[np.ndarray, " residuals"]:
        """IRLS weights: the slope of the loss divided by the residual.

        The data have a Huber loss of width delta, in which over-predictions cost
        `loss.over_weight` times as much; the priors are quadratic.
        """
        n_rows = len(self.data.loss)
        side = self._side(r[:n_rows])
        return np.r_[
            side * np.minimum(1, delta / np.maximum(np.abs(r[:n_rows]), TINY)),
            np.ones(len(r) - n_rows),
        ]

    def cost(self, x: Float[np.ndarray, " parameters"], objective: Objective) -> float:
        """The sum of the Huber losses of the data, without the priors."""
        r = self.residuals(x, objective)[0][: len(self.data.loss)]
        side = self._side(r)
        size = np.minimum(np.abs(r), objective.delta)
        return float(side @ (size * (np.abs(r) - size / 2)))

    def _side(self, r: Float[np.ndarray, " rows"]) -> Float[np.ndarray, " rows"]:
        """The weight of every row, with the surcharge of over-predictions."""
        return self.weights * np.where(r > 0, self.loss.over_weight, 1.0)
