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
        return Diagnostic(text, paragraph("Without replicates there is no noise floor."))
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
    """How many independent runs the fitted ones are worth."""
    trunk = np.asarray(rows["trunk"].astype(str)) if "trunk" in rows else np.arange(len(rows))
    names = list(dict.fromkeys(trunk))
    if len(names) == len(rows):
        text = "Trunks: no two of these runs share a trunk, so their errors are independent."
        return Diagnostic(text, paragraph("Each run was trained from its own initialization."))
    residuals = rows["loss"].to_numpy(float) - fitted_losses(fit, rows)
    groups = [residuals[trunk == name] for name in names]
    correlation = intraclass_correlation(groups)
    worth = len(rows) / (1 + (len(rows) / len(names) - 1) * max(0.0, correlation))
    text = (
        f"Trunks: residuals of runs that share one of {len(names)} trunks are correlated by "
        f"{correlation:.2f}, so {len(rows)} runs say as much as about {worth:.0f} independent "
        "ones; trust intervals only where trunks were resampled together."
    )
    head = ["trunk", "runs", "mean residual, nats"]
    cells = [
        [
            Cell(str(name)),
            Cell(str(len(group)), len(group)),
            Cell(f"{group.mean():+.4f}", float(group.mean())),
        ]
        for name, group in zip(names, groups, strict=True)
    ]
    assumed = f"In the intervals, {fit.assumption}." if fit.assumption else ""
    resampled = f"The bootstrap resampled {fit.clusters or 'single runs'}."
    return Diagnostic(text, paragraph(f"{resampled} {assumed}".strip()) + table(head, cells))


def intraclass_correlation(groups: "list[np.ndarray]") -> float:
    """Return the correlation of values of one group, by analysis of variance.

    >>> round(intraclass_correlation([np.array([1.0, 1.1]), np.array([2.0, 2.1])]), 2)
    0.99
    """
    sizes = np.array([len(group) for group in groups])
    total, count = int(sizes.sum()), len(groups)
    if count < 2 or total == count:
        return float("nan")
    mean = np.concatenate(groups).mean()
    means = np.array([group.mean() for group in groups])
    between = float(np.sum(sizes * (means - mean) ** 2)) / (count - 1)
    within = sum(float(np.sum((group - group.mean()) ** 2)) for group in groups) / (total - count)
    # Groups of different sizes count with this average size.
    size = (total - float(np.sum(sizes**2)) / total) / (count - 1)
    spread = between + (size - 1) * within
    return (between - within) / spread if spread > 0 else 0.0


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
