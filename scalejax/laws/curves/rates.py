"""The learning rate of every step of a curve: its checks and its decrements.

eta_t is the learning rate of step t, counted from 0.

Shapes: [steps] one entry per optimizer step of a curve.
"""

from types import ModuleType
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

AnyArray = TypeVar("AnyArray", jax.Array, np.ndarray)

# A parameter of a law: a number, or a traced scalar inside compiled code.
Parameter = jax.Array | float


def checked_rates(
    learning_rates: ArrayLike, name: str = "learning_rates"
) -> Float[np.ndarray, " steps"]:
    """Return the learning rate of every step in float64.

    name: what error messages call the array.

    Raises ValueError unless the rates are one-dimensional, finite, nowhere negative and
    somewhere positive.
    """
    rates = np.asarray(learning_rates, np.float64)
    if rates.ndim != 1 or not rates.size:
        raise ValueError(
            f"{name} must be a one-dimensional array with the learning rate of every step; "
            f"got shape {rates.shape}"
        )
    invalid = np.flatnonzero(~(np.isfinite(rates) & (rates >= 0)))
    if invalid.size:
        step = invalid[0]
        raise ValueError(
            f"{name}: the learning rate of step {step} is {rates[step]}; "
            "learning rates must be finite and not negative"
        )
    if not rates.any():
        raise ValueError(f"{name}: every learning rate is zero, so that nothing is trained")
    return rates


def decrements(
    learning_rates: Float[AnyArray, " steps"], xp: ModuleType = jnp
) -> Float[AnyArray, " steps"]:
    """Return d_k = eta_{k-1} - eta_k after the first step at the peak, and 0 up to it.

    The laws reward a falling rate. The rise of the warm-up is not annealing, hence the
    zeros; a later rise counts, with a negative sign.

    xp: the array library to compute with, jax.numpy or numpy.

    >>> decrements(np.array([1.0, 3.0, 2.0, 0.5]), np).tolist()
    [0.0, 0.0, 1.0, 1.5]
    """
    drop = -xp.diff(learning_rates, prepend=learning_rates[:1])
    return xp.where(xp.arange(drop.size) > xp.argmax(learning_rates), drop, 0)


def extent(learning_rates: Float[np.ndarray, " steps"]) -> dict[str, float]:
    """How far a schedule goes in what the laws read of it: a range of these was fitted.

    >>> extent(np.array([1.0, 3.0, 2.0, 0.5]))["drop of the rate"]
    2.5
    """
    from_peak = learning_rates[np.argmax(learning_rates) :]
    return {
        "steps": float(len(learning_rates)),
        "summed rate": float(learning_rates.sum()),
        "peak rate": float(learning_rates.max()),
        "drop of the rate": float(np.ptp(from_peak)),
    }
