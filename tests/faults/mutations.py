"""Seeded changes of the files of a study: wrong types, huge numbers, markup, cuts."""

import json
import random
from pathlib import Path
from typing import Any

from scalejax.files import content_hash

VALUES: list[Any] = [
    None,
    True,
    "",
    "many",
    "<script>alert(1)</script>",
    "../../../outside",
    -1,
    0,
    1e308,
    10**400,
    [],
    [1],
    {},
    {"a": [None]},
]


def mutate(path: Path, seed: int) -> str:
    """Change one file, in a way that depends on `seed` only; return what was done."""
    rng = random.Random(seed)
    raw = path.read_bytes()
    kind = rng.choice(["value", "value", "value", "value", "drop", "cut", "bytes", "whole"])
    if path.suffix == ".csv" and kind not in ("cut", "bytes"):
        return _mutate_csv(path, rng, kind)
    if path.suffix not in (".json", ".jsonl") or kind in ("cut", "bytes"):
        cut = rng.randrange(len(raw) + 1)
        path.write_bytes(raw[:cut] if kind == "cut" else raw[:cut] + b"\x00\xff" + raw[cut + 2 :])
        return f"{path.name}: {kind} at byte {cut}"
    lines = raw.decode().splitlines() if path.suffix == ".jsonl" else [raw.decode()]
    number = rng.randrange(len(lines))
    record = json.loads(lines[number])
    value = rng.choice(VALUES)
    if kind == "whole":
        record, place = value, "everything"
    else:
        holder, key = rng.choice(_places(record))
        place = str(key)
        if kind == "drop":
            del holder[key]
        else:
            holder[key] = value
    lines[number] = json.dumps(record)
    path.write_text("\n".join(lines) + "\n")
    return f"{path.name}, line {number + 1}: {kind} {place} {str(value)[:30]!r}"


def reseal(path: Path) -> None:
    """Give a changed fit.json the hash of its content, as another program could."""
    try:
        record = json.loads(path.read_text())
    except ValueError:
        return
    if isinstance(record, dict):
        record.pop("sha256", None)
        path.write_text(json.dumps(record | {"sha256": content_hash(record)}))


def _mutate_csv(path: Path, rng: random.Random, kind: str) -> str:
    """Change a cell or a name of a column, drop one, or fill a line with one value."""
    lines = [line.split(",") for line in path.read_text().splitlines()]
    # Names are read in other ways than values, and would rarely be drawn.
    number = 0 if rng.random() < 0.3 else rng.randrange(len(lines))
    column = rng.randrange(len(lines[number]))
    value = str(rng.choice(VALUES))
    if kind == "whole":
        lines[number] = [value] * len(lines[number])
    elif kind == "drop":
        del lines[number][column]
    else:
        lines[number][column] = value
    path.write_text("\n".join(",".join(line) for line in lines) + "\n")
    return f"{path.name}, line {number + 1}: {kind} field {column + 1} {value[:30]!r}"


def _places(record: Any) -> list[tuple[Any, Any]]:
    """(container, key) of everything in a JSON value, those nested deeply, too."""
    keys = record if isinstance(record, dict) else range(len(record))
    places = []
    for key in keys:
        places.append((record, key))
        if isinstance(record[key], (dict, list)) and record[key]:
            # Long lists of draws would otherwise take nearly all of the changes.
            places += _places(record[key])[:40]
    return places
