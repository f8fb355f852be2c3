"""Fits of the whole-curve laws: starts from linear solves, then bounded robust least squares with an exact Jacobian.

Every law is L0 plus terms scale x basis(shape): linear in L0 and the scales once the shapes are held.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
import scipy.optimize

from scalejax.laws.curves import forms as curves
from scalejax.laws.curves.laws import FORMS, Form
from scalejax.laws.curves.rows import Rows, each_curve_once
from scalejax.laws.solver import losses

REFINEMENTS = 10
STARTS = 4
ROUGH, FINE = 1e-9, 1e-13  # relative change of the cost at which a start, and the fit, stop
TINY = 1e-300


class CurveFit(NamedTuple):
    """A fitted whole-curve law; `params` has the papers' names (lambda, not momentum)."""

    law: curves.Annealing | curves.AnnealingSize | curves.MultiPower
    params: dict[str, float]
    objective: float
    """Of the data alone, in the loss's units (losses.Loss)."""
    gradient_norm: float
    """Of the minimized objective, per unit of log A and log gain and of the other coordinates, without those at a bound."""
    starts_at_optimum: float
    verdict: str
    reasons: tuple[str, ...]


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
    """A whole-curve law through the rows of all curves; loss as in `losses.loss`, weights per row (see `row_weights`).

    The three shape parameters of the multi-power law run along a ridge on which a converged fit overfits (25M and 100M curves
    of Luo et al.: gamma .90 and 1.35). `prior` holds them: gamma ~ N(1/2, 1/4), log beta ~ N(log 1/2, log 2). The residuals of
    a curve are strongly correlated, so the prior stands against one observation per CURVE, not per row: the curve's mean loss.
    The minimized sum is objective + objective / curves x (squared standardized distance) / 2, on exact data the objective
    alone. Under `lad` that is maximum a posteriori where the mean absolute log errors of the curves, the quantity that whole
    curves are scored by, are exponentially distributed with one unknown mean.

    Raises ValueError on an unknown law or parameter, a held value out of bounds, or fewer rows than free parameters.
    """
    if law not in FORMS:
        raise ValueError(f"whole-curve law {law!r} is not one of {', '.join(FORMS)}")
    form, fixed = FORMS[law], dict(fixed or {})
    held = _held(law, form, fixed)
    if len(data.loss) < np.isnan(held).sum():
        raise ValueError(
            f"{len(data.loss)} rows cannot give the {np.isnan(held).sum()} free parameters of the {law} law"
        )
    unit = _middle(data) if "params" in form.inputs and not {"B", "C"} & set(fixed) else 1.0
    weights = row_weights(law, data, prior) if weights is None else np.asarray(weights, float)
    with jax.enable_x64(True):
        problem = _Problem(
            form,
            data._replace(params=data.params / unit),
            losses.parse_loss(loss),
            held,
            weights,
            prior,
        )
        begin = problem.starts() if start is None else [_coordinates(form, start.law, unit)]
        found = sorted(
            (problem.solve(x, ROUGH if start is None else FINE) for x in begin),
            key=lambda result: result[0],
        )
        reached = np.mean([cost <= found[0][0] * (1 + 1e-5) + 1e-18 for cost, *_ in found])
        _, x, converged = (
            found[0]
            if start is not None
            else problem.refine(*problem.solve(found[0][1], polish=True))
        )
        gradient, reasons, verdict = problem.diagnose(x, converged)
        objective = problem.cost(x) / problem.loss.normalizer
    solved = _in_units(
        form.law(*(c.back(v) for c, v in zip(form.coordinates.values(), x, strict=True))), 1 / unit
    )
    params = {
        name: float(value) for name, value in zip(form.coordinates, solved, strict=True)
    } | fixed
    return CurveFit(
        form.law(*params.values()),
        params,
        objective,
        gradient,
        float(reached),
        verdict,
        tuple(reasons),
    )


def row_weights(law: str, data: Rows, prior: bool = True) -> np.ndarray:
    """What rows weigh when no weights are given, (rows,): under a prior each curve counts once, as there; else each row."""
    return each_curve_once(data.curve) if prior and FORMS[law].prior else np.ones(len(data.loss))


def profile_curves(
    law: str, data: Rows, name: str, values: Sequence[float], **options
) -> np.ndarray:
    """The objective with one parameter held at each of some values and the others fitted, (values,): its profile likelihood.

    A flat stretch is what the curves cannot tell apart. options: as for `fit_curves`.
    """
    held = dict(options.pop("fixed", None) or {})
    return np.array(
        [fit_curves(law, data, fixed=held | {name: value}, **options).objective for value in values]
    )


def bootstrap_curves(
    law: str,
    data: Rows,
    fit: CurveFit,
    *,
    draws: int,
    seed: int = 0,
    units: np.ndarray | None = None,
    **options,
) -> dict[str, np.ndarray]:
    """Parameters of the refits to resampled curves, (draws,) each: the points of one curve are not independent.

    units: (rows,) whole numbers, what is drawn together instead of curves. options: as for `fit_curves`.
    """
    given = options.pop("weights", None)
    weights = row_weights(law, data, options.get("prior", True)) if given is None else given
    units = data.curve if units is None else units
    count = int(units.max()) + 1
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=draws)
    tables, which = np.unique(drawn, axis=0, return_inverse=True)
    fits = [
        fit_curves(law, data, weights=table[units] * weights, start=fit, **options).params
        for table in tables
    ]
    return {name: np.array([f[name] for f in fits])[which.ravel()] for name in fit.params}


def intervals(
    law: str, draws: Mapping[str, np.ndarray], level: float = 0.95
) -> dict[str, tuple[float | None, float | None]]:
    """Percentile intervals; an end where the solver's own limit stopped the parameter is open (None)."""
    ends = {}
    for name, c in FORMS[law].coordinates.items():
        limits = [
            limit for limit in (c.low, c.high) if limit != 0
        ]  # a bound at 0 is the parameter's own
        pair = np.percentile(draws[name], [50 * (1 - level), 50 * (1 + level)])
        ends[name] = tuple(
            None if np.isclose(c.to(x), limits, rtol=0, atol=1e-3).any() else float(x) for x in pair
        )
    return ends


def _middle(data: Rows) -> float:
    """Geometric mean of the sizes: in its units a term's scale and exponent are hardly correlated."""
    return float(np.exp(np.mean(np.log(np.unique(data.params)))))


def _in_units(law, unit: float):
    return law.in_units(unit) if isinstance(law, curves.AnnealingSize) else law


def _coordinates(form: Form, law, unit: float) -> np.ndarray:
    return np.array(
        [
            c.to(value)
            for c, value in zip(form.coordinates.values(), _in_units(law, unit), strict=True)
        ]
    )


def _held(law: str, form: Form, fixed: Mapping[str, float]) -> np.ndarray:
    unknown = [name for name in fixed if name not in form.coordinates]
    if unknown:
        raise ValueError(
            f"the {law} law has no parameter {', '.join(unknown)}; it has {', '.join(form.coordinates)}"
        )
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

    def __init__(
        self,
        form: Form,
        data: Rows,
        loss: losses.Loss,
        held: np.ndarray,
        weights: np.ndarray,
        prior: bool,
    ):
        self.form, self.data, self.loss, self.held, self.weights = form, data, loss, held, weights
        self.free = np.isnan(held)
        self.low, self.high = np.array([(c.low, c.high) for c in form.coordinates.values()]).T
        used = self.weights > 0
        self.curves, self.sizes = (
            len(np.unique(data.curve[used])),
            len(np.unique(data.params[used])),
        )
        self.names = list(form.coordinates)
        self.terms = [
            (t, self.names.index(t.scale), [self.names.index(n) for n in t.shape], t.basis(data))
            for t in form.terms
        ]
        self.scales = [0, *(scale for _, scale, _, _ in self.terms)]
        self.prior = [
            (self.names.index(n), m, s)
            for n, m, s in form.prior
            if prior and self.free[self.names.index(n)]
        ]
        self.offset = np.zeros(
            len(data.loss)
        )  # exact prediction - prediction per unit of scale, at the last refinement
        self.delta, self.tau = (
            np.inf,
            0.0,
        )  # width of the Huber and weight of the prior, set by `solve`

    def predict(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Loss of every row, (rows,), and its Jacobian over all coordinates."""
        predicted, jacobian = (
            np.full(len(self.data.loss), x[0]),
            np.ones((len(self.data.loss), len(x))),
        )
        for term, scale, shape, basis in self.terms:
            value, slope = basis(x[shape])
            value = value + self.offset if term.exact else value
            predicted += term.sign * x[scale] * value
            jacobian[:, scale], jacobian[:, shape] = term.sign * value, term.sign * x[scale] * slope
        return predicted, jacobian

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
        side = self.weights * np.where(r[:rows] > 0, self.loss.over_weight, 1.0)
        return np.r_[
            side * np.minimum(1, self.delta / np.maximum(np.abs(r[:rows]), TINY)),
            np.ones(len(r) - rows),
        ]

    def cost(self, x: np.ndarray) -> float:
        """The Huber sum of the data alone."""
        r = self.residuals(x)[0][: len(self.data.loss)]
        side = self.weights * np.where(r > 0, self.loss.over_weight, 1.0)
        size = np.minimum(np.abs(r), self.delta)
        return float(side @ (size * (np.abs(r) - size / 2)))

    def starts(self) -> list[np.ndarray]:
        """The best linear solutions (L0 and the scales, given the shapes) over the grid of shapes; the best alpha of each."""
        coordinates = list(self.form.coordinates.values())
        options = [
            c.starts if free else (h,)
            for c, free, h in zip(coordinates, self.free, self.held, strict=True)
        ]
        grids = [
            list(itertools.product(*(options[i] for i in shape))) for _, _, shape, _ in self.terms
        ]
        values = [
            [(at, term.sign * basis(np.array(at))[0]) for at in grid]
            for (term, *_, basis), grid in zip(self.terms, grids, strict=True)
        ]
        found = [
            min((self._linear([first, *rest]) for first in values[0]), key=lambda pair: pair[0])
            for rest in itertools.product(*values[1:])
        ]
        found.sort(key=lambda pair: pair[0])
        return [x for _, x in found[:STARTS]]

    def _linear(
        self, bases: list[tuple[tuple[float, ...], np.ndarray]]
    ) -> tuple[float, np.ndarray]:
        x = self.held.copy()
        for (_, _, shape, _), (at, _) in zip(self.terms, bases, strict=True):
            x[shape] = at
        columns = np.column_stack([np.ones(len(self.data.loss)), *(value for _, value in bases)])
        linear = self.held[self.scales]
        free, weight = np.isnan(linear), np.sqrt(self.weights) / self.data.loss
        target = self.data.loss - columns[:, ~free] @ linear[~free]
        r = np.asarray(
            np.linalg.qr(np.column_stack([columns[:, free], target]) * weight[:, None], mode="r")
        )
        linear[free], misfit = scipy.optimize.nnls(r[:, :-1], r[:, -1])
        x[self.scales] = linear
        return float(misfit), x

    def solve(
        self, x: np.ndarray, tolerance: float = FINE, *, polish: bool = False
    ) -> tuple[float, np.ndarray, bool]:
        """(minimized sum, coordinates, converged) from one start, through the stages of the loss and of the prior's weight.

        polish: the start is next to the solution, so the loss's last stage is enough.
        """
        for delta in self.loss.deltas[-1:] if polish else self.loss.deltas:
            self.delta, self.tau, converged = delta, 0.0, False
            for _ in range(50 if self.prior and delta == self.loss.deltas[-1] else 1):
                before, self.tau = (
                    self.tau,
                    self.cost(x) / max(self.curves, 1) if self.prior else 0.0,
                )
                if converged and abs(self.tau - before) <= 1e-4 * self.tau:
                    break
                x, converged = self._least_squares(x, tolerance)
        r, _ = self.residuals(x)
        return (
            self.cost(x) + float(r[len(self.data.loss) :] @ r[len(self.data.loss) :]) / 2,
            x,
            converged,
        )

    def refine(self, cost: float, x: np.ndarray, converged: bool) -> tuple[float, np.ndarray, bool]:
        """The solution under the exact credit, by deferred correction: solved again with the last solution's error."""
        for term, scale, shape, basis in self.terms:
            exact = term.exact(self.data) if term.exact else None
            for _ in range(REFINEMENTS if exact else 0):
                offset = exact(x[shape]) - basis(x[shape])[0]  # pyright: ignore[reportOptionalCall]
                moved, self.offset = np.max(np.abs(offset - self.offset)), offset
                if moved * abs(x[scale]) < 1e-12:
                    break
                cost, x, converged = self.solve(x, polish=True)
        return cost, x, converged

    def _least_squares(self, x: np.ndarray, tolerance: float) -> tuple[np.ndarray, bool]:
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
            return np.stack(
                [pull * z * over, pull, np.where(inside, 0.0, -pull / (2 * np.maximum(z, TINY)))]
            )

        low, high = self.low[self.free], self.high[self.free]
        margin = 1e-9 * np.where(np.isfinite(high - low), high - low, 1.0)
        found = scipy.optimize.least_squares(
            lambda x: at(x)["r"],
            np.clip(x[self.free], low + margin, high - margin),
            jac=lambda x: at(x)["J"],  # pyright: ignore
            bounds=(low, high),
            loss=rho,
            x_scale="jac",
            ftol=tolerance,
            xtol=tolerance,
            gtol=tolerance / 100,
            max_nfev=500,  # pyright: ignore
        )
        return at(found.x)["x"], found.status > 0

    def diagnose(self, x: np.ndarray, converged: bool) -> tuple[float, list[str], str]:
        """Gradient norm, reasons and verdict at the solution."""
        names, reasons = np.array(self.names), []
        r, jacobian = self.residuals(x)
        unit = np.where(np.isin(np.arange(len(x)), self.scales[1:]), np.abs(x), 1.0)
        gradient = (jacobian * unit).T @ (self.pull(r) * r)
        width = np.where(
            np.isfinite(self.high - self.low), self.high - self.low, np.maximum(np.abs(x), 1e-3)
        )
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
        open_by_design = self.form.unidentified(set(names[self.free]), self.curves, self.sizes)
        if open_by_design:
            unidentified, reasons = (
                True,
                [*open_by_design, *(r for r in reasons if "do not tell" not in r)],
            )
        if not converged:
            return norm, ["the solver stopped before it converged", *reasons], "not-converged"
        return (
            norm,
            reasons,
            "unidentified" if unidentified else "at-boundary" if at_edge.any() else "ok",
        )
