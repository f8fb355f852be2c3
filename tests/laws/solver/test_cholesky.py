"""One small system per lane (mirrors scalejax/laws/solver/cholesky.py)."""

import jax
import jax.numpy as jnp
import numpy as np

from scalejax.laws.solver.cholesky import solve_positive_definite


def test_each_lane_is_solved_and_indefinite_lanes_are_reported():
    rng = np.random.default_rng(0)
    roots = rng.normal(size=(6, 4, 4))
    matrices = roots @ roots.transpose(0, 2, 1) + np.eye(4)
    matrices[2, 3, 3] = -1.0
    right_sides = rng.normal(size=(6, 4))
    with jax.enable_x64(True):
        matrix = [[jnp.asarray(matrices[:, i, j]) for j in range(4)] for i in range(4)]
        right_side = [jnp.asarray(right_sides[:, i]) for i in range(4)]
        solution, definite = solve_positive_definite(matrix, right_side)
    assert definite.tolist() == [True, True, False, True, True, True]
    expected = np.linalg.solve(matrices, right_sides[..., None])[..., 0]
    actual = np.stack(solution, axis=1)
    np.testing.assert_allclose(actual[definite], expected[definite], rtol=1e-10)
