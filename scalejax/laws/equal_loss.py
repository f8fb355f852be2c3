"""The loss that a law reaches with some compute, and the compute that a loss takes.

A law of (params, tokens) spends C = 6 N D. By default each budget is spent at the
law's own optimum; with a ratio M of tokens to parameters it is spent at D = M N. A law
of flops needs no choice: it describes runs as they were allocated.

Shapes: K draws of the parameters (fields of shape (K,)), B budgets.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from scalejax.laws.law import ParametricLaw
from scalejax.laws.solver.problem import unconstrained

# Laws whose inputs determine what a run costs.
COSTED_INPUTS = (("params", "tokens"), ("flops",))

# Narrows 60 nats of log N to 2e-4, where the loss is flat to 1e-8.
GOLDEN_STEPS = 26
GOLDEN = (5**0.5 - 1) / 2

# Newton's method in log C. The loss falls and is convex, so that a step to the right
# never passes the answer; steps are a few nats long far from it, and then quadratic.
NEWTON_STEPS = 16


def loss_of_budget(
    law: ParametricLaw[Any],
    params: dict[str, np.ndarray],
    flops: Float[np.ndarray, "K B"],
    ratio: float | None = None,
) -> Float[np.ndarray, "K B"]:
    """Return the loss that each draw of a law reaches with each budget.

    params: (K,) by parameter.  flops: C, > 0; it broadcasts.  ratio: tokens per
    parameter; None for the compute-optimal one.

    >>> from scalejax.laws.forms import chinchilla
    >>> hoffmann = {"A": 406.4, "B": 410.7, "E": 1.69, "alpha": 0.34, "beta": 0.28}
    >>> columns = {name: np.array([value]) for name, value in hoffmann.items()}
    >>> loss_of_budget(chinchilla(), columns, np.array([[5.88e23]])).round(3).tolist()
    [[1.93]]
    """
    with jax.enable_x64(True):
        log_flops = jnp.log(jnp.asarray(flops, jnp.float64))
        return np.asarray(_loss(unconstrained(law), _columns(law, params), log_flops, ratio))


def budget_of_loss(
    law: ParametricLaw[Any],
    params: dict[str, np.ndarray],
    losses: Float[np.ndarray, "K B"],
    bracket: tuple[float, float],
    ratio: float | None = None,
) -> Float[np.ndarray, "K B"]:
    """Return the FLOPs with which each draw of a law reaches each loss.

    bracket: FLOPs between which the answer is sought. It is infinite for a loss that
    the law does not reach with the upper end, and 0 for one that it is below with the
    lower end.
    """
    low, high = np.log(bracket)
    with jax.enable_x64(True):
        log_flops = _budget(
            unconstrained(law),
            _columns(law, params),
            jnp.asarray(losses, jnp.float64),
            low,
            high,
            ratio,
        )
        return np.exp(np.asarray(log_flops))


def optimal_run(
    law: ParametricLaw[Any], params: dict[str, float], flops: float
) -> dict[str, float]:
    """Return params and tokens of the compute-optimal run of a law of both."""
    with jax.enable_x64(True):
        columns = _columns(law, {name: np.array([value]) for name, value in params.items()})
        log_flops = jnp.log(jnp.full((1, 1), flops, jnp.float64))
        log_size = float(_best_log_size(unconstrained(law), columns, log_flops)[0, 0])
    size = float(np.exp(log_size))
    return {"params": size, "tokens": flops / 6 / size}


def _columns(law: ParametricLaw[Any], params: dict[str, np.ndarray]) -> Any:
    """The law's NamedTuple with fields of shape (K, 1), which broadcast to budgets."""
    return law.form._make(jnp.asarray(params[name], jnp.float64)[:, None] for name in law.names)


def _spent(
    law: ParametricLaw[Any], form: Any, log_size: Float[Array, "K B"], log_flops: Array
) -> Float[Array, "K B"]:
    log_tokens = log_flops - np.log(6) - log_size
    return law.predict(form, jnp.exp(log_size), jnp.exp(log_tokens))


@partial(jax.jit, static_argnums=0)
def _best_log_size(
    law: ParametricLaw[Any], form: Any, log_flops: Float[Array, "K B"]
) -> Float[Array, "K B"]:
    """Return log N of lowest loss at each budget, by golden-section search.

    The loss of every law here falls and then rises along C = 6 N D, from one parameter
    to one token.
    """
    low = jnp.zeros(jnp.broadcast_shapes(log_flops.shape, form[0].shape))
    high = low + log_flops - np.log(6)

    def narrow(_: int, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
        is_left = _spent(law, form, left, log_flops) < _spent(law, form, right, log_flops)
        return jnp.where(is_left, low, left), jnp.where(is_left, right, high)

    low, high = jax.lax.fori_loop(0, GOLDEN_STEPS, narrow, (low, high))
    return (low + high) / 2


@partial(jax.jit, static_argnums=0)
def _loss(
    law: ParametricLaw[Any], form: Any, log_flops: Float[Array, "K B"], ratio: float | None
) -> Float[Array, "K B"]:
    if law.inputs == ("flops",):
        return law.predict(form, jnp.exp(log_flops))
    if ratio is None:
        log_size = _best_log_size(law, form, log_flops)
    else:
        # From C = 6 N D and D = M N.
        log_size = (log_flops - jnp.log(6 * ratio)) / 2
    return _spent(law, form, log_size, log_flops)


@partial(jax.jit, static_argnums=0)
def _budget(
    law: ParametricLaw[Any],
    form: Any,
    losses: Float[Array, "K B"],
    low: float,
    high: float,
    ratio: float | None,
) -> Float[Array, "K B"]:
    ends = jnp.full(losses.shape, low), jnp.full(losses.shape, high)
    is_below = _loss(law, form, ends[0], ratio) < losses
    is_unreached = _loss(law, form, ends[1], ratio) > losses

    def step(_: int, log_flops: Array) -> Array:
        # By the envelope theorem the optimum's own motion does not matter.
        loss, slope = jax.jvp(
            lambda x: _loss(law, form, x, ratio), (log_flops,), (jnp.ones_like(log_flops),)
        )
        return jnp.clip(log_flops - (loss - losses) / slope, low, high)

    found = jax.lax.fori_loop(0, NEWTON_STEPS, step, (ends[0] + ends[1]) / 2)
    return jnp.where(is_below, -jnp.inf, jnp.where(is_unreached, jnp.inf, found))
