"""Rolling-origin cross-validation: fits to the cheapest runs, scored on the others."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from scalejax.fitting.parametric.evaluate import evaluate
from scalejax.fitting.result import CrossValidation
from scalejax.laws.inference import convergence
from scalejax.laws.law import ParametricLaw
from scalejax.laws.solver.multistart import LARGE_TABLE_ROWS, Optimum, pad_rows, refit
from scalejax.laws.solver.problem import parameters_in_table_units

# Shares of the runs, cheapest first, that cross-validation fits.
SPLIT_SHARES = (0.5, 0.6, 0.7, 0.8, 0.9)

# The power of each input in the cost of a run, for cross-validation; 1 for all others.
COST_POWERS = {"width": 2, "unique_tokens": 0}


@dataclass(frozen=True, kw_only=True)
class Split:
    """One fit to the cheapest runs, scored on the others."""

    fitted: int
    """Rows fitted."""
    n: int
    """Rows predicted."""
    mean_rel_error: float
    max_rel_error: float


@dataclass(frozen=True, kw_only=True)
class RollingOrigin(CrossValidation):
    """Errors of fits to the cheapest runs on the more expensive ones."""

    method = "rolling-origin"
    possible: bool = False
    """Whether the rows allow a split; `splits` is 0 when none of the fits converged."""
    by_split: tuple[Split, ...] = ()

    def record(self) -> dict[str, Any]:
        """The errors in JSON; empty when the rows allow no split."""
        if not self.possible:
            return {}
        if not self.splits:
            return {"splits": 0}
        by_split = [vars(split) for split in self.by_split]
        return {"splits": self.splits} | super().record() | {"by_split": by_split}

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> "RollingOrigin":
        """The inverse of `record`."""
        splits = tuple(Split(**split) for split in record.get("by_split", ()))
        fields: dict[str, Any] = {**record, "possible": bool(record), "by_split": splits}
        return cls(**fields)


def rolling_origin(
    law: ParametricLaw[Any], at: Optimum, inputs: list[np.ndarray], target: np.ndarray
) -> RollingOrigin:
    """Fit growing shares of the runs, cheapest first, and predict the others.

    The cost of a run is params x tokens, width^2 x depth x tokens, or the law's only
    input; for laws that read the loss, the runs of lowest loss are the most expensive.
    Of more than LARGE_TABLE_ROWS rows a random sample is split, which has the same
    errors.
    """
    if len(target) > LARGE_TABLE_ROWS:
        few = np.random.default_rng(0).choice(len(target), LARGE_TABLE_ROWS, replace=False)
        at, inputs, target = _sample(at, few), [x[few] for x in inputs], target[few]
    splits = _splits(law, inputs)
    if not splits:
        return RollingOrigin()
    weights = np.array([split * at.weights[: len(target)] for split in splits])
    state = refit(law, at, weights)
    converged = convergence.converged(state, at.problem, at.weights)
    refits = parameters_in_table_units(law, at.problem, np.asarray(state.theta))
    params = {name: x[:, None] for name, x in refits._asdict().items()}
    errors = np.abs(evaluate(law, params, inputs) / target - 1)
    by_split = tuple(_split_errors(splits[i], errors[i]) for i in np.flatnonzero(converged))
    if not by_split:
        return RollingOrigin(possible=True)
    return RollingOrigin(
        possible=True,
        splits=len(by_split),
        n=sum(split.n for split in by_split),
        mean_rel_error=float(np.mean([split.mean_rel_error for split in by_split])),
        max_rel_error=max(split.max_rel_error for split in by_split),
        by_split=by_split,
    )


def _splits(law: ParametricLaw[Any], inputs: list[np.ndarray]) -> list[np.ndarray]:
    """Masks of the rows to fit, (rows,) each; the other rows are more expensive."""
    logs = [
        COST_POWERS.get(name, 1) * np.log(x) for name, x in zip(law.inputs, inputs, strict=True)
    ]
    cost = -inputs[0] if law.additive else np.sum(logs, axis=0)
    levels = np.unique(cost)
    cuts = {float(np.quantile(cost, share, method="lower")) for share in SPLIT_SHARES}
    possible = sorted(cuts & set(levels[:-1].tolist()))
    return [cost <= cut for cut in possible if np.sum(cost <= cut) > law.free]


def _split_errors(fitted: np.ndarray, errors: np.ndarray) -> Split:
    relative = errors[~fitted]
    return Split(
        fitted=int(np.sum(fitted)),
        n=len(relative),
        mean_rel_error=float(relative.mean()),
        max_rel_error=float(relative.max()),
    )


def _sample(at: Optimum, rows: np.ndarray) -> Optimum:
    """Return the optimum with some of its rows only, to refit from.

    rows: indices of the rows.
    """
    *inputs, targets, weights = pad_rows(
        [np.asarray(x)[rows] for x in (*at.problem.inputs, at.problem.targets, at.weights)]
    )
    problem = at.problem._replace(inputs=tuple(inputs), targets=targets)
    return at._replace(problem=problem, weights=weights)
