"""The terms of the whole-curve laws at every measured loss, with exact derivatives.

Each law is L0 plus terms, and a term is one linear parameter times a function of
nonlinear parameters. A factory here reads the data once and returns that function, a
`Basis`.

Shapes: [rows] one entry per measured loss; [nonlinear] one per nonlinear parameter of
the term, in the solver's coordinates.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from scalejax.laws.curves.data import CurveData
from scalejax.laws.curves.power_kernel import (
    Blocks,
    end_to_end,
    merged_steps,
    power_kernel_sum,
    single_steps,
)
from scalejax.laws.curves.rates import decrements

# Maps the nonlinear parameters (nonlinear,) to the term's value at every row (rows,),
# per unit of its linear parameter, and to that value's Jacobian (rows, nonlinear).
Basis = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]

# Maps the nonlinear parameters to the value only.
Value = Callable[[np.ndarray], np.ndarray]


def power_of_rate_sum(data: CurveData) -> Basis:
    """The basis (alpha,) -> S1^-alpha, with S1 the sum of the learning rates."""
    sums = [np.cumsum(rates) for rates in data.rates]
    return _power(np.log([sums[c][s] for c, s in zip(data.curve, data.step, strict=True)]))


def power_of_params(data: CurveData) -> Basis:
    """The basis (beta,) -> N^-beta, with N the parameters of the model."""
    return _power(np.log(data.params))


def _power(log_x: Float[np.ndarray, " rows"]) -> Basis:
    def basis(nonlinear):
        value = np.exp(-nonlinear[0] * log_x)
        return value, -(value * log_x)[:, None]

    return basis


def annealing_area(data: CurveData) -> Basis:
    """The basis (log(1 - lambda),) -> S2, the annealing area.

    S2(t) sums m_i = lambda m_{i-1} + d_i up to step t. Summing the recurrence on both
    sides gives S2 in closed form,

        S2(t) = (d_0 + ... + d_t - lambda m_t) / (1 - lambda),

    so that only m_t is needed: a first-order linear filter of the decrements d. Its
    derivative n_t = dm_t / dlambda satisfies n_i = lambda n_{i-1} + m_{i-1}, the same
    filter applied to m one step later.
    """
    # Takes 1.4 s, which fits of one row per run need not pay.
    from scipy.signal import lfilter

    drops = [decrements(rates, np) for rates in data.rates]
    rows_of_curve = [np.flatnonzero(data.curve == c) for c in range(len(drops))]
    total_drop = np.empty(len(data.loss))
    for drop, rows in zip(drops, rows_of_curve, strict=True):
        total_drop[rows] = np.cumsum(drop)[data.step[rows]]

    def basis(nonlinear):
        rest = np.exp(nonlinear[0])
        momentum, m, slope = 1 - rest, np.zeros(len(total_drop)), np.zeros(len(total_drop))
        for drop, rows in zip(drops, rows_of_curve, strict=True):
            if drop.any():
                m_of_steps = lfilter([1.0], [1.0, -momentum], drop)
                m[rows] = m_of_steps[data.step[rows]]
                slope_of_steps = lfilter([0.0, 1.0], [1.0, -momentum], m_of_steps)
                slope[rows] = slope_of_steps[data.step[rows]]
        value = (total_drop - momentum * m) / rest
        # dS2/dlambda = (S2 - m - lambda n) / (1 - lambda), and with u = log(1 - lambda)
        # dlambda/du = -(1 - lambda): the factor cancels.
        return value, (m + momentum * slope - value)[:, None]

    return basis


def times_power_of_params(factory: Callable[[CurveData], Basis]) -> Callable[[CurveData], Basis]:
    """Multiply a term by N^gamma; gamma is then its last nonlinear parameter."""

    def sized_factory(data: CurveData) -> Basis:
        plain, log_N = factory(data), np.log(data.params)

        def basis(nonlinear):
            value, slope = plain(nonlinear[:-1])
            power = np.exp(nonlinear[-1] * log_N)
            slopes = np.column_stack([power[:, None] * slope, power * value * log_N])
            return power * value, slopes

        return basis

    return sized_factory


def multi_power_in_blocks(data: CurveData) -> Basis:
    """The basis (log C, log beta, gamma) -> `power_kernel_sum` over merged steps.

    An approximation for the solver, whose recurrence is about 30 times shorter than
    that of `multi_power_exact`.
    """
    merged = [
        merged_steps(rates, np.unique(data.step[data.curve == c]))
        for c, rates in enumerate(data.rates)
    ]
    joined = end_to_end([blocks for blocks, _ in merged])
    ends = [last_steps for _, last_steps in merged]
    first = np.cumsum([0, *map(len, ends)])
    places = [np.searchsorted(ends[c], step) for c, step in zip(data.curve, data.step, strict=True)]
    at = first[data.curve] + np.array(places)

    def basis(nonlinear):
        value, slopes = _kernel_sum_and_slopes(joined, at, jnp.asarray(nonlinear))
        return np.asarray(value), np.asarray(slopes)

    return basis


def multi_power_exact(data: CurveData) -> Value:
    """Map (log C, log beta, gamma) to `power_kernel_sum`, with one step per block."""
    curves = [single_steps(jnp.asarray(rates)) for rates in data.rates]
    joined = end_to_end([_from_its_start(blocks) for blocks in curves])
    first = np.cumsum([0, *map(len, data.rates)])
    at = first[data.curve] + data.step
    return lambda nonlinear: np.asarray(_kernel_sum(joined, at, jnp.asarray(nonlinear)))


def _from_its_start(blocks: Blocks) -> Blocks:
    """Mark the first block of a curve, where the sum starts anew."""
    return blocks._replace(same_curve=jnp.ones_like(blocks.drop).at[0].set(0.0))


@jax.jit
def _kernel_sum(
    blocks: Blocks, at: Int[jax.Array, " rows"], nonlinear: Float[jax.Array, "3"]
) -> Float[jax.Array, " rows"]:
    """The sum at the block of every row, for (log C, log beta, gamma)."""
    C, beta, gamma = jnp.exp(nonlinear[0]), jnp.exp(nonlinear[1]), nonlinear[2]
    return power_kernel_sum(blocks, C, beta, gamma)[at]


@jax.jit
def _kernel_sum_and_slopes(
    blocks: Blocks, at: Int[jax.Array, " rows"], nonlinear: Float[jax.Array, "3"]
) -> tuple[Float[jax.Array, " rows"], Float[jax.Array, "rows 3"]]:
    value = _kernel_sum(blocks, at, nonlinear)
    return value, jax.jacfwd(lambda x: _kernel_sum(blocks, at, x))(nonlinear)
