"""What a reader wants to know of a run at a glance, and how it differs from others."""

from typing import TYPE_CHECKING

import numpy as np

from scalejax.fitting.charts.chart import compact_number
from scalejax.fitting.tables import PARAMS_COLUMN

if TYPE_CHECKING:
    import pandas as pd

# Settings in which runs of a study may differ. Those that follow from the size, such as
# the width, are left out.
SETTINGS = {
    PARAMS_COLUMN: "params",
    "tokens": "tokens",
    **{
        name: name.replace("_", " ")
        for name in (
            *("depth", "batch_tokens", "batch_doublings", "optimizer", "learning_rate"),
            *("beta1", "beta2", "epsilon", "momentum", "weight_decay", "clip", "z_loss"),
            *("shape", "warmup", "warmup_shape", "cooldown", "cooldown_shape", "final"),
            *("milestones", "factor", "period", "parametrization", "base_width"),
            *("source", "domain", "mixture", "sequence_length", "compute_dtype", "seed"),
        )
    },
}

# The text names this many neighbours, the runs that differ in the fewest settings.
NEIGHBOURS = 2


def run_facts(results: "pd.DataFrame") -> list[str]:
    """Return lines about each run: its id, its settings and its nearest neighbours.

    results: a table with one row per run. Settings that all runs share are left out.
    """
    varied = [name for name in SETTINGS if name in results and _codes(results, name).any()]
    rows = results.to_dict("records")
    neighbours = _neighbours(results, varied)
    facts = []
    for row, near in zip(rows, neighbours, strict=True):
        lines = [str(row["run"]), f"{_setting(row, PARAMS_COLUMN)}, {_setting(row, 'tokens')}"]
        others = [name for name in varied if name not in (PARAMS_COLUMN, "tokens")]
        if others:
            lines.append(", ".join(_setting(row, name) for name in others))
        lines += [_difference(row, rows[other], varied) for other in near]
        facts.append("\n".join(lines))
    return facts


def _codes(results: "pd.DataFrame", name: str) -> np.ndarray:
    """A number for each value of a column, (rows,): equal for equal values, first 0."""
    import pandas as pd

    # Lists, such as milestones, cannot be compared as they are.
    return pd.factorize(np.array([str(value) for value in results[name]]))[0]


def _neighbours(results: "pd.DataFrame", varied: list[str]) -> list[list[int]]:
    """Positions of the runs that differ from each run in the fewest settings.

    Ties go to the run that is nearest in size and tokens.
    """
    if not varied or len(results) < 2:
        return [[] for _ in range(len(results))]
    codes = np.stack([_codes(results, name) for name in varied])
    place = np.log(np.clip(results[[PARAMS_COLUMN, "tokens"]].to_numpy(float), 1, 1e30)).T
    nearest = []
    for i in range(len(results)):
        different = (codes != codes[:, i, None]).sum(axis=0).astype(float)
        # Runs are named only if they differ in one or two settings.
        different[(different == 0) | (different > 2)] = np.inf
        distance = np.abs(place - place[:, i, None]).sum(axis=0)
        order = np.lexsort((distance, different))[:NEIGHBOURS]
        nearest.append([int(other) for other in order if np.isfinite(different[other])])
    return nearest


def _setting(row: dict, name: str) -> str:
    value = row[name]
    if name in (PARAMS_COLUMN, "tokens"):
        return f"{compact_number(value)} {SETTINGS[name]}"
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return f"{SETTINGS[name]} {text}"


def _difference(row: dict, other: dict, varied: list[str]) -> str:
    """How another run differs from a run, in a line."""
    settings = [_setting(other, name) for name in varied if str(other[name]) != str(row[name])]
    text = f"{other['run']} with {', '.join(settings)}"
    change = other["loss"] - row["loss"]
    return f"{text}: loss {change:+.4f}" if np.isfinite(change) else text
