"""Numbers as people write them (mirrors scalejax/fitting/reading/numbers.py)."""

import pytest

from scalejax.fitting.reading.numbers import parse_number


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("50M", 50e6),
        ("1.3B", 1.3e9),
        ("0.57m", 570_000.0),
        ("7 G", 7e9),
        ("1e3k", 1e6),
        ("2T", 2e12),
        ("1e9", 1e9),
        ("-1.5E-3", -0.0015),
        ("50,000,000", 5e7),
        ("1,234.5", 1234.5),
        ("50_000", 5e4),
        (" .5 ", 0.5),
        ("26.5%", 0.265),
        ("36893488147419103232", 2.0**65),
    ],
)
def test_a_number_is_read_as_it_is_written(text, value):
    assert parse_number(text) == value


@pytest.mark.parametrize(
    "text", ["", "M", "1,5", "50,00,000", "1.2.3", "1e", "50 M params", "True", "0,125"]
)
def test_other_text_is_no_number(text):
    assert parse_number(text) is None
