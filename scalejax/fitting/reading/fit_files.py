"""The fields of fit.json, and the check that a file has them.

The hash in a fit.json shows damage and changes by hand. Another program can write a
file with a right hash and wrong values, and these are refused here, by the name of
their field, before they reach a formula.
"""

from collections.abc import Mapping
from typing import Any, NotRequired, TypedDict

from scalejax.fitting.curves.result import CurveScores, LeaveOneCurveOut
from scalejax.fitting.hyperparameters import Regrets
from scalejax.fitting.parametric.cross_validation import RollingOrigin
from scalejax.fitting.parametric.quality import Outlier
from scalejax.fitting.reading.json_types import wrong_place
from scalejax.fitting.result import Interval, Scores, Seconds, flat
from scalejax.laws import CurveLaw, HyperparameterLaw, IsoFLOP, ParametricLaw
from scalejax.laws.hyperparameters import BETA2_NAMES, NAMES
from scalejax.laws.inference.replicates import LackOfFit, NoiseFloor
from scalejax.laws.isoflop import PowerLaws
from scalejax.laws.law import Law
from scalejax.laws.solver.losses import parse_loss

VERDICTS = ("ok", "at-boundary", "unidentified", "not-converged")


class Form(TypedDict):
    """What a file holds of the law beside its name."""

    inputs: list[str]
    fixed: dict[str, float]
    tied: list[tuple[str, str]]


class Spread(TypedDict):
    """What a file holds for the intervals of predictions, whatever the law."""

    draws: NotRequired[dict[str, list[float | None]]]


class RangesSpread(Spread):
    """The same, for laws that say how far a prediction extrapolates."""

    ranges: dict[str, tuple[float, float]]


class CurveSpread(Spread):
    """The same, for whole-curve laws."""

    # Files of earlier versions have none.
    ranges: NotRequired[dict[str, tuple[float, float]]]


class ParametricSpread(RangesSpread):
    """The same, for laws of one row per run."""

    unvaried: dict[str, float]
    open_inputs: NotRequired[dict[str, list[str]]]
    residuals: NotRequired[list[float]]
    assumption: NotRequired[str]
    rows: NotRequired[str]


class QualityRecord(TypedDict):
    """How far the fitted rows lie from the law."""

    residual_spread: float | None
    outliers: list[Outlier]
    lack_of_fit: LackOfFit | None


class CellsRecord(TypedDict, total=False):
    """Regrets in cells that were left out."""

    n: int
    cells: int
    mean_rel_error: float
    max_rel_error: float


class FitRecord(TypedDict):
    """The fields that all kinds of law share."""

    law: str
    params: dict[str, float | dict[str, float | None] | None]
    intervals: dict[str, Interval | dict[str, Interval]]
    objective: float | None
    gradient_norm: float | None
    starts_at_optimum: float
    n_rows: int
    verdict: str
    reasons: list[str]
    loss: str
    columns: dict[str, str]
    condition: float | None
    at_boundary: list[str]
    # Empty without replicates.
    noise: NoiseFloor | dict[str, None]
    seed: int
    clusters: str | None
    resample: str
    views: NotRequired[dict[str, dict[str, float]]]
    seconds: Seconds
    form: Form


class ParametricRecord(FitRecord):
    """A fit of a law of one row per run."""

    spread: ParametricSpread
    quality: QualityRecord
    holdout: Scores
    cross_validation: RollingOrigin


class CurveRecord(FitRecord):
    """A fit of a whole-curve law."""

    spread: CurveSpread
    holdout: CurveScores
    cross_validation: LeaveOneCurveOut


class IsoFLOPRecord(FitRecord):
    """A fit of isoFLOP curves."""

    spread: RangesSpread
    holdout: Scores


class HyperparameterRecord(FitRecord):
    """A fit of the best hyperparameters."""

    spread: RangesSpread
    holdout: Regrets
    cross_validation: CellsRecord


RECORDS: dict[type[Law], type] = {
    ParametricLaw: ParametricRecord,
    CurveLaw: CurveRecord,
    IsoFLOP: IsoFLOPRecord,
    HyperparameterLaw: HyperparameterRecord,
}


def wrong_field(record: Mapping[str, Any], law: Law) -> str:
    """Return the first field of a fit.json that is wrong; "" if there is none.

    law: the law of that name, before its inputs are replaced by those of the file.
    """
    kind = next(kind for law_type, kind in RECORDS.items() if isinstance(law, law_type))
    wrong = wrong_place(record, kind, "").removeprefix(".")
    return wrong or next((name for name, right in _conditions(record, law) if not right), "")


def _conditions(record: Mapping[str, Any], law: Law) -> list[tuple[str, bool]]:
    """(field, whether it agrees with the others), for fields of the right types."""
    form, spread, params = record["form"], record["spread"], flat(record["params"])
    names, inputs, draws = {*law.names}, form["inputs"], spread.get("draws", {})
    if isinstance(law, HyperparameterLaw) and names < names | params.keys() & {*BETA2_NAMES}:
        names |= {*BETA2_NAMES}
    conditions = [
        ("verdict", record["verdict"] in VERDICTS),
        ("loss", _is_loss(record["loss"])),
        ("form.inputs", inputs == [*law.inputs] or (_reads_any_column(law) and len(inputs) == 1)),
        ("form.fixed", form["fixed"].keys() <= names),
        ("form.tied", {name for pair in form["tied"] for name in pair} <= names),
        ("params", params.keys() <= names and _required(law) <= params.keys()),
        ("intervals", flat(record["intervals"]).keys() <= params.keys()),
        ("spread.draws", len({len(values) for values in draws.values()}) <= 1),
    ]
    if isinstance(law, CurveLaw):
        ranges = spread.get("ranges", {}).values()
        conditions.append(("spread.ranges", all(0 <= low <= high for low, high in ranges)))
    else:
        conditions.append(("spread.ranges", _are_ranges(spread["ranges"], law, inputs)))
    if isinstance(law, ParametricLaw):
        return conditions + _parametric_conditions(record, law, set(inputs))
    if isinstance(law, HyperparameterLaw) and BETA2_NAMES[0] in params:
        conditions.append(("params", BETA2_NAMES[1] in params))
    has_draws = isinstance(law, CurveLaw) or _required(law) <= draws.keys() <= params.keys()
    return [*conditions, ("spread.draws", has_draws)]


def _parametric_conditions(
    record: Mapping[str, Any], law: ParametricLaw[Any], inputs: set[str]
) -> list[tuple[str, bool]]:
    """The conditions of laws of one row per run."""
    spread = record["spread"]
    draws, unvaried = spread.get("draws", {}), spread["unvaried"]
    known = record["verdict"] == "not-converged" or None not in record["params"].values()
    parts = [name.partition("/") for name in unvaried]
    read = {name for numerator, _, name in parts for name in (numerator, name) if name}
    # The run's value of a denominator must be positive.
    positive = inputs - set(law.signed)
    return [
        ("params", known),
        ("spread.draws", not draws or draws.keys() == set(law.names)),
        ("spread.residuals", not draws or bool(spread.get("residuals"))),
        ("spread.unvaried", read <= inputs and {name for *_, name in parts if name} <= positive),
        ("spread.open_inputs", spread.get("open_inputs", {}).keys() <= inputs),
    ]


def _reads_any_column(law: Law) -> bool:
    """Whether a law has one input, which the table or the user names."""
    return isinstance(law, ParametricLaw) and len(law.inputs) == 1 and not law.raw


def _required(law: Law) -> set[str]:
    """Names of the parameters that every fit of a law has."""
    if isinstance(law, IsoFLOP):
        return set(PowerLaws._fields)
    # The batch size and beta2 need not have been swept.
    return set(NAMES[:1] if isinstance(law, HyperparameterLaw) else law.names)


def _are_ranges(ranges: Mapping[str, Any], law: Law, inputs: list[str]) -> bool:
    """Whether every input of a law has a smallest and a largest fitted value."""
    signed = law.signed if isinstance(law, ParametricLaw) else ()
    return all(
        low <= high and (low > 0 or name in signed) for name, (low, high) in ranges.items()
    ) and ranges.keys() >= {*inputs}


def _is_loss(text: str) -> bool:
    try:
        parse_loss(text)
    except ValueError:
        return False
    return True
