"""Fits of the whole-curve laws by bounded robust least squares, from several starts.

The multi-power law has priors. Its nonlinear parameters run along a ridge on which a
converged fit overfits: gamma is .90 and 1.35 on the 25M and 100M curves of Luo et al.
2025. The priors, gamma ~ N(1/2, 1/4) and log beta ~ N(log 1/2, log 2), hold them. The
residuals of a curve are strongly correlated, so that the priors are weighed against one
observation per curve and not per row. The minimized sum is

    objective + (objective / curves) x (squared standardized distance) / 2,

whose weight, objective / curves, is found by iteration. A point where it is stationary
maximizes the posterior when the mean absolute log errors of the curves (`lad`) are
exponentially distributed with one unknown mean. On data without error the priors have
no weight.

Shapes: [rows] one entry per measured loss; [parameters] one per parameter of the law,
in the solver's coordinates.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from scalejax.laws.curves.data import CurveData, weights_by_curve
from scalejax.laws.curves.diagnosis import diagnose
from scalejax.laws.curves.forms import AnnealingSize, CurveFormula
from scalejax.laws.curves.problem import TINY, Objective, Problem
from scalejax.laws.curves.separable import SEPARABLE_LAWS, SeparableLaw
from scalejax.laws.curves.starts import starting_points
from scalejax.laws.solver import losses

# Relative change of the cost at which a solve from a start stops, and the final one.
ROUGH_TOLERANCE = 1e-9
FINE_TOLERANCE = 1e-13

# Largest number of times that a law with an approximated term is solved again, each
# time with the approximation error of the last solution.
MAX_CORRECTIONS = 10

# The correction has settled when it changes the predictions by less than this, in nats.
CORRECTION_TOLERANCE = 1e-12

# Solves under one prior until its weight, which depends on the solution, settles.
MAX_PRIOR_UPDATES = 50
PRIOR_TOLERANCE = 1e-4

# A start is at the optimum when its cost exceeds the lowest by less than this.
SAME_COST_RELATIVE = 1e-5
SAME_COST_ABSOLUTE = 1e-18


class CurveFit(NamedTuple):
    """A fitted whole-curve law."""

    law: CurveFormula
    params: dict[str, float]
    """By the papers' names (lambda, not momentum)."""
    objective: float
    """The robust loss of the data, without the prior; in the units of `losses.Loss`."""
    gradient_norm: float
    """Norm of the gradient of what is minimized, over the coordinates that are not at a
    bound. For linear parameters other than L0 the derivative is with respect to the
    parameter's logarithm."""
    starts_at_optimum: float
    """Fraction of the starts that reached the lowest cost."""
    verdict: str
    """ok, at-boundary, unidentified or not-converged."""
    reasons: tuple[str, ...]
    undetermined: tuple[str, ...]
    """Parameters that the losses leave free to take other values."""


class Solution(NamedTuple):
    """Where one solve ended."""

    cost: float
    """The minimized sum, prior included."""
    x: Float[np.ndarray, " parameters"]
    converged: bool
    objective: Objective
    """The objective of the last stage."""


def fit_curves(
    law: str,
    data: CurveData,
    *,
    loss: str = "huber:1e-3",
    fixed: Mapping[str, float] | None = None,
    weights: Float[np.ndarray, " rows"] | None = None,
    prior: bool = True,
    start: CurveFit | None = None,
) -> CurveFit:
    """Fit one whole-curve law to the losses of all curves.

    law: annealing, annealing-size or multipower. loss: as in `losses.parse_loss`.
    fixed: values of parameters to hold. weights: of the rows; `default_weights` unless
    given. prior: whether the priors of the multi-power law apply; see this module's
    docstring. start: a fit to start from, in place of the grid of starts.

    Raises ValueError for an unknown law or parameter, a held value out of bounds, or
    fewer rows than free parameters.
    """
    form, fixed = _separable_law(law), dict(fixed or {})
    held = _hold(form, fixed, len(data.loss))
    unit = _size_unit(form, data, fixed)
    weights = default_weights(law, data, prior) if weights is None else np.asarray(weights, float)
    data = data._replace(params=data.params / unit)
    with jax.enable_x64(True):
        problem = Problem(form, data, losses.parse_loss(loss), held, weights, use_prior=prior)
        if start is None:
            solutions = _solve_from_starts(problem)
            polished = _solve(problem, solutions[0].x, problem.first_objective(), polish=True)
            solution = _correct(problem, polished)
        else:
            x = _encoded(form, start.law, unit)
            solution = _solve(problem, x, problem.first_objective())
            solutions = [solution]
        diagnosis = diagnose(problem, solution.x, solution.objective, solution.converged)
        objective = problem.cost(solution.x, solution.objective) / problem.loss.normalizer
    params = _decoded(form, solution.x, unit) | fixed
    return CurveFit(
        law=form.formula(*params.values()),
        params=params,
        objective=objective,
        gradient_norm=diagnosis.gradient_norm,
        starts_at_optimum=_share_at_optimum(solutions),
        verdict=diagnosis.verdict,
        reasons=diagnosis.reasons,
        undetermined=diagnosis.undetermined,
    )


def _separable_law(name: str) -> SeparableLaw:
    if name not in SEPARABLE_LAWS:
        raise ValueError(
            f"law {name!r} is not a whole-curve law; it must be one of {', '.join(SEPARABLE_LAWS)}"
        )
    return SEPARABLE_LAWS[name]


def _hold(form: SeparableLaw, fixed: Mapping[str, float], n_rows: int) -> np.ndarray:
    """The held coordinates, nan where free; checks that the rows suffice."""
    held = form.hold(fixed)
    n_free = np.isnan(held).sum()
    if n_rows < n_free:
        raise ValueError(
            f"{n_rows} rows cannot determine the {n_free} free parameters of the {form.name} law"
        )
    return held


def default_weights(law: str, data: CurveData, prior: bool = True) -> Float[np.ndarray, " rows"]:
    """Weights of the rows when the caller gives none.

    Under a prior each curve counts once, as it does in the weight of the prior;
    otherwise each row counts once.
    """
    if prior and SEPARABLE_LAWS[law].priors:
        return weights_by_curve(data.curve)
    return np.ones(len(data.loss))


def _size_unit(form: SeparableLaw, data: CurveData, fixed: Mapping[str, float]) -> float:
    """The unit of the number of parameters: the geometric mean of the sizes.

    In this unit the coefficient and the exponent of a power of size are hardly
    correlated. A held coefficient is given in the unit of the user, which is then left
    alone.
    """
    if "params" not in form.inputs or {"B", "C"} & set(fixed):
        return 1.0
    return float(np.exp(np.mean(np.log(np.unique(data.params)))))


def _encoded(form: SeparableLaw, law: CurveFormula, unit: float) -> np.ndarray:
    values = zip(form.coordinates.values(), _in_units(law, unit), strict=True)
    return np.array([coordinate.encode(float(value)) for coordinate, value in values])


def _decoded(form: SeparableLaw, x: np.ndarray, unit: float) -> dict[str, float]:
    values = zip(form.coordinates.values(), x, strict=True)
    law = form.formula(*(coordinate.decode(value) for coordinate, value in values))
    in_users_units = _in_units(law, 1 / unit)
    return {
        name: float(value) for name, value in zip(form.coordinates, in_users_units, strict=True)
    }


def _in_units(law: CurveFormula, unit: float) -> CurveFormula:
    return law.in_units(unit) if isinstance(law, AnnealingSize) else law


def _share_at_optimum(solutions: list[Solution]) -> float:
    limit = solutions[0].cost * (1 + SAME_COST_RELATIVE) + SAME_COST_ABSOLUTE
    return float(np.mean([solution.cost <= limit for solution in solutions]))


def _solve_from_starts(problem: Problem) -> list[Solution]:
    """Solve from every start and sort the solutions by cost."""
    solutions = [
        _solve(problem, x, problem.first_objective(), ROUGH_TOLERANCE)
        for x in starting_points(problem)
    ]
    return sorted(solutions, key=lambda solution: solution.cost)


def _solve(
    problem: Problem,
    x: Float[np.ndarray, " parameters"],
    objective: Objective,
    tolerance: float = FINE_TOLERANCE,
    *,
    polish: bool = False,
) -> Solution:
    """Minimize from one start, stage by stage of the loss and of the prior.

    objective: only its correction is used. polish: the start is next to the solution,
    so that the last stage of the loss suffices.
    """
    deltas, n_rows = problem.loss.deltas, len(problem.data.loss)
    converged = False
    for delta in deltas[-1:] if polish else deltas:
        objective, converged = objective._replace(delta=delta, prior_weight=0.0), False
        # The weight of the prior is a fixed point: it depends on the solution, which
        # depends on it. Earlier stages only need to come near.
        updates = MAX_PRIOR_UPDATES if problem.priors and delta == deltas[-1] else 1
        for _ in range(updates):
            previous, objective = objective.prior_weight, _with_prior(problem, x, objective)
            change = abs(objective.prior_weight - previous)
            if converged and change <= PRIOR_TOLERANCE * objective.prior_weight:
                break
            x, converged = _least_squares(problem, x, objective, tolerance)
    prior_residuals = problem.residuals(x, objective)[0][n_rows:]
    cost = problem.cost(x, objective) + float(prior_residuals @ prior_residuals) / 2
    return Solution(cost, x, converged, objective)


def _with_prior(
    problem: Problem, x: Float[np.ndarray, " parameters"], objective: Objective
) -> Objective:
    """Weigh the priors, if any, against one observation per curve: its mean loss."""
    if not problem.priors:
        return objective
    weight = problem.cost(x, objective) / max(problem.n_curves, 1)
    return objective._replace(prior_weight=weight)


def _correct(problem: Problem, solution: Solution) -> Solution:
    """Solve again with the approximated terms corrected to their exact values.

    Deferred correction: the error of the approximation at the last solution is added to
    every prediction, and the law solved again until the error stays the same.
    Predictions are then exact, at the price of the approximate Jacobian.
    """
    for term, linear, nonlinear, basis in problem.terms:
        if term.exact is None:
            continue
        exact = term.exact(problem.data)
        for _ in range(MAX_CORRECTIONS):
            correction = exact(solution.x[nonlinear]) - basis(solution.x[nonlinear])[0]
            change = np.max(np.abs(correction - solution.objective.correction))
            solution = solution._replace(
                objective=solution.objective._replace(correction=correction)
            )
            if change * abs(solution.x[linear]) < CORRECTION_TOLERANCE:
                break
            solution = _solve(problem, solution.x, solution.objective, polish=True)
    return solution


def _least_squares(
    problem: Problem,
    x: Float[np.ndarray, " parameters"],
    objective: Objective,
    tolerance: float,
) -> tuple[Float[np.ndarray, " parameters"], bool]:
    """Minimize one objective; returns all coordinates and whether it converged.

    scipy's trust-region reflective solver with bounds.
    """
    # Takes a second to import on a slow machine, which other laws need not pay.
    import scipy.optimize

    free = problem.free
    if not free.any():
        return x, True
    residuals = _FreeResiduals(problem, objective)
    low, high = problem.low[free], problem.high[free]
    # The solver needs a start strictly inside of the bounds.
    margin = 1e-9 * np.where(np.isfinite(high - low), high - low, 1.0)
    result = scipy.optimize.least_squares(
        residuals.values,
        np.clip(x[free], low + margin, high - margin),
        jac=residuals.jacobian,  # pyright: ignore[reportArgumentType]
        bounds=(low, high),
        loss=residuals.robust_loss,  # pyright: ignore[reportArgumentType]
        x_scale="jac",
        ftol=tolerance,
        xtol=tolerance,
        gtol=tolerance / 100,
        max_nfev=500,  # pyright: ignore[reportArgumentType]
    )
    return residuals.full(result.x), result.status > 0


class _FreeResiduals:
    """Residuals over the free coordinates, in the three functions that scipy calls.

    scipy asks for residuals and Jacobian separately; one evaluation gives both, and the
    last one is remembered.
    """

    def __init__(self, problem: Problem, objective: Objective):
        self.problem, self.objective = problem, objective
        self.x = np.full(len(problem.held), np.nan)
        self.r, self.J = np.empty(0), np.empty((0, 0))

    def full(self, free: np.ndarray) -> np.ndarray:
        """All coordinates, with the free ones set."""
        x = self.problem.held.copy()
        x[self.problem.free] = free
        return x

    def values(self, free: np.ndarray) -> np.ndarray:
        self._evaluate(free)
        return self.r

    def jacobian(self, free: np.ndarray) -> np.ndarray:
        self._evaluate(free)
        return self.J

    def _evaluate(self, free: np.ndarray) -> None:
        x = self.full(free)
        if not np.array_equal(x, self.x):
            self.r, jacobian = self.problem.residuals(x, self.objective)
            self.x, self.J = x, jacobian[:, self.problem.free]

    def robust_loss(self, z: np.ndarray) -> np.ndarray:
        """rho(z) and its two derivatives, (3, residuals), at squared residuals z.

        scipy minimizes the sum of rho(r^2) / 2. For a Huber loss of width delta, rho is
        z up to delta^2 and 2 delta |r| - delta^2 beyond. The squares do not show which
        predictions are too high; scipy calls this with the last evaluated residuals,
        whose signs do.
        """
        n_rows, delta = len(self.problem.data.loss), self.objective.delta
        weight, size = self.problem.irls_weights(self.r, delta), np.sqrt(z)
        inside = np.r_[size[:n_rows] <= delta, np.ones(len(z) - n_rows, bool)]
        factor = np.where(inside, 1.0, 2 - np.minimum(delta, size) / np.maximum(size, TINY))
        curvature = np.where(inside, 0.0, -weight / (2 * np.maximum(z, TINY)))
        return np.stack([weight * z * factor, weight, curvature])
