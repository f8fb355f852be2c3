"""The data-constrained law of Muennighoff et al. 2023 (arXiv 2305.16264).

Table: datablations/paper_fit_182.csv, from github.com/huggingface/datablations.
"""

import math

import pytest

from scalejax import laws
from scalejax.fitting import fit as fits
from scalejax.fitting import tables
from tests.published import reference

pytestmark = pytest.mark.replication
BASE = {
    "A": math.exp(6.255414),
    "B": math.exp(7.3049974),
    "E": math.exp(0.6254804),
    "alpha": 0.3526596,
    "beta": 0.3526596,
}


@pytest.fixture(scope="module")
def runs():
    return reference("datablations/paper_fit_182.csv")


def at(runs, **decays):
    return fits.fit(runs, laws.data_constrained(**BASE, **decays)).objective


def test_the_published_point_has_the_published_objective(runs):
    assert at(runs, R_D=15.387756, R_N=5.309743) == pytest.approx(0.0158259353, rel=1e-7)


def test_the_better_optimum_is_found_and_its_constant_is_unidentified(runs):
    fitted = fits.fit(runs, laws.data_constrained(**BASE), bootstrap=200)
    assert fitted.objective <= 0.01580467
    assert fitted.params["R_D"] == pytest.approx(95.4, rel=0.02) and fitted.params[
        "R_N"
    ] == pytest.approx(1.706, rel=0.01)
    assert (
        fitted.verdict == "unidentified"
        and fitted.intervals["R_D"][1] is None
        and "R_D" in fitted.reasons[0]
    )


def test_the_profile_over_repetitions_is_flat(runs):
    read = tables.read_columns(tables.read(runs), ("params", "tokens", "unique_tokens"), "loss")
    law, decays = laws.data_constrained(**BASE), (8.0, 30.0, 95.4, 200.0, 1e3)
    profile = laws.profile(law, read.inputs, read.target, "R_D", decays)
    assert profile == pytest.approx([0.015958, 0.0158208, 0.0158047, 0.0158164, 0.015878], rel=1e-4)
    assert profile.argmin() == 2, "R_D of the fit"
