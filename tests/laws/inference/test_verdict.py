"""Verdicts and their reasons (mirrors scalejax/laws/inference/verdict.py)."""

import numpy as np
import pytest

from scalejax import laws
from scalejax.laws.inference.bootstrap import resample_counts
from scalejax.laws.inference.intervals import Interval, percentile_intervals, size_ratios
from scalejax.laws.inference.verdict import judge
from scalejax.laws.solver.multistart import refit
from tests.laws.solver.test_multistart import fitted, noisy
from tests.laws.test_forms import TRUTHS, exact


def verdict_of(law, inputs, targets, draws=200):
    """The verdict of a fit, and its bootstrap intervals (none with 0 draws)."""
    optimum, _ = fitted(law, inputs, targets)
    intervals, ratios = {}, {}
    if draws:
        counts = resample_counts(np.random.default_rng(0), len(targets), draws)
        theta = np.asarray(refit(law, optimum, counts).theta)
        intervals = percentile_intervals(law, optimum.problem, theta)
        ratios = size_ratios(law, optimum.problem, theta)
    return judge(law, optimum, inputs, intervals, ratios), intervals


def test_a_good_design_is_ok_and_its_intervals_hold_the_truth():
    law = laws.chinchilla()
    verdict, intervals = verdict_of(law, *noisy(law, "chinchilla", 0, rows=120))
    assert (verdict.label, verdict.reasons) == ("ok", [])
    for name in ("alpha", "beta"):
        low, high = intervals[name]
        assert low is not None and high is not None
        assert low < getattr(TRUTHS["chinchilla"], name) < high


@pytest.mark.parametrize(("noise", "label"), [(0.03, "ok"), (0.05, "unidentified")])
def test_the_unit_of_a_table_changes_no_verdict(noise, label):
    """B is what D = 1 would give, and D = 1 may be far away from the data or near."""
    law, rng = laws.chinchilla(), np.random.default_rng(0)
    N, D = (x.ravel() for x in np.meshgrid(np.geomspace(1e6, 1e8, 5), np.geomspace(1e8, 1e10, 5)))
    targets = exact(law, TRUTHS["chinchilla"], [N, D]) * np.exp(noise * rng.normal(size=N.size))
    spans = []
    for unit in (1e9, 1.0, 1e-9):
        verdict, intervals = verdict_of(law, [N / unit, D / unit], targets)
        assert verdict.label == label
        low, high = intervals["B"]
        assert low is not None and high is not None
        spans.append(high / low)
    assert spans[0] < 100 < spans[1] and spans[2] > 1e4


def test_wide_sizes_and_exponents_are_named():
    law = laws.chinchilla()
    inputs, targets = noisy(law, "chinchilla", 0)
    optimum, _ = fitted(law, inputs, targets)
    intervals: dict[str, Interval] = {"A": (1.0, 1e9), "B": (1.0, 1e9)}
    intervals |= {"alpha": (0.05, 0.49), "beta": (0.05, 0.51)}
    verdict = judge(law, optimum, inputs, intervals, {"A": 2900.0, "B": 3100.0})
    assert verdict.label == "unidentified"
    assert verdict.reasons == [
        "B is not identified: its interval spans a factor 3e+03 at the centre of the data",
        "beta is not identified: its interval is [0.05, 0.51]",
    ]


def test_constant_tokens_per_parameter_leave_the_exponents_unidentified():
    inputs, targets = noisy(laws.chinchilla(), "chinchilla", 1)
    line = [inputs[0], 20 * inputs[0]]
    verdict, _ = verdict_of(laws.chinchilla(), line, targets, draws=0)
    assert verdict.label == "unidentified"
    assert "alpha and beta cannot be told apart" in verdict.reasons[0]


def test_one_model_size_leaves_the_law_unidentified():
    inputs, targets = noisy(laws.chinchilla(), "chinchilla", 2)
    one_size = [np.full(60, 1e8), inputs[1]]
    verdict, _ = verdict_of(laws.chinchilla(), one_size, targets, draws=0)
    assert verdict.label == "unidentified"
    assert "params has a single value" in verdict.reasons[0]


def test_the_interval_of_an_irreducible_loss_at_zero_is_open_below():
    law = laws.chinchilla()
    inputs, targets = noisy(law, "chinchilla", 8)
    verdict, intervals = verdict_of(law, inputs, targets - 1.9)
    assert intervals["E"][0] is None and verdict.label == "unidentified"
    assert any("E is not identified" in reason for reason in verdict.reasons)
    verdict, _ = verdict_of(law, inputs, targets - 1.9, draws=0)
    assert verdict.label == "at-boundary" and "E at the edge" in verdict.reasons[0]
    assert verdict.at_boundary == ["E"]


@pytest.mark.parametrize("law", [laws.downstream(), laws.sigmoid()], ids=lambda law: law.name)
def test_a_flat_error_is_never_ok(law):
    rng = np.random.default_rng(0)
    inputs = [rng.uniform(2.5, 4, 20)]
    flat = (np.full(20, 0.75), rng.normal(0.75, 0.01, 20), 0.75 + 0.02 * np.exp(-inputs[0]))
    for targets in flat:
        verdict, _ = verdict_of(law, inputs, targets)
        assert verdict.label in ("unidentified", "at-boundary", "not-converged")
        assert verdict.reasons


def test_the_condition_number_grows_as_a_design_nears_a_ridge():
    law = laws.chinchilla()
    (N, D), _ = noisy(law, "chinchilla", 0)
    conditions = []
    # What is left of the spread of D / N.
    for fraction in (1.0, 0.3, 0.03):
        inputs = [N, 20 * N * (D / (20 * N)) ** fraction]
        optimum, _ = fitted(law, inputs, exact(law, TRUTHS["chinchilla"], inputs))
        conditions.append(judge(law, optimum, inputs, {}, {}).condition)
    wide, narrow, ridge = conditions
    assert wide < 1e4 and 3 * wide < narrow and 10 * narrow < ridge
