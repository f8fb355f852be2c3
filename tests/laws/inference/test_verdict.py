"""Open intervals, verdicts, profiles (mirrors scalejax/laws/uncertainty.py)."""

import numpy as np
import pytest

from scalejax import laws
from scalejax.laws.inference import bootstrap, design, intervals
from scalejax.laws.inference.verdict import judge
from scalejax.laws.solver.multistart import refit
from tests.laws.solver.test_multistart import fitted, noisy
from tests.laws.test_forms import TRUTHS, exact


def verdict_of(law, inputs, targets, draws=200):
    at, _ = fitted(law, inputs, targets)
    ends = {}
    if draws:
        state = refit(
            law, at, bootstrap.resample_counts(np.random.default_rng(0), len(targets), draws)
        )
        ends = intervals.percentile_intervals(law, at.problem, np.asarray(state.theta))
    return *judge(law, at, inputs, ends)[:2], ends


def test_a_good_design_is_ok_and_its_intervals_hold_the_truth():
    law = laws.chinchilla()
    verdict, reasons, ends = verdict_of(law, *noisy(law, "chinchilla", 0, rows=120))
    assert (verdict, reasons) == ("ok", [])
    assert ends["alpha"][0] < 0.34 < ends["alpha"][1] and ends["beta"][0] < 0.28 < ends["beta"][1]


def test_tokens_per_parameter_held_constant_is_unidentified():
    inputs, targets = noisy(laws.chinchilla(), "chinchilla", 1)
    verdict, reasons, _ = verdict_of(
        laws.chinchilla(), [inputs[0], 20 * inputs[0]], targets, draws=0
    )
    assert verdict == "unidentified" and "alpha and beta cannot be told apart" in reasons[0]


def test_one_model_size_is_unidentified():
    inputs, targets = noisy(laws.chinchilla(), "chinchilla", 2)
    verdict, reasons, _ = verdict_of(
        laws.chinchilla(), [np.full(60, 1e8), inputs[1]], targets, draws=0
    )
    assert verdict == "unidentified" and "params has a single value" in reasons[0]


def test_an_irreducible_loss_at_zero_is_an_open_end():
    law = laws.chinchilla()
    inputs, targets = noisy(law, "chinchilla", 8)
    verdict, reasons, ends = verdict_of(law, inputs, targets - 1.9)
    assert (
        ends["E"][0] is None
        and verdict == "unidentified"
        and any("E is not identified" in reason for reason in reasons)
    )
    verdict, reasons, _ = verdict_of(law, inputs, targets - 1.9, draws=0)
    assert verdict == "at-boundary" and "E at the edge" in reasons[0]


def test_a_profile_is_lowest_at_the_fit_and_rises_on_both_sides():
    law = laws.chinchilla()
    inputs, targets = noisy(law, "chinchilla", 0)
    at, found = fitted(law, inputs, targets)
    objective = laws.profile(
        law, inputs, targets, "alpha", found["alpha"] + np.array([-0.1, -0.02, 0.0, 0.02, 0.1])
    )
    assert objective[2] == pytest.approx(float(at.state.cost[0]), rel=1e-9)
    assert np.all(np.diff(objective) * [-1, -1, 1, 1] > 1e-4 * objective[2])


def test_a_profile_is_flat_where_the_rows_cannot_tell():
    law = laws.chinchilla()
    inputs, targets = noisy(law, "chinchilla", 1)
    line = [inputs[0], 20 * inputs[0]]
    on_line = exact(law, TRUTHS["chinchilla"], line) * np.exp(
        np.random.default_rng(0).normal(0, 0.01, len(targets))
    )
    flat, steep = (
        laws.profile(law, x, y, "alpha", [0.25, 0.3, 0.35])
        for x, y in ((line, on_line), (inputs, targets))
    )
    assert np.ptp(flat) / flat.min() < 0.1 * np.ptp(steep) / steep.min()


def test_a_profile_of_what_the_law_has_not_is_refused():
    inputs, targets = noisy(laws.chinchilla(), "chinchilla", 1)
    with pytest.raises(ValueError, match="no parameter gamma"):
        laws.profile(laws.chinchilla(), inputs, targets, "gamma", [1.0])


@pytest.mark.parametrize("law", [laws.downstream(), laws.sigmoid()], ids=lambda law: law.name)
def test_flat_error_gives_a_verdict_and_no_exponent(law):
    rng = np.random.default_rng(0)
    inputs = [rng.uniform(2.5, 4, 20)]
    for targets in (
        np.full(20, 0.75),
        rng.normal(0.75, 0.01, 20),
        0.75 + 0.02 * np.exp(-inputs[0]),
    ):
        verdict, reasons, _ = verdict_of(law, inputs, targets)
        assert verdict in ("unidentified", "at-boundary", "not-converged") and reasons


def test_equal_inputs_with_far_targets_are_named():
    inputs, targets = noisy(laws.chinchilla(), "chinchilla", 3, noise=0.002)
    again = [np.append(x, x[0]) for x in inputs]
    assert design.duplicate_reasons(again, np.append(targets, 1.01 * targets[0])) == []
    assert "duplicate" in design.duplicate_reasons(again, np.append(targets, 1.5 * targets[0]))[0]
    creeping = (
        [np.append(x, np.full(3, x[0])) for x in inputs],
        np.append(targets, targets[0] * np.array([1.015, 1.03, 1.045])),
    )
    assert "2 rows above another" in design.duplicate_reasons(*creeping)[0], (
        "neighbours alone are close"
    )


def test_the_condition_number_grows_as_a_design_nears_a_ridge_and_edges_are_named():
    law = laws.chinchilla()
    (N, D), targets = noisy(law, "chinchilla", 0)
    conditions = []
    for share in (1.0, 0.3, 0.03):  # of the spread of D / N that is left
        inputs = [N, 20 * N * (D / (20 * N)) ** share]
        at, _ = fitted(law, inputs, exact(law, TRUTHS["chinchilla"], inputs))
        conditions.append(judge(law, at, inputs, {}).condition)
    assert (
        conditions[0] < 1e4
        and 3 * conditions[0] < conditions[1]
        and 10 * conditions[1] < conditions[2]
    )
    at, _ = fitted(law, [N, D], targets - 1.9)
    assert judge(law, at, [N, D], {}).at_boundary == ["E"]
