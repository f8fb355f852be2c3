"""Best schedules of a law (mirrors scalejax/laws/curves/schedule.py)."""

import numpy as np
import pytest

from scalejax.laws.curves.forms import Annealing, MultiPower, predict_curve
from scalejax.laws.curves.schedule import best_schedule
from tests.laws.curves.examples import PEAK, cosine

ANNEALING = Annealing(3.1, 0.5, 0.5, 0.4, 0.99)
MULTIPOWER = MultiPower(3.1, 0.5, 0.5, 450.0, 1.3, 0.45, 0.55)


# Late in training, where the first term has nearly vanished and annealing pays.
@pytest.mark.parametrize("law", [ANNEALING._replace(A=0.05, C=4.0), MULTIPOWER._replace(A=0.05)])
def test_the_best_schedule_never_rises_respects_its_floor_and_beats_cosine(law):
    with pytest.warns(UserWarning, match="extrapolates"):
        best = best_schedule(
            law, steps=400, peak=PEAK, floor=0.05 * PEAK, warmup=40, seen=[cosine()]
        )
    rates = best.learning_rates
    assert np.all(np.diff(rates[40:]) <= 1e-18) and rates.min() > 0
    assert rates[40:].min() >= 0.05 * PEAK * (1 - 1e-9) and rates.max() <= PEAK * (1 + 1e-12)
    assert best.loss == pytest.approx(predict_curve(law, rates)[-1], abs=1e-9)
    assert best.loss < predict_curve(law, cosine())[-1]
    assert any("last rate" in reason for reason in best.reasons) == (rates[-1] < 0.0999 * PEAK)


def test_early_in_training_a_constant_rate_is_best():
    best = best_schedule(
        ANNEALING, steps=400, peak=PEAK, floor=0.2 * PEAK, seen=[np.full(500, PEAK), cosine()]
    )
    np.testing.assert_allclose(best.learning_rates, PEAK, rtol=2e-3)


def test_a_schedule_within_the_range_of_the_fitted_curves_gives_no_warning(recwarn):
    best = best_schedule(
        MULTIPOWER,
        steps=400,
        peak=PEAK,
        floor=0.2 * PEAK,
        warmup=40,
        seen=[np.full(500, PEAK), cosine()],
    )
    assert best.reasons == () and not recwarn.list


@pytest.mark.parametrize(
    "options", [{"floor": 0.0}, {"floor": 2 * PEAK}, {"floor": 1e-5, "warmup": 399}]
)
def test_a_schedule_without_room_to_fall_is_an_error(options):
    with pytest.raises(ValueError, match="best_schedule needs"):
        best_schedule(ANNEALING, steps=400, peak=PEAK, **options)
