"""The predictions of a law in the units of a table."""

from functools import partial
from typing import Any

import jax
import numpy as np

from scalejax.laws.law import ParametricLaw
from scalejax.laws.solver.problem import unconstrained


def evaluate(
    law: ParametricLaw[Any], params: dict[str, Any], inputs: list[np.ndarray]
) -> np.ndarray:
    """Return the law's predictions in the table's units, in float64; arrays broadcast.

    >>> from scalejax.laws import power
    >>> params = {"a": 30.0, "b": -0.1, "c": 1.0}
    >>> evaluate(power("flops"), params, [np.array([1e10, 1e20])]).round(6).tolist()
    [4.0, 1.3]

    params: numbers or arrays by parameter.  inputs: one array per input of the law.
    """
    with jax.enable_x64(True):
        wide = {name: np.asarray(value, np.float64) for name, value in params.items()}
        return np.asarray(_evaluate(unconstrained(law), law.form(**wide), inputs))


@partial(jax.jit, static_argnums=0)
def _evaluate(law: ParametricLaw[Any], params: Any, inputs: list[Any]) -> jax.Array:
    return law.predict(params, *inputs)
