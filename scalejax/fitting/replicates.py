"""Runs repeated with other seeds: the noise they show, the law they contradict, and their averages as one row each."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scalejax.fitting import tables
from scalejax.laws.inference import replicates
from scalejax.laws.inference.replicates import LackOfFit

if TYPE_CHECKING:
    from pandas import DataFrame

LACK_OF_FIT_LEVEL = (
    0.01  # p below which the replicates contradict the law; 1 of 100 right laws is named too
)


def design_points(rows: "DataFrame", inputs: list[np.ndarray], seed: str = "seed") -> np.ndarray:
    """Labels of rows with equal inputs, by the table's column of seeds where it has one; see `laws.replicates.design_points`."""
    return replicates.design_points(inputs, rows[seed].to_numpy() if seed in rows.columns else None)


def lack_of_fit_reasons(found: LackOfFit | None) -> list[str]:
    """A sentence where replicates agree with each other far better than with the law."""
    if found is None or found.p_value >= LACK_OF_FIT_LEVEL:
        return []
    over, under = found.degrees_of_freedom
    return [
        f"lack of fit: the law misses its design points by {found.bias:.2g} (root mean square, beyond the noise of replicates; "
        f"F = {found.f_ratio:.3g} on {over} and {under} degrees of freedom, p = {found.p_value:.1g})"
    ]


def average(
    table: "str | Path | DataFrame",
    *,
    inputs: tuple[str, ...] = ("params", "tokens"),
    target: str = "loss",
    where: str | None = None,
    columns: dict[str, str] | None = None,
) -> "DataFrame":
    """One row per design point: the geometric mean of the target over runs with equal inputs.

    `replicates` = r is how many runs a row stands for, `<target>_se` = s mean / sqrt(r) its standard error, s the standard
    deviation of log targets pooled over all points (`laws.replicates.noise_floor`). Fit it with weights="replicates", since a
    mean of r runs is worth r of them; a pairs bootstrap then draws whole design points, which is right also where the law misses
    some of them. Other columns stay where they are the same within every design point.

    >>> import pandas
    >>> runs = pandas.DataFrame({"params": [1e6, 1e6, 2e6], "tokens": [1e8] * 3, "loss": [2.0, 2.02, 1.9], "seed": [0, 1, 0]})
    >>> average(runs)[["params", "loss", "replicates"]].round(3).values.tolist()
    [[1000000.0, 2.01, 2.0], [2000000.0, 1.9, 1.0]]

    Raises ValueError for a column that is missing or not positive, and for a table without replicates.
    """
    frame = tables.read(table)
    frame = frame.loc[tables.row_mask(frame, where)]
    read = tables.read_columns(frame, inputs, target, columns)
    frame = frame.loc[read.complete].reset_index(drop=True)
    points = design_points(frame, read.inputs, (columns or {}).get("seed", "seed"))
    floor = replicates.noise_floor(np.log(read.target), points)
    if floor is None:
        raise ValueError(
            f"none of {len(frame)} rows are replicates: equal {', '.join(inputs)}, several seeds; nothing to average"
        )
    groups = frame.groupby(points)
    alike = [name for name in frame.columns if groups[name].nunique(dropna=False).max() == 1]
    averages = groups[alike].first()
    counts = np.bincount(points)
    averages[read.names[target]] = np.exp(np.bincount(points, np.log(read.target)) / counts)
    averages["replicates"] = counts
    averages[f"{target}_se"] = floor.std * averages[read.names[target]] / np.sqrt(counts)
    return averages
