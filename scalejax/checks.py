"""Checks of a config's fields: each ValueError names the field, what was given, and what would be right."""

import dataclasses
import math
from collections.abc import Iterable
from typing import Any


def require(condition: bool, message: str) -> None:
    """Raises ValueError with the message unless the condition holds."""
    if not condition:
        raise ValueError(message)


def whole(config: Any, name: str, least: int) -> None:
    """Makes the field an int of at least `least`, whatever kind of number was given: FLOPs counted in numpy's would overflow."""
    object.__setattr__(
        config, name, whole_number(_label(config, name), getattr(config, name), least)
    )


def whole_number(label: str, value: Any, least: int) -> int:
    """The value as an int of at least `least`.

    >>> whole_number("Model.width", 64.0, 1)
    64
    """
    is_whole = not isinstance(value, bool) and as_number(value).is_integer()
    require(
        is_whole and value >= least,
        f"{label} must be a whole number of at least {least}; got {value!r}",
    )
    return int(value)


def between(config: Any, name: str, low: float, high: float, ends: str = "[]") -> None:
    """The field is a finite number between `low` and `high`; `ends` are those of the interval, as in [0, 1)."""
    value = getattr(config, name)
    given = as_number(value)
    above = given >= low if ends[0] == "[" else given > low
    below = given <= high if ends[1] == "]" else given < high
    interval = f"{ends[0]}{low:g}, {high:g}{ends[1]}"
    inside = math.isfinite(given) and above and below
    require(inside, f"{_label(config, name)} must be in {interval}; got {value!r}")


def as_number(value: Any) -> float:
    """The value as a float; NaN for text and whatever else is no number."""
    try:
        return math.nan if isinstance(value, str) else float(value)
    except TypeError:
        return math.nan


def several(config: Any, name: str, what: str) -> None:
    """Makes the field a tuple of `what`."""
    value = getattr(config, name)
    listed = isinstance(value, Iterable) and not isinstance(value, str)
    require(
        listed,
        f"{_label(config, name)} are several {what} in a tuple or a list, one alone too; got {value!r}",
    )
    object.__setattr__(config, name, tuple(value))


def one_of(config: Any, name: str, choices: Iterable[str]) -> None:
    """The field is one of `choices`."""
    value = getattr(config, name)
    require(
        isinstance(value, str) and value in choices,
        f"{_label(config, name)} is one of {', '.join(choices)}; got {value!r}",
    )


def unread(config: Any, choice: str, readers: dict[str, set[str]]) -> None:
    """Fields that `choice` does not read, but others of `readers` do, keep their defaults: equal runs are equal values."""
    others = set.union(*readers.values()) - readers[choice]
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        as_it_was = field.name not in others or value == field.default
        require(
            as_it_was,
            f"{_label(config, field.name)} means nothing to {choice}: leave it out; got {value!r}",
        )


def _label(config: Any, name: str) -> str:
    return f"{type(config).__name__}.{name}"
