"""Learning-rate schedules: the rate of every step, in float64 on the host, an argument of the training step."""

import math
from collections.abc import Callable

import numpy as np
import optax

from scalejax.config import Run, Schedule

COOLDOWNS: dict[str, Callable[[np.ndarray], np.ndarray]] = {  # share of the cooldown done, 0..1 -> share of the peak
    "linear": lambda x: 1 - x,
    "1-sqrt": lambda x: 1 - np.sqrt(x),  # beats linear at every length tried: Hägele et al. 2024, section 4
}


def constant(*, warmup: int) -> Schedule:
    """Linear warm-up over `warmup` tokens, then the peak: the trunk that cooldowns branch off."""
    return Schedule(shape="constant", warmup=warmup)


def cosine(*, warmup: int, final: float = 0.0) -> Schedule:
    """Warm-up over `warmup` tokens, then half a cosine down to `final` x peak (Loshchilov & Hutter 2017; 0.1 is usual)."""
    return Schedule(shape="cosine", warmup=warmup, final=final)


def wsd(*, warmup: int, cooldown: float = 0.2, shape: str = "1-sqrt", final: float = 0.0) -> Schedule:
    """Warm-up, stable, cooldown: the last `cooldown` of the run's tokens fall to `final` x peak (Hägele et al. 2024)."""
    return Schedule(shape="wsd", warmup=warmup, cooldown=cooldown, cooldown_shape=shape, final=final)


def learning_rate(schedule: Schedule, *, peak: float, steps: int, batch_tokens: int) -> optax.Schedule:
    """The rate as a function of the step (0-based; a number or an array), in float64.

    With W = ceil(warmup / batch_tokens) steps of warm-up and S = round((1 - cooldown) x steps) the first step of the cooldown:

    - warm-up, i < W: peak (i + 1) / W, so that step W - 1 is the first at the peak;
    - constant: peak;
    - cosine, x = (i - W) / (steps - W): peak (final + (1 - final) (1 + cos(pi x)) / 2);
    - wsd, i >= S, x = (i - S) / (steps - S): peak (final + (1 - final) cooldown_shape(x)).

    x = 1 falls on the step after the last one, so no step of the run is spent at a rate of 0. Before S a wsd schedule does not
    depend on `steps`: runs of different lengths agree there to the last bit, and with `constant`.

    Raises ValueError when the cooldown would begin before warm-up ends.

    >>> rate = learning_rate(wsd(warmup=40, cooldown=0.5, shape="linear"), peak=1.0, steps=10, batch_tokens=10)
    >>> [round(float(rate(step)), 2) for step in range(10)]
    [0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 0.8, 0.6, 0.4, 0.2]
    """
    warm = math.ceil(schedule.warmup / batch_tokens)
    start = {"constant": steps, "cosine": warm, "wsd": cooldown_start(schedule, steps)}[schedule.shape]
    if start < warm:
        raise ValueError(
            f"Schedule.warmup of {schedule.warmup} tokens ({warm} steps) runs into the cooldown, which begins at step {start} "
            f"of {steps}: shorten the warm-up or the cooldown, or train for more tokens"
        )
    fall = (lambda x: (1 + np.cos(np.pi * x)) / 2) if schedule.shape == "cosine" else COOLDOWNS[schedule.cooldown_shape]

    def rate(step):
        step = np.asarray(step, np.float64)
        rising = np.minimum((step + 1) / max(warm, 1), 1.0)
        done = np.clip((step - start) / max(steps - start, 1), 0.0, 1.0)
        falling = np.where(step < start, 1.0, schedule.final + (1 - schedule.final) * fall(done))
        return peak * np.where(step < warm, rising, falling)

    return rate


def cooldown_start(schedule: Schedule, steps: int) -> int:
    """First step of the cooldown of a wsd schedule: round((1 - cooldown) x steps), halves up.

    Until there, exclusive, a run may share its trunk with others.
    """
    return math.floor((1 - schedule.cooldown) * steps + 0.5)


def learning_rates(run: Run) -> np.ndarray:
    """float32[steps]: the rate with which each step is trained. Raises ValueError as `learning_rate` does."""
    rate = learning_rate(run.schedule, peak=run.optimizer.learning_rate, steps=run.steps, batch_tokens=run.batch_tokens)
    return np.asarray(rate(np.arange(run.steps)), np.float32)
