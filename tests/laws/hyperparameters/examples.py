"""Sweeps of known laws, which the tests of this folder share."""

import numpy as np

from scalejax.laws.hyperparameters import Beta2, Hyperparameters, Sweep

TRUTH = Hyperparameters(2.0, -0.7, 0.3, 0.6, 0.57)
SIZES, TOKENS = (1e8, 4e8, 1e9), (2e9, 8e9, 3e10)


def grid_sweep(
    law: Hyperparameters = TRUTH,
    sizes: tuple[float, ...] = SIZES,
    tokens: tuple[float, ...] = TOKENS,
    points: int = 9,
    curvature: float = 0.02,
    shift: float = 0.0,
) -> Sweep:
    """Losses that are quadratic around the optimum of every cell.

    Each cell is a grid of points x points runs, centred `shift` away from the optimum
    in both logarithms.
    """
    offsets = np.linspace(-2, 2, points) + shift
    runs = []
    for N in sizes:
        for D in tokens:
            for x in offsets:
                for y in offsets:
                    learning_rate = law.learning_rate(N, D) * np.exp(x)
                    batch_tokens = law.batch_tokens(D) * np.exp(y)
                    loss = 2 + 100 / N**0.25 + curvature * (x**2 + y**2)
                    runs.append((N, D, learning_rate, batch_tokens, loss))
    return Sweep(*np.array(runs).T, beta2=np.full(len(runs), 0.95))


def parameters(law: Hyperparameters | Beta2) -> np.ndarray:
    """The parameters of a law in the order of its fields."""
    return np.array([float(x) for x in law])
