"""Verdicts of whole-curve fits (mirrors scalejax/laws/curves/diagnosis.py)."""

import pytest

from scalejax.laws.curves.separable import SEPARABLE_LAWS
from scalejax.laws.curves.solver import fit_curves
from tests.laws.curves.examples import ANNEALING, SCHEDULES, noisy_curves, noisy_curves_of_sizes


@pytest.mark.parametrize(
    ("sizes", "reason"),
    [
        ((3e7, 1e8), "2 model sizes cannot tell L0, B, beta apart; at least 3"),
        ((1e8,), "cannot tell C, gamma apart"),
    ],
)
def test_few_sizes_leave_the_functions_of_size_unidentified(sizes, reason):
    fit = fit_curves("annealing-size", noisy_curves_of_sizes(sizes, noise=1e-3))
    assert fit.verdict == "unidentified"
    assert any(reason in of_fit for of_fit in fit.reasons)
    three_sizes = noisy_curves_of_sizes((3e7, 1e8, 4e8), noise=1e-3)
    assert fit_curves("annealing-size", three_sizes).verdict == "ok"


def test_one_curve_does_not_identify_how_annealing_works():
    fit = fit_curves("annealing", noisy_curves(ANNEALING, SCHEDULES[:1]))
    assert fit.verdict == "unidentified"
    assert any("one schedule cannot identify lambda" in reason for reason in fit.reasons)


def test_curves_that_never_anneal_do_not_identify_annealing():
    constant = [SCHEDULES[1], 0.5 * SCHEDULES[1]]
    fit = fit_curves("annealing", noisy_curves(ANNEALING, constant))
    assert fit.verdict == "unidentified"
    # Neither the size of the annealing term nor its shape has an effect.
    assert set(fit.undetermined) == {"C", "lambda"}


def test_sizes_of_one_schedule_do_not_identify_how_annealing_works():
    law = SEPARABLE_LAWS["annealing-size"]
    design = law.unidentified({*law.coordinates}, n_schedules=1, n_sizes=4)
    assert design.parameters == {"C", "lambda"} and "lambda" in design.reasons[0]
    assert not law.unidentified({*law.coordinates}, n_schedules=2, n_sizes=4).reasons
    # With the shape held, one schedule tells the size of the term.
    held = {*law.coordinates} - {"lambda"}
    assert not law.unidentified(held, n_schedules=1, n_sizes=4).parameters
