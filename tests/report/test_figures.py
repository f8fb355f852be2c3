"""The figures of a study: what stands in them (mirrors scalejax/study/figures.py and charts.py)."""

import numpy as np
import pandas as pd
import pytest

from scalejax import laws
from scalejax.fitting.result import Fit
from scalejax.laws.forms import Chinchilla
from scalejax.report import figures
from scalejax.report.charts import Chart, Series, compact, log_ticks, plotly_div, png, x_span

LAW = {"A": 60.0, "B": 900.0, "E": 1.7, "alpha": 0.45, "beta": 0.5}


def known_fit(columns=None) -> Fit:
    """The fit that a solver would give on a table without noise, without bootstraps."""
    found = {
        "params": LAW,
        "intervals": {},
        "objective": 0.0,
        "gradient_norm": 0.0,
        "starts_at_optimum": 1.0,
        "n_rows": 6,
    }
    return Fit(
        law=laws.chinchilla(),
        **found,
        verdict="ok",
        reasons=[],
        loss="huber:1e-3",
        columns=columns or {"params": figures.SIZE},
    )


def on_the_law() -> pd.DataFrame:
    rows = pd.DataFrame(
        [(size, tokens) for size in (2e4, 8e4) for tokens in (5e5, 1e6, 2e6)],
        columns=["params_with_head", "tokens"],
    )
    loss = Chinchilla(**LAW).loss(rows["params_with_head"].to_numpy(), rows["tokens"].to_numpy())
    return rows.assign(
        run=[f"run{i}" for i in range(6)], status="done", loss=np.asarray(loss, float)
    )


def of_kind(chart: Chart, kind: str) -> list[Series]:
    return [one for one in chart.series if one.kind == kind]


def test_fitted_lines_pass_through_points_that_lie_on_the_law():
    rows = on_the_law()
    chart = figures.law_lines(
        known_fit(), rows, rows.iloc[:0], figures.colours(rows["params_with_head"])
    )
    lines, points = of_kind(chart, "line"), of_kind(chart, "points")
    assert len(lines) == len(points) == 2
    for line, marks in zip(lines, points, strict=True):
        assert np.allclose(np.interp(np.log(marks.x), np.log(line.x), line.y), marks.y, atol=2e-3)
    assert abs(lines[0].y[0] - lines[1].y[0]) > 0.1, (
        "sizes lie on one line: this test could not fail"
    )


def test_a_law_of_another_count_of_parameters_reads_that_count():
    rows = on_the_law().assign(params_non_embedding=5e3)
    sizes = figures.colours(rows["params_with_head"])
    chart = figures.residuals(
        known_fit({"params": "params_non_embedding"}), rows, rows.iloc[:0], sizes
    )
    assert max(abs(one.y).max() for one in of_kind(chart, "points")) > 0.1
    chart = figures.residuals(known_fit(), rows, rows.iloc[:0], sizes)
    assert max(abs(one.y).max() for one in of_kind(chart, "points")) < 1e-5


def test_a_fit_without_draws_has_no_band():
    rows = on_the_law()
    assert not of_kind(
        figures.law_lines(
            known_fit(), rows, rows.iloc[:0], figures.colours(rows["params_with_head"])
        ),
        "band",
    )


def test_forecast_runs_stand_apart_from_fitted_ones():
    rows = on_the_law()
    chart = figures.law_lines(
        known_fit(), rows.iloc[:3], rows.iloc[3:], figures.colours(rows["params_with_head"])
    )
    assert [one.label for one in of_kind(chart, "points")] == ["20k params", "80k params, forecast"]
    assert [one.symbol for one in of_kind(chart, "points")] == ["circle", "diamond"]
    assert [one.dash for one in of_kind(chart, "line")] == [False, True]


def curves_of(runs: dict[str, float]) -> pd.DataFrame:
    """1000 steps of training loss at a constant level for each run."""
    steps = np.arange(1, 1001)
    parts = [
        pd.DataFrame({"run": run, "tokens": steps * 512.0, "train_loss": level, "loss": np.nan})
        for run, level in runs.items()
    ]
    return pd.concat(parts, ignore_index=True).assign(weights="raw")


def test_long_curves_are_thinned_without_moving_their_mean_or_ends():
    rows = on_the_law().iloc[:1]
    curves = curves_of({"run0": 3.0}).assign(
        train_loss=lambda c: 3.0 + 0.1 * (np.arange(len(c)) % 2)
    )
    line = of_kind(
        figures.loss_curves(curves, rows, figures.colours(rows["params_with_head"])), "line"
    )[0]
    assert 20 < len(line.x) <= figures.CURVE_POINTS
    assert np.allclose(line.y[-20:], 3.05, atol=0.01), "the alternation does not average out"
    assert line.x[0] == pytest.approx(512) and 1 - line.x[-1] / 512_000 < 0.035  # half a window


def test_a_diverged_run_does_not_stretch_the_axis_of_the_others():
    rows = on_the_law().iloc[:2].assign(status=["done", "diverged"])
    chart = figures.loss_curves(
        curves_of({"run0": 3.0, "run1": 1e6}), rows, figures.colours(rows["params_with_head"])
    )
    assert chart.y_range is not None and chart.y_range[1] < 4
    assert {one.label for one in chart.series} == {"20k params", "diverged"}


def test_both_drawings_carry_the_chart():
    mark = {
        "label": "a <b>",
        "colour": "#112233",
        "x": np.array([1e5, 1e6]),
        "y": np.array([3.0, 2.5]),
    }
    bars = {"x_error": np.array([1.0, 1.0]), "y_error": np.array([0.1, 0.1])}
    series = [
        Series(kind="band", high=np.array([3.2, 2.7]), in_legend=False, **mark),
        Series(kind="line", hover=["all of it"], **mark),
        Series(hover=["one", "two"], **bars, **mark),
    ]
    chart = Chart(
        name="c",
        title="",
        caption="",
        x_label="tokens",
        y_label="loss",
        series=series,
        log_x=True,
        level=(2.8, "floor"),
    )
    div = plotly_div(chart)
    assert '"two"' in div and "all of it" in div and "floor" in div and "a <b>" not in div
    assert png(chart).startswith(b"\x89PNG")


@pytest.mark.parametrize(("low", "high"), [(5e5, 2.5e6), (1e3, 9e5), (1e3, 1e9), (7e5, 7.1e5)])
def test_log_ticks_lie_within_the_axis_and_are_few(low, high):
    ticks = log_ticks(low, high)
    assert 2 <= len(ticks) <= 10 and ticks == sorted(ticks)
    assert low <= ticks[0] and ticks[-1] <= high
    assert len({compact(tick) for tick in ticks}) == len(ticks)


def test_the_axis_of_one_point_has_a_width():
    one = [Series(label="", colour="#000000", x=np.array([2.0]), y=np.array([1.0]))]
    for log_x in (False, True):
        low, high = x_span(
            Chart(name="", title="", caption="", x_label="", y_label="", series=one, log_x=log_x)
        )
        assert low < 2 < high
