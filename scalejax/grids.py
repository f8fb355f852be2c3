"""Grids of runs, cooldown branches, and the identity of a run."""

import dataclasses
import hashlib
import itertools
import json
import math
import typing
from collections.abc import Iterable, KeysView, Sequence
from difflib import get_close_matches
from typing import Any

from scalejax.config import Run


def grid(base: Run, **axes: Any) -> list[Run]:
    """The product of `axes` over `base`, the last axis fastest.

    An axis is a list of values, one value, or a function of the run that returns a value (applied after the other axes; the
    value enters the identity, the function does not). Its name is a field of Run, or of exactly one of its parts:
    `learning_rate` reaches `optimizer.learning_rate`.

    Raises ValueError for a name that is no field, with the nearest one.

    >>> from scalejax.config import Data, Model, Optimizer, Schedule
    >>> base = Run(model=Model.sized(width=32, depth=2, vocabulary=64, head_size=16), data=Data(), tokens=1e5,
    ...            batch_tokens=512, optimizer=Optimizer(learning_rate=0.01), schedule=Schedule(shape="constant", warmup=0))
    >>> [(run.optimizer.learning_rate, run.tokens) for run in grid(base, learning_rate=[0.01, 0.02], tokens=[1e5, 2e5])]
    [(0.01, 100000.0), (0.01, 200000.0), (0.02, 100000.0), (0.02, 200000.0)]
    """
    fixed = {name: _values(values) for name, values in axes.items() if not callable(values)}
    derived = {name: function for name, function in axes.items() if callable(function)}
    runs = []
    for point in itertools.product(*fixed.values()):
        run = _with(base, dict(zip(fixed, point, strict=True)))
        for name, function in derived.items():
            run = _with(run, {name: function(run)})
        runs.append(run)
    return runs


def cooldowns(
    trunks: Run | Sequence[Run],
    *,
    at: Sequence[float],
    fraction: float,
    shape: str = "1-sqrt",
    final: float = 0.0,
) -> list[Run]:
    """One WSD run for every trunk and every total of tokens in `at`, cooled down to `final` x peak.

    `at` counts the tokens at the END of the cooldown, which begins at (1 - fraction) x at. The results are ordinary runs:
    their identity knows nothing of the trunk, and the planner trains what they share once (Hägele et al. 2024, section 4).

    Raises ValueError when a trunk's rate is not constant after warm-up, or when a cooldown would begin after its trunk ends.
    """
    runs = []
    for trunk in [trunks] if isinstance(trunks, Run) else trunks:
        if trunk.schedule.shape != "constant":
            shape_given = trunk.schedule.shape
            raise ValueError(
                f"cooldowns branch off a constant schedule, this trunk's is {shape_given!r}: use constant(warmup=..)"
            )
        for tokens in at:
            start = (1 - fraction) * tokens
            if start > trunk.tokens:
                raise ValueError(
                    f"the cooldown to {tokens:g} tokens begins at {start:g}, after its trunk ends at {trunk.tokens:g}"
                )
            schedule = dataclasses.replace(
                trunk.schedule, shape="wsd", cooldown=fraction, cooldown_shape=shape, final=final
            )
            runs.append(trunk.replace(tokens=tokens, schedule=schedule))
    return runs


def run_id(run: Run) -> str:
    """First 16 hex digits of the sha256 of the run's canonical JSON; equal runs, equal ids, on any machine."""
    return hashlib.sha256(canonical(run).encode()).hexdigest()[:16]


def canonical(run: Run) -> str:
    """The run as JSON: sorted keys, every number in its field's declared type (1, 1.0 and numpy.float64(1) are one value)."""
    return json.dumps(as_dict(run), sort_keys=True, separators=(",", ":"), allow_nan=False)


def as_dict(config: Any) -> dict[str, Any]:
    """A config dataclass as plain JSON types, each number in its declared type. Raises ValueError on NaN and infinity."""
    hints = typing.get_type_hints(type(config))
    owner = type(config).__name__
    return {
        name: _plain(getattr(config, name), hints[name], f"{owner}.{name}")
        for name in _names(config)
    }


def from_dict(kind: type, values: dict[str, Any]) -> Any:
    """The inverse of `as_dict`. Raises ValueError on an unknown or missing field."""
    hints = typing.get_type_hints(kind)
    if unknown := sorted(set(values) - _names(kind)):
        raise ValueError(_unknown_field(unknown[0], _names(kind), kind.__name__))
    required = {
        f.name
        for f in dataclasses.fields(kind)
        if f.default is f.default_factory is dataclasses.MISSING
    }
    if missing := sorted(required - set(values)):
        raise ValueError(f"{kind.__name__} lacks {', '.join(missing)}")
    return kind(**{name: _parsed(value, hints[name]) for name, value in values.items()})


def flatten(run: Run) -> dict[str, Any]:
    """The run's fields as one flat row; a part's fields stand under their own names (`width`, `learning_rate`, `warmup`).

    A part's `name` stands under the part's own (`parametrization`, `optimizer`); several values are text, `0.8,0.9`.
    """
    row: dict[str, Any] = {}
    for part, value in as_dict(run).items():
        fields = value if isinstance(value, dict) else {part: value}
        row |= {part if name == "name" else name: _cell(inner) for name, inner in fields.items()}
    return row


def _cell(value: Any) -> Any:
    return ",".join(map(str, value)) if isinstance(value, list) else value


def _parsed(value: Any, kind: Any) -> Any:
    if isinstance(value, list):
        return tuple(_parsed(inner, typing.get_args(kind)[0]) for inner in value)
    return from_dict(kind, value) if isinstance(value, dict) else value


def _plain(value: Any, kind: Any, name: str) -> Any:
    if typing.get_origin(kind) is tuple:
        return [_plain(inner, typing.get_args(kind)[0], name) for inner in value]
    if dataclasses.is_dataclass(kind):
        return as_dict(value)
    if kind is float:
        number = float(value)
        if not math.isfinite(number):
            raise ValueError(f"{name} is {number}: a run's identity needs finite numbers")
        return number + 0.0  # -0.0 and 0.0 are one value
    return kind(value)


def _values(axis: Any) -> list[Any]:
    return list(axis) if isinstance(axis, Iterable) and not isinstance(axis, str) else [axis]


def _names(config: Any) -> KeysView[str]:
    return {f.name: f for f in dataclasses.fields(config)}.keys()


def _with(run: Run, changes: dict[str, Any]) -> Run:
    """All changes at once, so that no half-changed run has to be valid."""
    whole = {name: value for name, value in changes.items() if name in _names(Run)}
    parts: dict[str, dict[str, Any]] = {}
    for name, value in changes.items():
        if name not in whole:
            parts.setdefault(_part_of(run, name), {})[name] = value
    for part, inner in parts.items():
        whole[part] = dataclasses.replace(whole.get(part, getattr(run, part)), **inner)
    return run.replace(**whole)


def _part_of(run: Run, name: str) -> str:
    parts = {
        part: _names(getattr(run, part))
        for part in _names(Run)
        if dataclasses.is_dataclass(getattr(run, part))
    }
    owners = [part for part, names in parts.items() if name in names]
    if len(owners) > 1:
        raise ValueError(
            f"{name!r} is a field of {' and of '.join(owners)}: give the whole part as an axis, {owners[-1]}=[..]"
        )
    if not owners:
        raise ValueError(_unknown_field(name, set(_names(Run)).union(*parts.values()), "Run"))
    return owners[0]


def _unknown_field(name: str, known: Iterable[str], owner: str) -> str:
    near = get_close_matches(name, known, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"its fields: {', '.join(sorted(known))}"
    return f"{owner} has no field {name!r}; {hint}"
