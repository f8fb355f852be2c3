"""Laws, schedules and noisy loss curves that the tests of this folder share."""

import numpy as np

from scalejax.laws.curves.data import CurveData, curve_data
from scalejax.laws.curves.forms import (
    Annealing,
    AnnealingSize,
    CurveFormula,
    FittedCurves,
    MultiPower,
    predict_curve,
)

PEAK = 3e-4

# Laws whose curves the solver has to recover.
ANNEALING = Annealing(3.1, 0.5, 0.45, 0.9, 0.995)
MULTIPOWER = MultiPower(3.1, 0.5, 0.45, 500.0, 1.4, 0.5, 0.6)
SIZED = AnnealingSize(2.0, 0.5, 0.45, 300.0, 0.3, 0.9e-2, 0.995, 0.25)

STEPS, WARMUP = 3000, 200
_RISE = np.linspace(0, PEAK, WARMUP)
_X = np.linspace(0, 1, STEPS - WARMUP)

# A cosine, a constant rate, a step down, and a linear cooldown.
SCHEDULES = [
    np.r_[_RISE, PEAK * (0.55 + 0.45 * np.cos(np.pi * _X))],
    np.r_[_RISE, np.full(STEPS - WARMUP, PEAK)],
    np.r_[_RISE, np.where(_X < 0.5, PEAK, 0.3 * PEAK)],
    np.r_[_RISE, np.where(_X < 0.7, PEAK, PEAK * (1 - 3 * (_X - 0.7)))],
]


def cosine(steps: int = 400, warmup: int = 40, final: float = 0.1) -> np.ndarray:
    """A linear warm-up from 0, then a cosine to `final` x peak."""
    x = np.linspace(0, 1, steps - warmup)
    decay = final + (1 - final) * 0.5 * (1 + np.cos(np.pi * x))
    return PEAK * np.r_[np.linspace(0, 1, warmup), decay]


def noisy_curves(
    law: Annealing | MultiPower,
    schedules: list[np.ndarray],
    noise: float = 0.0,
    every: int = 50,
) -> CurveData:
    """Losses of a law on some schedules; `noise` is the std of their logarithm."""
    rng = np.random.default_rng(0)
    steps = np.arange(WARMUP, STEPS, every)
    loss = np.concatenate([predict_curve(law, rates)[steps] for rates in schedules])
    curve = np.repeat(np.arange(len(schedules)), len(steps))
    noisy = loss * np.exp(noise * rng.normal(size=loss.size))
    return curve_data(schedules, curve, np.tile(steps, len(schedules)), noisy)


def noisy_curves_of_sizes(sizes: tuple[float, ...], noise: float = 0.0) -> CurveData:
    """Losses of SIZED for every size on the first three schedules."""
    rng, steps = np.random.default_rng(0), np.arange(WARMUP, STEPS, 100)
    curves = [(N, rates) for N in sizes for rates in SCHEDULES[:3]]
    loss = np.concatenate([predict_curve(SIZED, rates, params=N)[steps] for N, rates in curves])
    curve = np.repeat(np.arange(len(curves)), len(steps))
    params = np.array([N for N, _ in curves])[curve]
    noisy = loss * np.exp(noise * rng.normal(size=loss.size))
    return curve_data(
        [rates for _, rates in curves], curve, np.tile(steps, len(curves)), noisy, params
    )


def uneven_curves() -> CurveData:
    """Noisy curves of which one has four times as many losses as the others."""
    data = noisy_curves(MULTIPOWER, SCHEDULES[:3], noise=3e-3, every=100)
    selected = (data.curve == 0) | (data.step % 400 == 0)
    return data._replace(
        curve=data.curve[selected],
        step=data.step[selected],
        loss=data.loss[selected],
        params=data.params[selected],
    )


def parameters(law: CurveFormula) -> np.ndarray:
    """The parameters of a law in the order of its fields."""
    return np.array([float(x) for x in law])


def predictions(fit: CurveFormula | FittedCurves, data: CurveData) -> np.ndarray:
    """The loss that a fit predicts for every row."""
    rows = zip(data.curve, data.step, strict=True)
    return np.array([predict_curve(fit, data.rates[c])[s] for c, s in rows])
