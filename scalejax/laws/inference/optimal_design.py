"""Which further runs make a law predict better: V-optimal design on a fitted law.

The variance of a prediction of the linearized law is s^2 x^T M^-1 x, with the slopes x
of the prediction, the information M = J^T V^-1 J of all runs and the spread s of their
errors. What a further run adds to M does not depend on what it will measure, so designs
can be compared before anything is trained.

Shapes: n runs, p parameters, t predictions.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, Self, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from scalejax.laws.law import ParametricLaw
from scalejax.laws.solver.multistart import Optimum
from scalejax.laws.solver.problem import parameters_in_table_units, unconstrained

T = TypeVar("T")


@dataclass(frozen=True)
class Information:
    """The information that runs give on the parameters, at unit variance of a run."""

    matrix: Float[np.ndarray, "p p"]
    correlation: float = 0.0
    """Of the errors of two runs of one trunk, below 1."""
    sums: Mapping[str, Float[np.ndarray, " p"]] = field(default_factory=dict)
    """Sum of the slopes of the runs of each trunk."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """Number of runs of each trunk."""

    def with_run(self, slope: Float[np.ndarray, " p"], trunk: str) -> Self:
        """Return the information with one more run.

        >>> one = Information(np.zeros((1, 1)), 0.5).with_run(np.ones(1), "a")
        >>> twin, other = one.with_run(np.ones(1), "a"), one.with_run(np.ones(1), "b")
        >>> print(f"{twin.matrix[0, 0]:.3f} {other.matrix[0, 0]:.3f}")
        1.333 2.000
        """
        count, before = self.counts.get(trunk, 0), self.sums.get(trunk, np.zeros(len(slope)))
        after = before + slope
        # A block of n equicorrelated runs has the inverse (I - c_n 1 1^T) / (1 - rho).
        shared = [self.correlation / (1 + self.correlation * (n - 1)) for n in (count, count + 1)]
        added = np.outer(slope, slope) - shared[1] * np.outer(after, after)
        if count:
            added = added + shared[0] * np.outer(before, before)
        return type(self)(
            self.matrix + added / (1 - self.correlation),
            self.correlation,
            {**self.sums, trunk: after},
            {**self.counts, trunk: count + 1},
        )

    def variances(self, slopes: Float[np.ndarray, "t p"]) -> Float[np.ndarray, " t"]:
        """Return x^T M^-1 x of predictions; infinite if M does not determine them."""
        moving = np.diag(self.matrix) > 0
        scale = np.sqrt(np.diag(self.matrix)[moving])
        scaled = self.matrix[np.ix_(moving, moving)] / np.outer(scale, scale)
        ahead = (slopes[:, moving] / scale).T
        try:
            return np.sum(ahead * np.linalg.solve(scaled, ahead), axis=0)
        except np.linalg.LinAlgError:
            return np.full(len(slopes), np.inf)


class Candidate(NamedTuple, Generic[T]):
    """A run that could be trained next."""

    run: T
    slope: np.ndarray
    """Of its residual with respect to the parameters, (p,)."""
    trunk: str
    """Runs of one trunk share an error."""
    cost: float
    """FLOPs beyond those of the runs that are chosen already, > 0."""


class Design(NamedTuple, Generic[T]):
    """Chosen runs, in the order of the choice, and the information with them."""

    chosen: list[Candidate[T]]
    information: Information


def choose_runs(
    information: Information,
    slopes: Float[np.ndarray, "t p"],
    propose: Callable[[list[T]], Iterable[Candidate[T]]],
    *,
    count: int,
    budget: float,
) -> Design[T]:
    """Choose runs that reduce the mean variance of predictions most.

    slopes: of the predictions.  propose: returns the candidates when some runs are
    chosen; costs and trunks may depend on those.  count, budget: largest number and
    total cost of the runs.

    Runs are added one by one: in one attempt the run with the largest reduction per
    FLOP, in the other the one with the largest reduction that the budget allows. The
    better of both is within a constant factor of the best design for objectives with
    diminishing returns (Leskovec et al. 2007); neither of them is by itself.
    """
    designs = [_greedy(information, slopes, propose, count, budget, power) for power in (1.0, 0.0)]
    return min(designs, key=lambda design: float(design.information.variances(slopes).mean()))


def _greedy(
    information: Information,
    slopes: np.ndarray,
    propose: Callable[[list[T]], Iterable[Candidate[T]]],
    count: int,
    budget: float,
    power: float,
) -> Design[T]:
    """Add the run of largest reduction / cost^power while the budget lasts."""
    chosen: list[Candidate[T]] = []
    for _ in range(count):
        now, best = float(information.variances(slopes).mean()), None
        for candidate in propose([one.run for one in chosen]):
            if candidate.cost > budget:
                continue
            extended = information.with_run(candidate.slope, candidate.trunk)
            reduction = now - float(extended.variances(slopes).mean())
            score = reduction / candidate.cost**power
            if reduction > 0 and (best is None or score > best[0]):
                best = score, candidate, extended
        if best is None:
            break
        _, candidate, information = best
        chosen.append(candidate)
        budget -= candidate.cost
    return Design(chosen, information)


def residual_slopes(
    law: ParametricLaw[Any], optimum: Optimum, inputs: list[np.ndarray]
) -> Float[np.ndarray, "n p"]:
    """Return d residual / d theta of runs at any inputs, in the table's units.

    The columns of parameters that are held or at a bound are zero.
    """
    free, problem = unconstrained(law), optimum.problem
    with jax.enable_x64(True):

        def predicted(theta: jax.Array) -> jax.Array:
            prediction = free.predict(
                parameters_in_table_units(free, problem, theta[:, None]), *inputs
            )
            return jnp.log(prediction) if optimum.loss.residual == "log" else prediction

        slopes = np.asarray(jax.jacfwd(predicted)(jnp.asarray(optimum.theta)))
    return np.where(problem.fixed_at(optimum.theta), 0.0, slopes)
