"""The optimum of a cell (mirrors scalejax/laws/hyperparameters/optimum.py)."""

import numpy as np

from scalejax.laws.hyperparameters import fit_hyperparameters, near_optimum
from tests.laws.hyperparameters.examples import TRUTH, grid_sweep, parameters


def test_a_surface_finds_an_optimum_between_the_runs():
    off_centre = grid_sweep(shift=0.13)
    law = fit_hyperparameters(off_centre).law
    np.testing.assert_allclose(parameters(law), parameters(TRUTH), rtol=1e-9)
    averaged = fit_hyperparameters(off_centre, optimum=near_optimum).law
    error = np.log(averaged.batch_tokens(8e9) / TRUTH.batch_tokens(8e9))
    assert abs(error) > 0.02, "this design could not tell the two estimators apart"


def test_few_runs_near_the_optimum_are_averaged_with_a_reason():
    fit = fit_hyperparameters(grid_sweep(points=5, curvature=0.2))
    assert fit.verdict == "ok" and "9 of 9 cells have fewer than 10 runs" in fit.reasons[0]
    np.testing.assert_allclose(parameters(fit.law), parameters(TRUTH), rtol=1e-9)
