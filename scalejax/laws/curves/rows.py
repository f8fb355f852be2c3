"""Measured losses along curves, and the terms of the whole-curve laws at each of them, with their derivatives."""

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.signal import lfilter

from scalejax.laws.curves import forms as curves

BLOCK = (
    32  # steps merged into one block while the multi-power law is solved: 30 times fewer than steps
)
TINY = 1e-300


class Rows(NamedTuple):
    """Measured losses along some curves. Build with `measured`."""

    rates: tuple[np.ndarray, ...]
    """Of every step of each curve."""
    curve: np.ndarray
    """(rows,) index into rates."""
    step: np.ndarray
    """(rows,) 0-based."""
    loss: np.ndarray
    """(rows,) nats per token."""
    params: np.ndarray
    """(rows,) the model's parameters; ones where no law reads them."""


def measured(rates: Sequence, curve, step, loss, params=None) -> Rows:
    """Checks and gathers: rates[c] holds the rate of every step of curve c; the others are one entry per measurement.

    params: the model's parameters, for the law that reads them; one size per curve.

    Raises ValueError on a step beyond its schedule, a rate that is negative or not finite, a loss or a size that is not
    positive, or two sizes of one curve.
    """
    curve, step, loss = np.asarray(curve, int), np.asarray(step), np.asarray(loss, float)
    params = np.ones(len(loss)) if params is None else np.asarray(params, float)
    if not len(loss):
        raise ValueError("no measured loss: a whole-curve law needs rows of (curve, step, loss)")
    used, curve = np.unique(curve, return_inverse=True)
    checked = tuple(curves.checked_rates(rates[c], f"schedule {c}") for c in used)
    if np.any(step != np.round(step)) or np.any(step < 0):
        raise ValueError(
            f"steps are whole numbers from 0; got {step[(step != np.round(step)) | (step < 0)][0]}"
        )
    beyond = step >= np.array([len(r) for r in checked])[curve]
    if beyond.any():
        i = np.flatnonzero(beyond)[0]
        raise ValueError(
            f"step {step[i]} is beyond the {len(checked[curve[i]])} steps of schedule {curve[i]}"
        )
    if not np.all(np.isfinite(loss) & (loss > 0)):
        raise ValueError(
            f"losses are positive and finite; got {loss[~(np.isfinite(loss) & (loss > 0))][0]}"
        )
    if not np.all(np.isfinite(params) & (params > 0)):
        raise ValueError(
            f"params are positive and finite; got {params[~(np.isfinite(params) & (params > 0))][0]}"
        )
    for c in range(len(checked)):
        if len(sizes := np.unique(params[curve == c])) > 1:
            raise ValueError(
                f"curve {c} has params {sizes[0]:g} and {sizes[1]:g}: one curve is one model"
            )
    step = step.astype(int)
    early = step < np.array([np.argmax(r > 0) for r in checked])[curve]
    if early.any():
        i = np.flatnonzero(early)[0]
        raise ValueError(
            f"schedule {curve[i]} sums to zero up to step {step[i]}: the laws need a rate above zero before a loss"
        )
    return Rows(checked, curve, step, loss, params)


def each_curve_once(curve: np.ndarray) -> np.ndarray:
    """Weights of rows, (rows,), that make the curves count alike however many losses each has; they sum to the rows.

    >>> each_curve_once(np.array([0, 0, 0, 1])).round(2).tolist()
    [0.67, 0.67, 0.67, 2.0]
    """
    count = np.bincount(curve)
    return len(curve) / np.count_nonzero(count) / count[curve]


def power_of_rates(rows: Rows) -> Callable:
    """(alpha,) -> S1^-alpha of every row and its Jacobian."""
    sums = [np.cumsum(rates) for rates in rows.rates]
    return _power(np.log([sums[c][s] for c, s in zip(rows.curve, rows.step, strict=True)]))


def power_of_size(rows: Rows) -> Callable:
    """(beta,) -> N^-beta of every row and its Jacobian."""
    return _power(np.log(rows.params))


def _power(log_x: np.ndarray) -> Callable:
    def basis(shape):
        value = np.exp(-shape[0] * log_x)
        return value, -(value * log_x)[:, None]

    return basis


def annealing_credit(rows: Rows) -> Callable:
    """(log(1 - lambda),) -> S2 of every row and its Jacobian.

    m_i = lambda m_{i-1} + d_i and its derivative are first-order filters of the falls, and S2 = (d_0 + .. + d_t - lambda m_t) /
    (1 - lambda).
    """
    falls = [curves.decrements(rates, np) for rates in rows.rates]
    places = [np.flatnonzero(rows.curve == c) for c in range(len(falls))]
    fallen = np.empty(len(rows.loss))
    for fall, place in zip(falls, places, strict=True):
        fallen[place] = np.cumsum(fall)[rows.step[place]]

    def basis(shape):
        rest = np.exp(shape[0])  # 1 - lambda
        momentum, m, slope = 1 - rest, np.zeros(len(fallen)), np.zeros(len(fallen))
        for fall, place in zip(falls, places, strict=True):
            if fall.any():
                every = lfilter([1.0], [1.0, -momentum], fall)
                m[place] = every[rows.step[place]]
                slope[place] = lfilter([0.0, 1.0], [1.0, -momentum], every)[rows.step[place]]
        value = (fallen - momentum * m) / rest
        return value, (m + momentum * slope - value)[
            :, None
        ]  # d lambda / d log(1 - lambda) = -(1 - lambda)

    return basis


def sized(credit: Callable[[Rows], Callable]) -> Callable[[Rows], Callable]:
    """The credit times N^gamma: gamma joins its shape."""

    def build(rows: Rows) -> Callable:
        plain, log_N = credit(rows), np.log(rows.params)

        def basis(shape):
            value, slope = plain(shape[:-1])
            factor = np.exp(shape[-1] * log_N)
            return factor * value, np.column_stack(
                [factor[:, None] * slope, factor * value * log_N]
            )

        return basis

    return build


def power_credit(rows: Rows) -> Callable:
    """(log C, log beta, gamma) -> power-kernel credit of every row and its Jacobian, with steps merged into blocks."""
    parts = [
        _blocks(rates, np.unique(rows.step[rows.curve == c])) for c, rates in enumerate(rows.rates)
    ]
    blocks = _end_to_end([blocks for blocks, _ in parts])
    first = np.cumsum([0, *(len(ends) for _, ends in parts)])
    at = [
        first[c] + np.searchsorted(parts[c][1], s)
        for c, s in zip(rows.curve, rows.step, strict=True)
    ]
    at = np.array(at)
    return lambda shape: tuple(map(np.asarray, _gains_and_slopes(blocks, at, jnp.asarray(shape))))


def exact_power_credit(rows: Rows) -> Callable:
    """(log C, log beta, gamma) -> power-kernel credit of every row, step by step."""
    steps = [curves.every_step(jnp.asarray(rates)) for rates in rows.rates]
    steps = _end_to_end([s._replace(carry=jnp.ones_like(s.drop).at[0].set(0.0)) for s in steps])
    first = np.cumsum([0, *map(len, rows.rates)])
    return lambda shape: np.asarray(
        _gains(steps, first[rows.curve] + rows.step, jnp.asarray(shape))
    )


def _end_to_end(parts: list[curves.Steps]) -> curves.Steps:
    return curves.Steps(*(jnp.concatenate(column) for column in zip(*parts, strict=True)))


@jax.jit
def _gains(blocks, at, shape):
    """Power-kernel credit of every row; shape is (log C, log beta, gamma)."""
    return curves.power_annealed(blocks, jnp.exp(shape[0]), jnp.exp(shape[1]), shape[2])[at]


@jax.jit
def _gains_and_slopes(blocks, at, shape):
    return _gains(blocks, at, shape), jax.jacfwd(lambda s: _gains(blocks, at, s))(shape)


def _blocks(rates: np.ndarray, steps: np.ndarray) -> tuple[curves.Steps, np.ndarray]:
    """The curve up to its last measured step in blocks that end at every measured step, and the last step of each block.

    Where the rate falls a block has at most BLOCK steps; its fall is put where its weighted mean lies.
    """
    rates = rates[: steps[-1] + 1]
    fall = curves.decrements(rates, np)
    falls = np.r_[0, np.cumsum(fall != 0)]
    ends = [
        np.linspace(a, b, 1 - (a - b) // BLOCK)[1:]
        if falls[b + 1] > falls[a + 1] + 1
        else np.array([b])
        for a, b in itertools.pairwise([-1, *steps])
    ]
    ends = np.unique(np.concatenate(ends).round().astype(int))
    first = np.r_[0, ends[:-1] + 1]
    long = np.diff(np.r_[first, len(rates)])

    def mean(x):  # over each block, weighted by what the rate falls
        return np.add.reduceat(x * weight, first) / np.add.reduceat(weight, first)

    total, weight = np.cumsum(rates), np.abs(fall) + TINY
    after = mean(
        np.repeat(total[ends], long) - total + rates
    )  # S_k at the block's end counts step k itself
    log_rate = mean(np.log(np.maximum(rates, curves.FLOOR * rates.max())))
    span = np.add.reduceat(rates, first)
    return curves.Steps(
        span - after,
        after,
        np.add.reduceat(fall, first),
        log_rate,
        np.r_[0.0, np.ones(len(ends) - 1)],
    ), ends
