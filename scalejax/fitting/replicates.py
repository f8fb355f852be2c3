"""Runs repeated with other seeds: lack of fit, and averages over equal inputs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scalejax.fitting import expressions, tables
from scalejax.fitting.result import LEVEL, Estimate
from scalejax.laws.inference import replicates
from scalejax.laws.inference.replicates import LackOfFit

if TYPE_CHECKING:
    from pandas import DataFrame

# Replicates contradict a law if p is below this; so they do for 1 in 100 true laws.
LACK_OF_FIT_LEVEL = 0.01


def design_points(rows: "DataFrame", inputs: list[np.ndarray], seed: str = "seed") -> np.ndarray:
    """Label rows with equal inputs, (rows,), by the table's seeds if any.

    See `scalejax.laws.inference.replicates.design_points`.
    """
    return replicates.design_points(inputs, rows[seed].to_numpy() if seed in rows.columns else None)


def lack_of_fit_reasons(test: LackOfFit | None) -> list[str]:
    """Say so if replicates agree with each other far better than with the law."""
    if test is None or test.p_value >= LACK_OF_FIT_LEVEL:
        return []
    numerator, denominator = test.degrees_of_freedom
    return [
        f"lack of fit: the law misses its design points by {test.bias:.2g} (root mean square, "
        f"beyond the noise of replicates; F = {test.f_ratio:.3g} on {numerator} and {denominator} "
        f"degrees of freedom, p = {test.p_value:.1g})"
    ]


def mean_of(values: Sequence[float] | np.ndarray) -> Estimate:
    """Return the mean of a quantity over independent runs, with Student's t interval.

    values: one number per seed, such as the difference between two recipes that share
    it. A single value gives no interval.

    >>> value, low, high, *_ = mean_of([0.010, 0.012, 0.014])
    >>> print(f"{value:.3f} [{low:.3f}, {high:.3f}]")
    0.012 [0.007, 0.017]

    Raises ValueError without values, and for values that are not finite.
    """
    # Imported here because `import scalejax.fitting.fit` should not wait for scipy.
    from scipy.special import stdtrit

    numbers = np.asarray(values, float)
    count = len(numbers)
    if not count or not np.isfinite(numbers).all():
        raise ValueError(f"the mean over runs needs finite values, one per run; got {values}")
    mean = float(numbers.mean())
    if count == 1:
        return Estimate(mean, None, None, LEVEL, "one run, so no interval")
    quantile = stdtrit(count - 1, (1 + LEVEL) / 2)
    half = float(quantile * numbers.std(ddof=1) / np.sqrt(count))
    return Estimate(mean, mean - half, mean + half, LEVEL, f"mean of {count} runs, t quantile")


def average(
    table: "str | Path | DataFrame",
    *,
    inputs: tuple[str, ...] = ("params", "tokens"),
    target: str = "loss",
    where: str | None = None,
    columns: Mapping[str, str] | None = None,
) -> "DataFrame":
    """Average the target over runs with equal inputs: one row per design point.

    The average is the geometric mean. The column `replicates` is the number of runs r
    in the average, and `<target>_se` its standard error s mean / sqrt(r), where s is
    the standard deviation of log targets pooled over all design points. Other columns
    are kept if they are constant within every design point.

    Fit the averages with weights="replicates", because a mean of r runs counts as r
    runs. A pairs bootstrap then draws whole design points, which is right also where
    the law misses some of them.

    where: expression that chooses rows. columns: our name of a column -> the table's.

    >>> import pandas
    >>> runs = pandas.DataFrame(
    ...     {
    ...         "params": [1e6, 1e6, 2e6],
    ...         "tokens": [1e8, 1e8, 1e8],
    ...         "loss": [2.0, 2.02, 1.9],
    ...         "seed": [0, 1, 0],
    ...     }
    ... )
    >>> average(runs)[["params", "loss", "replicates"]].round(3).values.tolist()
    [[1000000.0, 2.01, 2.0], [2000000.0, 1.9, 1.0]]

    Raises ValueError for a column that is missing or not positive, and for a table
    without replicates.
    """
    columns = columns or {}
    frame = expressions.chosen_rows(tables.read(table), where)
    read = tables.read_columns(frame, inputs, target, columns)
    frame = frame.loc[read.complete].reset_index(drop=True)
    log_target = np.log(read.target)
    points = design_points(frame, read.inputs, columns.get("seed", "seed"))
    floor = replicates.noise_floor(log_target, points)
    if floor is None:
        raise ValueError(
            f"none of {len(frame)} rows are replicates, rows with equal {', '.join(inputs)} and "
            "several seeds: there is nothing to average"
        )
    # The first row of a group stands for all of them in the columns that are constant.
    groups = frame.groupby(points)
    constant = [name for name in frame.columns if groups[name].nunique(dropna=False).max() == 1]
    averages = groups[constant].first()
    counts = np.bincount(points)
    mean = np.exp(np.bincount(points, log_target) / counts)
    averages[read.names[target]] = mean
    averages["replicates"] = counts
    averages[f"{target}_se"] = floor.std * averages[read.names[target]] / np.sqrt(counts)
    return averages
