"""Bootstraps of a fit to a table, and what a fit keeps of them for predictions.

Shapes: p parameters of the law, `rows` fitted rows, `draws` bootstrap draws.
"""

import hashlib
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from scalejax.fitting import tables
from scalejax.fitting.result import STORED, Interval, kept_draws
from scalejax.laws.inference import bootstrap
from scalejax.laws.inference.replicates import NoiseFloor, design_points
from scalejax.laws.inference.trunks import MANY_TRUNKS, ODDS, PRIOR, TrunkErrors
from scalejax.laws.isoflop import Noise
from scalejax.laws.law import ParametricLaw
from scalejax.laws.solver.multistart import Optimum
from scalejax.laws.solver.problem import parameters_in_table_units

if TYPE_CHECKING:
    from pandas import DataFrame

# Draws are made in batches of at most this many draws x rows: 0.1 GB per array.
MAX_BATCH_ENTRIES = 2**24

# With fewer draws than this, the 2.5% beyond an end of an interval are less than one
# draw.
MIN_DRAWS = 40

# The fraction of draws beyond each end of a 95% interval. A draw without a fit may lie
# beyond either end, so a larger fraction of such draws leaves the interval open.
TAIL = 0.025

# The column of a results table that names the trunk from which a run branched off.
TRUNK = "trunk"


class Draws(NamedTuple):
    """The bootstrap draws of a fit, and what to tell about them."""

    theta: np.ndarray
    """(p, draws) in the solver's coordinates, nan where a draw has no fit. All are nan
    if too many have none."""
    notes: list[str]
    new_run: np.ndarray | None = None
    """Errors of runs that were not fitted, (draws,), on the scale of the loss. None if
    the residuals of the fitted rows stand for them."""
    assumption: str = ""
    """What the draws assume about rows of one trunk."""


class Resampling(NamedTuple):
    """What a bootstrap of a table draws."""

    kind: str
    """pairs, residuals, noise with its size, or trunks."""
    column: str | None
    """Column whose equal values share an error, or None."""
    labels: np.ndarray | None
    """(rows,): the values of the column as 0, 1, ..."""


def choose(rows: "DataFrame", cluster: str | None, resample: str | None) -> Resampling:
    """Choose what a bootstrap draws.

    Rows with equal values of `cluster`, or else of the column `trunk`, share an error.
    If there are many such groups they are resampled; if there are few, their effects
    are drawn from a distribution.

    Raises ValueError for clusters in any but pairs and trunks, and for a column that
    has one value or misses some.
    """
    kind, named = (resample or "pairs").partition(":")[0], cluster is not None
    if cluster is not None and kind not in ("pairs", "trunks"):
        raise ValueError(
            "rows are drawn together with resample='pairs' or 'trunks' only; "
            f"got cluster={cluster!r} and resample={resample!r}"
        )
    if cluster is None and resample in (None, "trunks"):
        cluster = _trunk_column(rows, required=resample is not None)
    if cluster is None:
        return Resampling(resample or "pairs", None, None)
    labels = _cluster_labels(rows, cluster)
    if named and not labels.max():
        raise ValueError(
            f"{cluster!r} has one value in all {len(labels)} rows; a bootstrap of clusters needs "
            "two or more"
        )
    few = int(labels.max()) + 1 < MANY_TRUNKS
    return Resampling(resample or ("trunks" if few else "pairs"), cluster, labels)


def _trunk_column(rows: "DataFrame", *, required: bool) -> str | None:
    """Return the column of trunks, if some rows share one."""
    if TRUNK in rows.columns and len(rows[TRUNK].drop_duplicates()) < len(rows):
        return TRUNK
    if required:
        raise ValueError(
            f"resample='trunks' needs rows that share a trunk: the table has no such column "
            f"{TRUNK!r}; name another one as cluster"
        )
    return None


def bootstrap_draws(
    law: ParametricLaw[Any],
    optimum: Optimum,
    rows: "DataFrame",
    *,
    resampling: Resampling,
    count: int,
    seed: int,
    floor: NoiseFloor | None,
) -> Draws:
    """Refit a law to `count` resampled tables.

    rows: the fitted rows. resampling: its kind is pairs; trunks; residuals; noise, with
    the standard deviation between replicates (`floor`); or noise with a known standard
    deviation: noise:STD, noise:STD@LOSS,STD@LOSS or noise:COLUMN.

    Raises ValueError for another kind.
    """
    kind, _, known = resampling.kind.partition(":")
    if kind not in ("pairs", "residuals", "noise", "trunks") or (known and kind != "noise"):
        raise ValueError(
            f"resample {resampling.kind!r} is not one of pairs, trunks, residuals, noise, "
            "noise:0.005 (nats) or noise:COLUMN"
        )
    # A standard deviation that cannot be read is an error even if nothing is drawn.
    std = _noise_std(optimum, rows, known, floor) if kind == "noise" else np.zeros(0)
    nothing = np.full((len(optimum.theta), count), np.nan)
    if count == 0:
        return Draws(nothing, [])
    rng, labels = np.random.default_rng(seed), resampling.labels
    if kind == "trunks":
        assert labels is not None, "`choose` gives labels for this kind"
        theta, new_run, errors = bootstrap.trunk_bootstrap(law, optimum, labels, count, rng)
        assumption = _assumption(errors, int(labels.max()) + 1)
        draws = _checked(theta)
        notes = [*draws.notes, assumption]
        return Draws(draws.theta, notes, new_run=new_run, assumption=assumption)
    if kind == "pairs":
        if labels is None and (note := _too_few_rows_note(law, optimum, len(rows))):
            return Draws(nothing, [note])
        draw = partial(bootstrap.pairs_bootstrap, law, optimum, clusters=labels)
    elif kind == "residuals":
        draw = partial(bootstrap.residual_bootstrap, law, optimum)
    else:
        draw = partial(bootstrap.noise_bootstrap, law, optimum, std=std)
    theta = _draw_in_batches(draw, count, len(rows), rng)
    return _checked(theta)


def _assumption(errors: TrunkErrors, trunks: int) -> str:
    """Say what is taken for the correlation of branches, and on what evidence."""
    if errors.measured:
        return (
            f"rows of a trunk count as correlated by about {errors.correlation:.2f}, which the "
            f"repeated ones among {trunks} trunks measure"
        )
    if not errors.correlation:
        return (
            f"rows of {_counted(trunks)} count as independent: their residuals favour this by more "
            f"than {ODDS:g} to 1"
        )
    return (
        f"rows of a trunk count as correlated by {errors.correlation:.2f}: {_counted(trunks)} "
        f"{'are' if trunks > 1 else 'is'} few, and {PRIOR[0]:g} to {PRIOR[-1]:g} is assumed unless "
        f"residuals favour independence by more than {ODDS:g} to 1"
    )


def _counted(trunks: int) -> str:
    return f"{trunks} trunks" if trunks > 1 else "one trunk"


def _draw_in_batches(
    draw: Callable[..., np.ndarray], count: int, rows: int, rng: np.random.Generator
) -> np.ndarray:
    """Return theta of all draws, (p, count), made in batches that fit in memory."""
    batch = max(1, MAX_BATCH_ENTRIES // rows)
    sizes = [min(batch, count - done) for done in range(0, count, batch)]
    return np.concatenate([draw(count=size, rng=rng) for size in sizes], axis=1)


def _checked(theta: np.ndarray) -> Draws:
    """Count the draws without a fit, and give up all draws if these are too many."""
    count = theta.shape[1]
    failed = int(np.sum(~converged_mask(theta)))
    if failed > TAIL * count:
        note = (
            f"{failed} of {count} bootstrap fits did not converge, more than the {TAIL:.1%} "
            "beyond each end of an interval: there are no intervals"
        )
        return Draws(np.full_like(theta, np.nan), [note])
    notes = []
    if count < MIN_DRAWS:
        notes.append(
            f"{count} bootstrap draws are few: intervals end at the lowest and highest of them, "
            f"and 95% needs {MIN_DRAWS} or more"
        )
    if failed:
        is_or_are = "is" if failed == 1 else "are"
        notes.append(
            f"{failed} of {count} bootstrap fits did not converge and {is_or_are} left out"
        )
    return Draws(theta, notes)


def _too_few_rows_note(law: ParametricLaw[Any], optimum: Optimum, rows: int) -> str:
    """Say that resampled rows often do not determine the law; empty if they do."""
    inputs = [np.asarray(x)[:rows] for x in optimum.problem.inputs]
    points = int(design_points(inputs).max()) + 1
    chance = bootstrap.chance_of_too_few_points(rows, points, law.free)
    if chance <= TAIL:
        return ""
    return (
        f"{rows} rows for {law.free} parameters: {chance:.0%} of their resamples have fewer "
        "distinct rows than parameters, so there are no intervals"
    )


def _cluster_labels(rows: "DataFrame", column: str) -> np.ndarray:
    """Label rows 0, 1, ... by the values of a column, (rows,)."""
    labels, _ = rows[tables.column_for(rows, column)].factorize()
    if np.any(labels < 0):
        row = rows.index[np.argmin(labels)]
        raise ValueError(
            f"{column!r} is missing in row {row} (from 0); every row needs the value by which "
            "rows are drawn together"
        )
    return np.asarray(labels)


def _noise_std(
    optimum: Optimum, rows: "DataFrame", known: str, floor: NoiseFloor | None
) -> np.ndarray:
    """Return the standard deviation of each row, (rows,), in the units of the target.

    known: what stands after "noise:", a column or numbers; empty for the noise floor.
    """
    count = len(rows)
    targets = np.asarray(optimum.problem.targets)[:count]
    weights = optimum.weights[:count]
    if known in rows.columns:
        std = tables.numeric_column(rows, known)
        if not (np.isfinite(std).all() and (std > 0).all()):
            raise ValueError(
                f"column {known!r} must hold the standard deviation of each row, a positive number"
            )
        return std
    if known:
        try:
            return Noise.parse(known).std(targets)
        except ValueError as error:
            columns = tables.column_list(rows)
            raise ValueError(f"{error}, or a column of the table ({columns})") from None
    if floor is None:
        raise ValueError(
            "resample='noise' measures the noise from replicates, rows with equal inputs and "
            "several seeds, and the table has none: give the noise, as resample='noise:0.005' "
            "(nats) or resample='noise:COLUMN'"
        )
    return floor.std * targets / np.sqrt(weights)


def converged_mask(theta: np.ndarray) -> np.ndarray:
    """Return which draws have a fit, (draws,), from theta (p, draws)."""
    return np.all(np.isfinite(theta), axis=0)


def percentile_ends(values: np.ndarray) -> list[Interval]:
    """Return the 95% percentile interval of each column of values (draws, columns).

    nan stands for a draw without a value, which may lie beyond either end. An interval
    is open if more than TAIL of its draws have none.
    """
    if not len(values):
        return []
    # The percentiles of open intervals are not used; zeros keep numpy from warning of
    # nan.
    is_open = np.mean(~np.isfinite(values), axis=0) > TAIL
    levels = (100 * TAIL, 100 * (1 - TAIL))
    lows, highs = np.nanpercentile(np.where(is_open, 0.0, values), levels, axis=0)
    intervals: list[Interval] = []
    for open_ends, low, high in zip(is_open, lows, highs, strict=True):
        intervals.append((None, None) if open_ends else (float(low), float(high)))
    return intervals


def parameter_draws(
    law: ParametricLaw[Any], optimum: Optimum, theta: np.ndarray
) -> dict[str, np.ndarray]:
    """Return the draws of each parameter that a fit keeps, (draws,), in table units.

    theta: (p, draws), nan where a draw has no fit.
    """
    parameters = parameters_in_table_units(law, optimum.problem, theta[:, :STORED])
    return kept_draws(law.names, np.stack(list(parameters), axis=1))


def scaled_residuals(law: ParametricLaw[Any], optimum: Optimum) -> np.ndarray:
    """Return the residuals that a fit keeps, in the order of the rows.

    They are scaled by sqrt(n / (n - k)): the k parameters were fitted to the n rows,
    which made their residuals smaller than those of other runs. Residuals of a robust
    fit are clipped: it does not believe a diverged run, and neither does a forecast.
    Of more than STORED rows a fixed sample is kept.
    """
    residuals = bootstrap.believed_residuals(law, optimum)
    count = len(residuals)
    residuals = residuals * np.sqrt(count / max(count - law.free, 1))
    if count <= STORED:
        return residuals
    sample = np.random.default_rng(0).choice(count, STORED, replace=False)
    return residuals[np.sort(sample)]


def rows_digest(rows: "DataFrame", losses: np.ndarray) -> str:
    """Return the sha256 of which rows of a table were fitted, and of their losses."""
    return hashlib.sha256(np.asarray(rows.index, np.int64).tobytes() + losses.tobytes()).hexdigest()
