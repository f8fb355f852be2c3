"""What the inputs of a table leave undetermined, whatever its targets are.

Shapes: n rows.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from scalejax.laws.law import OFFSET, ParametricLaw

# An input has a single value if its logarithms spread less than this, relatively.
SINGLE_VALUE_SPREAD = 1e-9

# The ratio of two inputs is computed, and has more rounding errors.
CONSTANT_RATIO_SPREAD = 1e3 * SINGLE_VALUE_SPREAD

# Log difference between two targets at equal inputs that is more than noise. Runs that
# differ in their seeds differ by about 0.003.
MAX_DUPLICATE_GAP = 0.02


class Undetermined(NamedTuple):
    """What a table's inputs leave undetermined."""

    reasons: list[str]
    parameters: set[str]


class _Axis(NamedTuple):
    """The first input of an axis."""

    name: str
    values: Float[np.ndarray, " n"]
    log_values: Float[np.ndarray, " n"]
    """For additive laws, the values themselves."""


def undetermined_by_design(
    law: ParametricLaw, inputs: list[np.ndarray], loose: set[str]
) -> Undetermined:
    """Explain which parameters are undetermined whatever the losses are.

    loose: parameters that can move without effect on the predictions. If an input has a
    single value, the loose parameters of its terms cannot be identified. If the ratio
    of two inputs is constant, the two power terms are terms of one variable, and could
    change places.
    """
    terms, reasons, parameters = _free_terms(law), [], set()
    all_terms = [term for of_axis in terms.values() for term in of_axis]
    exponents = sorted({term[1] for term in all_terms if len(term) == 2})
    for constant in unvaried(law, inputs):
        if constant in law.inputs:
            axis = law.axes[law.inputs.index(constant)]
            concerned = [[name for name in term if name in loose] for term in terms[axis]]
            if listed := ", ".join(" and ".join(names) for names in concerned if names):
                reasons.append(f"{constant} has a single value: {listed} cannot be identified")
                parameters |= {name for names in concerned for name in names}
        elif len(exponents) == 2 and not law.tied:
            listed = " and ".join(exponents)
            reasons.append(f"{constant} is constant: {listed} cannot be told apart")
            parameters |= {name for term in all_terms for name in term}
    return Undetermined(reasons, parameters)


def open_inputs(
    law: ParametricLaw, inputs: list[np.ndarray], undetermined: set[str]
) -> dict[str, list[str]]:
    """Return the inputs beyond whose fitted values nothing bounds a prediction.

    Those are the inputs whose terms have parameters that the rows leave free: with two
    sizes, say, any exponent fits. {"params": ["A", "alpha"]} names these parameters.
    undetermined: parameters that the rows leave free. Inputs and ratios that never vary
    are left to `unvaried`.
    """
    single, terms = unvaried(law, inputs), _free_terms(law)
    # At a constant ratio the two terms are one, and only their sum is determined.
    if any("/" in quantity for quantity in single):
        return {}
    held = {name for name, _ in law.fixed}
    named = {
        name: [
            part
            for term in terms.get(axis, [])
            if undetermined & set(term)
            for part in term
            if part not in held
        ]
        for name, axis in zip(law.inputs, law.axes, strict=True)
        if name not in law.raw and name not in single
    }
    return {name: parts for name, parts in named.items() if parts}


def unvaried(law: ParametricLaw, inputs: list[np.ndarray]) -> dict[str, float]:
    """Return the inputs, or the ratio of two, that have one value in all rows.

    Only inputs in which the law has free terms count. {"params": 1e8} says that all
    rows have 1e8 parameters, and {"tokens/params": 20.0} that tokens / params is 20 in
    all rows.
    """
    terms = _free_terms(law)
    axes: dict[int, _Axis] = {}
    for name, axis, values in zip(law.inputs, law.axes, inputs, strict=True):
        # No parameter has a unit in a raw input, so none is a term in it.
        if name in law.raw:
            continue
        log_values = values if law.additive else np.log(values)
        axes.setdefault(axis, _Axis(name, values, log_values))
    single = {
        axes[axis].name: float(axes[axis].values[0])
        for axis in terms
        if _is_constant(axes[axis].log_values)
    }
    # At a constant ratio two terms can only change places if nothing holds either of
    # them.
    named_in_terms = {name for of_axis in terms.values() for term in of_axis for name in term}
    partly_held = {name for name, _ in law.fixed} & named_in_terms
    if single or partly_held or len(axes) != 2 or len(terms) != 2:
        return single
    first, second = axes.values()
    spread = np.ptp(second.log_values - first.log_values)
    if spread < CONSTANT_RATIO_SPREAD * (1 + np.ptp(first.log_values)):
        ratio = float(second.values[0] / first.values[0])
        return {f"{second.name}/{first.name}": ratio}
    return {}


def _is_constant(log_values: Float[np.ndarray, " n"]) -> bool:
    return bool(np.ptp(log_values) < SINGLE_VALUE_SPREAD * (1 + abs(log_values[0])))


def _free_terms(law: ParametricLaw) -> dict[int, list[tuple[str, ...]]]:
    """Return the terms in each axis, (size, exponent), that are not completely held.

    A scale such as N_c of Kaplan's law has no exponent of its own: it is (size,).
    """
    held, terms = dict(law.fixed), {}
    for name, coordinate in zip(law.names, law.coordinates, strict=True):
        for exponent, axis, _ in coordinate.units:
            term = (name, exponent) if exponent else (name,)
            if not all(part in held for part in term):
                terms.setdefault(axis, []).append(term)
    return terms


def held_reasons(law: ParametricLaw, targets: np.ndarray) -> list[str]:
    """Name offsets that are held above measured targets, which no fit can reach."""
    offsets = {
        name
        for name, coordinate in zip(law.names, law.coordinates, strict=True)
        if coordinate == OFFSET
    }
    reasons = []
    for name, value in law.fixed:
        below = int(np.sum(targets <= value))
        if name in offsets and below:
            reasons.append(
                f"{name} is held at {value:g}, above the {law.target} of {below} of "
                f"{len(targets)} rows"
            )
    return reasons


def duplicate_reasons(inputs: list[np.ndarray], targets: np.ndarray) -> list[str]:
    """Name rows of equal inputs whose targets are far apart, or exactly equal."""
    order = np.lexsort([targets, *inputs])
    same_inputs = np.all([np.diff(x[order]) == 0 for x in inputs], axis=0)
    log_targets = np.log(targets[order])
    # Rows are compared with the lowest target at the same inputs: neighbours can be
    # close where a whole group is spread out.
    firsts = np.flatnonzero(np.append(True, ~same_inputs))
    lowest = np.repeat(log_targets[firsts], np.diff(firsts, append=len(log_targets)))
    far = int(np.sum(log_targets - lowest > MAX_DUPLICATE_GAP))
    copies = int(np.sum(same_inputs & (np.diff(log_targets) == 0)))
    reasons = []
    if far:
        reasons.append(
            f"duplicate inputs with targets more than {MAX_DUPLICATE_GAP:.0%} apart: {far} rows "
            "above another"
        )
    if copies:
        reasons.append(
            f"duplicate rows: {copies} repeat another row's inputs and target; they count again "
            "in the fit and in its intervals"
        )
    return reasons
