"""Rolling-origin cross-validation: fits to the cheapest runs, scored on the others."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from scalejax.fitting.parametric.evaluate import evaluate
from scalejax.fitting.result import CrossValidation
from scalejax.laws.inference.verdict import judge
from scalejax.laws.law import ParametricLaw
from scalejax.laws.solver.multistart import LARGE_TABLE_ROWS, Optimum, find_optimum
from scalejax.laws.solver.problem import parameters_in_table_units

# Verdicts of a split whose predictions mean nothing. A start at the fit to all rows
# would hide this: a parameter that the split does not determine would keep its value.
UNUSABLE = ("unidentified", "not-converged")

# Shares of the runs, cheapest first, that cross-validation fits.
SPLIT_SHARES = (0.5, 0.6, 0.7, 0.8, 0.9)

# Runs whose logarithms of the cost agree to so many decimals are equally expensive.
COST_DECIMALS = 9

# The power of each input in the cost of a run, for cross-validation; 1 for all others.
# Runs of lower loss are more expensive.
COST_POWERS = {"width": 2, "unique_tokens": 0, "loss": -1}


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
    """Whether the rows allow a split; `splits` is 0 when no fit can be used."""
    by_split: tuple[Split, ...] = ()

    def record(self) -> dict[str, Any]:
        """The errors in JSON; empty when the rows allow no split."""
        if not self.possible:
            return {}
        if not self.splits:
            return {"splits": 0, "left_out": self.left_out}
        by_split = [vars(split) for split in self.by_split]
        counts = {"splits": self.splits, "left_out": self.left_out}
        return counts | super().record() | {"by_split": by_split}

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
    Each split is solved from the whole grid of starts, and knows nothing of the fit to
    all rows. A split that does not determine every parameter has no score.

    at: the fit to all rows, for its loss and its row weights. Of more than
    LARGE_TABLE_ROWS rows a random sample is split, which has the same errors.
    """
    weights = at.weights[: len(target)]
    if len(target) > LARGE_TABLE_ROWS:
        few = np.random.default_rng(0).choice(len(target), LARGE_TABLE_ROWS, replace=False)
        inputs, target, weights = [x[few] for x in inputs], target[few], weights[few]
    splits = _splits(law, inputs)
    if not splits:
        return RollingOrigin()
    scores = [_score(law, at, inputs, target, weights, fitted) for fitted in splits]
    by_split = tuple(split for split in scores if split is not None)
    left_out = len(splits) - len(by_split)
    if not by_split:
        return RollingOrigin(possible=True, left_out=left_out)
    return RollingOrigin(
        possible=True,
        splits=len(by_split),
        left_out=left_out,
        n=sum(split.n for split in by_split),
        mean_rel_error=float(np.mean([split.mean_rel_error for split in by_split])),
        max_rel_error=max(split.max_rel_error for split in by_split),
        by_split=by_split,
    )


def _splits(law: ParametricLaw[Any], inputs: list[np.ndarray]) -> list[np.ndarray]:
    """Masks of the rows to fit, (rows,) each; the other rows are more expensive."""
    logs = [
        COST_POWERS.get(name, 1) * np.log(x)
        for name, x in zip(law.inputs, inputs, strict=True)
        if name not in law.signed
    ]
    if not (logs or law.additive):
        return []
    # Equal products, such as N D on an isoFLOP curve, differ by rounding. A split
    # between them would score runs that cost no more than those fitted.
    cost = -inputs[0] if law.additive else np.round(np.sum(logs, axis=0), COST_DECIMALS)
    levels = np.unique(cost)
    cuts = {float(np.quantile(cost, share, method="lower")) for share in SPLIT_SHARES}
    possible = sorted(cuts & set(levels[:-1].tolist()))
    return [cost <= cut for cut in possible if np.sum(cost <= cut) > law.free]


def _score(
    law: ParametricLaw[Any],
    at: Optimum,
    inputs: list[np.ndarray],
    target: np.ndarray,
    weights: np.ndarray,
    fitted: np.ndarray,
) -> Split | None:
    """Fit some of the rows and score the others; None if the fit cannot be used."""
    # The other rows become copies of a fitted row with weight 0, like padding. All
    # splits then have the shape of the whole table and share its compiled programs.
    first = int(np.argmax(fitted))
    columns = [np.where(fitted, x, x[first]) for x in (*inputs, target)]
    split = find_optimum(law, columns[:-1], columns[-1], weights * fitted, at.loss)
    if judge(law, split, [x[fitted] for x in inputs], {}, {}).label in UNUSABLE:
        return None
    best = parameters_in_table_units(law, split.problem, split.theta[:, None])
    predicted = evaluate(law, best._asdict(), [x[~fitted] for x in inputs])
    errors = np.abs(predicted / target[~fitted] - 1)
    return Split(
        fitted=int(np.sum(fitted)),
        n=len(errors),
        mean_rel_error=float(errors.mean()),
        max_rel_error=float(errors.max()),
    )
