"""The verdict on a fit: whether its parameters can be used, and why not."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from scalejax.laws.inference.convergence import converged
from scalejax.laws.inference.design import Undetermined, undetermined_by_design
from scalejax.laws.inference.identification import Identification, identify, linearize
from scalejax.laws.inference.intervals import Interval, at_bounds
from scalejax.laws.law import EXPONENT, ParametricLaw
from scalejax.laws.solver.multistart import Optimum

# Standard error of the logarithm of a size at the centre of the data, above which the
# size is not identified: a factor of 50 either way at 95%. In table units, a size is
# the value of its term for a model of one parameter. How well that is known depends on
# the unit of the table, and says little about the fit.
MAX_LOG_STANDARD_ERROR = 2.0

# Ratio of the ends of an exponent's interval above which it is not identified. For beta
# on the Chinchilla data it is 1.2.
MAX_EXPONENT_RATIO = 10.0


class Verdict(NamedTuple):
    """What can be said of a fit."""

    label: str
    """ok, at-boundary, unidentified or not-converged; the last of them that applies."""
    reasons: list[str]
    condition: float
    """Condition number of the scaled normal matrix. It is infinite when a parameter has
    no effect, and nan when the fit did not converge."""
    at_boundary: list[str]
    """Parameters at a bound, or without effect because their term is nil or
    constant."""
    undetermined: set[str]
    """Parameters that the rows leave free to take any value. Their intervals are open,
    whatever the bootstrap fits say."""


def judge(
    law: ParametricLaw,
    optimum: Optimum,
    inputs: list[np.ndarray],
    intervals: dict[str, Interval],
    size_ratios: dict[str, float],
) -> Verdict:
    """Judge a fit by its convergence, its design and the width of its intervals.

    inputs: the columns that were fitted. intervals, size_ratios: of bootstrap fits, by
    the functions in `intervals`; empty without draws.
    """
    below, above = at_bounds(law, optimum.problem, optimum.theta[:, None])
    at_boundary = [name for i, name in enumerate(law.names) if below[i, 0] or above[i, 0]]
    if not converged(optimum.state, optimum.problem, optimum.weights)[0]:
        design = undetermined_by_design(law, inputs, set(law.names))
        reasons = ["the solver did not reach a stationary point from any start", *design.reasons]
        return Verdict("not-converged", reasons, float("nan"), at_boundary, design.parameters)

    identified = identify(law, optimum, linearize(law, optimum))
    loose = {*identified.without_effect, *identified.confounded}
    design = undetermined_by_design(law, inputs, loose)
    undetermined = loose | design.parameters
    reasons = [*design.reasons, *_flat_reasons(identified, design)]
    if law.free and len(inputs[0]) == law.free:
        reasons.append(
            f"{law.free} rows for {law.free} parameters: nothing is left to check the law with"
        )
    closed = {n: i for n, i in intervals.items() if n not in undetermined}
    reasons += _open_reasons(closed)
    reasons += _wide_reasons(law, closed, size_ratios)
    if not reasons:
        reasons = _vague_reasons(law, identified.covariance)
    label = "unidentified" if reasons else "at-boundary" if at_boundary else "ok"
    if at_boundary:
        reasons.append(f"{', '.join(at_boundary)} at the edge of what is allowed")
    return Verdict(label, reasons, identified.condition, at_boundary, undetermined)


def _flat_reasons(identified: Identification, design: Undetermined) -> list[str]:
    """Name flat directions that the design of the table does not explain."""
    reasons = []
    idle = [name for name in identified.without_effect if name not in design.parameters]
    if idle:
        reasons.append(f"{', '.join(idle)} changed nothing on these rows")
    if identified.confounded and not design.parameters.issuperset(identified.confounded):
        reasons.append(
            f"the parameters {', '.join(identified.confounded)} cannot be told apart on these "
            f"rows (condition number {identified.condition:.1e})"
        )
    return reasons


def _open_reasons(intervals: dict[str, Interval]) -> list[str]:
    """Name the parameters with open intervals, grouped by the end that is open."""
    names: dict[str, list[str]] = {}
    for name, (low, high) in intervals.items():
        if low is None and high is None:
            names.setdefault("at both ends", []).append(name)
        elif low is None:
            names.setdefault("below", []).append(name)
        elif high is None:
            names.setdefault("above", []).append(name)
    reasons = []
    for end, group in names.items():
        several = len(group) > 1
        verb = (
            "are not identified: their intervals are"
            if several
            else ("is not identified: its interval is")
        )
        reasons.append(f"{', '.join(group)} {verb} open {end}")
    return reasons


def _wide_reasons(
    law: ParametricLaw, intervals: dict[str, Interval], size_ratios: dict[str, float]
) -> list[str]:
    """Name the sizes and exponents whose closed intervals span orders of magnitude."""
    reasons = []
    for name, coordinate in zip(law.names, law.coordinates, strict=True):
        low, high = intervals.get(name, (None, None))
        if low is None or high is None:
            continue
        if coordinate.log and size_ratios[name] > np.exp(4 * MAX_LOG_STANDARD_ERROR):
            reasons.append(
                f"{name} is not identified: its interval spans a factor {size_ratios[name]:.0e} at "
                "the centre of the data"
            )
        if coordinate == EXPONENT and high > MAX_EXPONENT_RATIO * low:
            reasons.append(f"{name} is not identified: its interval is [{low:.3g}, {high:.3g}]")
    return reasons


def _vague_reasons(law: ParametricLaw, covariance: Float[np.ndarray, "p p"]) -> list[str]:
    """Name the sizes with large linearized standard errors."""
    errors = dict(zip(law.names, np.sqrt(np.diag(covariance)), strict=True))
    reasons = []
    for name in _sizes(law):
        if errors[name] > MAX_LOG_STANDARD_ERROR:
            # Two standard errors; the bound keeps the number printable.
            factor = np.exp(min(2 * errors[name], 50))
            reasons.append(
                f"{name} is not identified: its size is known to a factor {factor:.0e} only"
            )
    return reasons


def _sizes(law: ParametricLaw) -> list[str]:
    """Return the parameters that are solved for as logarithms, which span decades."""
    coordinates = zip(law.names, law.coordinates, strict=True)
    return [name for name, coordinate in coordinates if coordinate.log]
