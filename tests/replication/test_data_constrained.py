"""The data-constrained law of Muennighoff et al. 2023 (arXiv 2305.16264).

Table: datablations/paper_fit_182.csv, the 182 runs of the published fit of R_D and R_N,
from github.com/huggingface/datablations (utils/parametric_fit.ipynb, cells 25 and 26).
"""

import math

import pytest

from scalejax import laws
from scalejax.fitting import fit as fits
from scalejax.fitting import tables
from tests.published import reference

pytestmark = pytest.mark.replication

# The law of unique data, which the published fit holds fixed.
BASE_LAW = {
    "A": math.exp(6.255414),
    "B": math.exp(7.3049974),
    "E": math.exp(0.6254804),
    "alpha": 0.3526596,
    "beta": 0.3526596,
}


@pytest.fixture(scope="module")
def runs():
    return reference("datablations/paper_fit_182.csv")


def test_the_published_parameters_have_the_published_objective(runs):
    fit = fits.fit(
        runs, laws.data_constrained(**BASE_LAW, R_D=15.387756, R_N=5.309743), bootstrap=0
    )
    assert fit.objective == pytest.approx(0.0158259353, rel=1e-7)


def test_a_better_optimum_exists_at_which_R_D_is_unidentified(runs):
    """The published point is a local minimum; R_D has no upper bound."""
    fit = fits.fit(runs, laws.data_constrained(**BASE_LAW), bootstrap=200)
    assert fits.fit(runs, laws.data_constrained(**BASE_LAW), bootstrap=0).verdict == fit.verdict
    assert fit.objective <= 0.01580467
    assert fit.params["R_D"] == pytest.approx(95.4, rel=0.02)
    assert fit.params["R_N"] == pytest.approx(1.706, rel=0.01)
    assert fit.verdict == "unidentified" and "R_D" in fit.reasons[0]
    assert fit.intervals["R_D"][1] is None


def test_the_profile_over_R_D_is_flat(runs):
    """The objective changes by 1% while R_D goes from 8 to 1,000."""
    read = tables.read_columns(tables.read(runs), ("params", "tokens", "unique_tokens"), "loss")
    law, values = laws.data_constrained(**BASE_LAW), (8.0, 30.0, 95.4, 200.0, 1e3)
    profile = laws.profile(law, read.inputs, read.target, "R_D", values)
    assert profile == pytest.approx([0.015958, 0.0158208, 0.0158047, 0.0158164, 0.015878], rel=1e-4)
    assert values[profile.argmin()] == 95.4
