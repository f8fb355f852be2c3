"""Power laws of hyperparameters (mirrors scalejax/laws/hyperparameters/forms.py)."""

import numpy as np
import pytest

from scalejax.laws.hyperparameters.forms import Beta2


def test_with_an_exponent_of_one_adam_remembers_a_fixed_number_of_tokens():
    law = Beta2(1e-8, 1.0)
    assert law.half_life(1e5) == pytest.approx(law.half_life(1e6), rel=0.01)
    assert law.half_life(1e5) == pytest.approx(np.log(2) / 1e-8, rel=0.01)
