"""The minimum of isoFLOP curves, by a parabola or a spline.

All budgets and all noise draws are solved in one compiled call. The curves of the
budgets are padded to one length, and `count` says how many of their points are real.

Shapes: [draws] noise draws, or 1 without noise; [budgets] compute budgets; [sizes]
model sizes of a budget, padded; [points] where a spline is evaluated.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

Protocol = Literal["parabola", "akima"]

# Grid points per gap between two neighbouring models (Porian et al. 2024).
GRID_POINTS_PER_GAP = 25

# Both are padded to multiples of these, so that few shapes are compiled.
BUDGETS_MULTIPLE = 8
MIN_PADDED_SIZES = 8

# Draws of one batch of splines: a compromise between speed and memory.
DRAWS_PER_BATCH = 64


class Minima(NamedTuple):
    """Where the isoFLOP curves are lowest."""

    log_size: Float[np.ndarray, "draws budgets"]
    """Logarithm of the best size; nan where it is not inside of the sizes."""
    loss: Float[np.ndarray, "draws budgets"]
    """Loss at the minimum, nats per token; nan as `log_size`."""
    resolution: Float[np.ndarray, " budgets"]
    """Resolution of `log_size` by the protocol: zero for a parabola."""


def find_minima(
    x: Float[np.ndarray, "budgets sizes"],
    losses: Float[np.ndarray, "draws budgets sizes"],
    count: Int[np.ndarray, " budgets"],
    protocol: Protocol,
) -> Minima:
    """Find the minimum of the loss over x at every budget and draw.

    x: log of the model size, or of the tokens, monotone along a budget. losses: nats
    per token. count: number of models of every budget.
    """
    budgets, longest = x.shape
    sizes = max(MIN_PADDED_SIZES, 2 ** (longest - 1).bit_length())
    padding = ((0, -budgets % BUDGETS_MULTIPLE), (0, sizes - longest))
    padded_x = np.pad(x, padding, mode="edge")
    padded_losses = np.pad(losses, ((0, 0), *padding), mode="edge")
    padded_count = np.pad(count, padding[0], mode="edge")
    with jax.enable_x64(True):
        if protocol == "parabola":
            found = _parabola_minima(padded_x, padded_losses, padded_count)
            resolution = np.zeros(budgets)
        else:
            found = _akima_minima(padded_x, np.log(padded_losses), padded_count)
            resolution = _grid_resolution(x, count)
        log_size, loss = (np.asarray(values)[:, :budgets] for values in found)
        return Minima(log_size, loss, resolution)


def _grid_resolution(
    x: Float[np.ndarray, "budgets sizes"], count: Int[np.ndarray, " budgets"]
) -> Float[np.ndarray, " budgets"]:
    """A third of the mean gap between two neighbouring models."""
    span = np.abs(x[np.arange(len(x)), count - 1] - x[:, 0])
    return 0.33 * GRID_POINTS_PER_GAP * span / (GRID_POINTS_PER_GAP * (count - 1) - 1)


@jax.jit
def _parabola_minima(
    x: Float[jax.Array, "budgets sizes"],
    losses: Float[jax.Array, "draws budgets sizes"],
    count: Int[jax.Array, " budgets"],
) -> tuple[Float[jax.Array, "draws budgets"], Float[jax.Array, "draws budgets"]]:
    """Log size and loss of the vertex of the least-squares parabola L(x)."""

    def vertex(x, loss, n):
        real = jnp.arange(x.size) < n
        low, high = jnp.where(real, x, jnp.inf).min(), jnp.where(real, x, -jnp.inf).max()
        # With sizes that span [-1, 1] the normal equations are well conditioned.
        centre, half = (low + high) / 2, (high - low) / 2
        z = (x - centre) / half
        design = jnp.where(real[:, None], jnp.stack([jnp.ones_like(z), z, z**2], 1), 0)
        level, slope, curvature = jnp.linalg.solve(design.T @ design, design.T @ loss)
        minimum = -slope / (2 * curvature)
        # A vertex outside of the sizes is an extrapolation, and one of a parabola that
        # opens downwards a maximum.
        inside = (curvature > 0) & (jnp.abs(minimum) < 1)
        lowest = level + slope * minimum / 2
        return (
            jnp.where(inside, centre + half * minimum, jnp.nan),
            jnp.where(inside, lowest, jnp.nan),
        )

    return jax.vmap(jax.vmap(vertex), in_axes=(None, 0, None))(x, losses, count)


@jax.jit
def _akima_minima(
    x: Float[jax.Array, "budgets sizes"],
    log_loss: Float[jax.Array, "draws budgets sizes"],
    count: Int[jax.Array, " budgets"],
) -> tuple[Float[jax.Array, "draws budgets"], Float[jax.Array, "draws budgets"]]:
    """Log size and loss of the lowest grid point of the Akima spline.

    The grid has GRID_POINTS_PER_GAP x (models - 1) points, equidistant in x.
    """
    most_points = GRID_POINTS_PER_GAP * (x.shape[1] - 1)

    def minimum(x, y, n):
        last = GRID_POINTS_PER_GAP * (n - 1) - 1
        at = x[0] + (x[n - 1] - x[0]) * jnp.arange(most_points) / last
        # The spline wants ascending x, and along a budget the tokens fall.
        sign = jnp.sign(x[n - 1] - x[0])
        spline = akima(sign * x, y, n, sign * at)
        value = jnp.where(jnp.arange(most_points) <= last, spline, jnp.inf)
        best = jnp.argmin(value)
        inside = (best > 0) & (best < last)
        return (
            jnp.where(inside, at[best], jnp.nan),
            jnp.where(inside, jnp.exp(value[best]), jnp.nan),
        )

    return jax.lax.map(
        lambda y: jax.vmap(minimum)(x, y, count), log_loss, batch_size=DRAWS_PER_BATCH
    )


def akima(
    x: Float[jax.Array | np.ndarray, " sizes"],
    y: Float[jax.Array | np.ndarray, " sizes"],
    count: Int[jax.Array | np.ndarray, ""] | int,
    at: Float[jax.Array | np.ndarray, " points"],
) -> Float[jax.Array, " points"]:
    """Akima's spline (1970) through the first `count` of the padded points (x, y).

    It is a cubic between neighbouring points. Its slope at a point is the mean of the
    slopes on both sides, each weighted by how little the curve bends on the other side.

    x: ascending, at least three points. at: where to evaluate, within the range of x.
    """
    slope = _extended_slopes(x, y, count)
    # Akima's weights, |m_{i+1} - m_i| and |m_{i-1} - m_{i-2}| for point i.
    change = jnp.abs(jnp.diff(slope))
    right, left = change[2:], change[:-2]
    total = jnp.where(jnp.arange(x.size) < count, left + right, 0)
    # Where the curve bends on neither side, the weights are 0 / 0: the mean of the
    # outer slopes, as in scipy.
    flat = total <= 1e-9 * total.max()
    weighted = (right * slope[1:-2] + left * slope[2:-1]) / jnp.where(flat, 1, total)
    tangent = jnp.where(flat, (slope[:-3] + slope[3:]) / 2, weighted)

    # The interval k of every evaluation point, and its cubic in Hermite form.
    knots = jnp.where(jnp.arange(x.size) < count, x, jnp.inf)
    k = jnp.clip(jnp.searchsorted(knots, at, side="right") - 1, 0, count - 2)
    gap = _gaps(x, count)
    h, t, m = gap[k], (at - x[k]) / gap[k], slope[k + 2]
    c2, c3 = 3 * m - 2 * tangent[k] - tangent[k + 1], tangent[k] + tangent[k + 1] - 2 * m
    return y[k] + h * t * (tangent[k] + t * (c2 + t * c3))


def _gaps(x, count) -> Float[jax.Array, " gaps"]:
    """Lengths of the intervals between the points; 1 in the padding, to divide by."""
    return jnp.where(jnp.arange(x.size - 1) < count - 1, jnp.diff(x), 1.0)


def _extended_slopes(x, y, count) -> Float[jax.Array, " slopes"]:
    """Slopes of the intervals -2 to `count`: two beyond each end, continued linearly.

    Interval i lies between points i and i + 1 and is entry i + 2.
    """
    index = jnp.arange(x.size + 3) - 2
    slope = jnp.diff(y) / _gaps(x, count)
    first, last = slope[0], slope[count - 2]
    inside = slope[jnp.clip(index, 0, x.size - 2)]
    slope = jnp.where(index < 0, first + index * (slope[1] - first), inside)
    # `inside` is shifted by two: its entry count - 1 is the slope before the last one.
    beyond = last + (index - (count - 2)) * (last - inside[count - 1])
    return jnp.where(index > count - 2, beyond, slope)
