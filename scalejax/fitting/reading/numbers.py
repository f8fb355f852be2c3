"""Numbers as people write them in tables, such as 50M, 1.3B, 1e9 and 50,000,000."""

import re
from collections.abc import Mapping
from typing import Any

# Powers of ten of the suffixes. B and G are both 1e9; P serves petaFLOPs.
POWERS = {"": 0, "%": -2, "k": 3, "m": 6, "b": 9, "g": 9, "t": 12, "p": 15}

# Digits may be grouped by commas, in threes, or by underscores.
NUMBER = re.compile(
    r"""([+-]?(?:[1-9]\d{0,2}(?:,\d{3})+(?:\.\d*)? | \d[\d_]*(?:\.\d*)? | \.\d+))
        (?:e([+-]?\d{1,4}))?
        \s*([%kmbgtp]?)""",
    re.VERBOSE | re.IGNORECASE,
)


def parse_number(text: str) -> float | None:
    """Return the number that a text writes, or None when it is not a number.

    >>> [parse_number(text) for text in ("1.3B", "50,000,000", "1e9", "2.5%", "1,5")]
    [1300000000.0, 50000000.0, 1000000000.0, 0.025, None]
    """
    match = NUMBER.fullmatch(text.strip())
    if match is None:
        return None
    mantissa, exponent, suffix = match.groups()
    # Python rounds this literal once; a product with 1e6 would round twice.
    power = int(exponent or 0) + POWERS[suffix.lower()]
    return float(f"{mantissa.replace(',', '')}e{power}")


def one_run(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the inputs of one run as floats; learning rates stay as they are.

    >>> one_run({"params": 7})
    {'params': 7.0}

    Raises ValueError for arrays, and for values that are not numbers, such as "7B".
    """
    # Not at the top of the file: `scalejax --help` reads this file.
    import numpy as np

    numbers = dict(inputs)
    for name, value in inputs.items():
        if name == "learning_rates":
            continue
        if np.ndim(value):
            raise ValueError(
                f"{name} of one run must be a single number; got {value!r}. `predict` takes arrays"
            )
        if np.asarray(value).dtype.kind not in "iuf":
            raise ValueError(f"{name} must be a number, such as 7e9; got {value!r}")
        numbers[name] = float(value)
    return numbers
