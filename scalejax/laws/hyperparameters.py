"""Laws of the best hyperparameters: LR*(N, D), batch*(D) and beta2*(batch) from sweeps in cells of equal (N, D).

N non-embedding parameters, D tokens, LR the peak learning rate, batch in tokens, beta2 of Adam, L nats per token.
"""

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.interpolate import LinearNDInterpolator
from scipy.spatial import QhullError

from scalejax.laws.law import Allowed, Law

WITHIN = 0.0025  # runs within 0.25% of the lowest loss of their cell stand for its optimum (Li et al. 2025, section 4)
SURFACE = 0.01  # runs within 1% of it bend like a quadratic; farther out, high rates cost more than low ones
FEWEST = 10  # runs for the six numbers of a surface
MEASURED = {
    "learning_rate": 3,
    "batch_tokens": 2,
}  # parameters of each law: cells that its optima are needed from
NAMES = (
    "learning_rate.coefficient",
    "learning_rate.params_exponent",
    "learning_rate.tokens_exponent",
    "batch_tokens.coefficient",
    "batch_tokens.tokens_exponent",
)


class Hyperparameters(NamedTuple):
    """LR* = a N^b D^c and batch* = d D^e (StepLaw, Li et al. 2025, arXiv 2503.04715, eq. 1).

    >>> published = Hyperparameters(1.79, -0.713, 0.307, 0.58, 0.571)
    >>> print(f"{published.learning_rate(1e9, 1e11):.2e} {published.batch_tokens(1e11):.2e}")
    1.63e-03 1.11e+06
    """

    lr_coefficient: float | np.ndarray
    lr_params_exponent: float | np.ndarray
    lr_tokens_exponent: float | np.ndarray
    batch_coefficient: float | np.ndarray
    batch_tokens_exponent: float | np.ndarray

    def learning_rate(self, N, D):
        """Best peak learning rate."""
        return self.lr_coefficient * N**self.lr_params_exponent * D**self.lr_tokens_exponent

    def batch_tokens(self, D):
        """Best batch, tokens per step."""
        return self.batch_coefficient * D**self.batch_tokens_exponent


BETA2_NAMES = ("beta2.coefficient", "beta2.batch_exponent")


class Beta2(NamedTuple):
    """1 - beta2* = coefficient x batch^exponent, batch in tokens: Adam's memory of squared gradients, in steps, by batch.

    An exponent of 1 is a memory of fixed length in tokens, 0 in steps.

    >>> law = Beta2(1e-7, 1.0)
    >>> print(f"{law.beta2(5e5):.3f} {law.half_life(5e5):.2e}")
    0.950 6.76e+06
    """

    coefficient: float | np.ndarray
    batch_exponent: float | np.ndarray

    def beta2(self, batch):
        """Best beta2 at a batch in tokens."""
        return 1 - self.coefficient * batch**self.batch_exponent

    def half_life(self, batch):
        """Tokens after which a squared gradient weighs half: batch log(1/2) / log(beta2)."""
        return batch * np.log(0.5) / np.log(self.beta2(batch))


class Sweep(NamedTuple):
    """Finished runs; all (rows,), positive."""

    params: np.ndarray
    tokens: np.ndarray
    learning_rate: np.ndarray
    batch_tokens: np.ndarray
    loss: np.ndarray
    beta2: np.ndarray
    """Below 1; of one value where it was not swept."""

    def cells(self) -> list["Sweep"]:
        """The runs of each (params, tokens)."""
        _, cell = np.unique(np.stack([self.params, self.tokens]), axis=1, return_inverse=True)
        return [Sweep(*(x[cell == c] for x in self)) for c in range(cell.max() + 1)]


class Optimum(NamedTuple):
    """Where a cell's loss is lowest."""

    at: np.ndarray
    """(2,) log LR, log batch."""
    weight: np.ndarray
    """(2, 2) in the regression: what missing it costs."""
    runs: int
    """Runs it was read from."""


class SweepFit(NamedTuple):
    """The fitted law, with what it loses in every cell."""

    law: Hyperparameters
    kept: int
    """Runs from which the optima of the cells were read."""
    objective: float
    """Sum over cells of e'We, e the law's log LR and log batch minus those of the cell's optimum, W its weight."""
    gradient_norm: float
    draws: np.ndarray
    """(draws, 5) refits to resampled cells, in the order of NAMES; nan where a draw has too few cells."""
    beta2: Beta2 | None
    """None where fewer than two beta2 at two batches were swept."""
    beta2_draws: np.ndarray
    """(draws, 2) of the same draws, in the order of BETA2_NAMES; nan without a law."""
    regret: np.ndarray
    """(cells,) relative loss above the best run, of the law fitted on all cells."""
    left_out: np.ndarray
    """(cells,) the same, of the law fitted without that cell; nan where the others do not identify it."""
    verdict: str
    """ok, unidentified, or at-boundary: fewer cells than a law has parameters have their best run inside of what they swept."""
    reasons: tuple[str, ...]
    at_boundary: tuple[str, ...]
    """Of learning_rate and batch_tokens, those whose law is no measurement for that."""


@dataclass(frozen=True, kw_only=True)
class HyperparameterLaw(Law):
    """The best learning rate and batch size, read off sweeps in cells of equal (N, D)."""

    name: str = "hyperparameters"
    inputs: tuple[str, ...] = ("params", "tokens")
    target: str = "learning_rate"

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the parameters; a fit to several beta2 also has `BETA2_NAMES`."""
        return NAMES

    @property
    def formula(self) -> str:
        """The docstring of `Hyperparameters`."""
        return inspect.getdoc(Hyperparameters) or ""

    def allowed(self, name: str) -> Allowed:
        """Raises ValueError: the laws are regressions that hold no parameter."""
        raise ValueError(
            f"{name} of the hyperparameters law cannot be held: coefficients and exponents "
            "follow from the optimum of each cell"
        )


def hyperparameter_law() -> HyperparameterLaw:
    """The law of the best learning rate and batch size."""
    return HyperparameterLaw()


def surface_optimum(cell: Sweep) -> Optimum | None:
    """The lowest point of a quadratic in (log LR, log batch) through the relative losses of the runs within SURFACE of the best.

    Its weight is the surface's Hessian: e'We / 2 is the relative loss that missing the optimum by e costs, so that the direction
    in which LR and batch may move together counts for little. None where the runs are too few, or their surface is lowest
    outside of them.
    """
    swept, lowest = _over_beta2(cell)
    near = lowest <= lowest.min() * (1 + SURFACE)
    if near.sum() < FEWEST:
        return None
    centre = swept[near].mean(0)
    x, y = (swept[near] - centre).T
    terms = np.column_stack([np.ones(near.sum()), x, y, x * x / 2, x * y, y * y / 2])
    (_, *slope, xx, xy, yy), _, rank, _ = np.linalg.lstsq(
        terms, lowest[near] / lowest.min(), rcond=None
    )
    bend = np.array([[xx, xy], [xy, yy]])
    if rank < terms.shape[1] or np.linalg.eigvalsh(bend)[0] <= 0:
        return None
    at = centre - np.linalg.solve(bend, slope)
    inside = np.all((at >= swept[near].min(0)) & (at <= swept[near].max(0)))
    return Optimum(at, bend, int(near.sum())) if inside else None


def near_optimum(cell: Sweep) -> Optimum:
    """The mean (log LR, log batch) of the runs within WITHIN of the best, each counting once (Li et al. 2025)."""
    near = cell.loss <= cell.loss.min() * (1 + WITHIN)
    at = np.array([np.log(cell.learning_rate[near]).mean(), np.log(cell.batch_tokens[near]).mean()])
    return Optimum(at, near.sum() * np.eye(2), int(near.sum()))


def fit_hyperparameters(
    sweep: Sweep,
    *,
    optimum: Callable[[Sweep], Optimum | None] = surface_optimum,
    draws: int = 0,
    seed: int = 0,
) -> SweepFit:
    """Weighted least squares of the cells' optima: log LR on (1, log N, log D) and log batch on (1, log D), together.

    Where several beta2 were swept, log(1 - beta2) on (1, log batch) beside them, over the runs near the lowest loss of their
    batch in their cell: the best beta2 of every batch, not only of the best one.

    optimum: how a cell's optimum is read; where it says None of one cell, `near_optimum` reads all of them. draws: refits to
    resampled cells; runs of one cell share their data and its optimum. Diverged runs take no part: their loss is far from the
    lowest.

    Raises ValueError with fewer than three cells, or a beta2 of 1 or more.
    """
    if np.any(sweep.beta2 >= 1):
        raise ValueError(f"beta2 lies below 1; got {sweep.beta2.max():g}")
    cells = sweep.cells()
    if len(cells) < 3:
        raise ValueError(
            f"{len(cells)} cells of equal params and tokens: the law of LR has three parameters and needs three cells"
        )
    optima = [best for best in map(optimum, cells) if best is not None]
    if sparse := len(cells) - len(optima):
        optima = [near_optimum(cell) for cell in cells]
    sums = _stacked(_normal_equations(cell, best) for cell, best in zip(cells, optima, strict=True))
    memory = _stacked(_memory_equations(cell) for cell in cells)
    every = np.ones((1, len(cells)))
    solution, identified = _regression(*sums, every)
    law = _law(solution[0])
    drawn = (
        np.random.default_rng(seed)
        .multinomial(len(cells), np.full(len(cells), 1 / len(cells)), size=draws)
        .astype(float)
    )
    refits, others = (_regression(*sums, weights)[0] for weights in (drawn, 1 - np.eye(len(cells))))
    (beta2, fine), (beta2_draws, _) = (_solve_beta2(memory, weights) for weights in (every, drawn))
    missed = [
        _design(cell) @ solution[0] - best.at for cell, best in zip(cells, optima, strict=True)
    ]
    edges = [_edges(cell) for cell in cells]
    reasons = [reason for found in edges for reason in found.values()]
    inside = {name: sum(name not in found for found in edges) for name in MEASURED}
    unmeasured = tuple(name for name, needed in MEASURED.items() if inside[name] < needed)
    reasons[:0] = [
        f"the best {name} lies inside of what was swept in {inside[name]} of {len(cells)} cells, and its law has "
        f"{MEASURED[name]} parameters: what the sweeps chose is no optimum"
        for name in unmeasured
    ]
    if sparse:
        reasons.insert(0, _why_near(sparse, len(cells)))
    if not identified[0]:
        reasons.insert(
            0,
            "params and tokens move together over the cells: their exponents cannot be told apart",
        )
    return SweepFit(
        law=law,
        kept=sum(best.runs for best in optima),
        objective=float(sum(e @ best.weight @ e for e, best in zip(missed, optima, strict=True))),
        gradient_norm=float(np.max(np.abs(sums[0].sum(0) @ solution[0] - sums[1].sum(0)))),
        draws=_natural(refits),
        beta2=Beta2(*beta2[0].tolist()) if fine[0] else None,
        beta2_draws=beta2_draws,
        regret=np.array([regret(law, cell) for cell in cells]),
        left_out=np.array([regret(_law(p), cell) for p, cell in zip(others, cells, strict=True)]),
        verdict="unidentified" if not identified[0] else "at-boundary" if unmeasured else "ok",
        reasons=tuple(reasons),
        at_boundary=unmeasured,
    )


def regret(law: Hyperparameters, cell: Sweep) -> float:
    """Relative loss above the cell's best run at the law's LR and batch: linear between its runs in (log LR, log batch).

    It reads the runs alone and no smooth surface, so that it favours no estimator. Of runs that differ in beta2 alone the best
    counts: it is what remains to be chosen at that batch. The loss is convex about its optimum, so that linear interpolation is
    on the high side, and the best of many noisy runs is on the low side: differences below .05% say little on sweeps like
    StepLaw's. Outside the swept region the nearest run counts; a law that is nan has none (nan).
    """
    at = np.log(
        [law.learning_rate(cell.params[0], cell.tokens[0]), law.batch_tokens(cell.tokens[0])]
    )
    if not np.isfinite(at).all():
        return np.nan
    swept, lowest = _over_beta2(cell)
    try:
        loss = float(LinearNDInterpolator(swept, lowest, rescale=True)(at)[0])
    except QhullError:  # the runs of this cell lie on one line
        loss = np.nan
    if not np.isfinite(loss):
        loss = float(lowest[np.argmin(np.sum((swept - at) ** 2, axis=1))])
    return loss / float(cell.loss.min()) - 1


def _over_beta2(cell: Sweep) -> tuple[np.ndarray, np.ndarray]:
    """The (log LR, log batch) that were swept, (runs, 2), and the lowest loss of each over beta2 and repeats."""
    swept = np.stack([np.log(cell.learning_rate), np.log(cell.batch_tokens)], 1)
    swept, run = np.unique(swept, axis=0, return_inverse=True)
    lowest = np.full(len(swept), np.inf)
    np.minimum.at(lowest, run.ravel(), cell.loss)
    return swept, lowest


def _design(cell: Sweep) -> np.ndarray:
    """(2, 5): log LR and log batch of the cell from (log a, b, c, log d, e)."""
    n, d = np.log(cell.params[0]), np.log(cell.tokens[0])
    return np.array([[1, n, d, 0, 0], [0, 0, 0, 1, d]])


def _normal_equations(cell: Sweep, best: Optimum) -> tuple[np.ndarray, np.ndarray]:
    """X'WX and X'Wy of one cell."""
    weighted = _design(cell).T @ best.weight
    return weighted @ _design(cell), weighted @ best.at


def _memory_equations(cell: Sweep) -> tuple[np.ndarray, np.ndarray]:
    """X'X and X'y of log(1 - beta2) on (1, log batch)."""
    best = _near_of_batch(cell, WITHIN)
    V = np.column_stack([np.ones(best.sum()), np.log(cell.batch_tokens[best])])
    return V.T @ V, V.T @ np.log1p(-cell.beta2[best])


def _stacked(equations: Iterable[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """(cells, k, k) and (cells, k)."""
    XX, Xy = zip(*equations, strict=True)
    return np.stack(XX), np.stack(Xy)


def _why_near(sparse: int, cells: int) -> str:
    return (
        f"{sparse} of {cells} cells have fewer than {FEWEST} runs within {SURFACE:.0%} of their "
        f"best around a lowest point, so the runs within {WITHIN:.2%} of it stand for the optimum of every cell"
    )


def _near_of_batch(cell: Sweep, within: float) -> np.ndarray:
    """Runs near the lowest loss of their batch, at the batches where several beta2 were swept."""
    found = np.zeros(len(cell.loss), bool)
    for batch in np.unique(cell.batch_tokens):
        same = cell.batch_tokens == batch
        if len(np.unique(cell.beta2[same])) > 1:
            found |= same & (cell.loss <= cell.loss[same].min() * (1 + within))
    return found


def _solve_beta2(sums, weights):
    """(coefficient, exponent) per row of cell weights, and whether the cells identify them; nan where they do not."""
    VV, Vv = sums
    solution, fine = _regression(VV, Vv, weights)
    solution[:, 0] = np.exp(solution[:, 0])
    return solution, fine


def _regression(XX, Xy, weights):
    """Least squares per row of cell weights from each cell's X'X and X'y, and whether it has one solution; nan where not."""
    XX, Xy = (np.tensordot(weights, s, 1) for s in (XX, Xy))
    fine = _condition(XX) < 1e14
    solution = np.linalg.solve(
        np.where(fine[:, None, None], XX, np.eye(XX.shape[-1])), Xy[..., None]
    )[..., 0]
    return np.where(fine[:, None], solution, np.nan), fine


def _condition(matrix):
    """Condition number after unit scaling, which takes the size of the logarithms out; infinite without a single run."""
    scale = np.sqrt(np.maximum(np.einsum("kii->ki", matrix), 1e-300))
    values = np.linalg.eigvalsh(matrix / (scale[:, :, None] * scale[:, None, :]))
    return np.where(values[:, -1] > 0, values[:, -1] / np.maximum(values[:, 0], 1e-300), np.inf)


def _natural(solution: np.ndarray) -> np.ndarray:
    return np.where(np.isin(np.arange(len(NAMES)), (0, 3)), np.exp(solution), solution)


def _law(solution: np.ndarray) -> Hyperparameters:
    return Hyperparameters(*(float(x) for x in _natural(solution)))


def _edges(cell: Sweep) -> dict[str, str]:
    """What was swept too little to bracket the cell's best run, and how."""
    found = {}
    for name in (
        "learning_rate",
        "batch_tokens",
        *(("beta2",) if len(np.unique(cell.beta2)) > 1 else ()),
    ):
        swept = getattr(cell, name)
        best = swept[np.argmin(cell.loss)]
        where = f"cell of {cell.params[0]:.3g} params and {cell.tokens[0]:.3g} tokens"
        if swept.min() == swept.max():
            found[name] = f"{where}: one {name}, {best:.3g}, was swept"
        elif best in (swept.min(), swept.max()):
            end = "smallest" if best == swept.min() else "largest"
            found[name] = f"{where}: the best run has the {end} {name} swept, {best:.3g}"
    return found
