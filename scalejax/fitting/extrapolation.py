"""How far a prediction lies beyond the rows that were fitted."""

from collections.abc import Mapping

# Inputs whose relative difference is smaller than this are the same value.
SAME_VALUE = 1e-6


def extrapolation(
    inputs: Mapping[str, float], ranges: Mapping[str, tuple[float, float]]
) -> list[str]:
    """Say how far each input of a run lies beyond the fitted rows.

    ranges: smallest and largest fitted value of each input.

    >>> extrapolation({"flops": 1e23, "params": 2e8}, {"flops": (1e17, 1e21)})
    ['flops is 100 times the largest fitted']
    """
    beyond = []
    for name, (low, high) in ranges.items():
        if name not in inputs:
            continue
        value = inputs[name]
        # A factor means nothing for shares that reach down to zero.
        if low <= 0:
            if not low <= value <= high:
                beyond.append(f"{name} is {value:.3g}, and {low:.3g} to {high:.3g} in the fit")
        elif value > high * (1 + SAME_VALUE):
            beyond.append(f"{name} is {value / high:.3g} times the largest fitted")
        elif value < low * (1 - SAME_VALUE):
            beyond.append(f"{name} is {value / low:.3g} times the smallest fitted")
    return beyond


def distance(inputs: Mapping[str, float], ranges: Mapping[str, tuple[float, float]]) -> float:
    """Return the largest factor by which an input lies beyond the fitted rows.

    1 for a run within the range of every input.

    >>> distance({"params": 4e9, "tokens": 5}, {"params": (1e7, 1e9), "tokens": (1, 9)})
    4.0
    """
    factors = [1.0]
    for name, (low, high) in ranges.items():
        if name not in inputs:
            continue
        if high > 0:
            factors.append(inputs[name] / high)
        # A range that reaches down to zero has nothing below it.
        if low > 0:
            factors.append(low / inputs[name])
    return max(factors)
