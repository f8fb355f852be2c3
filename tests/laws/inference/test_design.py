"""What the inputs of a table show by themselves (mirrors .../inference/design.py)."""

import numpy as np

from scalejax import laws
from scalejax.laws.inference.design import duplicate_reasons, held_reasons, unvaried
from tests.laws.solver.test_multistart import noisy


def test_equal_inputs_with_far_targets_are_named():
    inputs, targets = noisy(laws.chinchilla(), "chinchilla", 3, noise=0.002)
    repeated = [np.append(x, x[0]) for x in inputs]
    assert duplicate_reasons(repeated, np.append(targets, 1.01 * targets[0])) == []
    (reason,) = duplicate_reasons(repeated, np.append(targets, 1.5 * targets[0]))
    assert "duplicate" in reason


def test_targets_are_compared_with_the_lowest_one_at_the_same_inputs():
    inputs, targets = noisy(laws.chinchilla(), "chinchilla", 3, noise=0.002)
    repeated = [np.append(x, np.full(3, x[0])) for x in inputs]
    # Each is close to the next one; the first and the last are not close.
    steps = np.append(targets, targets[0] * np.array([1.015, 1.03, 1.045]))
    assert "2 rows above another" in duplicate_reasons(repeated, steps)[0]


def test_constant_inputs_and_ratios_are_found():
    (N, D), _ = noisy(laws.chinchilla(), "chinchilla", 1)
    assert unvaried(laws.chinchilla(), [N, D]) == {}
    assert unvaried(laws.chinchilla(), [np.full(60, 1e8), D]) == {"params": 1e8}
    ratio = unvaried(laws.chinchilla(), [N, 20 * N])
    assert list(ratio) == ["tokens/params"] and abs(ratio["tokens/params"] / 20 - 1) < 1e-9


def test_an_offset_held_above_measured_targets_is_named():
    targets = np.array([1.6, 1.8, 2.0])
    (reason,) = held_reasons(laws.chinchilla(E=1.7), targets)
    assert reason == "E is held at 1.7, above the loss of 1 of 3 rows"
    assert held_reasons(laws.chinchilla(E=1.5), targets) == []
