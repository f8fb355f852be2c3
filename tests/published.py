"""Where the published tables and task files lie: SCALEJAX_REFERENCE, else beside the checkout."""

import csv
import os
from pathlib import Path

import pytest

FOLDER = Path(
    os.environ.get("SCALEJAX_REFERENCE") or Path(__file__).parents[2] / "shared" / "reference"
)


def reference(name: str) -> Path:
    """A file or folder of them; the test that asks is skipped where it is absent."""
    if not (FOLDER / name).exists():
        pytest.skip(
            f"{FOLDER / name} is not there: point SCALEJAX_REFERENCE at the folder of published tables"
        )
    return FOLDER / name


def rows(table: str) -> list[dict[str, str]]:
    """The rows of a CSV table as they stand."""
    with reference(table).open() as file:
        return list(csv.DictReader(file))
