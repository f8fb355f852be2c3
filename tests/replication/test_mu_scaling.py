"""Mu-scaling, Yao et al. 2023 (nanoLM, arXiv 2304.06875).

Under muP the loss of models that share their hyperparameters is a power law with an
offset in the number of parameters. The table is the one that the authors' repository
prints: widths 128 to 3072, loss after 20,000 steps. The paper gives no held-out errors;
the expected ones are those of a least-squares fit.
"""

import pandas as pd
import pytest

from scalejax import laws
from scalejax.fitting import fit as fits

pytestmark = pytest.mark.replication

# Parameters, embeddings included, in units of 2^20 -> loss in nats per token.
LOSSES = {
    8.53: 3.9181,
    21.56: 3.6054,
    39.09: 3.4431,
    61.12: 3.3542,
    87.65: 3.2902,
    118.68: 3.2478,
    154.21: 3.224,
    194.24: 3.1797,
    676.48: 3.0854,
    1446.72: 3.0425,
}


def fit_up_to(size):
    """The power law of the models up to a size; the wider ones are held out."""
    table = pd.DataFrame({"params": LOSSES.keys(), "loss": LOSSES.values()})
    return fits.fit(
        table, laws.power("params"), loss="mse", holdout=f"params > {size}", bootstrap=0
    )


def errors_in_percent(fit, above):
    """Relative errors of the predicted losses of the models wider than a size."""
    return [
        100 * (fit.predict(params=size).value / loss - 1)
        for size, loss in LOSSES.items()
        if size > above
    ]


def test_seven_narrow_models_predict_three_wide_ones_within_a_third_of_a_percent():
    fit = fit_up_to(160)
    parameters = [fit.params[name] for name in "abc"]
    assert parameters == pytest.approx([2.4694, -0.4231, 2.9233], rel=1e-3)
    assert errors_in_percent(fit, above=160) == pytest.approx([0.29, -0.18, -0.18], abs=0.01)
    assert fit.holdout.max_rel_error == pytest.approx(0.0029, abs=1e-4)


def test_eight_narrow_models_predict_two_wide_ones_within_half_a_percent():
    assert errors_in_percent(fit_up_to(200), above=200) == pytest.approx([-0.45, -0.54], abs=0.01)
