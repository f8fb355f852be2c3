"""The figures of a study: which marks stand in which chart, from its tables, fits and forecasts."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from scalejax.fitting.tables import PARAMS_COLUMN as SIZE
from scalejax.report.charts import ALARM, QUIET, Chart, Series, compact

if TYPE_CHECKING:
    import pandas as pd

    from scalejax.fitting.result import Fit

GRID_POINTS = 32
"""Points along a fitted line."""
SIDE_BY_SIDE = 1.012
"""Factor in tokens between neighbouring sizes of one budget, so that their error bars do not hide each other."""
CURVE_POINTS = 100
"""Windows, even in the logarithm of tokens, over which a training loss is averaged for drawing."""


def loss_curves(curves: "pd.DataFrame", results: "pd.DataFrame", sizes: dict[float, str]) -> Chart:
    """Training loss of every run against tokens (averaged in log-even windows), and each held-out loss of the raw weights."""
    series = []
    curves = curves.loc[curves["weights"] == "raw", :]
    ordered = results.assign(diverged=results["status"] == "diverged").sort_values(
        ["diverged", SIZE, "tokens"]
    )
    for row in ordered.to_dict("records"):
        rows, diverged = curves.loc[curves["run"] == row["run"], :], row["diverged"]
        label = "diverged" if diverged else f"{compact(row[SIZE])} params"
        look: dict[str, Any] = {"label": label, "colour": ALARM if diverged else sizes[row[SIZE]]}
        tokens, loss = _windows(rows.dropna(subset=["train_loss"]), "train_loss")
        words = about(row) + "<br>training loss %{y:.4f} at %{x:.4s} tokens"
        series.append(
            Series(x=tokens, y=loss, kind="line", hover=[words], width=1.1, dash=diverged, **look)
        )
        held_out = rows.dropna(subset=["loss"])
        held_out = held_out[np.isfinite(held_out["loss"])]
        words = [
            f"{about(row)}<br>held-out loss {loss:.4f} at {compact(at)} tokens"
            for at, loss in zip(held_out["tokens"], held_out["loss"], strict=True)
        ]
        series.append(
            Series(x=_array(held_out["tokens"]), y=_array(held_out["loss"]), hover=words, **look)
        )
    return Chart(
        name="loss_curves",
        title="Loss curves",
        caption="Lines: training loss, averaged in windows even in log tokens. Points: held-out loss. Colour: model size.",
        x_label="training tokens",
        y_label="loss, nats per token",
        series=_drawable(series),
        log_x=True,
        y_range=_of_finished(curves, results),
    )


def _of_finished(curves: "pd.DataFrame", results: "pd.DataFrame") -> tuple[float, float] | None:
    """The range of losses without the diverged runs, which may lie anywhere; None when no run or every run diverged."""
    diverged = np.asarray(curves["run"].isin(results.loc[results["status"] == "diverged", "run"]))
    losses = curves[["train_loss", "loss"]].to_numpy(float)[~diverged]
    losses = losses[np.isfinite(losses)]
    if not diverged.any() or not len(losses):
        return None
    room = 0.05 * np.ptp(losses) or 0.1
    return float(losses.min() - room), float(losses.max() + room)


def law_lines(
    fit: "Fit", rows: "pd.DataFrame", held_out: "pd.DataFrame", sizes: dict[float, str]
) -> Chart:
    """Loss against tokens for every size: measured points, fitted lines, 95% bands; `held_out` (never fitted) dashed."""
    every = np.concatenate([_array(rows["tokens"]), _array(held_out["tokens"])])
    tokens = np.geomspace(every.min() / 1.08, every.max() * 1.08, GRID_POINTS)
    series = []
    for look, points, is_forecast in _by_size(rows, held_out, sizes):
        params = float(points[fit.columns.get("params", SIZE)].iloc[0])
        value, low, high = predicted(fit, [{"params": params, "tokens": at} for at in tokens])
        series.append(Series(x=tokens, y=low, high=high, kind="band", in_legend=False, **look))
        series.append(
            Series(x=tokens, y=value, kind="line", dash=is_forecast, in_legend=False, **look)
        )
        symbol = "diamond" if is_forecast else "circle"
        series.append(Series(symbol=symbol, **look, **_points(points, "tokens", "loss")))
    return Chart(
        name=f"law_{fit.law.name}",
        title=f"Loss against tokens, by size, with the {fit.law.name} law",
        caption="Points: measured losses. Lines: the fitted law. Bands: where 95% of runs should fall if the law holds."
        + " Dashed lines and diamonds: runs that the fit never saw." * bool(len(held_out)),
        x_label="training tokens",
        y_label="held-out loss, nats per token",
        series=_drawable(series),
        log_x=True,
        height=480,
    )


def residuals(
    fit: "Fit", rows: "pd.DataFrame", held_out: "pd.DataFrame", sizes: dict[float, str]
) -> Chart:
    """Measured minus fitted loss against tokens, by size; zero is a perfect law."""
    series = []
    for place, (look, points, is_forecast) in enumerate(
        groups := list(_by_size(rows, held_out, sizes))
    ):
        params = points[fit.columns.get("params", SIZE)]
        value, _, _ = predicted(
            fit, [{"params": n, "tokens": d} for n, d in zip(params, points["tokens"], strict=True)]
        )
        rest = points.assign(
            residual=points["loss"] - value, residual_se=points.get("loss_se", np.nan)
        )
        symbol = "diamond" if is_forecast else "circle"
        marks = _points(rest, "tokens", "residual")
        marks["x"] = marks["x"] * SIDE_BY_SIDE ** (place - (len(groups) - 1) / 2)
        series.append(Series(symbol=symbol, **look, **marks))
    return Chart(
        name=f"residuals_{fit.law.name}",
        title=f"Residuals of the {fit.law.name} law",
        caption="Measured minus fitted loss; bars are the standard error of the measurement, which runs on the same held-out "
        "text share. Sizes stand side by side. A trend along tokens or size is a misfit of the law, not noise.",
        x_label="training tokens",
        y_label="measured − fitted, nats per token",
        series=_drawable(series),
        log_x=True,
        level=(0.0, ""),
        height=360,
    )


def forecast_bars(pairs: list[dict[str, Any]], metric: str) -> Chart:
    """Each registered forecast with its interval beside what was measured later.

    `pairs` are forecast lines with the score's fields added, and `label`, `measured_se`.
    """
    series, ticks = [], {}
    for position, pair in enumerate(reversed(pairs)):
        y = np.array([float(position)])
        ticks[float(position)] = pair["label"]
        level = f"{pair['level']:.0%} interval"
        if pair["low"] is not None and pair["high"] is not None:
            ends = np.array([pair["low"], pair["high"]], float)
            words = [f"{pair['run']}<br>{level} {pair['low']:.4g} to {pair['high']:.4g}"]
            series.append(
                Series(
                    label=level,
                    colour="#b8c4d6",
                    x=ends,
                    y=np.repeat(y, 2),
                    kind="line",
                    width=9,
                    hover=words,
                )
            )
        words = [f"{pair['run']}<br>forecast {pair['value']:.4g}"]
        series.append(
            Series(
                label="forecast",
                colour="#31508a",
                x=np.array([pair["value"]], float),
                y=y,
                hover=words,
            )
        )
        if pair.get("measured") is not None:
            error = np.array([pair["measured_se"]]) if np.isfinite(pair["measured_se"]) else None
            at, words = (
                np.array([pair["measured"]], float),
                [f"{pair['run']}<br>measured {pair['measured']:.4g}"],
            )
            look: dict[str, Any] = {"symbol": "diamond", "x_error": error, "hover": words}
            series.append(Series(label="measured", colour="#c2571a", x=at, y=y, **look))
    return Chart(
        name=f"forecast_{metric}",
        title="Forecast against truth" + f": {metric}" * (metric != "loss"),
        caption="Bars: the interval registered before the run started. Circles: the forecast. Diamonds: what was measured then.",
        x_label="held-out loss, nats per token" if metric == "loss" else metric.replace("_", " "),
        y_label="",
        series=series,
        y_ticks=ticks,
        y_range=(-0.7, len(pairs) - 0.3),
        height=170 + 56 * len(pairs),
    )


def error_curve(
    fit: "Fit | None",
    rows: "pd.DataFrame",
    forecast: list[str],
    chance: float | None,
    sizes: dict[float, str],
) -> Chart:
    """Top-1 error against loss, the fitted curve where there is one, and the error of guessing.

    `forecast` names the runs that no law was fitted to.
    """
    ahead = rows["run"].isin(forecast)
    fitted, held_out = rows.loc[~ahead, :], rows.loc[ahead, :]
    series = []
    if fit is not None:
        room = 0.1 * (np.ptp(rows["loss"]) or 1.0)
        grid = np.linspace(rows["loss"].min() - room, rows["loss"].max() + room, GRID_POINTS)
        value, low, high = (
            np.clip(edge, 0, 1) for edge in predicted(fit, [{"loss": at} for at in grid])
        )  # a fraction
        look: dict[str, Any] = {"label": "fitted law", "colour": QUIET}
        series.append(Series(x=grid, y=low, high=high, kind="band", in_legend=False, **look))
        series.append(Series(x=grid, y=value, kind="line", **look))
    for look, points, is_forecast in _by_size(fitted, held_out, sizes):
        symbol = "diamond" if is_forecast else "circle"
        series.append(Series(symbol=symbol, **look, **_points(points, "loss", "top1_error")))
    return Chart(
        name="error_against_loss",
        title="Top-1 error against loss",
        caption="Points: one run each, with standard errors; diamonds: forecast runs."
        + " The dashed line is the error of guessing." * (chance is not None)
        + " Curve and band: the fitted law, and where 95% of runs should fall if it holds."
        * (fit is not None),
        x_label="held-out loss, nats per token",
        y_label="top-1 error",
        series=_drawable(series),
        level=None if chance is None else (chance, f"chance {chance:.2f}"),
    )


def predicted(
    fit: "Fit", points: list[dict[str, float]]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(value, low, high) of the fit at each point, of which it takes the inputs it knows; NaN for an edge it has not."""
    estimates = [
        fit.predict(**{name: float(point[name]) for name in fit.law.inputs}) for point in points
    ]
    value, low, high = (
        _array([getattr(one, name) for one in estimates]) for name in ("value", "low", "high")
    )
    return value, low, high


def colours(params: Iterable[float]) -> dict[float, str]:
    """Viridis by the rank of the size, short of its yellow end, which white paper swallows."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    ordered = sorted(set(params))
    return {
        size: to_hex(colormaps["viridis"](0.85 * i / max(1, len(ordered) - 1)))
        for i, size in enumerate(ordered)
    }


def _by_size(
    rows: "pd.DataFrame", held_out: "pd.DataFrame", sizes: dict[float, str]
) -> Iterator[tuple[dict[str, Any], "pd.DataFrame", bool]]:
    """(label and colour, rows of one size, whether they were forecast): the fitted sizes, then the forecast ones."""
    for group, is_forecast in ((rows, False), (held_out, True)):
        for params in sorted(set(group[SIZE])):
            words = f"{compact(params)} params" + (", forecast" if is_forecast else "")
            yield (
                {"label": words, "colour": sizes[params]},
                group.loc[group[SIZE] == params, :],
                is_forecast,
            )


def _points(rows: "pd.DataFrame", x: str, y: str) -> dict[str, Any]:
    """Marks with standard errors where the table has them, and the run's facts under the pointer."""
    bars = {
        axis: _array(rows[f"{name}_se"]) if f"{name}_se" in rows else None
        for axis, name in (("x", x), ("y", y))
    }
    words = [f"{about(row)}<br>{y.replace('_', ' ')} {row[y]:.4f}" for _, row in rows.iterrows()]
    return {
        "x": _array(rows[x]),
        "y": _array(rows[y]),
        "x_error": bars["x"],
        "y_error": bars["y"],
        "hover": words,
    }


def about(row: Any) -> str:
    """Run id, size and budget of a row of the results table."""
    return f"{row['run']}<br>{compact(row[SIZE])} params, {compact(row['tokens'])} tokens"


def _windows(rows: "pd.DataFrame", column: str) -> tuple[np.ndarray, np.ndarray]:
    """(tokens, mean) of a column in windows even in log tokens, so that a curve of thousands of steps stays light."""
    tokens, values = _array(rows["tokens"]), _array(rows[column])
    finite = np.isfinite(values) & (tokens > 0)
    tokens, values = tokens[finite], values[finite]
    if len(tokens) <= CURVE_POINTS:
        return tokens, values
    edges = np.geomspace(tokens.min(), tokens.max(), CURVE_POINTS + 1)
    window = np.clip(np.searchsorted(edges, tokens, side="right"), 1, CURVE_POINTS)
    count = np.bincount(window)
    mean = [np.bincount(window, x)[count > 0] / count[count > 0] for x in (np.log(tokens), values)]
    return np.exp(mean[0]), mean[1]


def _drawable(series: list[Series]) -> list[Series]:
    """Series without the empty ones, and without bands that are open on a side."""

    def is_open(one: Series) -> bool:
        return one.high is not None and not (
            np.isfinite(one.y).all() and np.isfinite(one.high).all()
        )

    return [one for one in series if len(one.x) and not is_open(one)]


def _array(values: Any) -> np.ndarray:
    return np.asarray(values, float)
