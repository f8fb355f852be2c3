"""Starting points of the solver of whole-curve laws, by variable projection on a grid.

Shapes: [rows] one entry per measured loss; [parameters] one per parameter of the law,
in the solver's coordinates.
"""

import itertools

import numpy as np
from jaxtyping import Float

from scalejax.laws.curves.problem import Problem

# Starting points from which the law is solved.
STARTS = 4


def starting_points(problem: Problem) -> list[Float[np.ndarray, " parameters"]]:
    """Return the best points of a grid over the nonlinear parameters.

    Every law is L0 plus terms that are linear in one parameter. With the nonlinear ones
    held at a point of the grid, the others follow from nonnegative linear least squares
    (variable projection). The grid is a product over the terms. Of the first term,
    S1^-alpha, only the best alpha is kept for each point of the others, so that the
    starts differ in the other parameters.
    """
    coordinates = problem.law.coordinates.values()
    values = [
        coordinate.starts if free else (held,)
        for coordinate, free, held in zip(coordinates, problem.free, problem.held, strict=True)
    ]
    # Each basis is evaluated once per point of its own grid, not of the product.
    columns_of_terms = []
    for term, _, nonlinear, basis in problem.terms:
        grid = itertools.product(*(values[i] for i in nonlinear))
        columns_of_terms.append([(point, term.sign * basis(np.array(point))[0]) for point in grid])
    first, *others = columns_of_terms
    candidates = [
        min(
            (_solve_linear(problem, [column, *rest]) for column in first),
            key=lambda candidate: candidate[0],
        )
        for rest in itertools.product(*others)
    ]
    candidates.sort(key=lambda candidate: candidate[0])
    return [x for _, x in candidates[:STARTS]]


def _solve_linear(
    problem: Problem, columns: list[tuple[tuple[float, ...], np.ndarray]]
) -> tuple[float, Float[np.ndarray, " parameters"]]:
    """Solve the linear parameters, with the nonlinear ones given for every term.

    columns: for every term its nonlinear parameters and its value at the rows, with
    sign.

    Returns the misfit, in relative errors, which are close to the errors of the
    logarithm, and the parameters.
    """
    # Takes a second to import on a slow machine, which other laws need not pay.
    import scipy.optimize

    x = problem.held.copy()
    for (_, _, nonlinear, _), (point, _) in zip(problem.terms, columns, strict=True):
        x[nonlinear] = point
    data = problem.data
    design = np.column_stack([np.ones(len(data.loss)), *(value for _, value in columns)])
    linear = problem.held[problem.linear]
    free, scale = np.isnan(linear), np.sqrt(problem.weights) / data.loss
    target = data.loss - design[:, ~free] @ linear[~free]
    # The triangular factor has the same least-squares solutions and as few rows as
    # columns: nonnegative least squares on it costs nothing.
    system = np.column_stack([design[:, free], target]) * scale[:, None]
    triangle = np.asarray(np.linalg.qr(system, mode="r"))
    linear[free], misfit = scipy.optimize.nnls(triangle[:, :-1], triangle[:, -1])
    x[problem.linear] = linear
    return float(misfit), x
