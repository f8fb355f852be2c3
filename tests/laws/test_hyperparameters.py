"""Laws of the best learning rate and batch (mirrors scalejax/laws/hyperparameters.py)."""

import numpy as np
import pytest

from scalejax.laws.hyperparameters import (
    BETA2_NAMES,
    NAMES,
    Beta2,
    Hyperparameters,
    Sweep,
    fit_hyperparameters,
    near_optimum,
    regret,
)

TRUTH = Hyperparameters(2.0, -0.7, 0.3, 0.6, 0.57)
SIZES, TOKENS = (1e8, 4e8, 1e9), (2e9, 8e9, 3e10)


def sweep(law=TRUTH, sizes=SIZES, tokens=TOKENS, points=9, bend=0.02, shift=0.0):
    """Losses quadratic in (log LR, log batch) around the law's optimum in every cell, on a grid centred there."""
    runs = []
    for N in sizes:
        for D in tokens:
            for x in np.linspace(-2, 2, points) + shift:
                for y in np.linspace(-2, 2, points) + shift:
                    loss = 2 + 100 / N**0.25 + bend * (x**2 + y**2)
                    runs.append(
                        (
                            N,
                            D,
                            law.learning_rate(N, D) * np.exp(x),
                            law.batch_tokens(D) * np.exp(y),
                            loss,
                        )
                    )
    return Sweep(*np.array(runs).T, np.full(len(runs), 0.95))


def test_symmetric_sweeps_give_the_law_back():
    fit = fit_hyperparameters(sweep())
    assert fit.verdict == "ok" and fit.kept > 9
    np.testing.assert_allclose(fit.law, TRUTH, rtol=1e-9)
    assert np.all(fit.regret < 1e-9) and np.all(fit.left_out < 1e-9)


def test_surfaces_find_an_optimum_between_the_runs():
    off = sweep(shift=0.13)
    np.testing.assert_allclose(fit_hyperparameters(off).law, TRUTH, rtol=1e-9)
    rule = fit_hyperparameters(off, optimum=near_optimum).law
    assert abs(np.log(rule.batch_tokens(8e9) / TRUTH.batch_tokens(8e9))) > 0.02, (
        "this design could not tell the two apart"
    )


def test_few_runs_near_the_optimum_are_read_without_surfaces_and_said_so():
    fit = fit_hyperparameters(sweep(points=5, bend=0.2))
    assert fit.verdict == "ok" and "9 of 9 cells have fewer than 10 runs" in fit.reasons[0]
    np.testing.assert_allclose(fit.law, TRUTH, rtol=1e-9)


def test_regret_is_what_a_wrong_rate_costs():
    cell = sweep().cells()[4]
    twice = TRUTH._replace(lr_coefficient=2 * TRUTH.lr_coefficient)
    best = cell.loss.min()
    exact = 0.02 * np.log(2) ** 2 / best
    assert (
        exact <= regret(twice, cell) < 2 * exact
    )  # linear interpolation of a convex loss is on the high side
    assert regret(TRUTH, cell) == pytest.approx(0, abs=1e-12)
    far = TRUTH._replace(lr_coefficient=1e3)
    assert regret(far, cell) > regret(twice, cell), "outside the sweep the nearest run counts"


def test_diverged_runs_do_not_move_the_law():
    runs = sweep()
    loss = runs.loss.copy()
    loss[::17] = 11.0
    kept = fit_hyperparameters(runs._replace(loss=loss)).law
    assert kept.learning_rate(4e8, 8e9) == pytest.approx(TRUTH.learning_rate(4e8, 8e9), rel=0.1)
    assert kept.batch_tokens(8e9) == pytest.approx(TRUTH.batch_tokens(8e9), rel=0.1)


def test_draws_resample_cells_and_repeat_with_their_seed():
    rng = np.random.default_rng(0)
    runs = sweep()
    runs = runs._replace(loss=runs.loss + 0.003 * rng.normal(size=runs.loss.size))
    a, b = (fit_hyperparameters(runs, draws=200, seed=5).draws for _ in range(2))
    assert a.tobytes() == b.tobytes() and a.shape == (200, len(NAMES))
    low, high = np.nanpercentile(a, (2.5, 97.5), axis=0)
    assert np.all(low < TRUTH) and np.all(high > TRUTH) and np.all(high > low)


def test_a_best_run_at_the_edge_of_the_sweep_is_named():
    assert not fit_hyperparameters(sweep()).reasons
    assert any(
        "smallest learning_rate swept" in reason
        for reason in fit_hyperparameters(sweep(shift=2.0)).reasons
    )


@pytest.mark.parametrize(
    ("runs", "reason", "edges"),
    [
        (
            sweep(shift=2.0),
            "inside of what was swept in 0 of 9 cells",
            ("learning_rate", "batch_tokens"),
        ),
        (
            sweep()._replace(loss=np.full(729, 2.0)),
            "what the sweeps chose is no optimum",
            ("learning_rate", "batch_tokens"),
        ),
        (sweep(points=1), "one learning_rate, ", ("learning_rate", "batch_tokens")),
    ],
    ids=["edge", "flat", "one run per cell"],
)
def test_optima_that_no_sweep_brackets_are_no_measurement(runs, reason, edges):
    fit = fit_hyperparameters(runs)
    assert (
        fit.verdict == "at-boundary"
        and fit.at_boundary == edges
        and reason in " ".join(fit.reasons)
    )
    assert fit_hyperparameters(sweep()).at_boundary == ()


def test_one_ratio_of_tokens_to_params_does_not_identify_the_exponents():
    cells = [sweep(sizes=(N,), tokens=(20 * N,)) for N in (1e8, 3e8, 1e9, 3e9)]
    fit = fit_hyperparameters(
        Sweep(*(np.concatenate(column) for column in zip(*cells, strict=True)))
    )
    assert fit.verdict == "unidentified" and "move together" in fit.reasons[0]
    assert np.all(np.isnan(fit.law)) and np.all(np.isnan(fit.regret))


def test_two_cells_are_too_few():
    with pytest.raises(ValueError, match="2 cells"):
        fit_hyperparameters(sweep(sizes=(1e8,), tokens=(1e9, 2e9)))


MEMORY = Beta2(3e-4, 0.4)


def beta2_sweep(best=MEMORY):
    """The same sweep with five beta2 about the best of each batch; how far off costs more than any rate."""
    runs = sweep(points=5)
    off = np.tile(np.linspace(-1, 1, 5), len(runs.loss))
    runs = Sweep(*(np.repeat(x, 5) for x in runs))
    rest = (1 - best.beta2(runs.batch_tokens)) * np.exp(off)
    return runs._replace(beta2=1 - rest, loss=runs.loss + 0.2 * off**2)


def test_several_beta2_give_its_law_of_the_batch():
    fit = fit_hyperparameters(beta2_sweep(), draws=20)
    assert fit.beta2 is not None and fit.beta2_draws.shape == (20, len(BETA2_NAMES))
    np.testing.assert_allclose(fit.beta2, MEMORY, rtol=1e-9)
    np.testing.assert_allclose(fit.law, TRUTH, rtol=1e-9)
    assert np.all(fit.regret < 1e-9), (
        "a beta2 far from the best was counted as the cost of a learning rate"
    )


def test_one_beta2_has_no_law():
    fit = fit_hyperparameters(sweep(), draws=3)
    assert fit.beta2 is None and np.all(np.isnan(fit.beta2_draws))


def test_a_memory_of_fixed_tokens_has_exponent_one():
    law = Beta2(1e-8, 1.0)
    assert (
        law.half_life(1e5)
        == pytest.approx(law.half_life(1e6), rel=0.01)
        == pytest.approx(np.log(2) / 1e-8, rel=0.01)
    )


def test_a_beta2_of_one_is_an_error():
    runs = sweep()
    with pytest.raises(ValueError, match="beta2 lies below 1"):
        fit_hyperparameters(runs._replace(beta2=np.ones(len(runs.loss))))
