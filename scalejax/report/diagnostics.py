"""What speaks for and against a law of the loss: residuals, noise and shared trunks."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.special import fdtrc

from scalejax.fitting.parametric.result import ParametricFit
from scalejax.fitting.tables import PARAMS_COLUMN
from scalejax.report.figures import fitted_losses
from scalejax.report.page import Cell, paragraph, table

if TYPE_CHECKING:
    import pandas as pd

# A trend of the residuals counts when chance gives one as strong this rarely. Strict,
# because runs that share a trunk are not independent.
TREND_LEVEL = 0.005

# Fewer runs than this show no trend.
MIN_RUNS = 8


class Diagnostic(NamedTuple):
    """What to conclude about a fit, and why."""

    conclusion: str
    """A sentence that says what the reader should conclude."""
    details: str
    """HTML that shows why."""


def residual_trends(fit: ParametricFit, rows: "pd.DataFrame") -> str:
    """Whether the residuals still depend on size or tokens, in a sentence."""
    residuals = rows["loss"].to_numpy(float) - fitted_losses(fit, rows)
    size = float(np.sqrt(np.mean(residuals**2)))
    text = f"Residuals: the law misses its {len(rows)} runs by {size:.2g} nats (root mean square)"
    if len(rows) < MIN_RUNS:
        return f"{text}; these are too few runs to see a trend."
    trends = [
        name
        for name, column in (("size", PARAMS_COLUMN), ("tokens", "tokens"))
        if _trend_probability(rows[column].to_numpy(float), residuals) < TREND_LEVEL
    ]
    if trends:
        return (
            f"{text}, and they still depend on {' and '.join(trends)}: the form of the law does "
            "not fit these runs, so do not trust it far beyond them."
        )
    return f"{text}, without a trend along size or tokens: no reason to doubt its form."


def noise(fit: ParametricFit) -> Diagnostic:
    """How much runs differ that have nothing but their seed to differ in."""
    if fit.noise is None:
        text = (
            "Noise: no two of these runs differ in their seed only, so noise cannot be told from "
            "lack of fit; train some of them with a second seed."
        )
        return Diagnostic(
            text, paragraph("Runs that agree in everything but the seed would measure it.")
        )
    std, degrees = fit.noise
    text = (
        f"Noise: runs that differ in their seed only scatter by {std:.2%} of the loss; no law of "
        "size and tokens predicts a single run better than that."
    )
    how = (
        "This is the standard deviation of the logarithm of the loss between runs of equal "
        f"inputs, pooled, with {degrees} degrees of freedom."
    )
    return Diagnostic(text, paragraph(how))


def shared_trunks(fit: ParametricFit, rows: "pd.DataFrame") -> Diagnostic:
    """Whether runs share trunks, and whether the intervals know it."""
    trunk = np.asarray(rows["trunk"].astype(str)) if "trunk" in rows else np.arange(len(rows))
    names = list(dict.fromkeys(trunk))
    if len(names) == len(rows):
        text = "Trunks: no two of these runs share a trunk, so their errors are independent."
        return Diagnostic(text, paragraph("Each run was trained from its own initialization."))
    text = f"Trunks: these {len(rows)} runs share {len(names)} trunks, so their errors are not"
    if fit.clusters == "trunk":
        text += " independent; the intervals allow for that."
    else:
        text += " independent, but the intervals count them as such: expect them to be too narrow."
    residuals = rows["loss"].to_numpy(float) - fitted_losses(fit, rows)
    head = ["trunk", "runs", "mean residual, nats"]
    cells = []
    for name in names:
        own = residuals[trunk == name]
        mean = Cell(f"{own.mean():+.4f}", float(own.mean()))
        cells.append([Cell(str(name)), Cell(str(len(own)), len(own)), mean])
    # A law with one trunk per size can bend towards the trunks.
    notes = "A law absorbs part of what the runs of a trunk share, so these means understate it."
    if fit.assumption:
        notes = f"In the intervals, {fit.assumption}. {notes}"
    return Diagnostic(text, paragraph(notes) + table(head, cells))


def _trend_probability(x: np.ndarray, residuals: np.ndarray) -> float:
    """How often chance gives a line or parabola along log x that explains as much."""
    if len(np.unique(x)) < 3 or not (np.isfinite(residuals).all() and (x > 0).all()):
        return 1.0
    z = np.log(x)
    z = (z - z.mean()) / z.std()
    design = np.stack([np.ones_like(z), z, z**2], axis=1)
    left = residuals - design @ np.linalg.lstsq(design, residuals, rcond=None)[0]
    unexplained = float(left @ left)
    explained = float(np.sum((residuals - residuals.mean()) ** 2)) - unexplained
    degrees = len(z) - 3
    if unexplained <= 0:
        return 1.0
    return float(fdtrc(2, degrees, (explained / 2) / (unexplained / degrees)))
