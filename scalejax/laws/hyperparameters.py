"""Laws of the best hyperparameters: LR*(N, D), batch*(D) and beta2*(batch) from sweeps in cells of equal (N, D).

N non-embedding parameters, D tokens, LR the peak learning rate, batch in tokens, beta2 of Adam, L nats per token.
"""

from typing import NamedTuple

import numpy as np
from scipy.interpolate import LinearNDInterpolator
from scipy.spatial import QhullError

from scalejax.laws import forms
from scalejax.laws.forms import Law

WITHIN = 0.0025  # runs within 0.25% of the lowest loss of their cell stand for its optimum (Li et al. 2025, section 4)
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


class SweepFit(NamedTuple):
    """The fitted law, with what it loses in every cell."""

    law: Hyperparameters
    kept: int
    """Runs near the optimum of their cells, which the regression reads."""
    objective: float
    """Sum of squared log residuals of both regressions."""
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
    reasons: tuple[str, ...]


def hyperparameter_law() -> Law:
    """The law as the tables know it."""
    return Law(
        name="hyperparameters",
        form=Hyperparameters,
        predict=Hyperparameters.learning_rate,
        inputs=("params", "tokens"),
        coordinates=(forms.OFFSET,) * len(NAMES),
        method="hyperparameters",
    )


def fit_hyperparameters(sweep: Sweep, *, within: float = WITHIN, draws: int = 0, seed: int = 0) -> SweepFit:
    """Least squares of log LR on (1, log N, log D) and of log batch on (1, log D) over the runs near their cell's optimum.

    Where several beta2 were swept, log(1 - beta2) on (1, log batch) beside them, over the runs near the lowest loss of their
    batch in their cell: the best beta2 of every batch, not only of the best one.

    within: relative loss above the cell's lowest that still counts. draws: refits to resampled cells; runs of one cell share
    their data and its optimum. Diverged runs take no part: their loss is far from the lowest.

    Raises ValueError with fewer than three cells, or a beta2 of 1 or more.
    """
    if np.any(sweep.beta2 >= 1):
        raise ValueError(f"beta2 lies below 1; got {sweep.beta2.max():g}")
    cells = sweep.cells()
    if len(cells) < 3:
        raise ValueError(
            f"{len(cells)} cells of equal params and tokens: the law of LR has three parameters and needs three cells"
        )
    sums, kept = zip(*(_normal_equations(cell, within) for cell in cells), strict=True)
    sums = tuple(np.stack(column) for column in zip(*sums, strict=True))
    every = np.ones((1, len(cells)))
    solution, identified = _solve(sums[:4], every)
    law = _law(solution[0])
    drawn = np.random.default_rng(seed).multinomial(len(cells), np.full(len(cells), 1 / len(cells)), size=draws)
    refits, _ = _solve(sums[:4], drawn.astype(float))
    others, _ = _solve(sums[:4], 1 - np.eye(len(cells)))
    beta2, fine = _solve_beta2(sums[4:], every)
    beta2_draws, _ = _solve_beta2(sums[4:], drawn.astype(float))
    residuals = [_residuals(law, cell, within) for cell in cells]
    left_out = [regret(_law(p), cell) for p, cell in zip(others, cells, strict=True)]
    reasons = [reason for cell in cells for reason in _edges(cell)]
    if not identified[0]:
        reasons.insert(0, "params and tokens move together over the cells: their exponents cannot be told apart")
    return SweepFit(
        law=law,
        kept=int(sum(kept)),
        objective=float(sum(np.sum(r**2) for pair in residuals for r in pair)),
        gradient_norm=float(np.max(np.abs(sums[0].sum(0) @ solution[0][:3] - sums[1].sum(0)))),
        draws=_natural(refits),
        beta2=Beta2(*beta2[0].tolist()) if fine[0] else None,
        beta2_draws=beta2_draws,
        regret=np.array([regret(law, cell) for cell in cells]),
        left_out=np.array(left_out),
        verdict="ok" if identified[0] else "unidentified",
        reasons=tuple(reasons),
    )


def regret(law: Hyperparameters, cell: Sweep) -> float:
    """Relative loss above the cell's best run at the law's LR and batch: linear between its runs in (log LR, log batch).

    Of runs that differ in beta2 alone the best counts: it is what remains to be chosen at that batch. The loss is convex about
    its optimum, so that linear interpolation is on the high side. Outside the swept region the nearest run counts; a law that
    is nan has none (nan).
    """
    swept = np.stack([np.log(cell.learning_rate), np.log(cell.batch_tokens)], 1)
    at = np.log([law.learning_rate(cell.params[0], cell.tokens[0]), law.batch_tokens(cell.tokens[0])])
    if not np.isfinite(at).all():
        return np.nan
    swept, run = np.unique(swept, axis=0, return_inverse=True)
    lowest = np.full(len(swept), np.inf)
    np.minimum.at(lowest, run.ravel(), cell.loss)
    try:
        loss = float(LinearNDInterpolator(swept, lowest, rescale=True)(at)[0])
    except QhullError:  # the runs of this cell lie on one line
        loss = np.nan
    if not np.isfinite(loss):
        loss = float(lowest[np.argmin(np.sum((swept - at) ** 2, axis=1))])
    return loss / float(cell.loss.min()) - 1


def _near(cell: Sweep, within: float) -> np.ndarray:
    return cell.loss <= cell.loss.min() * (1 + within)


def _normal_equations(cell: Sweep, within: float):
    """X'X, X'y of the three regressions over the cell's runs near their optimum, and how many runs give LR and batch."""
    near = _near(cell, within)
    X = np.column_stack([np.ones(near.sum()), np.log(cell.params[near]), np.log(cell.tokens[near])])
    y, z = np.log(cell.learning_rate[near]), np.log(cell.batch_tokens[near])
    Z = X[:, [0, 2]]
    best = _near_of_batch(cell, within)
    V = np.column_stack([np.ones(best.sum()), np.log(cell.batch_tokens[best])])
    return (X.T @ X, X.T @ y, Z.T @ Z, Z.T @ z, V.T @ V, V.T @ np.log1p(-cell.beta2[best])), near.sum()


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


def _solve(sums, weights):
    """(log a, b, c, log d, e) per row of cell weights, and whether the cells identify them; nan where they do not."""
    XX, Xy, ZZ, Zz = sums
    (rate, rate_fine), (batch, batch_fine) = _regression(XX, Xy, weights), _regression(ZZ, Zz, weights)
    fine = rate_fine & batch_fine
    return np.where(fine[:, None], np.concatenate([rate, batch], 1), np.nan), fine


def _regression(XX, Xy, weights):
    """Least squares per row of cell weights from each cell's X'X and X'y, and whether it has one solution; nan where not."""
    XX, Xy = (np.tensordot(weights, s, 1) for s in (XX, Xy))
    fine = _condition(XX) < 1e14
    solution = np.linalg.solve(np.where(fine[:, None, None], XX, np.eye(XX.shape[-1])), Xy[..., None])[..., 0]
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


def _residuals(law: Hyperparameters, cell: Sweep, within: float):
    near = _near(cell, within)
    N, D = cell.params[near], cell.tokens[near]
    return np.log(cell.learning_rate[near] / law.learning_rate(N, D)), np.log(cell.batch_tokens[near] / law.batch_tokens(D))


def _edges(cell: Sweep) -> list[str]:
    """Why the cell's optimum may lie outside what it swept."""
    found = []
    for name in ("learning_rate", "batch_tokens", *(("beta2",) if len(np.unique(cell.beta2)) > 1 else ())):
        swept = getattr(cell, name)
        best = swept[np.argmin(cell.loss)]
        if best in (swept.min(), swept.max()):
            end = "smallest" if best == swept.min() else "largest"
            where = f"cell of {cell.params[0]:.3g} params and {cell.tokens[0]:.3g} tokens"
            found.append(f"{where}: the best run has the {end} {name} swept, {best:.3g}")
    return found
