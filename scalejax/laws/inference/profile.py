"""Profile likelihoods: the best objective at each value of one parameter."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy.special import fdtri

from scalejax.laws.inference.convergence import converged
from scalejax.laws.law import ParametricLaw
from scalejax.laws.solver.losses import parse_loss
from scalejax.laws.solver.multistart import Optimum, find_optimum


def profile(
    law: ParametricLaw,
    inputs: Sequence[ArrayLike],
    targets: ArrayLike,
    name: str,
    at: Sequence[float] | Float[np.ndarray, " values"],
    weights: ArrayLike | None = None,
    *,
    loss: str = "huber:1e-3",
) -> Float[np.ndarray, " values"]:
    """Return the objective with a parameter held at each value and the others fitted.

    inputs: one (n,) array per input of the law. targets, weights: (n,). name: the
    parameter. at: its values. loss: as for `scalejax.laws.solve`.

    The lowest point of a profile is the fit. Where the profile is flat, the data do not
    distinguish the values. A value at which no start converged gives nan.

    Every value is solved from the whole start grid. Warm starts would follow one
    valley, and some laws have several, such as the data-constrained one.

    Raises ValueError for a parameter that the law does not have, or for a value that it
    cannot take.
    """
    target, *columns = (np.asarray(x, np.float64) for x in (targets, *inputs))
    weight = np.ones(len(target)) if weights is None else np.asarray(weights, np.float64)
    parsed = parse_loss(loss)
    # What is held enters the compiled programs as data, so all values share them.
    objectives = []
    for value in at:
        held = law.hold(**{name: float(value)})
        optimum = find_optimum(held, columns, target, weight, parsed)
        ok = converged(optimum.state, optimum.problem, optimum.weights)[0]
        objectives.append(optimum.state.cost[0] / parsed.normalizer if ok else np.nan)
    return np.array(objectives)


def end_above_zero(
    law: ParametricLaw,
    optimum: Optimum,
    inputs: list[np.ndarray],
    targets: Float[np.ndarray, " n"],
    name: str,
    level: float = 0.95,
) -> float | None:
    """Return the upper end of the interval of an offset whose best value is zero.

    The end is the value at which the lowest objective, with the offset held there, is
    1 + F / (n - k) times the one at zero, for n rows, k parameters and the quantile F
    of the F distribution on 1 and n - k degrees of freedom. For least squares and
    Gaussian noise that is the exact interval of a likelihood ratio. Bootstrap fits end
    at the bound too often to say where the interval ends.

    None if no offset below the smallest target is so far, or without rows to spare.
    """
    # Takes a second to import on a slow machine, which other fits need not pay.
    from scipy.optimize import root_scalar

    degrees = len(targets) - law.free
    if degrees < 1:
        return None
    weights = optimum.weights[: len(targets)]
    limit = float(optimum.state.cost[0]) * (1 + float(fdtri(1, degrees, level)) / degrees)

    def excess(value: float) -> float:
        held = law.hold(**{name: float(value)})
        state = find_optimum(held, inputs, targets, weights, optimum.loss).state
        return float(state.cost[0]) - limit

    # The law needs room between its offset and the smallest target.
    most = float(targets.min()) * (1 - 1e-6)
    if excess(most) <= 0:
        return None
    return float(root_scalar(excess, bracket=(0.0, most), xtol=1e-3 * most).root)
