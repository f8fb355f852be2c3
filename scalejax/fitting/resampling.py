"""Bootstrap draws of a fit to a table: how they are made, what a file keeps of them, how they are read back."""

import hashlib
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from scalejax.fitting import tables
from scalejax.fitting.result import STORED, Interval, kept_draws
from scalejax.laws.inference import bootstrap, identification
from scalejax.laws.inference.replicates import NoiseFloor, design_points
from scalejax.laws.isoflop import Noise
from scalejax.laws.law import ParametricLaw
from scalejax.laws.solver.multistart import Optimum
from scalejax.laws.solver.problem import parameters_in_table_units

if TYPE_CHECKING:
    from pandas import DataFrame


MAX_ENTRIES = 2**24  # draws x rows made at once: 0.1 GB an array
MIN_DRAWS = 40  # draws, so that 2.5% of them is one
TAIL = 0.025  # draws without a single best fit are beyond both ends, and more than this share of them opens a 95% interval


def bootstrap_draws(
    law: ParametricLaw,
    at: Optimum,
    rows: "DataFrame",
    *,
    cluster: str | None,
    resample: str,
    count: int,
    seed: int,
    floor: NoiseFloor | None,
) -> tuple[np.ndarray, list[str]]:
    """theta (p, draws) of the bootstrap fits, nan where one did not converge (all, where too many), and what to say about those.

    resample: pairs; residuals; noise, of the replicates in the table; noise:STD, noise:STD@LOSS,STD@LOSS or noise:COLUMN, of a
    known standard deviation. Raises ValueError for another one, and for a cluster with anything but pairs.
    """
    kind, _, known = resample.partition(":")
    if kind not in ("pairs", "residuals", "noise") or (known and kind != "noise"):
        raise ValueError(
            f"resample {resample!r} is not one of pairs, residuals, noise, noise:0.005 (nats) or noise:COLUMN"
        )
    if cluster is not None and kind != "pairs":
        raise ValueError(
            f"rows are drawn together with resample='pairs' only; got cluster={cluster!r} and resample={resample!r}"
        )
    std = _std(at, rows, known, floor) if kind == "noise" else np.zeros(0)
    if count == 0:
        return np.zeros((len(at.theta), 0)), []
    rng = np.random.default_rng(seed)
    if kind == "pairs":
        groups = None
        points = (
            int(design_points([np.asarray(x)[: len(rows)] for x in at.problem.inputs]).max()) + 1
        )
        if (
            cluster is None
            and (share := bootstrap.chance_of_too_few_points(len(rows), points, law.free)) > TAIL
        ):
            few = f"{len(rows)} rows for {law.free} parameters: {share:.0%} of their draws have fewer distinct rows than that"
            return np.full((len(at.theta), count), np.nan), [f"{few}, and no interval follows"]
        if cluster is not None:
            groups = _clusters(rows, cluster)
        made = partial(bootstrap.pairs_bootstrap, clusters=groups)
    else:
        made = (
            bootstrap.residual_bootstrap
            if kind == "residuals"
            else partial(bootstrap.noise_bootstrap, std=std)
        )
    most = max(1, MAX_ENTRIES // len(rows))
    parts = [
        made(law, at, count=min(most, count - done), rng=rng) for done in range(0, count, most)
    ]
    theta = np.concatenate(parts, axis=1)
    failed = int(np.sum(~converged_mask(theta)))
    few = f"{count} bootstrap draws are few: their lowest and highest end the intervals, and 95% needs {MIN_DRAWS} or more"
    notes = [few] * (count < MIN_DRAWS)
    if failed > TAIL * count:
        lost = f"{failed} of {count} bootstrap fits did not converge, more than the {TAIL:.1%} beyond each end of an interval"
        return np.full_like(theta, np.nan), [f"{lost}: none follows"]
    return theta, notes + [
        f"{failed} of {count} bootstrap fits did not converge and are left out"
    ] * (failed > 0)


def _clusters(rows: "DataFrame", column: str) -> np.ndarray:
    """(rows,) of labels 0, 1, .. by the values of a column."""
    groups, values = rows[tables.column_for(rows, column)].factorize()
    if np.any(groups < 0):
        row = rows.index[np.argmin(groups)]
        raise ValueError(
            f"{column!r} is missing in row {row} (from 0): what is drawn together needs a value in every row"
        )
    if len(values) < 2:
        raise ValueError(
            f"{column!r} has one value in all {len(groups)} rows: nothing can be drawn; clusters are two or more"
        )
    return np.asarray(groups)


def percentile_ends(values: np.ndarray) -> list[Interval]:
    """95% percentile ends of each column of draws (draws, k); open where more than TAIL of them, nan, may lie beyond either."""
    if not len(values):
        return []
    lost = np.mean(~np.isfinite(values), axis=0) > TAIL
    low, high = np.nanpercentile(
        np.where(lost, 0.0, values), (100 * TAIL, 100 * (1 - TAIL)), axis=0
    )
    return [
        (None, None) if gone else (float(a), float(b))
        for gone, a, b in zip(lost, low, high, strict=True)
    ]


def converged_mask(theta: np.ndarray) -> np.ndarray:
    """(draws,): which of the fits converged."""
    return np.all(np.isfinite(theta), axis=0)


def _std(at: Optimum, rows: "DataFrame", known: str, floor: NoiseFloor | None) -> np.ndarray:
    """(rows,) in the units of the target."""
    targets, weights = (np.asarray(x)[: len(rows)] for x in (at.problem.targets, at.weights))
    if known in rows.columns:
        std = tables.numeric_column(rows, known)
        if not (np.isfinite(std).all() and (std > 0).all()):
            raise ValueError(f"{known} holds the standard deviation of each row, a positive number")
        return std
    if known:
        try:
            return Noise.parse(known).std(targets)
        except ValueError as error:
            raise ValueError(
                f"{error}, or a column of the table ({tables.column_list(rows)})"
            ) from None
    if floor is None:
        raise ValueError(
            "resample='noise' reads the noise off replicates, rows with equal inputs and several seeds, and the table has none: "
            "give it, resample='noise:0.005' (nats) or 'noise:COLUMN'"
        )
    return floor.std * targets / np.sqrt(weights)


def parameter_draws(law: ParametricLaw, at: Optimum, theta: np.ndarray) -> dict[str, np.ndarray]:
    """The draws of each parameter that a fit keeps, (draws,), in the table's units.

    theta: (p, draws), nan where a draw did not converge.
    """
    units = parameters_in_table_units(law, at.problem, theta[:, :STORED])
    return kept_draws(law.names, np.stack(list(units), axis=1))


def scaled_residuals(law: ParametricLaw, at: Optimum) -> np.ndarray:
    """Residuals that a fit keeps, scaled by sqrt(n / (n - k)), in the order of the rows.

    The k parameters were fitted to the n rows, which made their residuals smaller than those
    of other runs. Of more than STORED rows a fixed sample is kept.
    """
    residuals = identification.linearize(law, at).residuals
    count = len(residuals)
    residuals = residuals * np.sqrt(count / max(count - law.free, 1))
    if count <= STORED:
        return residuals
    return residuals[np.sort(np.random.default_rng(0).choice(count, STORED, replace=False))]


def rows_digest(rows: "DataFrame", losses: np.ndarray) -> str:
    """sha256 of which rows of a table were fitted, and of their losses, (rows,)."""
    return hashlib.sha256(np.asarray(rows.index, np.int64).tobytes() + losses.tobytes()).hexdigest()
