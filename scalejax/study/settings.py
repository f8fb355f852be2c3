"""What tells the runs of a study apart, for readers who do not know their ids."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

from scalejax.config import Run
from scalejax.model.transformer import counts

# What a reader wants to know of a run in any case, in this order.
ALWAYS = ("params", "tokens")
# Settings that come before all others, with those above.
FIRST = (*ALWAYS, "width", "depth", "shape", "cooldown", "learning_rate", "batch_tokens", "seed")


class Settings(NamedTuple):
    """The settings of several runs, by name; values are JSON values."""

    shared: dict[str, Any]
    """The settings of FIRST that all runs have in common."""
    own: list[dict[str, Any]]
    """For each run: its size, its tokens, and the settings in which the runs differ."""


def settings_of(runs: Sequence[Run]) -> Settings:
    """Return what the runs have in common, and what tells them apart.

    Names are those of the results table. `params` counts parameters with the head and
    without embeddings. A field of the model that follows from width and depth, such as
    the number of heads, is left out.
    """
    columns: dict[str, list[Any]] = {
        "params": [counts(run.model).params_with_head for run in runs],
        **{name: [_value(run, path) for run in runs] for name, path in _paths().items()},
    }
    shapes = list(zip(columns["width"], columns["depth"], strict=True))
    model_fields = {name for name, path in _paths().items() if path[0] == "model"}

    def differs(name: str) -> bool:
        values = columns[name]
        if len(set(values)) == 1 or name in ALWAYS:
            return name in ALWAYS
        follows = len(set(zip(shapes, values, strict=True))) == len(set(shapes))
        return name in ("width", "depth") or not (name in model_fields and follows)

    order = [*FIRST, *(name for name in columns if name not in FIRST)]
    names = [name for name in order if differs(name)]
    shared = {name: columns[name][0] for name in FIRST if len(set(columns[name])) == 1}
    return Settings(
        {name: value for name, value in shared.items() if name not in names},
        [{name: columns[name][row] for name in names} for row in range(len(runs))],
    )


def _paths() -> dict[str, tuple[str, ...]]:
    """Where each column of a run is: (field,) or (part, field)."""
    paths: dict[str, tuple[str, ...]] = {}
    for field in dataclasses.fields(Run):
        kind: Any = field.type
        if not dataclasses.is_dataclass(kind):
            paths[field.name] = (field.name,)
            continue
        for inner in dataclasses.fields(kind):
            name = field.name if inner.name == "name" else inner.name
            paths[name] = (field.name, inner.name)
    return paths


def _value(run: Run, path: tuple[str, ...]) -> Any:
    value: Any = run
    for name in path:
        value = getattr(value, name)
    # A tuple becomes text, as in the results table, and a NumPy number a plain one.
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return value.item() if hasattr(value, "item") else value
