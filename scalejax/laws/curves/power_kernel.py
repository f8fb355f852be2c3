"""The multi-power law's sum over earlier drops of the learning rate, in O(T).

The law (Luo et al. 2025, arXiv 2503.12811, eq. 3) subtracts from the loss after step t

    sum_{k<=t} d_k [1 - (1 + C eta_k^-gamma S_k(t))^-beta],

where S_k(t) = eta_k + ... + eta_t, eta_k is the learning rate of step k and
d_k = eta_{k-1} - eta_k. Term by term this takes O(T^2). A sum of exponentials in place
of the power takes O(T): every exponential is a first-order recurrence over the steps.

Shapes: [steps] one entry per optimizer step; [blocks] one per block of consecutive
steps, of all curves end to end; [nodes] one per exponential.
"""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln
from jaxtyping import Float, Int

from scalejax.laws.curves.rates import Parameter, decrements

# Exponentials that replace the power kernel. With 64 the error is below 1e-8 of the
# total drop of the rate, for C in [.001, 100], beta in [.05, 10], gamma in [0, 1.2].
QUADRATURE_NODES = 64

# eta_k^-gamma stops growing below this fraction of the peak, because schedules may end
# at zero.
MIN_RELATIVE_RATE = 1e-6

# Most steps in one block where the rate falls. 32 make the recurrence about 30 times
# shorter than one step at a time.
MAX_BLOCK_STEPS = 32

# Added to weights that may all be zero, so that their mean exists.
TINY = 1e-300


class Blocks(NamedTuple):
    """Blocks of consecutive steps, in each of which the learning rate drops once.

    A block may be a single step. Several curves lie end to end in the same arrays.
    """

    before: Float[jax.Array | np.ndarray, " blocks"]
    """Sum of the learning rates of the block's steps that come before its drop."""
    after: Float[jax.Array | np.ndarray, " blocks"]
    """Sum of the learning rates from the drop to the end of the block."""
    drop: Float[jax.Array | np.ndarray, " blocks"]
    """The decrement d_k, added up over the block."""
    log_rate: Float[jax.Array | np.ndarray, " blocks"]
    """log eta_k at the drop."""
    same_curve: Float[jax.Array | np.ndarray, " blocks"]
    """0 in the first block of a curve, where the sum starts anew; 1 in the others."""


def power_kernel_sum(
    blocks: Blocks, C: Parameter, beta: Parameter, gamma: Parameter
) -> Float[jax.Array, " blocks"]:
    """Return sum_k d_k [1 - (1 + C eta_k^-gamma S_k(t))^-beta] after every block.

    The power is a mixture of exponentials (the Laplace transform of a gamma density):
    with c = C eta_k^-gamma and u = log r,

        (1 + c x)^-beta
            = 1/Gamma(beta) int exp(beta (u - log c) - e^u / c) exp(-e^u x) du.

    The trapezoid rule on equidistant nodes u_j turns the integral into a sum. Since the
    integrand is analytic and vanishes at both ends, the error of the rule falls
    exponentially in the number of nodes. The ends that the nodes leave out are worth
    about 1e-10 of the sum. 1 - (1 + c x)^-beta is integrated as a whole, with
    1 - exp(-e^u x) in the integrand: that is exactly 0 at x = 0, and it vanishes faster
    at the lower end.
    """
    log_c = jnp.log(C) - gamma * blocks.log_rate
    log_r = jax.lax.stop_gradient(_log_nodes(blocks, log_c, beta))
    r, width = jnp.exp(log_r), log_r[1] - log_r[0]

    # At every node `waiting` holds sum_k weight_k exp(-r S_k), and `total` holds
    # sum_k weight_k: their difference is the part of the drops that has taken effect.
    def advance(carry, block):
        before, after, drop, log_c, same_curve = block
        waiting, total = (same_curve * x for x in carry)
        weight = drop * jnp.exp(beta * (log_r - log_c) - jnp.exp(log_r - log_c))
        waiting = jnp.exp(-r * after) * (jnp.exp(-r * before) * waiting + weight)
        total = total + weight
        return (waiting, total), jnp.sum(total - waiting)

    # The carry of a scan keeps its dtype. The product gives it the dtype of the sums
    # also where the parameters are wider than the rates.
    zero = jnp.zeros(QUADRATURE_NODES, log_r.dtype) * (C * beta * gamma)
    columns = (blocks.before, blocks.after, blocks.drop, log_c, blocks.same_curve)
    _, sums = jax.lax.scan(advance, (zero, zero), columns)
    return sums * width * jnp.exp(-gammaln(beta))


def _log_nodes(
    blocks: Blocks, log_c: Float[jax.Array, " blocks"], beta: Parameter
) -> Float[jax.Array, " nodes"]:
    """Equidistant log r that cover the mixtures of all drops.

    Derivatives must not pass through them: the sum does not depend on where the nodes
    lie, up to the error of the quadrature.
    """
    # Only blocks with a drop count; without any, the range is arbitrary and the sum 0.
    has_drop = blocks.drop != 0
    high = jnp.where(has_drop, log_c, -jnp.inf).max()
    low = jnp.where(has_drop, log_c, jnp.inf).min()
    high, low = jnp.where(has_drop.any(), high, 0.0), jnp.where(has_drop.any(), low, 0.0)
    longest = jnp.log((blocks.before + blocks.after).sum())
    # r / c has a gamma density with mean beta and standard deviation sqrt(beta), which
    # is negligible at beta + 8 sqrt(beta) + 30.
    top = high + jnp.log(beta + 8 * jnp.sqrt(beta) + 30)
    # Below r the integral is at most x c (r / c)^(beta + 1) / (Gamma(beta) (beta + 1)),
    # since 1 - exp(-r x) <= r x. The bottom is where this is 1e-10 at the largest x c.
    log_bound = jnp.log(1e-10) + gammaln(beta) + jnp.log1p(beta) - jnp.maximum(low + longest, 0)
    bottom = jnp.minimum(low + log_bound / (beta + 1), top - 1)
    return jnp.linspace(bottom, top, QUADRATURE_NODES)


def single_steps(learning_rates: Float[jax.Array, " steps"]) -> Blocks:
    """Return blocks of one step each, for one curve: the sum of the paper, exactly.

    The drop comes before the step, because S_k(t) counts the rate of step k itself.
    """
    low = MIN_RELATIVE_RATE * learning_rates.max()
    log_rate = jnp.log(jnp.maximum(learning_rates, low))
    zeros = jnp.zeros_like(learning_rates)
    return Blocks(zeros, learning_rates, decrements(learning_rates), log_rate, zeros + 1)


def merged_steps(
    rates: Float[np.ndarray, " steps"], steps: Int[np.ndarray, " measured"]
) -> tuple[Blocks, Int[np.ndarray, " blocks"]]:
    """Merge the steps of a curve into blocks that end at every measured step.

    steps: the measured steps, ascending. The curve is cut off after the last of them.

    A block that contains several drops gets one, of their total size, at their weighted
    mean of S_k and of log eta_k. This is exact to first order in the length of the
    block; blocks in which the rate falls have at most MAX_BLOCK_STEPS steps.

    Returns the blocks and the last step of each.
    """
    rates = rates[: steps[-1] + 1]
    drop = decrements(rates, np)
    ends = _block_ends(drop, steps)
    first = np.r_[0, ends[:-1] + 1]
    lengths = np.diff(np.r_[first, len(rates)])
    weight = np.abs(drop) + TINY

    def mean_over_drops(x):
        return np.add.reduceat(x * weight, first) / np.add.reduceat(weight, first)

    # S_k at the end of the block: the sum up to there, less the sum before step k.
    total = np.cumsum(rates)
    after = mean_over_drops(np.repeat(total[ends], lengths) - total + rates)
    log_rate = mean_over_drops(np.log(np.maximum(rates, MIN_RELATIVE_RATE * rates.max())))
    span = np.add.reduceat(rates, first)
    same_curve = np.r_[0.0, np.ones(len(ends) - 1)]
    blocks = Blocks(span - after, after, np.add.reduceat(drop, first), log_rate, same_curve)
    return blocks, ends


def _block_ends(
    drop: Float[np.ndarray, " steps"], steps: Int[np.ndarray, " measured"]
) -> Int[np.ndarray, " blocks"]:
    """Last step of every block: measured steps, and more where the rate falls."""
    drops_before = np.r_[0, np.cumsum(drop != 0)]
    ends = []
    for previous, end in itertools.pairwise([-1, *steps]):
        # With at most one drop, one block of any length is exact.
        if drops_before[end + 1] > drops_before[previous + 1] + 1:
            count = -((previous - end) // MAX_BLOCK_STEPS)
            ends.append(np.linspace(previous, end, count + 1)[1:])
        else:
            ends.append(np.array([end]))
    return np.unique(np.concatenate(ends).round().astype(int))


def end_to_end(curves: list[Blocks]) -> Blocks:
    """Join the blocks of several curves."""
    return Blocks(*(jnp.concatenate(column) for column in zip(*curves, strict=True)))
