"""profile."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from scalejax.laws.inference.convergence import converged
from scalejax.laws.law import ParametricLaw
from scalejax.laws.solver import losses
from scalejax.laws.solver.multistart import find_optimum


def profile(
    law: ParametricLaw,
    inputs: Sequence[Any],
    targets: Any,
    name: str,
    at: Sequence[float],
    weights: Any = None,
    *,
    loss: str = "huber:1e-3",
) -> np.ndarray:
    """The objective with one parameter held at each of some values and the others fitted, (values,): its profile likelihood.

    A flat stretch is what the rows cannot tell apart; its lowest point is the fit. Every value is solved from the whole start
    grid: warm starts follow one valley, and a law such as the data-constrained one has several. nan where no start converged.

    inputs: one (n,) array per input of the law.  targets, weights: (n,).  loss: as for `scalejax.laws.solve`.

    Raises ValueError for a parameter that the law has not, or for a value that it cannot take.
    """
    targets, *inputs = (np.asarray(x, np.float64) for x in (targets, *inputs))
    weights = np.ones(len(targets)) if weights is None else np.asarray(weights, np.float64)
    chosen = losses.parse_loss(loss)
    found = (
        find_optimum(law.hold(**{name: float(value)}), inputs, targets, weights, chosen)
        for value in at
    )
    return np.array(
        [
            one.state.cost[0] / chosen.normalizer
            if converged(one.state, one.problem, one.weights)[0]
            else np.nan
            for one in found
        ]
    )
