"""The tables of a study, from its runs' folders (mirrors scalejax/study/results.py)."""

import dataclasses

import numpy as np
import pandas as pd

from scalejax.files import write_json
from scalejax.grids import run_id
from scalejax.optim.averaging import ema, window
from scalejax.optim.schedules import learning_rates
from scalejax.study.results import whole_curves, write_tables
from scalejax.training.loop import train


def test_curves_have_a_row_for_the_weights_and_for_each_average_at_every_evaluation(
    tiny_run, tiny_measure, tmp_path
):
    measure = dataclasses.replace(
        tiny_measure, averages=[ema(half_life_tokens=640), window(tokens=1280)]
    )
    name = run_id(tiny_run)
    result = train(tiny_run, out=tmp_path / "runs" / name, measure=measure)
    write_json(tmp_path / "study.json", {"runs": [name], "forecast": [], "trunks": {name: "t"}})
    write_tables(tmp_path)
    curves = pd.read_parquet(tmp_path / "curves.parquet")
    evaluations = curves.dropna(subset=["loss"])
    names = ["raw", "ema-640", "window-1280"]
    by_step = evaluations.groupby("step")["weights"].apply(list)
    assert by_step.to_dict() == {step: names for step in (19, 39, 59)}
    last = evaluations.loc[evaluations["step"] == 59, :].set_index("weights")
    assert pd.read_parquet(tmp_path / "results.parquet")["trunk"].tolist() == ["t"]
    losses = last["loss"].to_dict()
    table = pd.read_parquet(tmp_path / "results.parquet")
    assert losses["raw"] == result.loss == table["loss"].item()
    assert table["unique_tokens"].item() == table["tokens"].item() == 3_840
    schedules = pd.read_parquet(tmp_path / "schedules.parquet")
    assert schedules.equals(whole_curves(tmp_path).schedules) and len(schedules) == 60
    assert len(set(losses.values())) == 3 and np.isfinite(list(losses.values())).all()
    has_train_loss = last["train_loss"].notna().to_dict()
    assert has_train_loss == {"raw": True, "ema-640": False, "window-1280": False}


def test_whole_curves_are_the_losses_and_rates_of_every_step_from_step_0(
    tiny_run, tiny_measure, tmp_path
):
    name = run_id(tiny_run)
    result = train(tiny_run, out=tmp_path / "runs" / name, measure=tiny_measure)
    write_json(tmp_path / "study.json", {"runs": [name], "forecast": [], "trunks": {name: "t"}})
    losses, schedules = whole_curves(tmp_path)
    # 1,280 tokens are 20 steps: the third loss follows the update of step 59.
    assert losses["step"].tolist() == [19, 39, 59]
    assert losses["loss"].iloc[-1] == result.loss
    assert schedules["step"].tolist() == list(range(60))
    assert np.array_equal(schedules["learning_rate"], learning_rates(tiny_run))
    assert set(losses["curve"]) == set(schedules["curve"]) == {name}
