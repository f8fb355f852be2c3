"""Checks whether the values of a JSON file have the types that Python annotates."""

import dataclasses
import sys
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints, is_typeddict

# Numbers beyond this become infinite where they are used; JSON can spell them.
LARGEST = sys.float_info.max


def wrong_place(value: Any, expected: Any, place: str) -> str:
    """Return the place of the first value that has another type; "" if all are right.

    expected: float, int, str, None, a union, or a list, tuple or dict of them; or a
    TypedDict, dataclass or NamedTuple, which stand for objects with their fields.  A
    tuple is a list in JSON. Fields that the class does not have are not looked at.
    place: the name of the value.

    >>> wrong_place({"loss": [1, "many"]}, dict[str, list[float]], "spread")
    'spread.loss[1]'
    >>> wrong_place([1, None], tuple[float, float | None], "interval")
    ''
    """
    origin, arguments = get_origin(expected), get_args(expected)
    if origin in (Union, UnionType):
        fits = any(not wrong_place(value, one, place) for one in arguments)
        return "" if fits else place
    if origin in (list, tuple):
        if not isinstance(value, list):
            return place
        alike = origin is list or arguments[-1] is ...
        kinds = arguments[:1] * len(value) if alike else arguments
        parts = [(f"{place}[{i}]", *pair) for i, pair in enumerate(zip(value, kinds, strict=False))]
        if len(kinds) != len(value):
            return place
    elif origin is dict:
        if not isinstance(value, dict):
            return place
        parts = [(f"{place}.{name}", one, arguments[1]) for name, one in value.items()]
    elif expected in (float, int, str, NoneType):
        return "" if _is_scalar(value, expected) else place
    else:
        if not isinstance(value, dict):
            return place
        kinds, required = _fields(expected)
        if missing := [name for name in required if name not in value]:
            return f"{place}.{missing[0]}"
        parts = [(f"{place}.{name}", value[name], kinds[name]) for name in kinds if name in value]
    return next((wrong for name, one, kind in parts if (wrong := wrong_place(one, kind, name))), "")


def _is_scalar(value: Any, expected: type) -> bool:
    """Whether a value has a type; a float may be an int, and must be finite."""
    if expected in (float, int):
        kinds = (float, int) if expected is float else int
        is_number = isinstance(value, kinds) and not isinstance(value, bool)
        # A comparison with nan is False.
        return is_number and abs(value) <= LARGEST
    return isinstance(value, expected)


def _fields(kind: Any) -> tuple[dict[str, Any], list[str]]:
    """The types of the fields of a class, and the names of those without a default."""
    if is_typeddict(kind):
        return get_type_hints(kind), sorted(kind.__required_keys__)
    if dataclasses.is_dataclass(kind):
        hints, fields = get_type_hints(kind), dataclasses.fields(kind)
        missing = dataclasses.MISSING
        required = [f.name for f in fields if f.default is f.default_factory is missing]
        return {f.name: hints[f.name] for f in fields}, required
    return get_type_hints(kind), [n for n in kind._fields if n not in kind._field_defaults]
