"""Averages of the weights, taken in float32 during training.

There are exponential averages and averages over a window. Both count tokens, not steps,
so they keep their meaning when the batch size changes.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from scalejax.config import Average
from scalejax.model.parameters import Params

# The names of the fields below are part of the checkpoint format.


class Exponential(NamedTuple):
    """The state of an exponential average."""

    mean: Params
    """The average of the weights of all steps so far."""
    total: jax.Array
    """Total weight of the steps so far, 1 - 2^(-tokens / half-life), as float32.
    Dividing by it leaves the initial values out of the mean."""


class Window(NamedTuple):
    """The state of an average over a window: the current block and the one before."""

    mean: Params
    """Mean of the weights in the current block."""
    last: Params
    """Mean of the weights in the last full block."""
    count: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride]
    """Length of the current block so far, in units of the run's first batch. int32."""
    blocks: jax.Array
    """Number of full blocks. int32."""


def ema(*, half_life_tokens: int) -> Average:
    """Exponential average: weights count half as much `half_life_tokens` later.

    The initial values do not count, as with Adam's bias correction. In float32 a step
    whose share is below 1e-6 hardly moves the mean. The share is about 0.7 batch /
    half-life, so half-lives above some 700,000 steps are out of reach.
    """
    return Average(kind="ema", tokens=half_life_tokens)


def window(*, tokens: int) -> Average:
    """Average over the last `tokens` tokens, in which every step counts by its tokens.

    This is LAWA; Hägele et al. 2024 average over 500 steps. The average is exact at
    multiples of `tokens`, where a block ends. Between them the steps of the current
    block count fully, and the block before it contributes with its mean for the tokens
    that are missing. This keeps two copies of the weights instead of one for every
    step. Before the first multiple it is the mean of all steps.
    """
    return Average(kind="window", tokens=tokens)


def start(average: Average, weights: Params) -> Exponential | Window:
    """The state before the first step: float32 zeros in the shapes of `weights`."""

    def zeros() -> Params:
        return jax.tree.map(lambda w: jnp.zeros_like(w, jnp.float32), weights)

    if average.kind == "ema":
        return Exponential(zeros(), jnp.float32(0))
    return Window(zeros(), zeros(), jnp.int32(0), jnp.int32(0))


def add(
    average: Average,
    state: Exponential | Window,
    weights: Params,
    *,
    batch_tokens: int,
    first_batch: int,
) -> Exponential | Window:
    """The state after a step that ended in `weights`.

    `batch_tokens` are the tokens of the step, and `first_batch` those of the first step
    of the run, which divide them.
    """
    if isinstance(state, Exponential):
        # 1 - 2^(-batch / half-life), without cancellation for short batches.
        share = -math.expm1(-math.log(2) * batch_tokens / average.tokens)
        total = state.total + share * (1 - state.total)
        return Exponential(_interpolate(state.mean, weights, share / total), total)
    batches = batch_tokens // first_batch
    count = state.count + batches
    mean = _interpolate(state.mean, weights, batches / count)
    # `full` is traced, so both outcomes are computed and one is selected.
    full = count >= _block_length(average, first_batch)
    last = jax.tree.map(lambda new, old: jnp.where(full, new, old), mean, state.last)
    return Window(mean, last, jnp.where(full, 0, count), state.blocks + full)


def value(average: Average, state: Exponential | Window, *, first_batch: int) -> Params:
    """The averaged weights."""
    if isinstance(state, Exponential):
        return state.mean
    # In the first block there is nothing before it, so its mean counts fully.
    share = jnp.where(
        state.blocks > 0, state.count / _block_length(average, first_batch), state.count > 0
    )
    return _interpolate(state.last, state.mean, share)


def _block_length(average: Average, first_batch: int) -> int:
    """Length of a block in units of the run's first batch."""
    return max(1, round(average.tokens / first_batch))


def _interpolate(old: Params, new: Params, share: jax.Array) -> Params:
    return jax.tree.map(lambda a, b: a + (b - a) * share, old, new)
