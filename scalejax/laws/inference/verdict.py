"""How far a fit can be trusted: open intervals, profiles, identifiability, verdicts."""

from typing import Any, NamedTuple

import numpy as np

from scalejax.laws.inference.convergence import converged
from scalejax.laws.inference.design import undetermined_by_design
from scalejax.laws.inference.identification import identify, linearize
from scalejax.laws.inference.intervals import at_bounds
from scalejax.laws.law import ParametricLaw
from scalejax.laws.solver.multistart import Optimum

MAX_LOG_STANDARD_ERROR = (
    2.0  # standard error of a log size at the centre of the data: a factor 50 either way at 95%
)
MAX_INTERVAL_RATIO = (
    1e4  # high end over low end of a size's interval; 5.6 for B on the Chinchilla points
)


class Verdict(NamedTuple):
    """What can be said of a fit."""

    word: str
    """ok, at-boundary, unidentified (wins over at-boundary) or not-converged."""
    reasons: list[str]
    condition: float
    """Condition number of the scaled normal matrix; infinite where a parameter has no effect, nan where nothing converged."""
    at_boundary: list[str]
    """Parameters at a bound, or without effect because their term is nil or constant."""
    unknown: set[str]
    """Parameters that these rows leave free to take any value: whatever bootstraps say, their intervals are open."""


def judge(
    law: ParametricLaw, at: Optimum, inputs: list[np.ndarray], ends: dict[str, Any]
) -> Verdict:
    """Judges a fit by its convergence, the design of its table, its linearized errors and its intervals."""
    below, above = at_bounds(law, at.problem, at.theta[:, None])
    edges = [name for i, name in enumerate(law.names) if below[i, 0] or above[i, 0]]
    if not converged(at.state, at.problem, at.weights)[0]:
        stuck, (why, names) = (
            "the solver did not reach a stationary point from any start",
            undetermined_by_design(law, inputs, set(law.names)),
        )
        return Verdict("not-converged", [stuck, *why], float("nan"), edges, names)
    found = identify(law, at, linearize(law, at))
    loose = {*found.idle, *found.mixed}
    reasons, names = undetermined_by_design(law, inputs, loose)
    if idle := [name for name in found.idle if name not in names]:
        reasons.append(f"{', '.join(idle)} changed nothing on these rows")
    if found.mixed and not names.issuperset(found.mixed):
        apart = f"condition number {found.condition:.1e}"
        reasons.append(
            f"the parameters {', '.join(found.mixed)} cannot be told apart on these rows ({apart})"
        )
    unknown = loose | names
    if law.free and len(inputs[0]) == law.free:
        reasons.append(
            f"{law.free} rows for {law.free} parameters: nothing is left to check the law with"
        )
    reasons += _open_reasons(
        law, {name: pair for name, pair in ends.items() if name not in unknown}
    )
    if not reasons:
        reasons = _vague_reasons(law, found.covariance)
    edge_reasons = [f"{', '.join(edges)} at the edge of what is allowed"] if edges else []
    word = "unidentified" if reasons else "at-boundary" if edges else "ok"
    return Verdict(word, reasons + edge_reasons, found.condition, edges, unknown)


def _open_reasons(law: ParametricLaw, ends: dict[str, Any]) -> list[str]:
    """Parameters whose intervals are open, together where they are so at the same end, or wide beyond use."""
    sizes = {name for name, k in zip(law.names, law.coordinates, strict=True) if k.log}
    named: dict[str, list[str]] = {}
    wide = []
    for name, (low, high) in ends.items():
        if low is None or high is None:
            named.setdefault(
                "at both ends" if low is high else "below" if low is None else "above", []
            ).append(name)
        elif name in sizes and high > MAX_INTERVAL_RATIO * low:
            wide.append(f"{name} is not identified: its interval spans a factor {high / low:.0e}")
    several = {
        True: "are not identified: their intervals are",
        False: "is not identified: its interval is",
    }
    return [
        f"{', '.join(names)} {several[len(names) > 1]} open {end}" for end, names in named.items()
    ] + wide


def _vague_reasons(law: ParametricLaw, covariance: np.ndarray) -> list[str]:
    """Sizes with linearized errors too wide for use."""
    errors = np.sqrt(np.diag(covariance))
    named = zip(law.names, law.coordinates, errors, strict=True)
    vague = [
        (name, np.exp(min(2 * error, 50)))
        for name, k, error in named
        if k.log and error > MAX_LOG_STANDARD_ERROR
    ]
    return [
        f"{name} is not identified: its size is known to a factor {factor:.0e} only"
        for name, factor in vague
    ]
