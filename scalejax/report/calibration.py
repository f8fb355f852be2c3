"""How good forecasts have been: all ledgers of a results folder, in one page."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from scalejax.files import write_text
from scalejax.report.ledger_lines import LEDGER, change_by_hand, read_ledger, scored_forecasts
from scalejax.report.page import Cell, Section, bullets, page, paragraph, table
from scalejax.report.summary import count

# Upper ends of the classes of distance, in factors beyond the fitted rows.
DISTANCES = (1.0, 3.0, 10.0, 30.0, 100.0)
# Distances that exceed an end by less than this are rounding errors.
ROUNDING = 1e-6


class Hits(NamedTuple):
    """How many of some forecasts contain what was measured later."""

    label: str
    forecasts: int
    measured: int
    """Forecasts whose runs are done."""
    bounded: int
    """Measured forecasts with an interval; the others cannot be wrong."""
    inside: int
    """Bounded forecasts whose interval contains the measurement."""

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95% Wilson interval of the share inside; None without a forecast."""
        from scipy.stats import binomtest

        if not self.bounded:
            return None
        ends = binomtest(self.inside, self.bounded).proportion_ci(0.95, method="wilson")
        return float(ends.low), float(ends.high)

    @property
    def text(self) -> str:
        """The share inside with its interval.

        >>> Hits("all", 9, 8, 8, 7).text
        '7 of 8 inside: 88% [53%, 98%]'
        """
        if self.interval is None:
            return "none with an interval has been measured"
        low, high = self.interval
        share = self.inside / self.bounded
        return f"{self.inside} of {self.bounded} inside: {share:.0%} [{low:.0%}, {high:.0%}]"


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """The forecasts of all studies in a results folder."""

    folder: Path
    lines: list[dict[str, Any]]
    """The forecasts, each with its study and the fields of its score."""
    distrusted: list[str] = field(default_factory=list)
    """Why the ledgers of some studies are left out."""
    repeated: int = 0
    """Forecasts that several ledgers hold, as that of a copied study, and that count
    once."""

    @property
    def notes(self) -> list[str]:
        """What is left out of the counts."""
        if not self.repeated:
            return self.distrusted
        copies = f"{count(self.repeated, 'forecast')} of copied studies left out: each counts once"
        return [copies, *self.distrusted]

    @property
    def total(self) -> Hits:
        """All forecasts."""
        return _hits("all", self.lines)

    @property
    def by_distance(self) -> list[Hits]:
        """Classes of forecasts by how far they extrapolate, empty ones left out."""
        groups: dict[str, list[dict[str, Any]]] = {name: [] for name in _distance_names()}
        for line in self.lines:
            groups[_distance_name(line.get("distance"))].append(line)
        return [_hits(name, lines) for name, lines in groups.items() if lines]

    @property
    def by_law(self) -> list[Hits]:
        """Forecasts by law and metric."""
        groups: dict[str, list[dict[str, Any]]] = {}
        for line in self.lines:
            groups.setdefault(f"{line['law']}, {line['metric']}", []).append(line)
        return [_hits(name, groups[name]) for name in sorted(groups)]


def read_calibration(folder: Path) -> Calibration:
    """Read the ledgers of all studies right in `folder`.

    A ledger that was changed by hand is left out and named. Raises FileNotFoundError if
    no study has a ledger.
    """
    ledgers = sorted(folder.glob(f"*/{LEDGER}"))
    if not ledgers:
        raise FileNotFoundError(
            f"{folder} is neither the folder of a study nor one of studies with forecasts; give "
            "OUT/<study>, or OUT after a study with Study.forecast has run"
        )
    forecasts: dict[str, dict[str, Any]] = {}
    distrusted, repeated = [], 0
    for path in ledgers:
        if change := change_by_hand(path.parent):
            distrusted.append(
                f"{path} was changed by hand: {change}, so its forecasts are no evidence and are "
                "left out"
            )
            continue
        for forecast, score in scored_forecasts(read_ledger(path.parent)):
            scored = {name: (score or {}).get(name) for name in ("measured", "error", "inside")}
            known = forecasts.get(forecast["id"])
            repeated += known is not None
            # The folder that measured the run knows more than its copy.
            if known is None or known["measured"] is None:
                forecasts[forecast["id"]] = {**forecast, **scored, "study": path.parent.name}
    lines = list(forecasts.values())
    return Calibration(folder=folder, lines=lines, distrusted=distrusted, repeated=repeated)


def write_calibration(calibration: Calibration) -> Path:
    """Write calibration.html into the results folder; return its path."""
    total = calibration.total
    studies = len({line["study"] for line in calibration.lines})
    place = "1 study" if studies == 1 else f"{studies} studies"
    notes = [
        "A forecast counts when its run is done. One without an interval is never inside.",
        "Forecasts of one run by several laws, and of runs of one trunk, are not independent: "
        "the Wilson intervals are then too narrow.",
        *calibration.notes,
    ]
    sections = [
        Section("All forecasts", paragraph(f"{total.text}.") + bullets(notes, "notes")),
        Section("By distance of extrapolation", _hits_table(calibration.by_distance)),
        Section("By law", _hits_table(calibration.by_law)),
        Section("Every forecast", _forecast_table(calibration.lines)),
    ]
    path = calibration.folder / "calibration.html"
    lead = f"{count(total.forecasts, 'forecast')} in {place}"
    content = page(
        title="How good the forecasts were",
        lead=f'<p class="lead">{lead}, {total.measured} of them measured.</p>',
        sections=sections,
        footer="Written by scalejax report",
    )
    write_text(path, content)
    return path


def calibration_text(calibration: Calibration) -> str:
    """Return the page's tables as lines of text."""
    total = calibration.total
    lines = [f"{total.forecasts} forecasts, {total.measured} measured; {total.text}"]
    lines += [f"  {hits.label}: {hits.text}" for hits in calibration.by_distance]
    return "\n".join([*lines, *calibration.notes])


def _hits(label: str, lines: Sequence[dict[str, Any]]) -> Hits:
    measured = [line for line in lines if line["measured"] is not None]
    # An interval that is open at both ends contains everything, and says nothing.
    bounded = [line for line in measured if line["low"] is not None or line["high"] is not None]
    inside = sum(line["inside"] is True for line in bounded)
    return Hits(label, len(lines), len(measured), len(bounded), inside)


def _distance_names() -> list[str]:
    beyond = [f"{low:g} to {high:g} times beyond" for low, high in pairwise(DISTANCES)]
    return ["within the fitted rows", *beyond, f"over {DISTANCES[-1]:g} times beyond", "unknown"]


def _distance_name(distance: float | None) -> str:
    names = _distance_names()
    if distance is None:
        return names[-1]
    return names[sum(distance > end * (1 + ROUNDING) for end in DISTANCES)]


def _hits_table(hits: Sequence[Hits]) -> str:
    head = ["forecasts", "registered", "measured", "with an interval", "inside", "share inside"]
    rows = []
    for one in hits:
        numbers = (one.forecasts, one.measured, one.bounded, one.inside)
        share = one.text.partition(": ")[2] or "–"
        rows.append([Cell(one.label), *(Cell(str(n), n) for n in numbers), Cell(share)])
    return table(head, rows) if rows else paragraph("There are none.")


def _forecast_table(lines: Sequence[dict[str, Any]]) -> str:
    head = ["run", "law", "metric", "distance", "forecast", "low", "high", "measured", "inside"]
    rows = []
    for line in lines:
        numbers = [line.get("distance"), *(line[name] for name in ("value", "low", "high"))]
        cells = [_number(number) for number in [*numbers, line["measured"]]]
        inside = {True: "yes", False: "NO", None: "–"}[line["inside"]]
        texts = [Cell(str(line[name])) for name in ("run", "law", "metric")]
        rows.append([*texts, *cells, Cell(inside, is_alarm=line["inside"] is False)])
    return table(head, rows, sortable=True) if rows else paragraph("There are none.")


def _number(number: float | None) -> Cell:
    return Cell("–", 0.0) if number is None else Cell(f"{number:.4g}", float(number))
