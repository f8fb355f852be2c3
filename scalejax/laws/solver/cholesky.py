"""Cholesky."""

import jax
import jax.numpy as jnp


def solve_positive_definite(
    rows: list[list[jax.Array]], right: list[jax.Array]
) -> tuple[list[jax.Array], jax.Array]:
    """Solves one small positive definite system per lane by an unrolled Cholesky, which runs across lanes.

    Returns the solution and whether every pivot was positive.
    """
    count = len(right)
    lower: list[list[jax.Array]] = []
    definite = jnp.ones_like(right[0], dtype=bool)
    for i in range(count):
        row: list[jax.Array] = []
        for j in range(i):
            row.append(
                (rows[i][j] - sum(a * b for a, b in zip(row, lower[j], strict=False))) / lower[j][j]
            )
        pivot = rows[i][i] - sum(a * a for a in row)
        definite = definite & (pivot > 0)
        lower.append([*row, jnp.sqrt(jnp.where(pivot > 0, pivot, 1.0))])
    y: list[jax.Array] = []
    for i in range(count):
        y.append((right[i] - sum(lower[i][j] * y[j] for j in range(i))) / lower[i][i])
    x: list[jax.Array] = [y[0]] * count
    for i in reversed(range(count)):
        x[i] = (y[i] - sum(lower[j][i] * x[j] for j in range(i + 1, count))) / lower[i][i]
    return x, definite
