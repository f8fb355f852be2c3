"""Laws fitted to sweeps (mirrors scalejax/laws/hyperparameters/fit.py)."""

import numpy as np
import pytest

from scalejax.laws.hyperparameters import BETA2_NAMES, NAMES, Beta2, Sweep, fit_hyperparameters
from scalejax.laws.hyperparameters.brackets import unbracketed
from tests.laws.hyperparameters.examples import TRUTH, grid_sweep, parameters


def test_symmetric_sweeps_recover_the_law():
    fit = fit_hyperparameters(grid_sweep())
    assert fit.verdict == "ok" and fit.runs_used > 9
    np.testing.assert_allclose(parameters(fit.law), parameters(TRUTH), rtol=1e-9)
    assert np.all(fit.regret < 1e-9) and np.all(fit.left_out_regret < 1e-9)


def test_diverged_runs_do_not_move_the_law():
    runs = grid_sweep()
    loss = runs.loss.copy()
    loss[::17] = 11.0
    law = fit_hyperparameters(runs._replace(loss=loss)).law
    assert law.learning_rate(4e8, 8e9) == pytest.approx(TRUTH.learning_rate(4e8, 8e9), rel=0.1)
    assert law.batch_tokens(8e9) == pytest.approx(TRUTH.batch_tokens(8e9), rel=0.1)


def test_draws_resample_cells_and_repeat_with_their_seed():
    rng = np.random.default_rng(0)
    runs = grid_sweep()
    runs = runs._replace(loss=runs.loss + 0.003 * rng.normal(size=runs.loss.size))
    a, b = (fit_hyperparameters(runs, draws=200, seed=5).draws for _ in range(2))
    assert a.tobytes() == b.tobytes() and a.shape == (200, len(NAMES))
    low, high = np.nanpercentile(a, (2.5, 97.5), axis=0)
    assert np.all(low < TRUTH) and np.all(high > TRUTH) and np.all(high > low)


def test_a_best_run_at_the_edge_of_its_sweep_is_a_reason():
    assert not fit_hyperparameters(grid_sweep()).reasons
    reasons = fit_hyperparameters(grid_sweep(shift=2.0)).reasons
    assert any("smallest learning_rate of the sweep" in reason for reason in reasons)


def test_tied_best_runs_give_one_verdict_in_every_order_of_the_rows():
    rates, ones = np.array([1e-3, 2e-3, 4e-3, 8e-3]), np.ones(4)
    cell = Sweep(ones, ones, rates, ones, np.array([3.01, 3.01, 3.05, 3.2]), ones / 2)
    for rows in (slice(None), slice(None, None, -1)):
        reasons = unbracketed(Sweep(*(x[rows] for x in cell)), ("learning_rate",))
        assert "smallest learning_rate of the sweep, 0.001" in reasons["learning_rate"]


@pytest.mark.parametrize(
    ("runs", "reason"),
    [
        (grid_sweep(shift=2.0), "in 0 of 9 cells"),
        (grid_sweep()._replace(loss=np.full(729, 2.0)), "what the law describes is no optimum"),
        (grid_sweep(points=1), "only one learning_rate, "),
    ],
    ids=["edge", "flat", "one run per cell"],
)
def test_optima_that_no_sweep_brackets_are_at_boundary(runs, reason):
    fit = fit_hyperparameters(runs)
    assert fit.verdict == "at-boundary"
    assert fit.at_boundary == ("learning_rate", "batch_tokens")
    assert reason in " ".join(fit.reasons)
    assert fit_hyperparameters(grid_sweep()).at_boundary == ()


def test_one_ratio_of_tokens_to_params_does_not_identify_the_exponents():
    cells = [grid_sweep(sizes=(N,), tokens=(20 * N,)) for N in (1e8, 3e8, 1e9, 3e9)]
    columns = zip(*cells, strict=True)
    fit = fit_hyperparameters(Sweep(*(np.concatenate(column) for column in columns)))
    assert fit.verdict == "unidentified" and "move together" in fit.reasons[0]
    assert np.all(np.isnan(parameters(fit.law))) and np.all(np.isnan(fit.regret))


def test_two_cells_are_too_few():
    with pytest.raises(ValueError, match="2 cells"):
        fit_hyperparameters(grid_sweep(sizes=(1e8,), tokens=(1e9, 2e9)))


BETA2 = Beta2(3e-4, 0.4)


def beta2_sweep() -> Sweep:
    """Five beta2 around the best of each batch size; an error costs a lot."""
    runs = grid_sweep(points=5)
    offset = np.tile(np.linspace(-1, 1, 5), len(runs.loss))
    runs = Sweep(*(np.repeat(x, 5) for x in runs))
    one_minus_beta2 = (1 - BETA2.beta2(runs.batch_tokens)) * np.exp(offset)
    return runs._replace(beta2=1 - one_minus_beta2, loss=runs.loss + 0.2 * offset**2)


def test_several_beta2_give_a_law_of_the_batch_size():
    fit = fit_hyperparameters(beta2_sweep(), draws=20)
    assert fit.beta2 is not None and fit.beta2_draws.shape == (20, len(BETA2_NAMES))
    np.testing.assert_allclose(parameters(fit.beta2), parameters(BETA2), rtol=1e-9)
    np.testing.assert_allclose(parameters(fit.law), parameters(TRUTH), rtol=1e-9)
    assert np.all(fit.regret < 1e-9), (
        "a beta2 far from the best was counted as the cost of a learning rate"
    )


def test_one_beta2_gives_no_law():
    fit = fit_hyperparameters(grid_sweep(), draws=3)
    assert fit.beta2 is None and np.all(np.isnan(fit.beta2_draws))


def test_a_beta2_of_one_is_an_error():
    runs = grid_sweep()
    with pytest.raises(ValueError, match="beta2 must be below 1"):
        fit_hyperparameters(runs._replace(beta2=np.ones(len(runs.loss))))
