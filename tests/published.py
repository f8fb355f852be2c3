"""Where the published tables and task files are found.

They are read from the folder named by the environment variable SCALEJAX_REFERENCE, or
else from ../shared/reference beside the checkout. They are not part of the package.
"""

import csv
import os
from pathlib import Path

import pytest

FOLDER = Path(
    os.environ.get("SCALEJAX_REFERENCE") or Path(__file__).parents[2] / "shared" / "reference"
)


def reference(name: str) -> Path:
    """Return the path of a file or folder, or skip the test where it is missing."""
    path = FOLDER / name
    if not path.exists():
        pytest.skip(
            f"{path} does not exist; set SCALEJAX_REFERENCE to the folder of published tables"
        )
    return path


def rows(table: str) -> list[dict[str, str]]:
    """Return the rows of a CSV table as dictionaries of text."""
    with reference(table).open() as file:
        return list(csv.DictReader(file))
