"""The noise of a measured loss (mirrors scalejax/laws/isoflop/noise.py)."""

import numpy as np
import pytest

from scalejax.laws.isoflop.noise import Noise


def test_between_two_losses_the_noise_is_log_log_linear():
    noise = Noise.parse("0.05@7,0.002@3")
    assert noise.std(np.array([np.sqrt(21.0)]))[0] == pytest.approx(np.sqrt(0.002 * 0.05))


def test_a_single_number_is_the_noise_at_every_loss():
    np.testing.assert_allclose(Noise.parse("0.01").std(np.array([2.0, 9.0])), 0.01)


@pytest.mark.parametrize(
    "text", ["", "much", "-1", "nan", "0.1@3", "0.1@3,0.2@3", "0.1,0.2", "0.1@0,0.2@3", "1@2@3"]
)
def test_text_that_is_no_noise_is_an_error_that_shows_the_form(text):
    with pytest.raises(ValueError, match="STD@LOSS,STD@LOSS"):
        Noise.parse(text)
