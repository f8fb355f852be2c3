"""Runs that stand out of the isoFLOP curve of their budget.

Shapes: [sizes] model sizes of a budget.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from scalejax.laws.isoflop.budgets import IsoFLOPCurve
from scalejax.laws.isoflop.noise import Noise

# The parabola through the other runs of a curve needs one more than three.
MIN_MODELS = 5

# A run stands out when it is this many standard errors off the parabola through the
# other runs. A parabola is not the exact shape of a curve, so small misfits are usual.
STANDARD_ERRORS = 8.0


# Smaller differences than this share of the loss are the misfit of a parabola.
MIN_SHARE = 0.015


class _Suspect(NamedTuple):
    """The run of a curve without which a parabola fits the others best."""

    run: int
    predicted: float
    """Its loss by the parabola through the other runs."""
    inflation: float
    """Standard error of the difference to that loss, in standard deviations of one."""
    spread: float
    """Standard deviation of the other runs about their parabola."""


def outlier_reasons(curves: Sequence[IsoFLOPCurve], noise: Noise | None) -> list[str]:
    """Name the runs whose loss is far from the parabola through their neighbours.

    noise: of a measured loss; None to judge only by the scatter of the curves.
    """
    suspects = [(curve, _suspect(curve)) for curve in curves if curve.models >= MIN_MODELS]
    if not suspects:
        return []
    # The scatter is pooled: one curve has few runs beyond its three coefficients.
    pooled = float(np.median([suspect.spread for _, suspect in suspects]))
    reasons = []
    for curve, suspect in suspects:
        loss = curve.loss[suspect.run]
        known = 0.0 if noise is None else float(noise.std(np.array([loss]))[0])
        limit = STANDARD_ERRORS * suspect.inflation * max(pooled, known)
        if abs(loss - suspect.predicted) > max(limit, MIN_SHARE * loss):
            reasons.append(
                f"the run of {np.exp(curve.log_N[suspect.run]):.3g} params at {curve.flops:.3g} "
                f"FLOPs stands out: its loss is {loss:.4g}, and the other runs of its budget give "
                f"{suspect.predicted:.4g}. Train it again, or leave it out with --where"
            )
    return reasons


def _suspect(curve: IsoFLOPCurve) -> _Suspect:
    x, loss = curve.log_N[: curve.models], curve.loss[: curve.models]
    z = (x - x.mean()) / np.ptp(x)
    design = np.stack([np.ones_like(z), z, z**2], 1)
    return min((_without(design, loss, run) for run in range(len(x))), key=lambda s: s.spread)


def _without(
    design: Float[np.ndarray, "sizes 3"], loss: Float[np.ndarray, " sizes"], run: int
) -> _Suspect:
    others = np.arange(len(loss)) != run
    coefficients, *_ = np.linalg.lstsq(design[others], loss[others], rcond=None)
    residual = loss[others] - design[others] @ coefficients
    spread = np.sqrt(np.sum(residual**2) / (others.sum() - 3))
    at = design[run]
    # The parabola is uncertain too, most of all beyond the other sizes.
    leverage = at @ np.linalg.solve(design[others].T @ design[others], at)
    return _Suspect(run, float(at @ coefficients), float(np.sqrt(1 + leverage)), float(spread))
