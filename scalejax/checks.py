"""What a field of a config may hold: checks that raise ValueError with what was given and what was expected."""

import dataclasses
import math
from collections.abc import Iterable
from typing import Any


def require(condition: bool, message: str) -> None:
    """Raises ValueError with the message unless the condition holds."""
    if not condition:
        raise ValueError(message)


def whole(config: Any, name: str, least: int) -> None:
    """Makes the field an int, whatever kind of number was given (numpy's overflow): counts of FLOPs are exact."""
    object.__setattr__(config, name, whole_number(f"{type(config).__name__}.{name}", getattr(config, name), least))


def whole_number(label: str, value: Any, least: int) -> int:
    """The value as an int, where it is a whole number of any kind, of at least `least`."""
    is_whole = not isinstance(value, bool) and number(value).is_integer()
    require(is_whole and value >= least, f"{label} must be a whole number of at least {least}; got {value!r}")
    return int(value)


def number(value: Any) -> float:
    """The value as a float; NaN for what is no number."""
    try:
        return math.nan if isinstance(value, str) else float(value)
    except TypeError:
        return math.nan


def between(owner: str, name: str, value: Any, low: float, high: float, ends: str = "[]") -> None:
    """The value is a finite number between low and high; `[` and `]` take the end in, `(` and `)` leave it out."""
    x = number(value)
    above = x >= low if ends[0] == "[" else x > low
    below = x <= high if ends[1] == "]" else x < high
    require(
        math.isfinite(x) and above and below,
        f"{owner}.{name} must be a number in {ends[0]}{low:g}, {high:g}{ends[1]}; got {value!r}",
    )


def several(config: Any, name: str, what: str) -> None:
    """Makes the field a tuple."""
    value = getattr(config, name)
    require(
        isinstance(value, Iterable) and not isinstance(value, str),
        f"{type(config).__name__}.{name} are several {what} in a tuple or a list, one alone too; got {value!r}",
    )
    object.__setattr__(config, name, tuple(value))


def one_of(owner: str, name: str, value: Any, choices: Iterable[str]) -> None:
    """The value is among the choices."""
    require(value in choices, f"{owner}.{name} is one of {', '.join(choices)}; got {value!r}")


def unread(config: Any, choice: str, readers: dict[str, set[str]]) -> None:
    """Fields that `choice` does not read keep their defaults, so that equal runs are equal values."""
    owner, unread = type(config).__name__, set.union(*readers.values()) - readers[choice]
    for default in dataclasses.fields(config):
        require(
            default.name not in unread or getattr(config, default.name) == default.default,
            f"{owner}.{default.name} means nothing to {choice}: leave it out; got {getattr(config, default.name)!r}",
        )
