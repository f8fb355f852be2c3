"""The choice of a law and a loss by how they extrapolate (mirrors scalejax/study/selection.py)."""

import numpy as np
import pytest

from scalejax import laws
from scalejax.fitting import fit as fits
from scalejax.fitting.selection import select
from tests.fitting.test_curves import curve_table, schedules
from tests.fitting.test_fit import ladder


def test_the_law_that_made_the_runs_wins_and_is_fitted_to_all_of_them():
    found = select(
        ladder(noise=0.001),
        [laws.overtraining(), laws.chinchilla()],
        ["huber:1e-3", "log-mse"],
        bootstrap=20,
    )
    assert len(found.ranking) == 4 and found.ranking[0].law == "chinchilla" == found.fit.law.name
    errors = [candidate.mean_rel_error for candidate in found.ranking]
    assert errors == sorted(errors) and errors[-1] > 1.2 * errors[0]
    assert (
        found.fit.loss == found.ranking[0].loss and found.fit.n_rows == 20 and found.fit.intervals
    )


def test_a_loss_that_runs_far_out_do_not_sway_wins():
    frame = ladder(noise=0.001)
    frame.loc[[3, 8], "loss"] *= 1.15
    found = select(frame, [laws.chinchilla()], ["mse", "log-mse", "huber:1e-3"])
    assert found.ranking[0].loss == "huber:1e-3"
    assert found.ranking[0].mean_rel_error < 0.7 * found.ranking[1].mean_rel_error


def test_all_are_scored_on_the_splits_that_all_could_fit():
    frame = ladder(noise=0.001)[::2][
        :9
    ]  # half of 9 rows fit the four parameters of one law, not the five of the other
    found = select(frame, [laws.overtraining(), laws.chinchilla()], ["log-mse"])
    alone = {
        law.name: fits.fit(frame, law, loss="log-mse").cross_validation
        for law in (laws.overtraining(), laws.chinchilla())
    }
    assert alone["overtraining"].splits > alone["chinchilla"].splits
    assert {candidate.splits for candidate in found.ranking} == {alone["chinchilla"].splits}
    scored = {candidate.law: candidate.mean_rel_error for candidate in found.ranking}
    assert scored["chinchilla"] == pytest.approx(alone["chinchilla"].mean_rel_error)
    assert scored["overtraining"] != pytest.approx(alone["overtraining"].mean_rel_error)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (([], ["mse"]), "0 laws"),
        (([laws.chinchilla(), laws.downstream()], ["mse"]), "loss and top1_error"),
        (([laws.chinchilla(), laws.power("flops")], ["mse"]), "read different rows"),
    ],
)
def test_what_cannot_be_ranked_is_refused(given, said):
    frame = ladder().assign(top1_error=0.5, flops=np.where(np.arange(20) > 2, 1e15, np.nan))
    with pytest.raises(ValueError, match=said):
        select(frame, *given)


def test_too_few_rows_to_hold_any_out_is_said():
    with pytest.raises(ValueError, match="no split of the 5 rows"):
        select(ladder()[::4], [laws.chinchilla()], ["log-mse"])


def test_losses_of_a_whole_curve_law_are_ranked_by_the_curves_left_out():
    table = curve_table(noise=1e-3)
    found = select(
        table[table.schedule != "linear"],
        [laws.annealing()],
        ["huber:1e-3", "log-mse"],
        columns={"curve": "schedule", "learning_rate": "lr"},
        schedules=schedules(),
    )
    assert [candidate.splits for candidate in found.ranking] == [3, 3]
    splits = found.fit.cross_validation.by_split
    assert {split.left_out for split in splits} == {"constant", "cosine", "drop"}
    assert found.ranking[0].mean_rel_error == pytest.approx(
        np.mean([split.mean_rel_error for split in splits])
    )
    assert found.ranking[0].mean_rel_error < found.ranking[1].mean_rel_error
