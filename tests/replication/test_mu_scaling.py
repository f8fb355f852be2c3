"""Mu-scaling: predict the widest models by a power law with offset (Yao et al., arXiv 2304.06875, nanoLM's published table)."""

import pandas as pd
import pytest

from scalejax import laws
from scalejax.fitting import fit as fits

pytestmark = pytest.mark.replication
MILLIONS = [
    8.53,
    21.56,
    39.09,
    61.12,
    87.65,
    118.68,
    154.21,
    194.24,
    676.48,
    1446.72,
]  # 2^20 parameters
LOSSES = [3.9181, 3.6054, 3.4431, 3.3542, 3.2902, 3.2478, 3.224, 3.1797, 3.0854, 3.0425]


def test_seven_narrow_models_predict_three_wide_ones():
    table = pd.DataFrame({"params": MILLIONS, "loss": LOSSES})
    fitted = fits.fit(table, laws.power("params"), loss="mse", holdout="params > 160")
    assert [fitted.params[name] for name in "abc"] == pytest.approx(
        [2.4694, -0.4231, 2.9233], rel=1e-3
    )
    errors = [
        100 * (fitted.predict(params=n).value / loss - 1)
        for n, loss in zip(MILLIONS[7:], LOSSES[7:], strict=True)
    ]
    assert errors == pytest.approx([0.29, -0.18, -0.18], abs=0.01)
    assert fitted.holdout.max_rel_error == pytest.approx(0.0029, abs=1e-4)


def test_eight_models_predict_two():
    table = pd.DataFrame({"params": MILLIONS, "loss": LOSSES})
    fitted = fits.fit(table, laws.power("params"), loss="mse", holdout="params > 200")
    errors = [
        100 * (fitted.predict(params=n).value / loss - 1)
        for n, loss in zip(MILLIONS[8:], LOSSES[8:], strict=True)
    ]
    assert errors == pytest.approx([-0.45, -0.54], abs=0.01)
