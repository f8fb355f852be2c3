"""The power law with a break (mirrors scalejax/laws/broken_power.py)."""

import numpy as np
import pytest

from scalejax.laws.broken_power import BrokenPower


def test_the_slope_changes_at_the_break_by_c1():
    law = BrokenPower(a=0.0, b=2.0, c0=0.2, c1=0.3, d=1e6, f=0.1)
    x = np.array([1e3, 1e4, 1e8, 1e9])
    logs = np.log10(np.asarray(law.loss(x)))
    assert logs[0] - logs[1] == pytest.approx(0.2, abs=1e-3)
    assert logs[2] - logs[3] == pytest.approx(0.5, abs=1e-3)
