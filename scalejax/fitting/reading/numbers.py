"""Numbers as people write them in tables, such as 50M, 1.3B, 1e9 and 50,000,000."""

import re

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
