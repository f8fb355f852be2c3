"""Averages of the weights, taken while training in float32: exponential and over windows, by tokens, several at once."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from scalejax.config import Average
from scalejax.model.parameters import Params


class Exponential(NamedTuple):
    """An exponential average in the making."""

    mean: Params
    total: jax.Array
    """Weight of the steps so far, 1 - 2^(-tokens / half-life), float32: `mean` is over them, not over the initial values."""


class Window(NamedTuple):
    """An average over the last tokens in the making: the mean of the current block, and that of the block before it."""

    mean: Params
    last: Params
    count: jax.Array
    """Length of the current block so far, in first batches of the run. int32."""
    blocks: jax.Array
    """Blocks that are whole. int32."""


def ema(*, half_life_tokens: int) -> Average:
    """Exponential average: a step's weights count half as much `half_life_tokens` later.

    The initial values do not count (as in Adam's bias correction). In float32 a step whose share, about 0.7 batch / half-life, is
    below 1e-6 hardly moves the mean: half-lives above some 700,000 steps are out of reach.
    """
    return Average(kind="ema", tokens=half_life_tokens)


def window(*, tokens: int) -> Average:
    """Average over the last `tokens` tokens (LAWA; Hägele et al. 2024 take 500 steps), every step counting by its tokens.

    Exact at multiples of `tokens`, where a block ends. In between the steps of the current block count in full, and those of the
    block before it share what is missing: two copies of the weights are kept instead of every step's. Before the first multiple
    it is the mean of all steps.
    """
    return Average(kind="window", tokens=tokens)


def start(average: Average, weights: Params) -> Exponential | Window:
    """The average before the first step: float32 zeros of the shapes of `weights`, which count for nothing."""

    def zeros() -> Params:
        return jax.tree.map(lambda w: jnp.zeros_like(w, jnp.float32), weights)

    if average.kind == "ema":
        return Exponential(zeros(), jnp.float32(0))
    return Window(zeros(), zeros(), jnp.int32(0), jnp.int32(0))


def add(
    average: Average,
    so_far: Exponential | Window,
    weights: Params,
    *,
    batch_tokens: int,
    first_batch: int,
) -> Exponential | Window:
    """The average with the weights after a step of `batch_tokens`, in a run whose first batch has `first_batch` tokens."""
    if isinstance(so_far, Exponential):
        share = -math.expm1(-math.log(2) * batch_tokens / average.tokens)
        total = so_far.total + share * (1 - so_far.total)
        return Exponential(_towards(so_far.mean, weights, share / total), total)
    length = batch_tokens // first_batch
    count = so_far.count + length
    mean = _towards(so_far.mean, weights, length / count)
    whole = count >= _block(average, first_batch)
    last = jax.tree.map(lambda new, old: jnp.where(whole, new, old), mean, so_far.last)
    return Window(mean, last, jnp.where(whole, 0, count), so_far.blocks + whole)


def value(average: Average, so_far: Exponential | Window, *, first_batch: int) -> Params:
    """The averaged weights."""
    if isinstance(so_far, Exponential):
        return so_far.mean
    share = jnp.where(
        so_far.blocks > 0, so_far.count / _block(average, first_batch), so_far.count > 0
    )
    return _towards(so_far.last, so_far.mean, share)


def _block(average: Average, first_batch: int) -> int:
    return max(1, round(average.tokens / first_batch))


def _towards(old: Params, new: Params, share: jax.Array) -> Params:
    return jax.tree.map(lambda a, b: a + (b - a) * share, old, new)
