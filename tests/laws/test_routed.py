"""The law of routed models (mirrors scalejax/laws/routed.py)."""

import numpy as np
import pytest

from scalejax.laws.routed import Routed
from tests.laws.test_forms import TRUTHS


def test_few_experts_count_one_by_one_and_many_saturate():
    law = TRUTHS["routed"]
    assert isinstance(law, Routed)
    few, many = np.asarray(law.experts(np.array([1.0, 2.0]))), float(law.experts(1e9))
    assert few[0] == pytest.approx(law.E_start, rel=1e-6)
    assert 0.9 < few[1] - few[0] < 1
    assert many == pytest.approx(law.E_start + law.span, rel=1e-4)


def test_experts_help_a_large_model_less():
    law = TRUTHS["routed"]
    sizes = np.array([1e7, 1e10])
    gains = np.log(np.asarray(law.loss(sizes, 1.0)) / np.asarray(law.loss(sizes, 64.0)))
    assert gains[0] > 1.5 * gains[1] > 0
