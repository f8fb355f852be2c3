"""Numbers on the command line, which are written as in tables: 7e9 or 7B."""

from typing import Annotated

from tyro.constructors import PrimitiveConstructorSpec

from scalejax.fitting.reading.numbers import parse_number


def read_number(text: str, flag: str = "") -> float:
    """Read a number; `flag` is the flag that it was given to, for the error.

    >>> read_number("7B")
    7000000000.0
    >>> read_number("7 billion", "--params")
    Traceback (most recent call last):
        ...
    ValueError: --params takes a number, such as 7e9 or 7B; got '7 billion'
    """
    number = parse_number(text)
    if number is None:
        raise ValueError(f"{flag} takes a number, such as 7e9 or 7B; got {text!r}".strip())
    return number


# The type of a flag that holds a number. tyro's error names the flag.
Number = Annotated[
    float | None,
    PrimitiveConstructorSpec(
        nargs=1,
        metavar="NUMBER",
        instance_from_str=lambda arguments: read_number(arguments[0]),
        is_instance=lambda value: value is None or isinstance(value, float),
        str_from_instance=lambda value: [str(value)],
    ),
]
