"""The marks in the figures of a study (mirrors scalejax/report/figures.py)."""

import numpy as np
import pandas as pd
import pytest

from scalejax import laws
from scalejax.fitting.charts.chart import Band, Chart, Line, Points, size_colours
from scalejax.fitting.parametric.result import ParametricFit
from scalejax.laws.forms import Chinchilla
from scalejax.report import figures

LAW = {"A": 60.0, "B": 900.0, "E": 1.7, "alpha": 0.45, "beta": 0.5}


def exact_fit(params_column: str = "params_with_head") -> ParametricFit:
    """The fit of a table without noise, without bootstraps."""
    return ParametricFit(
        law=laws.chinchilla(),
        params=LAW,
        intervals={},
        objective=0.0,
        gradient_norm=0.0,
        starts_at_optimum=1.0,
        n_rows=6,
        verdict="ok",
        reasons=[],
        loss="huber:1e-3",
        columns={"params": params_column},
    )


def rows_on_the_law() -> pd.DataFrame:
    """Two sizes at three budgets, without noise."""
    rows = pd.DataFrame(
        [(size, tokens) for size in (2e4, 8e4) for tokens in (5e5, 1e6, 2e6)],
        columns=["params_with_head", "tokens"],
    )
    loss = Chinchilla(**LAW).loss(rows["params_with_head"].to_numpy(), rows["tokens"].to_numpy())
    runs = [f"run{i}" for i in range(6)]
    flops = 6 * rows["params_with_head"] * rows["tokens"]
    return rows.assign(
        run=runs, facts=runs, status="done", loss=np.asarray(loss, float), flops=flops
    )


def colours(rows: pd.DataFrame) -> dict[float, str]:
    return size_colours(rows["params_with_head"])


def lines(chart: Chart) -> list[Line]:
    return [mark for mark in chart.marks if isinstance(mark, Line)]


def points(chart: Chart) -> list[Points]:
    return [mark for mark in chart.marks if isinstance(mark, Points)]


def test_fitted_lines_pass_through_points_that_lie_on_the_law():
    rows = rows_on_the_law()
    (chart,) = figures.law_lines(exact_fit(), rows, rows.iloc[:0], colours(rows))
    assert len(lines(chart)) == len(points(chart)) == 2
    for line, marks in zip(lines(chart), points(chart), strict=True):
        interpolated = np.interp(np.log(marks.x), np.log(line.x), line.y)
        assert np.allclose(interpolated, marks.y, atol=2e-3)
    first, second = lines(chart)
    assert abs(first.y[0] - second.y[0]) > 0.1, "sizes share a line: this test could not fail"


@pytest.mark.parametrize(
    ("params_column", "is_exact"), [("params_with_head", True), ("params_non_embedding", False)]
)
def test_residuals_use_the_count_of_parameters_that_was_fitted(params_column, is_exact):
    rows = rows_on_the_law().assign(params_non_embedding=5e3)
    chart = figures.residuals(exact_fit(params_column), rows, rows.iloc[:0], colours(rows))
    largest = max(abs(marks.y).max() for marks in points(chart))
    assert largest < 1e-5 if is_exact else largest > 0.1


def test_a_fit_without_bootstraps_has_no_band():
    rows = rows_on_the_law()
    (chart,) = figures.law_lines(exact_fit(), rows, rows.iloc[:0], colours(rows))
    assert not [mark for mark in chart.marks if isinstance(mark, Band)]


def test_forecast_runs_look_different_from_fitted_ones():
    rows = rows_on_the_law()
    (chart,) = figures.law_lines(exact_fit(), rows.iloc[:3], rows.iloc[3:], colours(rows))
    assert [mark.label for mark in points(chart)] == ["20k params", "80k params, forecast"]
    assert [mark.symbol for mark in points(chart)] == ["circle", "diamond"]
    assert [line.dashed for line in lines(chart)] == [False, True]


def constant_curves(losses: dict[str, float]) -> pd.DataFrame:
    """1000 steps of constant training loss for each run."""
    tokens = np.arange(1, 1001) * 512.0
    parts = [
        pd.DataFrame({"run": run, "tokens": tokens, "train_loss": loss, "loss": np.nan})
        for run, loss in losses.items()
    ]
    return pd.concat(parts, ignore_index=True).assign(weights="raw")


def test_long_curves_are_averaged_without_moving_their_mean_or_ends():
    rows = rows_on_the_law().iloc[:1]
    curves = constant_curves({"run0": 3.0})
    curves["train_loss"] += 0.1 * (np.arange(len(curves)) % 2)
    (line,) = lines(figures.loss_curves(curves, rows, colours(rows)))
    assert 20 < len(line.x) <= figures.CURVE_POINTS
    assert np.allclose(line.y[-20:], 3.05, atol=0.01), "the alternation is not averaged out"
    assert line.x[0] == pytest.approx(512)
    half_a_window = 0.035
    assert 1 - line.x[-1] / 512_000 < half_a_window


def test_a_diverged_run_does_not_stretch_the_axis_of_the_others():
    rows = rows_on_the_law().iloc[:2].assign(status=["done", "diverged"])
    curves = constant_curves({"run0": 3.0, "run1": 1e6})
    chart = figures.loss_curves(curves, rows, colours(rows))
    assert chart.y_range is not None and chart.y_range[1] < 4
    assert {mark.label for mark in chart.marks} == {"20k params", "diverged"}
