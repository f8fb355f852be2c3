"""What a study concludes: claims with intervals, and the charts that show them."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from scalejax.files import read_json, write_json, wrong_field
from scalejax.fitting.charts.chart import Band, Chart, Line, Mark, Points

HOLDS, DOES_NOT_HOLD = "holds", "does not hold"
UNRESOLVED, MEASURED = "not resolved at this scale", "measured"

# The file in a study's folder that holds its analysis.
FILE_NAME = "analysis.json"
MARKS: dict[str, type[Mark]] = {kind.__name__: kind for kind in (Points, Line, Band)}


@dataclass(frozen=True, kw_only=True)
class Conclusion:
    """A claim, what was measured of it, and for which values it would hold.

    Raises ValueError if the estimate is not finite, if the interval is upside down, or
    if no value could fulfil the claim.

    >>> Conclusion(
    ...     claim="The best rate stays within a factor of 1.2",
    ...     estimate=1.08, low=1.01, high=1.15, below=1.2,
    ... ).verdict
    'holds'
    """

    claim: str
    """A sentence that is true or false, without its full stop."""
    estimate: float
    low: float | None = None
    """Lower end of the 95% interval of `estimate`; None where nothing bounds it."""
    high: float | None = None
    """Upper end of the interval; None where nothing bounds it."""
    above: float | None = None
    """The claim holds for values above this one; None for no such limit."""
    below: float | None = None
    """The claim holds for values below this one; None for no such limit."""
    unit: str = ""
    """Unit of all these numbers, such as `nats per token`."""
    note: str = ""
    """How the numbers were made, in a sentence."""

    def __post_init__(self) -> None:
        if not math.isfinite(self.estimate):
            raise ValueError(f"the estimate of {self.claim!r} is {self.estimate}; give a number")
        for what, ends in (("interval", self.interval), ("range of its claim", self.claimed)):
            if not ends[0] <= ends[1]:
                raise ValueError(
                    f"the {what} of {self.claim!r} is [{ends[0]}, {ends[1]}]; give the lower end "
                    "first"
                )

    @classmethod
    def of(cls, claim: str, measured: Sequence[Any], **fields: Any) -> Self:
        """A claim about a measured number, such as an `Estimate`.

        measured: the value and the ends of its interval come first; the rest is not
        read.  fields: the limits, unit and note of the conclusion.

        >>> Conclusion.of("Size pays", (0.13, 0.08, 0.18), above=0.0).verdict
        'holds'
        """
        value, low, high, *_ = measured
        return cls(claim=claim, estimate=value, low=low, high=high, **fields)

    @property
    def interval(self) -> tuple[float, float]:
        """Ends of the interval; infinite where it is open."""
        low = -math.inf if self.low is None else self.low
        return low, math.inf if self.high is None else self.high

    @property
    def claimed(self) -> tuple[float, float]:
        """Ends of the values for which the claim holds."""
        above = -math.inf if self.above is None else self.above
        return above, math.inf if self.below is None else self.below

    @property
    def verdict(self) -> str:
        """`holds`, `does not hold`, `not resolved at this scale`, or `measured`.

        The claim holds when it is true for the whole interval, and does not hold when
        it is true for no value of it. Without a limit there is nothing to judge.
        """
        if self.above is None and self.below is None:
            return MEASURED
        (low, high), (above, below) = self.interval, self.claimed
        if above <= low and high <= below:
            return HOLDS
        return DOES_NOT_HOLD if high < above or below < low else UNRESOLVED


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """What a study concludes from its own results."""

    conclusions: Sequence[Conclusion]
    charts: Sequence[Chart] = ()


def conclusion_text(conclusion: Conclusion) -> str:
    """A conclusion in one line.

    >>> conclusion_text(Conclusion(
    ...     claim="The head lowers the exponent",
    ...     estimate=0.13, low=0.08, high=0.18, above=0.0,
    ... ))
    'The head lowers the exponent (above 0): 0.13 [0.08, 0.18], holds'
    """
    return f"{claim_text(conclusion)}: {value_text(conclusion)}, {conclusion.verdict}"


def claim_text(conclusion: Conclusion) -> str:
    """The claim and the values for which it holds."""
    ends = [("above", conclusion.above), ("below", conclusion.below)]
    limits = " and ".join(f"{side} {end:.4g}" for side, end in ends if end is not None)
    return f"{conclusion.claim} ({limits})" if limits else conclusion.claim


def value_text(conclusion: Conclusion) -> str:
    """The estimate with its interval and unit."""
    text, ends = f"{conclusion.estimate:.4g}", (conclusion.low, conclusion.high)
    if ends != (None, None):
        low, high = ("open" if end is None else f"{end:.4g}" for end in ends)
        text += f" [{low}, {high}]"
    return f"{text} {conclusion.unit}".rstrip()


def write_analysis(folder: Path, analysis: Analysis) -> None:
    """Write the analysis of a study into its folder, as analysis.json.

    Raises ValueError if a chart holds numbers that are not finite.
    """
    charts = []
    for chart in analysis.charts:
        record = {**_fields(chart), "y_ticks": list(chart.y_ticks.items())}
        record["marks"] = [{"kind": type(it).__name__, **_fields(it)} for it in chart.marks]
        charts.append(record)
    conclusions = [_fields(conclusion) for conclusion in analysis.conclusions]
    write_json(folder / FILE_NAME, {"conclusions": conclusions, "charts": charts})


def _fields(value: Conclusion | Chart | Mark) -> dict[str, Any]:
    """The fields of a value as JSON holds them: arrays as lists."""
    fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return {
        name: np.asarray(it, float).tolist() if isinstance(it, np.ndarray) else it
        for name, it in fields.items()
    }


def read_analysis(folder: Path) -> Analysis | None:
    """The analysis in a study's folder; None if the study has none.

    Raises ValueError, naming the file, when it is damaged.
    """
    path = folder / FILE_NAME
    if not path.is_file():
        return None
    record = read_json(path)
    try:
        conclusions = [Conclusion(**_numbers(it)) for it in record["conclusions"]]
        charts = [_read_chart(it) for it in record["charts"]]
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise ValueError(f"{path} is damaged ({error}); `scalejax run` writes it again") from error
    return Analysis(conclusions=conclusions, charts=charts)


def _numbers(record: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a conclusion, after a check of their types."""
    number, end = (int, float), (int, float, type(None))
    kinds = {"claim": str, "unit": str, "note": str, "estimate": number}
    kinds |= dict.fromkeys(("low", "high", "above", "below"), end)
    if wrong := wrong_field(record, kinds):
        raise ValueError(f"the field {wrong} has a value that it cannot have")
    return dict(record)


def _read_chart(record: Mapping[str, Any]) -> Chart:
    marks = []
    for it in record["marks"]:
        fields = {name: value for name, value in it.items() if name != "kind"}
        arrays = {
            name: np.asarray(fields[name], float)
            for name in ("x", "y", "low", "high", "x_error", "y_error")
            if fields.get(name) is not None
        }
        marks.append(MARKS[it["kind"]](**{**fields, **arrays}))
    # The name becomes that of a file: it must not lead out of the folder.
    if not str(record["name"]).replace("-", "").replace("_", "").isalnum():
        raise ValueError(f"a chart cannot be named {record['name']!r}")
    return Chart(**{**record, "marks": marks, "y_ticks": dict(record["y_ticks"])})
