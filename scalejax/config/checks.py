"""Checks of configuration fields, for use in `__post_init__`.

Each raises a ValueError that names the field, what was given and what would be valid.
"""

import ctypes
import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

# The length of a value's text up to which an error shows all of it.
SHOWN_CHARACTERS = 80


def require(condition: bool, message: str) -> None:
    """Raise ValueError with `message` unless the condition holds."""
    if not condition:
        raise ValueError(message)


def set_integer(config: object, name: str, minimum: int) -> None:
    """Check that a field is a whole number of at least `minimum`, and make it an int.

    Numbers from numpy are converted, because products of them can overflow where FLOPs
    are counted.
    """
    value = as_integer(_label(config, name), getattr(config, name), minimum)
    # The dataclasses are frozen, so the field is set behind their back.
    object.__setattr__(config, name, value)


def as_integer(label: str, value: object, minimum: int) -> int:
    """The value as an int of at least `minimum`. `label` names it in the error.

    >>> as_integer("Model.width", 64.0, 1)
    64
    """
    number = as_number(value)
    require(
        number.is_integer() and number >= minimum,
        f"{label} must be a whole number of at least {minimum}; got {value!r}",
    )
    # int(float) would round beyond 2^53, so this converts the value as it was given.
    return int(value)  # type: ignore[call-overload]


def as_number(value: object) -> float:
    """The value as a float; NaN for text, booleans and anything else that has none."""
    if isinstance(value, (str, bool, np.bool_)):
        return math.nan
    try:
        return float(value)  # type: ignore[arg-type]
    # Whole numbers beyond 1.8e308 overflow.
    except (TypeError, OverflowError):
        return math.nan


def set_number(config: object, name: str, low: float, high: float, ends: str = "[]") -> None:
    """Check that a field is a finite number between `low` and `high`.

    `ends` gives the brackets of the interval: "[)" includes `low` and excludes `high`.
    Numbers from jax are converted, because they have no hash, and a run needs one.
    """
    value = getattr(config, name)
    # Not `require`: a grid checks these fields thousands of times, and writing messages
    # that nobody reads would take half of the time.
    if not _is_inside(as_number(value), low, high, ends):
        interval = _interval(low, high, ends)
        raise ValueError(f"{_label(config, name)} must be in {interval}; got {value!r}")
    if not isinstance(value, (int, float)):
        object.__setattr__(config, name, float(value))


def set_float32(config: object, name: str, low: float, high: float, ends: str = "[]") -> None:
    """Check that a field is inside an interval, also in float32, and make it a float.

    For numbers that training uses in float32. A beta2 of 0.99999999, for example, is 1
    in float32, and dividing by 1 - beta2 gives NaN at every step.
    """
    set_number(config, name, low, high, ends)
    value = float(getattr(config, name))
    # Unlike numpy, ctypes rounds to infinity without a warning.
    rounded = ctypes.c_float(value).value
    if not _is_inside(rounded, low, high, ends):
        raise ValueError(
            f"{_label(config, name)} {value!r} is {rounded:g} in float32, the precision of "
            f"training, and must be in {_interval(low, high, ends)} there too; give a number "
            f"further inside the interval"
        )
    object.__setattr__(config, name, value)


def _is_inside(number: float, low: float, high: float, ends: str) -> bool:
    above = number >= low if ends[0] == "[" else number > low
    below = number <= high if ends[1] == "]" else number < high
    return math.isfinite(number) and above and below


def _interval(low: float, high: float, ends: str) -> str:
    return f"{ends[0]}{low:g}, {high:g}{ends[1]}"


def set_tuple(config: object, name: str, items: str) -> None:
    """Check that a field is a list or another collection, and make it a tuple.

    `items` says what the field holds, for the error: "token counts".
    """
    value = getattr(config, name)
    if not isinstance(value, Iterable) or isinstance(value, str):
        shown = repr(value)
        if len(shown) > SHOWN_CHARACTERS:
            shown = f"{type(value).__name__}(...)"
        raise ValueError(
            f"{_label(config, name)} must be a tuple or list of {items}, even for a single one: "
            f"{name}=({shown},); got {shown}"
        )
    object.__setattr__(config, name, tuple(value))


def set_numbers(config: object, name: str, items: str) -> None:
    """Check that a field is a collection of finite numbers, and make it a tuple.

    `items` is as for `set_tuple`.
    """
    set_tuple(config, name, items)
    for value in getattr(config, name):
        require(
            math.isfinite(as_number(value)),
            f"{_label(config, name)} must hold {items}, which are finite numbers; got {value!r}",
        )


def set_flag(config: object, name: str) -> None:
    """Check that a field is True or False, and make it a bool.

    Text is refused, because "no" and "False" would count as True. Booleans from numpy
    are converted, because they have no JSON, and the identity of a run is made of it.
    """
    value = getattr(config, name)
    require(
        isinstance(value, (bool, np.bool_)),
        f"{_label(config, name)} must be True or False; got {value!r}",
    )
    object.__setattr__(config, name, bool(value))


def check_text(config: object, name: str) -> None:
    """Check that a field is text; the path of a file or folder is text, too."""
    value = getattr(config, name)
    require(
        isinstance(value, str),
        f"{_label(config, name)} must be text; got {value!r}; write text in quotes, and a path "
        "as str(path)",
    )


def check_choice(config: object, name: str, choices: Iterable[str]) -> None:
    """Check that a field is one of `choices`."""
    value = getattr(config, name)
    require(
        isinstance(value, str) and value in choices,
        f"{_label(config, name)} must be one of {', '.join(choices)}; got {value!r}",
    )


def check_unused(config: Any, choice: str, kind: str, used_fields: Mapping[str, set[str]]) -> None:
    """Check that fields which `choice` does not use keep their default values.

    `used_fields` maps every choice to the fields that it uses, and `kind` says what the
    choices are, for the error: "schedule". Without this check two runs that train
    identically could be unequal, and would be trained twice.
    """
    unused = set.union(*used_fields.values()) - used_fields[choice]
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        require(
            field.name not in unused or value == field.default,
            f"{_label(config, field.name)} is not used by the {choice} {kind}; "
            f"remove it (got {value!r})",
        )


def _label(config: object, name: str) -> str:
    return f"{type(config).__name__}.{name}"
