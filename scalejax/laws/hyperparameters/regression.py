"""Weighted least squares over the optima of all cells.

N non-embedding parameters, D training tokens, LR the peak learning rate.

Shapes: [cells] one entry per cell of equal (N, D); [fits] one per regression, which has
its own weights of the cells; [k] coefficients of a regression; [rows] one per run.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from scalejax.laws.hyperparameters.optimum import NEAR_RANGE, Optimum
from scalejax.laws.hyperparameters.sweep import Sweep

# A regression with a larger condition number has no unique solution.
MAX_CONDITION = 1e14

# Keeps a division by a diagonal of zero finite.
TINY = 1e-300


class Equations(NamedTuple):
    """Normal equations of every cell, to be added up with weights."""

    XX: Float[np.ndarray, "cells k k"]
    """X'WX."""
    Xy: Float[np.ndarray, "cells k"]
    """X'Wy."""

    def gradient(self, coefficients: Float[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
        """Half the gradient of the sum of squares over all cells."""
        return self.XX.sum(0) @ coefficients - self.Xy.sum(0)


def optimum_equations(cells: list[Sweep], optima: list[Optimum]) -> Equations:
    """Joint equations of log LR on (1, log N, log D), log batch on (1, log D).

    Optima of only the rate give the first of the two regressions.
    """
    return _stack(map(_equations_of_optimum, cells, optima))


def beta2_equations(cells: list[Sweep]) -> Equations:
    """Equations of log(1 - beta2) on (1, log batch), over the best runs."""
    return _stack(map(_equations_of_beta2, cells))


def _stack(equations: Iterable[tuple[np.ndarray, np.ndarray]]) -> Equations:
    XX, Xy = zip(*equations, strict=True)
    return Equations(np.stack(XX), np.stack(Xy))


def design(cell: Sweep, swept: int = 2) -> Float[np.ndarray, "rows k"]:
    """Map (log a, b, c, log d, e) of the law to log LR and log batch of the cell.

    swept: 1 for only log LR, which depends on (log a, b, c); 2 for both.
    """
    n, d = np.log(cell.params[0]), np.log(cell.tokens[0])
    if swept == 1:
        return np.array([[1, n, d]])
    return np.array([[1, n, d, 0, 0], [0, 0, 0, 1, d]])


def _equations_of_optimum(cell: Sweep, best: Optimum) -> tuple[np.ndarray, np.ndarray]:
    # W couples the two rows of the design: log LR and log batch.
    rows = design(cell, len(best.at))
    weighted = rows.T @ best.weight
    return weighted @ rows, weighted @ best.at


def _equations_of_beta2(cell: Sweep) -> tuple[np.ndarray, np.ndarray]:
    near = _near_best_of_batch(cell)
    X = np.column_stack([np.ones(near.sum()), np.log(cell.batch_tokens[near])])
    return X.T @ X, X.T @ np.log1p(-cell.beta2[near])


def _near_best_of_batch(cell: Sweep) -> Bool[np.ndarray, " rows"]:
    """Runs within NEAR_RANGE of the lowest loss of their batch size.

    Batch sizes at which one beta2 was swept have none: they do not show which is best.
    """
    near = np.zeros(len(cell.loss), bool)
    for batch in np.unique(cell.batch_tokens):
        same = cell.batch_tokens == batch
        if len(np.unique(cell.beta2[same])) > 1:
            near |= same & (cell.loss <= cell.loss[same].min() * (1 + NEAR_RANGE))
    return near


class Solutions(NamedTuple):
    """Coefficients of several regressions."""

    coefficients: Float[np.ndarray, "fits k"]
    """nan where the cells do not identify them."""
    identified: Bool[np.ndarray, " fits"]


def regress(equations: Equations, weights: Float[np.ndarray, "fits cells"]) -> Solutions:
    """Least squares for every row of cell weights."""
    # The equations of a regression are the weighted sum of those of its cells.
    XX, Xy = (np.tensordot(weights, sums, 1) for sums in equations)
    identified = _condition(XX) < MAX_CONDITION
    # The identity replaces singular systems, so that one batched call solves all.
    solvable = np.where(identified[:, None, None], XX, np.eye(XX.shape[-1]))
    coefficients = np.linalg.solve(solvable, Xy[..., None])[..., 0]
    return Solutions(np.where(identified[:, None], coefficients, np.nan), identified)


def _condition(matrix: Float[np.ndarray, "fits k k"]) -> Float[np.ndarray, " fits"]:
    """Condition number after scaling the diagonal to 1; infinite without runs.

    The scaling removes the size of log N and log D, which says nothing about whether
    their exponents can be told apart.
    """
    scale = np.sqrt(np.maximum(np.einsum("kii->ki", matrix), TINY))
    values = np.linalg.eigvalsh(matrix / (scale[:, :, None] * scale[:, None, :]))
    return np.where(values[:, -1] > 0, values[:, -1] / np.maximum(values[:, 0], TINY), np.inf)


def exponentiate(
    coefficients: Float[np.ndarray, "*fits k"], logarithms: tuple[int, ...]
) -> Float[np.ndarray, "*fits k"]:
    """Exponentiate the coefficients of a regression that are logarithms."""
    is_logarithm = np.isin(np.arange(coefficients.shape[-1]), logarithms)
    return np.where(is_logarithm, np.exp(coefficients), coefficients)
