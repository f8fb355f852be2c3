"""Do narrow models, trained with hyperparameters of the narrowest, forecast a wide one?

Yao et al. 2023 (arXiv 2304.06875) fitted L = a N^b + c to models of one depth and one
budget under muP, and found that narrow models predict the loss of wide ones.

Scientific: width.
Nuisance: seed.
Fixed: depth, data, tokenizer, tokens, batch size, and the hyperparameters of the
smallest width, which muP transfers to the others.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from configs import data, hardware, models, recipes
from scalejax import (
    Analysis,
    Conclusion,
    Measure,
    Model,
    Placement,
    Run,
    Study,
    fit,
    grid,
    laws,
    mup,
    results,
)
from scalejax.fitting.charts.chart import INK, Band, Chart, Line, Points
from scalejax.fitting.tables import PARAMS_COLUMN
from scalejax.optim.schedules import linear

# A forecast counts as good when it misses by less than this, in percent.
GOOD = 1.0

base = Run(
    model=models.NARROW[0],
    data=data.ENGLISH,
    parametrization=mup(base_width=32),
    optimizer=recipes.TINY_ADAMW,
    schedule=linear(warmup=20_480, final=0.1),
    tokens=0.5e6,
    batch_tokens=512,
)


def design(
    name: str,
    base: Run,
    *,
    sizes: Sequence[Model],
    wide: Model,
    seeds: Sequence[int],
    measure: Measure,
    placement: Placement = hardware.ONE,
) -> Study:
    """Every size with every seed, and forecasts of the wide model with two seeds."""
    return Study(
        name,
        grid(base, model=sizes, seed=seeds),
        forecast=grid(base, model=wide, seed=seeds[:2]),
        laws=[laws.power("params")],
        measure=measure,
        placement=placement,
        analysis=analysis,
    )


def analysis(folder: Path) -> Analysis:
    """Compare the forecast of the wide model with the mean of its seeds."""
    return conclude(results(folder))


def conclude(table: pd.DataFrame) -> Analysis:
    """The analysis of the results of all runs; the widest is the one to forecast."""
    is_wide = table["width"] == table["width"].max()
    narrow, wide = table.loc[~is_wide, :], table.loc[is_wide, :]
    law = fit(narrow, laws.power("params"))
    params = float(wide[PARAMS_COLUMN].iloc[0])
    forecast, measured = law.predict(params=params), float(wide["loss"].mean())
    low, high = forecast.low, forecast.high
    error = Conclusion(
        claim=f"The wide model's loss is forecast within {GOOD:.0f}%",
        estimate=100 * (measured / forecast.value - 1),
        low=None if high is None else 100 * (measured / high - 1),
        high=None if low is None else 100 * (measured / low - 1),
        above=-GOOD,
        below=GOOD,
        unit="% (measured against forecast)",
        note=f"{len(narrow)} narrow runs; the interval is that of the forecast",
    )
    inside = Conclusion(
        claim="The wide model's mean loss lies inside the forecast's interval",
        estimate=measured,
        low=measured,
        high=measured,
        above=low,
        below=high,
        unit="nats per token",
        note=f"forecast {forecast.value:.4f}; {forecast.method}",
    )
    sizes = np.geomspace(narrow[PARAMS_COLUMN].min(), params, 60)
    along = np.array([law.predict(params=float(size))[:3] for size in sizes], float)
    chart = Chart(
        name="loss-by-width",
        title="Loss against size, and the forecast of the widest",
        caption="The law is fitted to the narrow models; the band is its 95% interval.",
        x_label="parameters, with the head and without embeddings",
        y_label="loss, nats per token",
        log_x=True,
        marks=[
            *_band(sizes, along),
            Line(label="law", colour=INK, x=sizes, y=along[:, 0]),
            _points("narrow", "#31688e", narrow),
            _points("wide, forecast before it was trained", "#b3261e", wide),
        ],
    )
    return Analysis(conclusions=[error, inside], charts=[chart])


def _band(sizes: np.ndarray, along: np.ndarray) -> list[Band]:
    """The interval of the law where it has two ends; along: value, low and high."""
    bounded = np.isfinite(along).all(axis=1)
    if not bounded.any():
        return []
    low, high = along[bounded, 1], along[bounded, 2]
    return [Band(label="law", colour=INK, x=sizes[bounded], low=low, high=high)]


def _points(label: str, colour: str, rows: pd.DataFrame) -> Points:
    x, y = rows[PARAMS_COLUMN].to_numpy(float), rows["loss"].to_numpy(float)
    return Points(label=label, colour=colour, x=x, y=y, hover=list(rows["run"]))


# Under 90 seconds on two CPU cores.
smoke = design(
    "mup-loss-prediction-smoke@1",
    base.replace(tokens=65_536),
    sizes=models.NARROW[:4],
    wide=models.NARROW[4],
    seeds=[0],
    measure=Measure(tokens=16_384, items=0),
)

# Minutes on two CPU cores.
mini = design(
    "mup-loss-prediction@1",
    base,
    sizes=models.NARROW,
    wide=models.NARROW_NEXT,
    seeds=[0, 1, 2],
    measure=Measure(tokens=65_536, items=0),
)

# Eight of the ten widths of Yao et al., their depth and 20,000 steps, on a corpus of
# your own. The batch size is ours.
paper = design(
    "mup-loss-prediction-paper@1",
    base.replace(
        model=models.YAO[0],
        data=data.PREPARED,
        parametrization=mup(base_width=256),
        optimizer=recipes.YAO_ADAM,
        schedule=linear(warmup=200 * 262_144),
        tokens=20_000 * 262_144,
        batch_tokens=262_144,
        compute_dtype="bfloat16",
    ),
    sizes=models.YAO[:-1],
    wide=models.YAO[-1],
    seeds=[0],
    measure=Measure(tokens=2**22, items=0),
    placement=hardware.DEEP,
)

study = mini
