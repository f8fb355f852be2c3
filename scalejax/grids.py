"""Grids of runs, cooldown branches, and the identity of a run."""

import dataclasses
import functools
import hashlib
import itertools
import json
import math
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, TypeVar

from scalejax.config import Run
from scalejax.config.model import ADDED_LATER

Config = TypeVar("Config")


def grid(base: Run, **axes: object) -> list[Run]:
    """The product of `axes` over `base`, with the last axis varying fastest.

    An axis is named after a field of Run, or after a field of exactly one of its parts:
    `learning_rate` sets `optimizer.learning_rate`. Its value is a list of values, a
    single value, or a function of the run that returns a value. Functions are applied
    after all other axes. Only the value that they return enters the identity of the
    run.

    Raises ValueError for a name that is not a field, and suggests the nearest one.

    >>> from scalejax.config import Data, Model, Optimizer, Schedule
    >>> base = Run(
    ...     model=Model.sized(width=32, depth=2, vocabulary=64, head_size=16),
    ...     data=Data(),
    ...     tokens=1e5,
    ...     batch_tokens=512,
    ...     optimizer=Optimizer(learning_rate=0.01),
    ...     schedule=Schedule(shape="constant", warmup=0),
    ... )
    >>> runs = grid(base, learning_rate=[0.01, 0.02], tokens=[1e5, 2e5])
    >>> [(run.optimizer.learning_rate, run.tokens) for run in runs]
    [(0.01, 100000.0), (0.01, 200000.0), (0.02, 100000.0), (0.02, 200000.0)]
    """
    values = {name: _values(axis) for name, axis in axes.items() if not callable(axis)}
    functions = {name: axis for name, axis in axes.items() if callable(axis)}
    runs = []
    for point in itertools.product(*values.values()):
        run = _changed(base, dict(zip(values, point, strict=True)))
        for name, function in functions.items():
            run = _changed(run, {name: function(run)})
        runs.append(run)
    return runs


def cooldowns(
    trunks: Run | Sequence[Run],
    *,
    at: float | Sequence[float],
    fraction: float,
    shape: str = "1-sqrt",
    final: float = 0.0,
) -> list[Run]:
    """One run with a cooldown for every trunk and every token count in `at`.

    `at` counts the training tokens at the end of the cooldown, of which there may be
    several. The cooldown takes the last `fraction` of them and ends at `final` x peak
    learning rate. `shape` is one of the cooldown shapes of
    `scalejax.optim.schedules.wsd`.

    The results are ordinary runs whose identity does not depend on the trunk. The
    planner finds what they have in common and trains it once (Hägele et al. 2024,
    section 4).

    Raises ValueError if the learning rate of a trunk is not constant after its warmup,
    or if a cooldown would begin after the end of its trunk.
    """
    runs = []
    for trunk in [trunks] if isinstance(trunks, Run) else trunks:
        if trunk.schedule.shape != "constant":
            raise ValueError(
                "cooldowns branch off a trunk with a constant schedule; got the schedule "
                f"{trunk.schedule.shape!r}; use constant(warmup=...)"
            )
        for tokens in [at] if isinstance(at, (int, float)) else at:
            start = (1 - fraction) * tokens
            # The factor forgives rounding errors of (1 - fraction) * tokens.
            if start > trunk.tokens * (1 + 1e-12):
                raise ValueError(
                    f"the cooldown that ends at {tokens:g} tokens begins at {start:g}, after "
                    f"its trunk ends at {trunk.tokens:g}; train the trunk for longer"
                )
            schedule = dataclasses.replace(
                trunk.schedule, shape="wsd", cooldown=fraction, cooldown_shape=shape, final=final
            )
            runs.append(trunk.replace(tokens=tokens, schedule=schedule))
    return runs


def _values(axis: object) -> list[object]:
    return list(axis) if isinstance(axis, Iterable) and not isinstance(axis, str) else [axis]


def _changed(run: Run, changes: Mapping[str, object]) -> Run:
    """The run with other values for fields of its own and of its parts."""
    # All changes are applied together: with only some of them the run may be invalid.
    fields = {name: value for name, value in changes.items() if name in _field_names(Run)}
    fields_of_parts: dict[str, dict[str, Any]] = {}
    for name, value in changes.items():
        if name not in fields:
            fields_of_parts.setdefault(_part_of(run, name), {})[name] = value
    for part, part_fields in fields_of_parts.items():
        # A part may itself be an axis: then its fields change the new part.
        old: Any = fields.get(part, getattr(run, part))
        fields[part] = dataclasses.replace(old, **part_fields)
    return run.replace(**fields)


def _part_of(run: Run, name: str) -> str:
    """The part of the run, such as `optimizer`, that has a field of this name."""
    parts = {
        part: _field_names(getattr(run, part))
        for part in _field_names(Run)
        if dataclasses.is_dataclass(getattr(run, part))
    }
    owners = [part for part, names in parts.items() if name in names]
    if len(owners) > 1:
        raise ValueError(
            f"{name!r} is a field of {' and of '.join(owners)}; give the whole part as an "
            f"axis instead, {owners[-1]}=[...]"
        )
    if not owners:
        known = set(_field_names(Run)).union(*parts.values())
        raise ValueError(_unknown_field(name, known, "Run"))
    return owners[0]


# A study asks for the ids of its runs over and over, and each takes a third of a
# millisecond to compute.
@functools.lru_cache(maxsize=2**17)
def run_id(run: Run) -> str:
    """The identity of a run, 16 hex digits.

    They are the first digits of the sha256 of the run's canonical JSON. Equal runs have
    equal ids on every machine.
    """
    return hashlib.sha256(canonical(run).encode()).hexdigest()[:16]


def canonical(run: Run) -> str:
    """The run as JSON with sorted keys and no spaces.

    Numbers are written in the declared types of their fields, so that 1, 1.0 and
    numpy.float64(1) give the same text.
    """
    return json.dumps(as_dict(run), sort_keys=True, separators=(",", ":"), allow_nan=False)


def as_dict(config: object) -> dict[str, Any]:
    """A configuration dataclass as JSON values, each number in its declared type.

    A field that was added later is left out at its default; `config.model.ADDED_LATER`
    says why.

    Raises ValueError for NaN and infinity.
    """
    defaults = _defaults_added_later(type(config))
    return {
        name: to_json(getattr(config, name), label)
        for name, label, to_json in _converters(type(config))
        if name not in defaults or getattr(config, name) != defaults[name]
    }


# Converts the value of a field to JSON. The second argument names the field in errors.
Converter = Callable[[Any, str], Any]


# A plan converts thousands of runs, and looking at type hints is slow.
@functools.cache
def _converters(kind: type) -> tuple[tuple[str, str, Converter], ...]:
    """(name, name with the owner's, converter) of every field of a configuration."""
    hints = typing.get_type_hints(kind)
    return tuple(
        (name, f"{kind.__name__}.{name}", _converter(hints[name])) for name in _field_names(kind)
    )


@functools.cache
def _defaults_added_later(kind: type) -> dict[str, Any]:
    """The defaults of the fields that earlier versions did not have, by name."""
    fields = dataclasses.fields(kind)
    return {field.name: field.default for field in fields if field.metadata == ADDED_LATER}


def _converter(kind: Any) -> Converter:
    """The conversion of values whose field is declared as `kind`."""
    if typing.get_origin(kind) is tuple:
        convert_item = _converter(typing.get_args(kind)[0])
        return lambda values, label: [convert_item(value, label) for value in values]
    if dataclasses.is_dataclass(kind):
        # A copy, so that no caller can change what the next one gets.
        return lambda value, _: dict(_part_as_dict(value))
    return _finite if kind is float else lambda value, _: kind(value)


# Most runs of a grid have most parts in common.
@functools.lru_cache(maxsize=2**12)
def _part_as_dict(part: object) -> dict[str, Any]:
    return as_dict(part)


def _finite(value: Any, label: str) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{label} must be finite to have an identity; got {number}")
    # -0.0 + 0.0 is 0.0: the two zeros are one value.
    return number + 0.0


def from_dict(kind: type[Config], values: Mapping[str, Any]) -> Config:
    """The inverse of `as_dict`.

    Raises ValueError on an unknown or missing field, and on one that is a list or an
    object where the configuration has none, or the other way round.
    """
    if unknown := sorted(set(values) - set(_field_names(kind))):
        raise ValueError(_unknown_field(unknown[0], _field_names(kind), kind.__name__))
    required = {
        field.name
        for field in dataclasses.fields(typing.cast(Any, kind))
        if field.default is field.default_factory is dataclasses.MISSING
    }
    if missing := sorted(required - set(values)):
        raise ValueError(f"{kind.__name__} lacks the field {', '.join(missing)}")
    hints = typing.get_type_hints(kind)
    return kind(**{name: _from_json(value, hints[name], name) for name, value in values.items()})


def _from_json(value: Any, kind: Any, name: str) -> Any:
    is_tuple = typing.get_origin(kind) is tuple
    if isinstance(value, list) != is_tuple or isinstance(value, dict) != dataclasses.is_dataclass(
        kind
    ):
        raise ValueError(f"the field {name} cannot be {value!r}")
    if is_tuple:
        return tuple(_from_json(item, typing.get_args(kind)[0], name) for item in value)
    return from_dict(kind, value) if isinstance(value, dict) else value


def flatten(run: Run) -> dict[str, Any]:
    """The run as one row of a table, with a column for every field.

    A field of a part has a column of its own name: `width`, `learning_rate`, `warmup`.
    The `name` of a part is in the column of the part: `optimizer`, `parametrization`. A
    tuple becomes text, such as `0.8,0.9`.
    """
    row: dict[str, Any] = {}
    for part, value in as_dict(run).items():
        if isinstance(value, dict):
            value = _defaults_added_later(type(getattr(run, part))) | value
            row |= {part if name == "name" else name: _cell(cell) for name, cell in value.items()}
        else:
            row[part] = _cell(value)
    return row


def _cell(value: Any) -> Any:
    return ",".join(map(str, value)) if isinstance(value, list) else value


def _field_names(config: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(config)]


def _unknown_field(name: str, known: Iterable[str], owner: str) -> str:
    matches = get_close_matches(name, known, 1)
    hint = f"did you mean {matches[0]!r}?" if matches else f"its fields: {', '.join(sorted(known))}"
    return f"{owner} has no field {name!r}; {hint}"
