"""Laws and losses are ranked by how they predict (mirrors .../fitting/selection.py)."""

import numpy as np
import pytest

from scalejax import laws
from scalejax.fitting import fit as fits
from scalejax.fitting.curves.result import LeaveOneCurveOut
from scalejax.fitting.selection import select
from tests.fitting.test_curves import curve_table, schedules
from tests.fitting.test_fit import ladder


def test_the_true_law_ranks_first_and_is_fitted_to_all_rows():
    candidates = [laws.overtraining(), laws.chinchilla()]
    selection = select(ladder(noise=0.001), candidates, ["huber:1e-3", "log-mse"], bootstrap=20)
    best = selection.ranking[0]
    assert len(selection.ranking) == 4
    assert best.law == "chinchilla" == selection.fit.law.name
    errors = [c.mean_rel_error for c in selection.ranking if c.mean_rel_error is not None]
    assert len(errors) == 4
    assert errors == sorted(errors) and errors[-1] > 1.2 * errors[0]
    assert selection.fit.loss == best.loss and selection.fit.n_rows == 20
    assert selection.fit.intervals


def test_a_robust_loss_ranks_first_when_some_runs_are_far_off():
    frame = ladder(noise=0.001)
    frame.loc[[3, 8], "loss"] *= 1.15
    selection = select(frame, [laws.chinchilla()], ["mse", "log-mse", "huber:1e-3"])
    first, second, _ = selection.ranking
    assert first.loss == "huber:1e-3"
    assert first.mean_rel_error is not None and second.mean_rel_error is not None
    assert first.mean_rel_error < 0.7 * second.mean_rel_error


def test_all_candidates_are_scored_on_the_splits_that_all_could_fit():
    # 5 of 9 rows are enough for the four parameters of one law, not for five, and 6 of
    # them leave A and alpha of the other law open.
    frame = ladder(noise=0.001).iloc[[0, 1, 2, 3, 5, 6, 7, 10, 11]]
    candidates = (laws.overtraining(), laws.chinchilla())
    selection = select(frame, candidates, ["log-mse"])
    single = {
        law.name: fits.fit(frame, law, loss="log-mse", bootstrap=0).cross_validation
        for law in candidates
    }
    assert single["overtraining"].splits > single["chinchilla"].splits > 0
    splits = {candidate.splits for candidate in selection.ranking}
    assert splits == {single["chinchilla"].splits}
    errors = {candidate.law: candidate.mean_rel_error for candidate in selection.ranking}
    assert errors["chinchilla"] == pytest.approx(single["chinchilla"].mean_rel_error)
    assert errors["overtraining"] != pytest.approx(single["overtraining"].mean_rel_error)


@pytest.mark.parametrize(
    ("candidates", "message"),
    [
        ([], "0 laws"),
        ([laws.chinchilla(), laws.downstream()], "loss and top1_error"),
        ([laws.chinchilla(), laws.power("flops")], "read different rows"),
    ],
)
def test_laws_that_cannot_be_ranked_are_refused(candidates, message):
    flops = np.where(np.arange(20) > 2, 1e15, np.nan)
    frame = ladder().assign(top1_error=0.5, flops=flops)
    with pytest.raises(ValueError, match=message):
        select(frame, candidates, ["mse"])


def test_too_few_rows_to_hold_any_out_are_refused():
    with pytest.raises(ValueError, match="no split of the 5 rows"):
        select(ladder().iloc[::4], [laws.chinchilla()], ["log-mse"])


def test_losses_of_a_whole_curve_law_are_ranked_by_the_curves_left_out():
    table = curve_table(noise=1e-3)
    selection = select(
        table.loc[table.schedule != "linear", :],
        [laws.annealing()],
        ["huber:1e-3", "log-mse"],
        columns={"curve": "schedule", "learning_rate": "lr"},
        schedules=schedules(),
    )
    assert [candidate.splits for candidate in selection.ranking] == [3, 3]
    validation = selection.fit.cross_validation
    assert isinstance(validation, LeaveOneCurveOut)
    splits = validation.by_split
    assert {split.left_out for split in splits} == {"constant", "cosine", "drop"}
    first, second = (candidate.mean_rel_error for candidate in selection.ranking)
    assert first is not None and second is not None and first < second
    assert first == pytest.approx(np.mean([split.mean_rel_error for split in splits]))
