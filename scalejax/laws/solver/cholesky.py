"""Small positive definite systems, one in each lane."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def solve_positive_definite(
    matrix: list[list[Float[Array, " K"]]], right_side: list[Float[Array, " K"]]
) -> tuple[list[Float[Array, " K"]], Bool[Array, " K"]]:
    """Solve one p x p system per lane by a Cholesky factorization.

    matrix: p rows of p entries, each entry an array over the K lanes; only the lower
    triangle is read. right_side: p entries.

    Returns the solution, p entries, and whether each lane's matrix is positive
    definite. The solution of a lane whose matrix is not is meaningless.

    The loops over p are unrolled, so every operation runs over all lanes in vector
    registers. A batched LAPACK call would factorize the 5 x 5 matrices one by one.
    """
    count = len(right_side)
    lower: list[list[Array]] = []
    definite = jnp.ones_like(right_side[0], dtype=bool)
    for i in range(count):
        row: list[Array] = []
        for j in range(i):
            inner = sum(a * b for a, b in zip(row, lower[j], strict=False))
            row.append((matrix[i][j] - inner) / lower[j][j])
        pivot = matrix[i][i] - sum(a * a for a in row)
        definite = definite & (pivot > 0)
        lower.append([*row, jnp.sqrt(jnp.where(pivot > 0, pivot, 1.0))])
    # Forward substitution, L y = b, then back substitution, L^T x = y.
    y: list[Array] = []
    for i in range(count):
        y.append((right_side[i] - sum(lower[i][j] * y[j] for j in range(i))) / lower[i][i])
    x: list[Array] = [y[0]] * count
    for i in reversed(range(count)):
        x[i] = (y[i] - sum(lower[j][i] * x[j] for j in range(i + 1, count))) / lower[i][i]
    return x, definite
