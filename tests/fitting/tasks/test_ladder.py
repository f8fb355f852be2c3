"""Task ladders (mirrors scalejax/fitting/tasks/ladder.py)."""

import numpy as np
import pandas as pd
import pytest

from scalejax.fitting.tasks.ladder import TaskLadder, fit_ladder

# A run of 13 times the largest size.
TARGET = {"params": 1.3e10, "tokens": 1e12}


def measured(N, D, rng=None):
    """Bits per byte, validation loss and accuracy of runs, with noise from rng."""
    bpb = 0.4 + 60 * N**-0.25 + 400 * D**-0.3
    loss = 1.5 + 2.2 * bpb
    accuracy = 0.25 + 0.75 / (1 + np.exp(4 * (bpb - 1.0)))
    if rng is not None:
        bpb, loss = (x * np.exp(0.003 * rng.normal(size=N.shape)) for x in (bpb, loss))
        accuracy = accuracy + 0.004 * rng.normal(size=N.shape)
    return bpb, loss, accuracy


@pytest.fixture(scope="module")
def ladder() -> TaskLadder:
    sizes, ratios = np.array([1.9e8, 3.7e8, 7.6e8, 1.3e9]), np.array([20.0, 40, 100, 200])
    N, ratio = (x.ravel() for x in np.meshgrid(sizes, ratios))
    names = ("bpb", "c4", "acc")
    values = dict(zip(names, measured(N, N * ratio, np.random.default_rng(0)), strict=True))
    table = pd.DataFrame({"params": N, "tokens": N * ratio, **values})
    return fit_ladder(table, "1-acc", ("bpb", "c4"), bootstrap=40)


def test_every_choice_of_laws_is_one_chain(ladder):
    found = {
        (one.proxy, one.loss_fit.law.name, "floor" in dict(one.error_fit.law.fixed))
        for one in ladder.chains
    }
    choices = (("bpb", "c4"), ("chinchilla", "power"), (False, True))
    assert found == {(a, b, c) for a in choices[0] for b in choices[1] for c in choices[2]}


def test_the_interval_holds_the_truth_and_the_values_of_the_chains(ladder):
    truth = 1 - float(measured(TARGET["params"], TARGET["tokens"])[2])
    estimate = ladder.predict(**TARGET)
    assert estimate.low is not None and estimate.high is not None
    assert estimate.low < truth < estimate.high
    assert estimate.value == pytest.approx(truth, abs=0.05)
    assert estimate.method.startswith("8 chains of laws, whose values are 0.")
    # A single chain is more certain than the choice of chains allows.
    one = TaskLadder(ladder.chains[:1]).predict(**TARGET)
    assert one.low is not None and one.high is not None
    assert one.high - one.low < estimate.high - estimate.low


def test_without_draws_a_ladder_has_no_interval(ladder):
    chains = [
        one._replace(error_fit=one.error_fit.__class__(**vars(one.error_fit) | {"draws": {}}))
        for one in ladder.chains
    ]
    estimate = TaskLadder(chains).predict(**TARGET)
    assert estimate.low is None and "not all of 8 chains have bootstrap draws" in estimate.method


def test_what_a_law_of_a_chain_does_not_bound_has_no_interval():
    """Any exponent of the size fits two sizes."""
    N, D = (x.ravel() for x in np.meshgrid([1.9e8, 7.6e8], np.geomspace(4e9, 1e11, 8)))
    values = measured(N, D, np.random.default_rng(0))
    table = pd.DataFrame({"params": N, "tokens": D, "bpb": values[0], "acc": values[2]})
    ladder = fit_ladder(table, "1-acc", ("bpb",), bootstrap=40)
    estimate = ladder.predict(**TARGET)
    assert (estimate.low, estimate.high) == (None, None)
    assert "params is beyond the fitted rows" in estimate.method
    within = ladder.predict(params=7.6e8, tokens=1e11)
    assert within.low is not None and within.high is not None
