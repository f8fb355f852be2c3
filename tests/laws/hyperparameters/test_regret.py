"""What a law costs in a cell (mirrors scalejax/laws/hyperparameters/regret.py)."""

import numpy as np
import pytest

from scalejax.laws.hyperparameters.regret import regret
from tests.laws.hyperparameters.examples import TRUTH, grid_sweep


def test_regret_is_the_relative_loss_that_a_wrong_learning_rate_costs():
    cell = grid_sweep().cells()[4]
    twice = TRUTH._replace(lr_coefficient=2 * TRUTH.lr_coefficient)
    exact = 0.02 * np.log(2) ** 2 / cell.loss.min()
    # Linear interpolation of a convex loss is too high.
    assert exact <= regret(twice, cell) < 2 * exact
    assert regret(TRUTH, cell) == pytest.approx(0, abs=1e-12)
    far = TRUTH._replace(lr_coefficient=1e3)
    assert regret(far, cell) > regret(twice, cell), "outside the sweep the nearest run counts"
