"""design."""

import numpy as np

from scalejax.laws.law import OFFSET, ParametricLaw

SINGLE_VALUE_SPREAD = 1e-9  # spread of the logarithm of an input, below which it has one value
MAX_DUPLICATE_GAP = (
    0.02  # log difference between targets at equal inputs; replicate seeds differ by about 0.003
)


def unvaried(law: ParametricLaw, inputs: list[np.ndarray]) -> dict[str, float]:
    """Inputs, or their ratio, of one value in all rows, where the law has free terms in them: {"params": 1e8}."""
    terms, columns = _terms(law), {}
    held = {name for name, _ in law.fixed} & {
        name for pairs in terms.values() for pair in pairs for name in pair
    }
    for column, axis, x in zip(law.inputs, law.axes, inputs, strict=True):
        columns.setdefault(axis, (column, x, x if law.additive else np.log(x)))
    read = (columns[axis] for axis in terms)
    single = {
        column: float(x[0])
        for column, x, log in read
        if np.ptp(log) < SINGLE_VALUE_SPREAD * (1 + abs(log[0]))
    }
    if single or held or len(columns) != 2 or len(terms) != 2:
        return single
    (first, x, log_x), (second, y, log_y) = columns.values()
    one = np.ptp(log_y - log_x) < 1e3 * SINGLE_VALUE_SPREAD * (1 + np.ptp(log_x))
    return {f"{second}/{first}": float(y[0] / x[0])} if one else {}


def _terms(law: ParametricLaw) -> dict[int, list[tuple[str, ...]]]:
    """Axis -> the size and exponent of each term in it that are not both held; a scale such as N_c has no exponent of its own."""
    held, terms = dict(law.fixed), {}
    for name, k in zip(law.names, law.coordinates, strict=True):
        for exponent, axis, _ in k.units:
            pair = (name, exponent) if exponent else (name,)
            if not all(part in held for part in pair):
                terms.setdefault(axis, []).append(pair)
    return terms


def undetermined_by_design(
    law: ParametricLaw, inputs: list[np.ndarray], loose: set[str]
) -> tuple[list[str], set[str]]:
    """What the table's inputs alone make impossible to tell apart: reasons, and the parameters concerned.

    loose: parameters that can move without effect on the rows. One value of an input frees those of its terms that nothing else
    holds; at one ratio two power terms are two of one variable, and could change places.
    """
    terms, reasons, names = _terms(law), [], set()
    every = [pair for pairs in terms.values() for pair in pairs]
    exponents = sorted({pair[1] for pair in every if len(pair) == 2})
    for what in unvaried(law, inputs):
        if what in law.inputs:
            pairs = [
                [part for part in pair if part in loose]
                for pair in terms[law.axes[law.inputs.index(what)]]
            ]
            if free := ", ".join(" and ".join(pair) for pair in pairs if pair):
                reasons.append(f"{what} has a single value: {free} cannot be identified")
                names |= {part for pair in pairs for part in pair}
        elif len(exponents) == 2 and not law.tied:
            reasons.append(f"{what} is constant: {' and '.join(exponents)} cannot be told apart")
            names |= {name for pair in every for name in pair}
    return reasons, names


def held_reasons(law: ParametricLaw, targets: np.ndarray) -> list[str]:
    """Offsets that are held above what was measured: no fit of the other terms goes through those rows."""
    offsets = {name for name, k in zip(law.names, law.coordinates, strict=True) if k == OFFSET}
    above = (
        (name, value, int(np.sum(targets <= value))) for name, value in law.fixed if name in offsets
    )
    return [
        f"{name} is held at {value:g}, above the {law.target} of {n} of {len(targets)} rows"
        for name, value, n in above
        if n
    ]


def duplicate_reasons(inputs: list[np.ndarray], targets: np.ndarray) -> list[str]:
    """Rows with equal inputs whose targets are far apart, or the same to the last bit."""
    order = np.lexsort([targets, *inputs])
    same = np.all([np.diff(x[order]) == 0 for x in inputs], axis=0)
    logs, firsts = np.log(targets[order]), np.flatnonzero(np.append(True, ~same))
    above = logs - np.repeat(
        logs[firsts], np.diff(firsts, append=len(logs))
    )  # the lowest target at the same inputs
    far, copies = int(np.sum(above > MAX_DUPLICATE_GAP)), int(np.sum(same & (np.diff(logs) == 0)))
    reasons = (
        [
            f"duplicate inputs with targets more than {MAX_DUPLICATE_GAP:.0%} apart: {far} rows above another"
        ]
        if far
        else []
    )
    if copies:
        reasons.append(
            f"duplicate rows: {copies} repeat another in inputs and target, and count again in fit and intervals"
        )
    return reasons
