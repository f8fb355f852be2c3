"""Fits of the whole-curve laws: starts from linear solves, then bounded robust least squares with an exact Jacobian.

Both laws are L = L0 + A S1^-alpha - gain x credit(shape): linear in (L0, A, gain) once alpha and the shape of the credit are
held; gain and shape are (C; lambda) for the annealing law and (B; C, beta, gamma) for the multi-power law.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize

from scalejax.laws import curves, forms, losses
from scalejax.laws.curve_rows import Rows, annealing_credit, exact_power_credit, power_credit
from scalejax.laws.forms import Law

REFINEMENTS = 10
STARTS = 4
TINY = 1e-300


class Coordinate(NamedTuple):
    """How the solver sees one parameter: bounds, starting values, and the way to and from the parameter."""

    low: float
    high: float
    starts: tuple[float, ...] = ()
    to: Callable = float
    back: Callable = float


class Form(NamedTuple):
    """One law for the solver: parameters in the order L0, A, alpha, gain, shape.."""

    law: type
    coordinates: dict[str, Coordinate]
    credit: Callable[[Rows], Callable]
    """rows -> (shape coordinates -> credit of every row and its Jacobian)."""
    exact: Callable[[Rows], Callable] | None = None
    """rows -> (shape coordinates -> credit of every row), where `credit` is an approximation."""
    prior: tuple[tuple[str, float, float], ...] = ()
    """(parameter, centre, standard deviation), both in its coordinate."""


class CurveFit(NamedTuple):
    """A fitted whole-curve law; `params` has the papers' names (lambda, not momentum)."""

    law: curves.Annealing | curves.MultiPower
    params: dict[str, float]
    objective: float
    """Of the data alone, in the loss's units (losses.Loss)."""
    gradient_norm: float
    """Of the minimized objective, per unit of log A and log gain and of the other coordinates, without those at a bound."""
    starts_at_optimum: float
    verdict: str
    reasons: tuple[str, ...]


_POSITIVE, _EXPONENT = Coordinate(0.0, np.inf), Coordinate(1e-3, 3.0, (0.15, 0.25, 0.35, 0.5, 0.7, 1.0))
_LOG_C = Coordinate(np.log(1e-6), np.log(1e6), tuple(np.log([0.01, 0.3, 3.0, 30.0])), np.log, np.exp)
_LOG_BETA = Coordinate(np.log(1e-2), np.log(1e2), tuple(np.log([0.2, 0.6, 2.0])), np.log, np.exp)
_MOMENTUM = Coordinate(
    np.log(1e-6), 0.0, tuple(np.log([0.3, 0.05, 0.01, 3e-3, 1e-3, 3e-4])), lambda x: np.log1p(-x), lambda u: -np.expm1(u)
)
_SHARED = {"L0": _POSITIVE, "A": _POSITIVE, "alpha": _EXPONENT}
FORMS = {
    "annealing": Form(curves.Annealing, {**_SHARED, "C": _POSITIVE, "lambda": _MOMENTUM}, annealing_credit),
    # gamma sets the clock of annealing: 0 counts summed rates, 1 counts steps; the prior's 95% are those two. beta is a power
    # of the same loss curve as alpha, which is near 1/2, give or take a factor 2.
    "multipower": Form(
        curves.MultiPower,
        {**_SHARED, "B": _POSITIVE, "C": _LOG_C, "beta": _LOG_BETA, "gamma": Coordinate(0.0, 3.0, (0.2, 0.5, 1.0))},
        power_credit,
        exact_power_credit,
        (("beta", float(np.log(0.5)), float(np.log(2.0))), ("gamma", 0.5, 0.25)),
    ),
}


@dataclass(frozen=True, kw_only=True)
class CurveLaw(Law):
    """A whole-curve law as the tables know it; its parameters have the papers' names (lambda, not momentum)."""

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(FORMS[self.name].coordinates)


def annealing(**fixed: float) -> CurveLaw:
    """The annealing law of the rate of every step; keywords (a dict for lambda) hold a parameter at a value."""
    return _law("annealing", **fixed)


def multipower(**fixed: float) -> CurveLaw:
    """The multi-power law of the rate of every step; keywords hold a parameter at a value."""
    return _law("multipower", **fixed)


def _law(name: str, **fixed: float) -> CurveLaw:
    form = FORMS[name]
    return CurveLaw(
        name=name,
        form=form.law,
        predict=form.law.loss,
        inputs=("learning_rate",),
        coordinates=tuple(forms.Coordinate(c.low, c.high) for c in form.coordinates.values()),
        method="curves",
    ).hold(**fixed)  # type: ignore[return-value]


def fit_curves(
    law: str,
    data: Rows,
    *,
    loss: str = "huber:1e-3",
    fixed: Mapping[str, float] | None = None,
    weights: np.ndarray | None = None,
    prior: bool = True,
    start: CurveFit | None = None,
) -> CurveFit:
    """The annealing or the multi-power law through the rows of all curves; loss as in `losses.loss`, weights per row.

    The three shape parameters of the multi-power law run along a ridge on which a converged fit overfits (25M and 100M curves
    of Luo et al.: gamma .90 and 1.35). `prior` holds them: gamma ~ N(1/2, 1/4), log beta ~ N(log 1/2, log 2), against data in
    which each CURVE counts as one observation, its residuals being strongly correlated: the minimized sum is
    objective + objective / curves x (squared standardized distance) / 2. On exact data the prior vanishes.

    Raises ValueError on an unknown law or parameter, a held value out of bounds, or fewer rows than free parameters.
    """
    if law not in FORMS:
        raise ValueError(f"whole-curve law {law!r} is not one of {', '.join(FORMS)}")
    form, fixed = FORMS[law], dict(fixed or {})
    held = _held(law, form, fixed)
    if len(data.loss) < np.isnan(held).sum():
        raise ValueError(f"{len(data.loss)} rows cannot give the {np.isnan(held).sum()} free parameters of the {law} law")
    with jax.enable_x64(True):
        problem = _Problem(form, data, losses.loss(loss), held, weights, prior)
        begin = problem.starts() if start is None else [_coordinates(form, start.params)]
        found = sorted((problem.solve(x) for x in begin), key=lambda result: result[0])
        reached = np.mean([cost <= found[0][0] * (1 + 1e-5) + 1e-18 for cost, *_ in found])
        _, x, converged = found[0] if start is not None else problem.refine(*found[0])
        gradient, reasons, verdict = problem.diagnose(x, converged)
        objective = problem.cost(x) / problem.loss.units
    params = {name: float(c.back(v)) for (name, c), v in zip(form.coordinates.items(), x, strict=True)} | fixed
    return CurveFit(form.law(*params.values()), params, objective, gradient, float(reached), verdict, tuple(reasons))


def profile_curves(law: str, data: Rows, name: str, values: Sequence[float], **options) -> np.ndarray:
    """The objective with one parameter held at each of some values and the others fitted, (values,): its profile likelihood.

    A flat stretch is what the curves cannot tell apart. options: as for `fit_curves`.
    """
    held = dict(options.pop("fixed", None) or {})
    return np.array([fit_curves(law, data, fixed=held | {name: value}, **options).objective for value in values])


def bootstrap_curves(
    law: str, data: Rows, fit: CurveFit, *, draws: int, seed: int = 0, units: np.ndarray | None = None, **options
) -> dict[str, np.ndarray]:
    """Parameters of the refits to resampled curves, (draws,) each: the points of one curve are not independent.

    units: (rows,) whole numbers, what is drawn together instead of curves. options: as for `fit_curves`.
    """
    units = data.curve if units is None else units
    count = int(units.max()) + 1
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=draws)
    tables, which = np.unique(drawn, axis=0, return_inverse=True)
    fits = [fit_curves(law, data, weights=table[units].astype(float), start=fit, **options).params for table in tables]
    return {name: np.array([f[name] for f in fits])[which.ravel()] for name in fit.params}


def intervals(law: str, draws: Mapping[str, np.ndarray], level: float = 0.95) -> dict[str, tuple[float | None, float | None]]:
    """Percentile intervals; an end where the solver's own limit stopped the parameter is open (None)."""
    ends = {}
    for name, c in FORMS[law].coordinates.items():
        limits = [limit for limit in (c.low, c.high) if limit != 0]  # a bound at 0 is the parameter's own
        pair = np.percentile(draws[name], [50 * (1 - level), 50 * (1 + level)])
        ends[name] = tuple(None if np.isclose(c.to(x), limits, rtol=0, atol=1e-3).any() else float(x) for x in pair)
    return ends


def _coordinates(form: Form, params: Mapping[str, float]) -> np.ndarray:
    return np.array([c.to(params[name]) for name, c in form.coordinates.items()])


def _held(law: str, form: Form, fixed: Mapping[str, float]) -> np.ndarray:
    unknown = [name for name in fixed if name not in form.coordinates]
    if unknown:
        raise ValueError(f"the {law} law has no parameter {', '.join(unknown)}; it has {', '.join(form.coordinates)}")
    held = np.full(len(form.coordinates), np.nan)
    for i, (name, c) in enumerate(form.coordinates.items()):
        if name in fixed:
            with np.errstate(all="ignore"):
                held[i] = c.to(fixed[name])
            if not (c.low <= held[i] <= c.high):
                raise ValueError(
                    f"{name} of the {law} law is held at {fixed[name]}, outside [{c.back(c.low):.3g}, {c.back(c.high):.3g}]"
                )
    return held


class _Problem:
    """One law, one table, one loss: residuals and Jacobian over the free coordinates, as scipy's least_squares takes them."""

    def __init__(self, form: Form, data: Rows, loss: losses.Loss, held: np.ndarray, weights, prior: bool):
        self.form, self.data, self.loss, self.held = form, data, loss, held
        self.free = np.isnan(held)
        self.low, self.high = np.array([(c.low, c.high) for c in form.coordinates.values()]).T
        self.weights = np.ones(len(data.loss)) if weights is None else np.asarray(weights, float)
        self.curves = len(np.unique(data.curve[self.weights > 0]))
        sums = [np.cumsum(rates) for rates in data.rates]
        self.log_S1 = np.log([sums[c][s] for c, s in zip(data.curve, data.step, strict=True)])
        self.credit = form.credit(data)
        index = list(form.coordinates)
        self.prior = [(index.index(n), m, s) for n, m, s in form.prior if prior and self.free[index.index(n)]]
        self.exact = None if form.exact is None else form.exact(data)
        self.offset = np.zeros(len(data.loss))  # exact credit - credit, at the last refinement
        self.delta, self.tau = np.inf, 0.0  # width of the Huber and weight of the prior, set by `solve`

    def predict(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Loss of every row, (rows,), and its Jacobian over all coordinates."""
        value, slope = (np.asarray(a) for a in self.credit(jnp.asarray(x[4:])))
        value = value + self.offset
        power = np.exp(-x[2] * self.log_S1)
        columns = [np.ones_like(power), power, -x[1] * power * self.log_S1, -value, -x[3] * slope]
        return x[0] + x[1] * power - x[3] * value, np.column_stack(columns)

    def residuals(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of the data, then of the prior; raw or log, with Jacobian."""
        predicted, jacobian = self.predict(x)
        r = predicted - self.data.loss
        if self.loss.residual == "log":
            predicted = np.maximum(predicted, 1e-6)
            r, jacobian = np.log(predicted / self.data.loss), jacobian / predicted[:, None]
        pull = np.zeros((len(self.prior), len(x)))
        for row, (i, _, std) in zip(pull, self.prior, strict=True):
            row[i] = np.sqrt(self.tau) / std
        away = [np.sqrt(self.tau) * (x[i] - mean) / std for i, mean, std in self.prior]
        return np.r_[r, away], np.vstack([jacobian, pull])

    def pull(self, r: np.ndarray) -> np.ndarray:
        """Weight of iteratively reweighted least squares per residual: Huber of width delta, over-predictions `over` times."""
        rows = len(self.data.loss)
        side = self.weights * np.where(r[:rows] > 0, self.loss.over, 1.0)
        return np.r_[side * np.minimum(1, self.delta / np.maximum(np.abs(r[:rows]), TINY)), np.ones(len(r) - rows)]

    def cost(self, x: np.ndarray) -> float:
        """The Huber sum of the data alone."""
        r = self.residuals(x)[0][: len(self.data.loss)]
        side = self.weights * np.where(r > 0, self.loss.over, 1.0)
        size = np.minimum(np.abs(r), self.delta)
        return float(side @ (size * (np.abs(r) - size / 2)))

    def starts(self) -> list[np.ndarray]:
        """The best linear solutions (L0, A, gain given the rest) over the grid of shapes, best alpha each."""
        coordinates = list(self.form.coordinates.values())
        found = []
        options = [c.starts if free else (h,) for c, free, h in zip(coordinates, self.free, self.held, strict=True)]
        for shape in itertools.product(*options[4:]):
            value = np.asarray(self.credit(jnp.asarray(shape))[0])
            found.append(min((self._linear(alpha, shape, value) for alpha in options[2]), key=lambda pair: pair[0]))
        found.sort(key=lambda pair: pair[0])
        return [x for _, x in found[:STARTS]]

    def _linear(self, alpha: float, shape: tuple, value: np.ndarray) -> tuple[float, np.ndarray]:
        columns = np.column_stack([np.ones_like(value), np.exp(-alpha * self.log_S1), -value])
        linear = self.held[[0, 1, 3]]
        free, scale = np.isnan(linear), np.sqrt(self.weights) / self.data.loss
        target = self.data.loss - columns[:, ~free] @ linear[~free]
        linear[free], misfit = scipy.optimize.nnls(columns[:, free] * scale[:, None], target * scale)
        return float(misfit), np.array([linear[0], linear[1], alpha, linear[2], *shape])

    def solve(self, x: np.ndarray) -> tuple[float, np.ndarray, bool]:
        """(minimized sum, coordinates, converged) from one start, through the stages of the loss and of the prior's weight."""
        converged = False
        for delta in self.loss.deltas:
            self.delta, self.tau = delta, 0.0
            for _ in range(50 if self.prior else 1):
                before, self.tau = self.tau, self.cost(x) / max(self.curves, 1) if self.prior else 0.0
                if converged and abs(self.tau - before) <= 1e-4 * self.tau:
                    break
                x, converged = self._least_squares(x)
        r, _ = self.residuals(x)
        return self.cost(x) + float(r[len(self.data.loss) :] @ r[len(self.data.loss) :]) / 2, x, converged

    def refine(self, cost: float, x: np.ndarray, converged: bool) -> tuple[float, np.ndarray, bool]:
        """The solution under the exact credit, by deferred correction: solved again with the last solution's error."""
        if self.exact is None:
            return cost, x, converged
        for _ in range(REFINEMENTS):
            shape = jnp.asarray(x[4:])
            offset = np.asarray(self.exact(shape)) - np.asarray(self.credit(shape)[0])
            moved, self.offset = np.max(np.abs(offset - self.offset)), offset
            if moved * abs(x[3]) < 1e-12:
                break
            cost, x, converged = self.solve(x)
        return cost, x, converged

    def _least_squares(self, x: np.ndarray) -> tuple[np.ndarray, bool]:
        if not self.free.any():
            return x, True
        seen: dict[str, np.ndarray] = {"x": np.full_like(x, np.nan)}

        def at(free):  # scipy asks for residuals and Jacobian apart; one evaluation gives both
            full = self.held.copy()
            full[self.free] = free
            if not np.array_equal(full, seen["x"]):
                r, jacobian = self.residuals(full)
                seen.update(x=full, r=r, J=jacobian[:, self.free])
            return seen

        def rho(z):  # scipy's cost is half its sum; z are the squared residuals of the last call
            pull, size, count = self.pull(seen["r"]), np.sqrt(z), len(self.data.loss)
            inside = np.r_[size[:count] <= self.delta, np.ones(len(z) - count, bool)]
            over = np.where(inside, 1.0, 2 - np.minimum(self.delta, size) / np.maximum(size, TINY))
            return np.stack([pull * z * over, pull, np.where(inside, 0.0, -pull / (2 * np.maximum(z, TINY)))])

        low, high = self.low[self.free], self.high[self.free]
        margin = 1e-9 * np.where(np.isfinite(high - low), high - low, 1.0)
        found = scipy.optimize.least_squares(
            lambda x: at(x)["r"], np.clip(x[self.free], low + margin, high - margin), jac=lambda x: at(x)["J"],  # pyright: ignore
            bounds=(low, high), loss=rho, x_scale="jac", ftol=1e-13, xtol=1e-13, gtol=1e-15, max_nfev=500,  # pyright: ignore
        )  # fmt: skip
        return at(found.x)["x"], found.status > 0

    def diagnose(self, x: np.ndarray, converged: bool) -> tuple[float, list[str], str]:
        """Gradient norm, reasons and verdict at the solution."""
        names, reasons = np.array(list(self.form.coordinates)), []
        r, jacobian = self.residuals(x)
        unit = np.where([n in ("A", names[3]) for n in names], np.abs(x), 1.0)
        gradient = (jacobian * unit).T @ (self.pull(r) * r)
        width = np.where(np.isfinite(self.high - self.low), self.high - self.low, np.maximum(np.abs(x), 1e-3))
        at_edge = self.free & ((x - self.low < 1e-6 * width) | (self.high - x < 1e-6 * width))
        reasons += [f"{name} sits at its bound" for name in names[at_edge]]
        norm = float(np.linalg.norm(gradient[self.free & ~at_edge]))
        inside = self.free & ~at_edge
        columns = (jacobian * np.sqrt(self.pull(r))[:, None])[:, inside]
        length = np.linalg.norm(columns, axis=0)
        _, values, vectors = np.linalg.svd(columns / np.maximum(length, TINY), full_matrices=False)
        unidentified = bool(values.size and values[-1] < 1e-7 * values[0])
        if unidentified:
            loose = names[inside][np.abs(vectors[-1]) > 0.3]
            reasons.append(f"the rows do not tell {', '.join(loose)} apart")
        if self.curves == 1 and np.any(self.free[4:]):
            unidentified = True
            shape = ", ".join(names[4:][self.free[4:]])
            reasons.append(f"one curve cannot identify {shape}: add curves that anneal differently")
        if not converged:
            return norm, ["the solver stopped before it converged", *reasons], "not-converged"
        return norm, reasons, "unidentified" if unidentified else "at-boundary" if at_edge.any() else "ok"
