"""Compute-optimal sizes without a law of the loss: approach 1 (envelope) and approach 2 (isoFLOP curves).

C training FLOPs, N parameters, D tokens, L nats per token. The optimum of every budget feeds two power laws,
N*(C) = coefficient C^exponent and the same for D*; the two are fitted apart, so their exponents need not sum to 1.
"""

import inspect
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from scalejax.laws.law import Allowed, Law

ENDS = (2.5, 97.5)  # percentiles of a 95% interval
SAME_BUDGET = 0.01  # runs within 1% of their neighbour share a budget; coarser rounding merges 1.5e19 with 2.4e19
GRID = 25  # grid points per gap between two models (Porian et al. 2024)
MIN_MODELS = 3


class PowerLaws(NamedTuple):
    """N* = params_coefficient C^params_exponent, D* = tokens_coefficient C^tokens_exponent."""

    params_exponent: float | np.ndarray
    params_coefficient: float | np.ndarray
    tokens_exponent: float | np.ndarray
    tokens_coefficient: float | np.ndarray

    def params(self, C):
        """Compute-optimal parameters."""
        return self.params_coefficient * C**self.params_exponent

    def tokens(self, C):
        """Compute-optimal tokens."""
        return self.tokens_coefficient * C**self.tokens_exponent


class Budget(NamedTuple):
    """The optimum at one compute budget; params and tokens are nan, and `reason` says why, where there is none."""

    flops: float
    models: int
    params: float
    tokens: float
    params_std: float
    """Standard deviation of log N* over the noise draws, floored by the resolution of the grid; 1 without draws."""
    tokens_std: float
    valid: float
    """Share of the noise draws with an interior minimum; 1 without draws."""
    reason: str


class IsoFLOPResult(NamedTuple):
    """Power laws through the optima of all budgets."""

    law: PowerLaws
    """nan where fewer than two budgets have an interior minimum."""
    budgets: tuple[Budget, ...]
    draws: np.ndarray
    """(draws, 4): the law of every noise draw, in the order of PowerLaws."""
    r2: tuple[float, float]
    """Share of the variance of log N*, and of log D*, over the budgets that the laws explain."""
    objective: float
    """Weighted sum of squared residuals of log N*."""
    gradient_norm: float
    verdict: str
    reasons: tuple[str, ...]

    def interval(self, name: str, flops: float) -> tuple[float, float]:
        """95% interval of "params" or "tokens" at a budget; nan without draws."""
        if not len(self.draws):
            return np.nan, np.nan
        low, high = np.nanpercentile(getattr(PowerLaws(*self.draws.T), name)(flops), ENDS)
        return float(low), float(high)


class Noise(NamedTuple):
    """Standard deviation of a measured loss, nats: constant, or log-log between two losses and constant outside them.

    >>> Noise.parse("0.002@3,0.05@7").std(np.array([2.0, 3.0, 7.0])).round(4).tolist()
    [0.002, 0.002, 0.05]
    """

    losses: tuple[float, ...]
    stds: tuple[float, ...]

    @classmethod
    def parse(cls, text: str) -> "Noise":
        """From `STD` (nats) or `STD@LOSS,STD@LOSS`."""
        wrong = f"noise {text!r} is neither STD nor STD@LOSS,STD@LOSS in nats, such as 0.002 or 0.002@3,0.05@7"
        try:
            pairs = [
                tuple(float(number) for number in part.split("@")) for part in str(text).split(",")
            ]
        except ValueError:
            raise ValueError(wrong) from None
        flat = [number for pair in pairs for number in pair]
        if (
            {len(pair) for pair in pairs} == {1}
            and len(pairs) == 1
            and np.isfinite(flat).all()
            and flat[0] >= 0
        ):
            return cls((1.0,), (flat[0],))
        if {len(pair) for pair in pairs} != {2} or not all(np.isfinite(x) and x > 0 for x in flat):
            raise ValueError(wrong)
        pairs.sort(key=lambda pair: pair[1])
        losses = tuple(pair[1] for pair in pairs)
        if len(set(losses)) < 2:
            raise ValueError(wrong)
        return cls(losses, tuple(pair[0] for pair in pairs))

    def std(self, loss: np.ndarray) -> np.ndarray:
        """Standard deviation at each loss."""
        if len(self.losses) == 1:
            return np.full_like(loss, self.stds[0])
        return np.exp(np.interp(np.log(loss), np.log(self.losses), np.log(self.stds)))


def fit_isoflop(
    params,
    tokens,
    flops,
    loss,
    *,
    protocol: str = "parabola",
    noise: Noise | None = None,
    draws: int = 0,
    seed: int = 0,
) -> IsoFLOPResult:
    """Approach 2: the interior minimum of the loss over N (and, apart, over D) at every budget, then N*(C) and D*(C).

    params, tokens, flops, loss: (rows,), positive. Rows whose flops differ by less than 1% share a budget; of runs of equal
    size at one budget the lowest loss counts. `parabola`: L quadratic in log N (Hoffmann et al. 2022, approach 2). `akima`:
    Akima spline of log L in log N on 25 (n - 1) grid points (Porian et al. 2024, section 3). A minimum at the edge of the
    sizes, or a parabola that opens downwards, is refused: the budget is left out and its reason kept.

    With `draws`, each adds Gaussian noise to all losses; N* of a budget is the median over the draws, a budget needs an
    interior minimum in half of them, and the power law weights it by 1 / std^2 of log N*. Draw i across the budgets gives the
    i-th power law, and their percentiles the intervals.

    Raises ValueError on an unknown protocol, draws without noise, or when no budget has three models.
    """
    if protocol not in ("akima", "parabola"):
        raise ValueError(f"isoflop protocol {protocol!r} is not one of akima, parabola")
    if draws and noise is None:
        raise ValueError(
            "noise draws need the noise of a loss in nats, STD or STD@LOSS,STD@LOSS (--noise 0.002)"
        )
    curves, reasons = _curves(*(np.asarray(a, float) for a in (params, tokens, flops, loss)))
    losses = np.stack([curve.loss for curve in curves])
    noisy = losses[None]
    if draws:
        assert noise is not None
        noisy = losses + noise.std(losses) * np.random.default_rng(seed).standard_normal(
            (draws, *losses.shape)
        )
        noisy = np.maximum(noisy, 1e-9)  # a draw cannot make a loss negative
    minima, optima = [], []
    for x in (
        np.stack([curve.log_N for curve in curves]),
        np.stack([curve.log_D for curve in curves]),
    ):
        at, resolution = _minima(x, noisy, np.array([curve.models for curve in curves]), protocol)
        minima.append(at)
        optima.append(_optima(at, resolution if draws else None))
    budgets = [_budget(curve, n, d, protocol) for curve, n, d in zip(curves, *optima, strict=True)]
    reasons += [budget.reason for budget in budgets if budget.reason]
    return _power_laws(budgets, minima if draws else None, reasons)


def envelope(run, params, tokens, flops, loss, *, budgets: int = 200) -> IsoFLOPResult:
    """Approach 1: at each of many log-spaced C, the run of lowest loss; log N* and log D* regressed on log C.

    run: (rows,) labels of the training curves; the other arrays give their points, losses already smoothed. Each curve is
    interpolated log-log in C and used within its own range only. A budget won by the smallest or the largest of the sizes is
    left out: its optimum is cut off by the ladder. Needs schedules that match their horizon (Hoffmann et al. 2022, section 3.1).
    """
    run = np.asarray(run)
    N, D, C, L = (np.asarray(a, float) for a in (params, tokens, flops, loss))
    grid = np.linspace(np.log(C.min()), np.log(C.max()), budgets)
    names = np.unique(run)
    table = np.full(
        (3, len(names), budgets), np.inf
    )  # log loss, log N, log D of each curve at each budget
    for r, name in enumerate(names):
        rows = np.flatnonzero(run == name)
        rows = rows[np.argsort(C[rows])]
        inside = (grid >= np.log(C[rows[0]])) & (grid <= np.log(C[rows[-1]]))
        for k, values in enumerate((L, N, D)):
            table[k, r, inside] = np.interp(grid[inside], np.log(C[rows]), np.log(values[rows]))
    best = np.argmin(table[0], axis=0)
    found = []
    for b, (c, winner) in enumerate(zip(grid, best, strict=True)):
        running = np.isfinite(table[0, :, b])
        sizes = np.unique(table[1, running, b])
        if len(sizes) >= MIN_MODELS and sizes[0] < table[1, winner, b] < sizes[-1]:
            size, seen = (float(np.exp(x)) for x in table[1:, winner, b])
            found.append(Budget(float(np.exp(c)), len(sizes), size, seen, 1.0, 1.0, 1.0, ""))
    reasons = [
        f"{budgets - len(found)} of {budgets} budgets have no winner between the smallest and the largest model"
    ]
    return _power_laws(found, None, reasons if len(found) < budgets else [])


@dataclass(frozen=True, kw_only=True)
class IsoFLOP(Law):
    """Approach 2: the compute-optimal size of each budget, read off its isoFLOP curve."""

    name: str = "isoflop"
    inputs: tuple[str, ...] = ("flops",)
    target: str = "params"

    @property
    def names(self) -> tuple[str, ...]:
        """Exponent and coefficient of N*(C), then of D*(C)."""
        return PowerLaws._fields

    @property
    def formula(self) -> str:
        """The docstring of `PowerLaws`."""
        return inspect.getdoc(PowerLaws) or ""

    def allowed(self, name: str) -> Allowed:
        """Raises ValueError: the power laws are regressions that hold no parameter."""
        raise ValueError(
            f"{name} of the isoflop law cannot be held: exponents and coefficients follow "
            "from the optimum of each budget"
        )


def isoflop_law() -> IsoFLOP:
    """The law of the compute-optimal size by isoFLOP curves."""
    return IsoFLOP()


class _Curve(NamedTuple):
    """The runs of one budget, sorted by N; the arrays are padded to one length over all budgets."""

    log_N: np.ndarray
    log_D: np.ndarray
    loss: np.ndarray
    models: int
    flops: float


def _curves(N, D, C, L) -> tuple[list[_Curve], list[str]]:
    """One curve per budget with enough sizes, and why other budgets are left out."""
    order = np.argsort(C, kind="stable")
    breaks = np.flatnonzero(np.diff(np.log(C[order])) > SAME_BUDGET) + 1
    found, reasons = [], []
    for rows in np.split(order, breaks):
        flops = float(np.exp(np.log(C[rows]).mean()))
        rows = rows[np.lexsort((L[rows], N[rows]))]
        rows = rows[np.unique(N[rows], return_index=True)[1]]
        if len(rows) < MIN_MODELS:
            reasons.append(
                f"budget {flops:.3g} left out: {len(rows)} model sizes, an isoFLOP curve needs {MIN_MODELS}"
            )
        else:
            found.append((rows, flops))
    if not found:
        raise ValueError(
            f"no budget has {MIN_MODELS} model sizes ({len(reasons)} budgets in {len(C)} rows): an isoFLOP table needs several "
            "sizes at each value of flops"
        )
    longest = max(len(rows) for rows, _ in found)

    def pad(x):
        return np.pad(x, (0, longest - len(x)), mode="edge")

    log_N, log_D = np.log(N), np.log(D)
    return [
        _Curve(pad(log_N[r]), pad(log_D[r]), pad(L[r]), len(r), flops) for r, flops in found
    ], reasons


def _minima(x, losses, count, protocol):
    """log of the minimizing size, (draws, budgets), nan where it is not interior, and the resolution of log N per budget."""
    budgets, longest = x.shape
    more = (
        (0, -budgets % 8),
        (0, 2 ** max(3, (longest - 1).bit_length()) - longest),
    )  # few shapes, hence few compilations
    span = np.abs(x[np.arange(budgets), count - 1] - x[:, 0])
    padded = (
        np.pad(x, more, mode="edge"),
        np.pad(losses, ((0, 0), *more), mode="edge"),
        np.pad(count, more[0], mode="edge"),
    )
    with jax.enable_x64(True):
        if protocol == "parabola":
            return np.asarray(_parabola_minima(*padded))[:, :budgets], np.zeros(budgets)
        resolution = (
            0.33 * GRID * span / (GRID * (count - 1) - 1)
        )  # a third of the mean gap between two models
        return np.asarray(_akima_minima(padded[0], np.log(padded[1]), padded[2]))[
            :, :budgets
        ], resolution


@jax.jit
def _parabola_minima(x, losses, count):
    def vertex(x, loss, n):
        keep = jnp.arange(x.size) < n
        low, high = jnp.where(keep, x, jnp.inf).min(), jnp.where(keep, x, -jnp.inf).max()
        centre, half = (low + high) / 2, (high - low) / 2
        z = (x - centre) / half
        design = jnp.where(keep[:, None], jnp.stack([jnp.ones_like(z), z, z**2], 1), 0)
        _, slope, curvature = jnp.linalg.solve(design.T @ design, design.T @ loss)
        minimum = -slope / (2 * curvature)
        return jnp.where((curvature > 0) & (jnp.abs(minimum) < 1), centre + half * minimum, jnp.nan)

    return jax.vmap(jax.vmap(vertex), in_axes=(None, 0, None))(x, losses, count)


@jax.jit
def _akima_minima(x, log_loss, count):
    """Argmin over the grid of every budget's spline, draw by draw; an argmin at an end is nan."""
    points = GRID * (x.shape[1] - 1)

    def minimum(x, y, n):
        last = GRID * (n - 1) - 1
        at = x[0] + (x[n - 1] - x[0]) * jnp.arange(points) / last
        sign = jnp.sign(x[n - 1] - x[0])
        value = jnp.where(jnp.arange(points) <= last, akima(sign * x, y, n, sign * at), jnp.inf)
        best = jnp.argmin(value)
        return jnp.where((best > 0) & (best < last), at[best], jnp.nan)

    return jax.lax.map(lambda y: jax.vmap(minimum)(x, y, count), log_loss, batch_size=64)


def akima(x: jax.Array, y: jax.Array, count: jax.Array, at: jax.Array) -> jax.Array:
    """Akima's 1970 spline through the first `count` of the padded points (x, y), x ascending, at `at` within their range."""
    index = (
        jnp.arange(x.size + 3) - 2
    )  # slopes -2 .. count: two beyond each end, continued linearly
    gap = jnp.where(jnp.arange(x.size - 1) < count - 1, jnp.diff(x), 1.0)
    slope = jnp.diff(y) / gap
    first, last = slope[0], slope[count - 2]
    inside = slope[jnp.clip(index, 0, x.size - 2)]
    slope = jnp.where(index < 0, first + index * (slope[1] - first), inside)
    slope = jnp.where(
        index > count - 2, last + (index - (count - 2)) * (last - inside[count - 1]), slope
    )
    change = jnp.abs(jnp.diff(slope))
    right, left = change[2:], change[:-2]
    total = jnp.where(jnp.arange(x.size) < count, left + right, 0)
    flat = total <= 1e-9 * total.max()  # no bend on either side: the mean of the outer slopes
    weighted = (right * slope[1:-2] + left * slope[2:-1]) / jnp.where(flat, 1, total)
    tangent = jnp.where(flat, (slope[:-3] + slope[3:]) / 2, weighted)
    k = jnp.clip(
        jnp.searchsorted(jnp.where(jnp.arange(x.size) < count, x, jnp.inf), at, side="right") - 1,
        0,
        count - 2,
    )
    h, t, m = gap[k], (at - x[k]) / gap[k], slope[k + 2]
    c2, c3 = 3 * m - 2 * tangent[k] - tangent[k + 1], tangent[k] + tangent[k + 1] - 2 * m
    return y[k] + h * t * (tangent[k] + t * (c2 + t * c3))


class _Optimum(NamedTuple):
    log_size: float
    std: float
    valid: float


def _optima(minima: np.ndarray, resolution: np.ndarray | None) -> list[_Optimum]:
    """Each budget's minimum over the draws: median, standard deviation (floored by the grid), and the interior share."""
    found = []
    for b, column in enumerate(minima.T):
        inside = column[np.isfinite(column)]
        valid = len(inside) / len(column)
        if valid < 0.5:
            found.append(_Optimum(np.nan, 1.0, valid))
            continue
        std = (
            1.0
            if resolution is None
            else max(float(inside.std()), float(resolution[b]), 1e-12) / valid
        )
        found.append(_Optimum(float(np.log(np.median(np.exp(inside)))), std, valid))
    return found


def _budget(curve: _Curve, n: _Optimum, d: _Optimum, protocol: str) -> Budget:
    valid = min(n.valid, d.valid)
    reason = "" if np.isfinite(n.log_size + d.log_size) else _refusal(curve, valid, protocol)
    return Budget(
        curve.flops,
        curve.models,
        float(np.exp(n.log_size)),
        float(np.exp(d.log_size)),
        n.std,
        d.std,
        valid,
        reason,
    )


def _refusal(curve: _Curve, valid: float, protocol: str) -> str:
    best = int(np.argmin(curve.loss[: curve.models]))
    where = f"budget {curve.flops:.3g} left out: "
    if best in (0, curve.models - 1):
        end = "smallest" if best == 0 else "largest"
        size = np.exp(curve.log_N[best])
        return (
            where
            + f"its lowest loss is at the {end} model, {size:.3g} parameters: the optimum is not bracketed"
        )
    shape = "no interior minimum"
    if protocol == "parabola":
        shape = "the parabola opens downwards or has its vertex outside the sizes"
    return (
        where
        + shape
        + (f" in {100 * (1 - valid):.0f}% of the noise draws" if 0 < valid < 1 else "")
    )


def _power_laws(budgets, minima, reasons) -> IsoFLOPResult:
    used = np.array([i for i, budget in enumerate(budgets) if not budget.reason], int)
    if len(used) < 2:
        reasons = (*reasons, f"{len(used)} budgets with an interior minimum: a power law needs two")
        none = PowerLaws(*[np.nan] * 4)
        return IsoFLOPResult(
            none,
            tuple(budgets),
            np.empty((0, 4)),
            (np.nan, np.nan),
            np.nan,
            np.nan,
            "unidentified",
            reasons,
        )
    if len(used) == 2:
        reasons = [
            *reasons,
            "two budgets with an interior minimum: nothing is left to check the power law with",
        ]
    x = np.log([budgets[i].flops for i in used])
    law, draws, r2, misfit = [], [], [], []
    for axis in (0, 1):
        y = np.log([(budgets[i].params, budgets[i].tokens)[axis] for i in used])
        weights = (
            1 / np.array([(budgets[i].params_std, budgets[i].tokens_std)[axis] for i in used]) ** 2
        )
        (slope,), (intercept,) = _line(x, y[None], weights)
        residual = y - intercept - slope * x
        law += [float(slope), float(np.exp(intercept))]
        r2.append(float(1 - np.sum(residual**2) / np.sum((y - y.mean()) ** 2)))
        misfit.append(
            (
                float(weights @ residual**2),
                float(max(abs(weights @ residual), abs(weights @ (residual * x)))),
            )
        )
        if minima is not None:
            slopes, intercepts = _line(x, minima[axis][:, used], weights)
            draws += [slopes, np.exp(intercepts)]
    table = np.stack(draws, 1) if draws else np.empty((0, 4))
    return IsoFLOPResult(
        PowerLaws(*law),
        tuple(budgets),
        table,
        (r2[0], r2[1]),
        misfit[0][0],
        misfit[0][1],
        "ok",
        tuple(reasons),
    )


def _line(x, y, weights):
    """Weighted least squares of each row of y (nan = left out) on x: slopes and intercepts, nan with fewer than two points."""
    w = np.where(np.isfinite(y), weights, 0.0)
    y = np.nan_to_num(y)
    total = np.maximum(w.sum(1), 1e-300)
    mean_x, mean_y = (w @ x) / total, (w * y).sum(1) / total
    centred = x - mean_x[:, None]
    spread = (w * centred**2).sum(1)
    slope = (w * centred * (y - mean_y[:, None])).sum(1) / np.where(
        (w > 0).sum(1) >= 2, spread, np.nan
    )
    return slope, mean_y - slope * mean_x
