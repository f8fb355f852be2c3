"""The lines of a study's ledger of forecasts, read and checked."""

from pathlib import Path
from typing import Any

from scalejax.files import read_lines, wrong_field

NUMBER = (int, float)
OPTIONAL_NUMBER = (int, float, type(None))
# The fields of each kind of line that readers use, with their types.
FIELDS: dict[str, dict[str, Any]] = {
    "forecast": {
        "id": str,
        "run": str,
        "law": str,
        "metric": str,
        "value": NUMBER,
        "low": OPTIONAL_NUMBER,
        "high": OPTIONAL_NUMBER,
        "level": NUMBER,
    },
    "score": {"id": str, "measured": NUMBER, "error": NUMBER, "inside": (bool, type(None))},
}


def read_ledger(folder: Path) -> list[dict[str, Any]]:
    """The lines of forecasts.jsonl in a study's folder; none when there is no file.

    Raises ValueError, with file and line, for a line that is no forecast and no score.
    """
    path = folder / "forecasts.jsonl"
    lines = read_lines(path)
    for number, line in enumerate(lines, start=1):
        kind = line.get("kind")
        fields = FIELDS.get(kind) if isinstance(kind, str) else None
        # Ledgers are kept for years, and the early ones have no distances.
        optional = {"distance": OPTIONAL_NUMBER} if "distance" in line else {}
        wrong = wrong_field(line, fields | optional) if fields else "kind"
        if wrong:
            raise ValueError(
                f"{path}, line {number}: the field {wrong} is missing or has a value that it "
                "cannot have; lines are only ever added to this file by scalejax, so restore it"
            )
    return lines
