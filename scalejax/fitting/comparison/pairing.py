"""Which rows of two tables belong together, and joint draws of two laws on them.

Shapes: n_a and n_b rows of the two tables, K draws.
"""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from scalejax.fitting import tables
from scalejax.fitting.resampling import TRUNK
from scalejax.laws.inference.bootstrap import linearized_errors, refit_to_errors
from scalejax.laws.inference.identification import Linearization
from scalejax.laws.inference.paired_errors import draw_pair_errors, pair_errors
from scalejax.laws.inference.trunks import draw_errors, trunk_errors
from scalejax.laws.law import ParametricLaw
from scalejax.laws.solver.multistart import Optimum
from scalejax.laws.solver.problem import parameters_in_table_units

if TYPE_CHECKING:
    from pandas import DataFrame

# Two sizes or budgets that agree in this many digits are the same one.
DIGITS = 6


class Pairing(NamedTuple):
    """Pairs of rows of two tables, and the trunks of all rows."""

    pairs: np.ndarray
    """(pairs, 2): a row of A, and the row of B that belongs to it."""
    trunks: tuple[np.ndarray, np.ndarray]
    """Labels 0, 1, ... of the rows of A, (n_a,), and of B, (n_b,). Rows with one label
    share an error; a row without a trunk has a label of its own."""


class Draws(NamedTuple):
    """Joint draws of the parameters of two laws."""

    a: dict[str, np.ndarray]
    """(K,) by parameter, nan where the draw has no fit."""
    b: dict[str, np.ndarray]
    correlation: float | None
    """Of the errors of the two rows of a pair; None if there are too few pairs."""


def pair_rows(
    frames: Sequence["DataFrame"], inputs: Sequence[Sequence[np.ndarray]], seed: str
) -> Pairing:
    """Pair the rows of two tables that share their inputs and, where given, their seed.

    frames: two tables.  inputs: of their rows, as a law reads them.  seed: the column
    of seeds. A row that is not the only one with its inputs and seed has no partner,
    because nothing says which one it would be.
    """
    with_seeds = all(seed in frame.columns for frame in frames)
    keys = []
    for frame, columns in zip(frames, inputs, strict=True):
        texts = [[f"{value:.{DIGITS}g}" for value in column.tolist()] for column in columns]
        seeds = [tables.labels(frame, seed)] if with_seeds else []
        keys.append(list(zip(*texts, *seeds, strict=True)))
    count_a, count_b = map(Counter, keys)
    row_of_b = {key: row for row, key in enumerate(keys[1]) if count_b[key] == 1}
    pairs = [
        (row, row_of_b[key])
        for row, key in enumerate(keys[0])
        if key in row_of_b and count_a[key] == 1
    ]
    trunks = [_trunk_labels(frame) for frame in frames]
    return Pairing(np.array(pairs, int).reshape(-1, 2), (trunks[0], trunks[1]))


def _trunk_labels(frame: "DataFrame") -> np.ndarray:
    if TRUNK not in frame.columns or frame[TRUNK].isna().to_numpy().any():
        return np.arange(len(frame))
    return np.asarray(frame[TRUNK].factorize()[0])


def draw_jointly(
    law: ParametricLaw[Any],
    optima: tuple[Optimum, Optimum],
    pairing: Pairing,
    count: int,
    seed: int,
) -> Draws:
    """Refit a law to its own predictions for two tables plus errors that pairs share.

    optima: of the law on A and on B. The errors of a pair have the covariance that the
    residuals of all pairs tell, and those of rows without a partner have the same
    variances. Without enough pairs the errors of both tables are independent.
    """
    rng = np.random.default_rng(seed)
    local = [linearized_errors(law, at) for at in optima]
    sites, of_pairs = _sites(pairing), None
    if len(pairing.pairs):
        trunks_of_pairs = np.unique(sites.trunks[: len(pairing.pairs)], return_inverse=True)[1]
        parts = [
            Linearization(one.residuals[rows], one.jacobian[rows])
            for one, rows in zip(local, pairing.pairs.T, strict=True)
        ]
        of_pairs = pair_errors(parts[0], parts[1], trunks_of_pairs)
    if of_pairs is None:
        errors = [
            draw_errors(trunk_errors(*one, trunks), trunks, count, rng)[0]
            for one, trunks in zip(local, pairing.trunks, strict=True)
        ]
    else:
        both = draw_pair_errors(of_pairs, sites.trunks, count, rng)
        errors = [both[:, rows, table] for table, rows in enumerate(sites.rows)]
    a, b = (
        parameters_in_table_units(law, at.problem, refit_to_errors(law, at, error))._asdict()
        for at, error in zip(optima, errors, strict=True)
    )
    return Draws(a, b, None if of_pairs is None else of_pairs.correlation)


class _Sites(NamedTuple):
    """The places where errors are drawn: pairs first, then rows without a partner."""

    rows: tuple[np.ndarray, np.ndarray]
    """The site of each row of A, and of each row of B."""
    trunks: np.ndarray
    """Labels 0, 1, ... of the trunks, (sites,)."""


def _sites(pairing: Pairing) -> _Sites:
    count, labels = len(pairing.pairs), pairing.trunks
    rows = [np.full(len(own), -1) for own in labels]
    for table in (0, 1):
        rows[table][pairing.pairs[:, table]] = np.arange(count)
    # The trunk of a row of B is that of the rows of A with which its own are paired.
    trunk_of_b = {labels[1][b]: (0, labels[0][a]) for a, b in pairing.pairs}
    names = [(0, labels[0][a]) for a in pairing.pairs[:, 0]]
    for table in (0, 1):
        for row in np.flatnonzero(rows[table] < 0):
            rows[table][row] = len(names)
            label = labels[table][row]
            names.append((0, label) if table == 0 else trunk_of_b.get(label, (1, label)))
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return _Sites((rows[0], rows[1]), np.array([numbers[name] for name in names]))
