"""Fits the laws of the best hyperparameters to the optima of all cells of a sweep.

N non-embedding parameters, D training tokens, LR the peak learning rate.

Shapes: [cells] one entry per cell of equal (N, D); [draws] bootstrap resamples.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from scalejax.laws.hyperparameters.brackets import bracketed_cells, unbracketed
from scalejax.laws.hyperparameters.forms import NAMES, Beta2, Hyperparameters
from scalejax.laws.hyperparameters.optimum import (
    MIN_PARABOLA_RUNS,
    MIN_SURFACE_RUNS,
    NEAR_RANGE,
    SURFACE_RANGE,
    Optimum,
    near_optimum,
    parabola_optimum,
    surface_optimum,
)
from scalejax.laws.hyperparameters.regression import (
    beta2_equations,
    design,
    exponentiate,
    optimum_equations,
    regress,
)
from scalejax.laws.hyperparameters.regret import regret
from scalejax.laws.hyperparameters.sweep import Sweep

# Number of parameters of each law: as many cells must bracket their optimum.
PARAMETERS_OF_LAW = {"learning_rate": 3, "batch_tokens": 2}

# Places of the coefficients, whose logarithms the regressions give.
LAW_COEFFICIENTS = (0, 3)
BETA2_COEFFICIENTS = (0,)


class SweepFit(NamedTuple):
    """The fitted laws, and what they cost in every cell."""

    law: Hyperparameters
    """nan where the cells do not identify it, and for the batch size unless swept."""
    swept: tuple[str, ...]
    """Which of learning_rate and batch_tokens the law describes."""
    runs_used: int
    """Number of runs that determine the optima of the cells."""
    objective: float
    """Sum over cells of e'We, where e is the law's (log LR, log batch) minus the cell's
    optimum and W the weight of the optimum."""
    gradient_norm: float
    draws: Float[np.ndarray, "draws k"]
    """Refits to resampled cells, in the order of NAMES; nan where unidentified. The
    last two are missing where the batch size was not swept."""
    beta2: Beta2 | None
    """None unless several beta2 were swept at two or more batch sizes."""
    beta2_draws: Float[np.ndarray, "draws 2"]
    """The law of beta2 of the same draws, in the order of BETA2_NAMES; nan without a
    law."""
    regret: Float[np.ndarray, " cells"]
    """Relative loss above the best run, of the law of all cells."""
    left_out_regret: Float[np.ndarray, " cells"]
    """The same, of the law fitted without that cell; nan where the others do not
    identify it."""
    verdict: str
    """ok, unidentified, or at-boundary: too few cells bracket their best run."""
    reasons: tuple[str, ...]
    at_boundary: tuple[str, ...]
    """Which of learning_rate and batch_tokens too few cells bracket."""


def fit_hyperparameters(
    sweep: Sweep,
    *,
    optimum: Callable[[Sweep], Optimum | None] | None = None,
    draws: int = 0,
    seed: int = 0,
) -> SweepFit:
    """Fit LR*(N, D), batch*(D) and, where it was swept, beta2*(batch).

    Weighted least squares of the optima of the cells: log LR on (1, log N, log D) and
    log batch on (1, log D), in one regression, because the weight of an optimum couples
    the two. log(1 - beta2) on (1, log batch) is a second regression, over the runs near
    the lowest loss of their batch size in their cell: it describes the best beta2 of
    every batch size, not only of the best one. Where every cell has one batch size, the
    law of the learning rate is fitted without that of the batch size.

    optimum: finds the optimum of a cell, `surface_optimum` by default, or
    `parabola_optimum` where one batch size was trained. If it returns None for any
    cell, `near_optimum` is used for all of them, so that all optima are estimated
    alike.
    draws: number of refits to resampled cells; runs of one cell share their optimum and
    are not resampled. Diverged runs do no harm: their loss is far from the lowest.

    Raises ValueError for fewer than three cells, or a beta2 of 1 or more.
    """
    cells = _checked_cells(sweep)
    swept = sweep.swept()
    by_default = surface_optimum if len(swept) == 2 else parabola_optimum
    optima, without_surface = _optima(cells, optimum or by_default, swept)
    equations, of_beta2 = optimum_equations(cells, optima), beta2_equations(cells)

    # The regressions differ in the weights of the cells: all, a resample, all but one.
    all_cells, all_but_one = np.ones((1, len(cells))), 1 - np.eye(len(cells))
    resamples = _resamples(len(cells), draws, seed)
    solution, beta2 = regress(equations, all_cells), regress(of_beta2, all_cells)
    log_law, identified = solution.coefficients[0], bool(solution.identified[0])
    law = _law(log_law)
    left_out = zip(regress(equations, all_but_one).coefficients, cells, strict=True)

    edges = [unbracketed(cell, swept) for cell in cells]
    at_boundary = tuple(
        name for name in swept if bracketed_cells(name, edges) < PARAMETERS_OF_LAW[name]
    )
    coefficients = LAW_COEFFICIENTS[: len(swept)]
    return SweepFit(
        law=law,
        swept=swept,
        runs_used=sum(best.runs for best in optima),
        objective=_objective(cells, optima, log_law),
        gradient_norm=float(np.max(np.abs(equations.gradient(log_law)))),
        draws=exponentiate(regress(equations, resamples).coefficients, coefficients),
        beta2=_beta2(beta2.coefficients[0]) if beta2.identified[0] else None,
        beta2_draws=exponentiate(regress(of_beta2, resamples).coefficients, BETA2_COEFFICIENTS),
        regret=np.array([regret(law, cell) for cell in cells]),
        left_out_regret=np.array([regret(_law(x), cell) for x, cell in left_out]),
        verdict="unidentified" if not identified else "at-boundary" if at_boundary else "ok",
        reasons=_reasons(identified, without_surface, edges, at_boundary, swept),
        at_boundary=at_boundary,
    )


def _checked_cells(sweep: Sweep) -> list[Sweep]:
    if np.any(sweep.beta2 >= 1):
        raise ValueError(f"beta2 must be below 1; got {sweep.beta2.max():g}")
    cells = sweep.cells()
    if len(cells) < 3:
        raise ValueError(
            f"the sweep has {len(cells)} cells of equal params and tokens; the law of the "
            "learning rate has three parameters and needs three cells"
        )
    return cells


def _optima(
    cells: list[Sweep], optimum: Callable[[Sweep], Optimum | None], swept: tuple[str, ...]
) -> tuple[list[Optimum], int]:
    """The optima of the cells, and for how many of them `optimum` has none."""
    optima = [best for best in map(optimum, cells) if best is not None]
    if len(optima) < len(cells):
        return [near_optimum(cell, swept) for cell in cells], len(cells) - len(optima)
    return optima, 0


def _resamples(cells: int, draws: int, seed: int) -> Float[np.ndarray, "draws cells"]:
    """How often each bootstrap resample contains each cell."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(cells, np.full(cells, 1 / cells), size=draws).astype(float)


def _objective(
    cells: list[Sweep], optima: list[Optimum], log_law: Float[np.ndarray, " k"]
) -> float:
    misses = [
        design(cell, len(best.at)) @ log_law - best.at
        for cell, best in zip(cells, optima, strict=True)
    ]
    return float(sum(e @ best.weight @ e for e, best in zip(misses, optima, strict=True)))


def _law(log_law: Float[np.ndarray, " k"]) -> Hyperparameters:
    # The law of the batch size is nan where only the learning rate was swept.
    padded = np.pad(log_law, (0, len(NAMES) - len(log_law)), constant_values=np.nan)
    return Hyperparameters(*exponentiate(padded, LAW_COEFFICIENTS).tolist())


def _beta2(log_law: Float[np.ndarray, "2"]) -> Beta2:
    return Beta2(*exponentiate(log_law, BETA2_COEFFICIENTS).tolist())


def _reasons(
    identified: bool,
    without_surface: int,
    edges: list[dict[str, str]],
    at_boundary: tuple[str, ...],
    swept: tuple[str, ...],
) -> tuple[str, ...]:
    reasons, runs = [], MIN_SURFACE_RUNS
    if len(swept) == 1:
        runs = MIN_PARABOLA_RUNS
        reasons.append(
            "every cell has one batch size, so that only the law of the learning rate is fitted; "
            "it holds for these batch sizes"
        )
    if not identified:
        reasons.append(
            "params and tokens move together over the cells, or one of them has a single value, "
            "so that their exponents cannot be told apart"
        )
    if without_surface:
        reasons.append(
            f"{without_surface} of {len(edges)} cells have fewer than {runs} runs "
            f"within {SURFACE_RANGE:.0%} of their best around a lowest point; in every cell the "
            f"mean of the runs within {NEAR_RANGE:.2%} of the best is used as the optimum instead"
        )
    reasons += [
        f"the sweep brackets the best {name} in {bracketed_cells(name, edges)} of {len(edges)} "
        f"cells, and its law has {PARAMETERS_OF_LAW[name]} parameters: what the law describes "
        "is no optimum"
        for name in at_boundary
    ]
    reasons += [reason for of_cell in edges for reason in of_cell.values()]
    return tuple(reasons)
