"""Learning-rate schedules: the rate of every step, in float64 on the host, an argument of the training step."""

from collections.abc import Callable, Sequence

import numpy as np
import optax

from scalejax.batching import BatchSchedule
from scalejax.config import Run, Schedule

Fall = Callable[[np.ndarray], np.ndarray]
"""Share of the fall done, 0..1 -> share of the way from the end to the peak, 1..0."""


def _cosine(x: np.ndarray) -> np.ndarray:
    return (1 + np.cos(np.pi * x)) / 2


COOLDOWNS: dict[
    str, Fall
] = {  # Hägele et al. 2024 and its code; `exponential` is final^x, see `learning_rate`
    "linear": lambda x: 1 - x,
    "1-sqrt": lambda x: 1 - np.sqrt(x),  # beats linear at every length tried: section 4
    "cosine": _cosine,
    "mirror-cosine": lambda x: 2 * (1 - x) - _cosine(x),
    "square": lambda x: 1 - x**2,
}


def constant(*, warmup: int, warmup_shape: str = "linear") -> Schedule:
    """Warm-up over `warmup` tokens, then the peak: the trunk that cooldowns branch off."""
    return Schedule(shape="constant", warmup=warmup, warmup_shape=warmup_shape)


def linear(*, warmup: int, final: float = 0.0, warmup_shape: str = "linear") -> Schedule:
    """Warm-up, then a straight fall to `final` x peak."""
    return Schedule(shape="linear", warmup=warmup, final=final, warmup_shape=warmup_shape)


def cosine(*, warmup: int, final: float = 0.0, warmup_shape: str = "linear") -> Schedule:
    """Warm-up over `warmup` tokens, then half a cosine down to `final` x peak (Loshchilov & Hutter 2017; 0.1 is usual)."""
    return Schedule(shape="cosine", warmup=warmup, final=final, warmup_shape=warmup_shape)


def inverse_sqrt(*, warmup: int, warmup_shape: str = "linear") -> Schedule:
    """Warm-up over `warmup` tokens, then a fall as one over the root of the tokens (Vaswani et al. 2017)."""
    return Schedule(shape="inverse_sqrt", warmup=warmup, warmup_shape=warmup_shape)


def multistep(
    *,
    warmup: int,
    milestones: tuple[float, ...] = (0.8, 0.9),
    factor: float = 10**-0.5,
    warmup_shape: str = "linear",
) -> Schedule:
    """Warm-up, the peak, and a fall by `factor` at each of `milestones`, fractions of the run (defaults: DeepSeek LLM 2024)."""
    return Schedule(
        shape="multistep",
        warmup=warmup,
        milestones=milestones,
        factor=factor,
        warmup_shape=warmup_shape,
    )


def cyclic(
    *, warmup: int, period: int, final: float = 0.0, warmup_shape: str = "linear"
) -> Schedule:
    """Warm-up, then triangles between the peak and `final` x peak, `period` tokens from peak to peak (Smith 2017)."""
    return Schedule(
        shape="cyclic", warmup=warmup, period=period, final=final, warmup_shape=warmup_shape
    )


def wsd(
    *,
    warmup: int,
    cooldown: float = 0.2,
    shape: str = "1-sqrt",
    final: float = 0.0,
    warmup_shape: str = "linear",
) -> Schedule:
    """Warm-up, stable, cooldown: the last `cooldown` of the run's tokens fall to `final` x peak (Hägele et al. 2024)."""
    return Schedule(
        shape="wsd",
        warmup=warmup,
        cooldown=cooldown,
        cooldown_shape=shape,
        final=final,
        warmup_shape=warmup_shape,
    )


def learning_rate(
    schedule: Schedule,
    *,
    peak: float,
    steps: int,
    batch_tokens: int,
    batch_doublings: Sequence[int] = (),
) -> optax.Schedule:
    """The rate as a function of the step (0-based; a number or an array), in float64.

    Let u be the tokens read before step i, in batches of `batch_tokens`; u = i unless the batch doubles on the way. With
    u' that of the step after, W that after the warm-up (its tokens in whole steps), T that after the last step:

    - warm-up, u < W: peak u' / W, or peak (1 - cos(pi u' / W)) / 2; its last step is the first at the peak;
    - constant: peak;
    - linear, x = (u - W) / (T - W): peak (final + (1 - final) (1 - x));
    - cosine: the same with (1 + cos(pi x)) / 2 for 1 - x;
    - inverse_sqrt: peak sqrt(W / u');
    - multistep: peak factor^k from the k-th milestone M on, which is the step nearest to u = M T;
    - cyclic, p the period: peak (final + (1 - final) |1 - 2 ((u - W) / p mod 1)|);
    - wsd from the step nearest to S = (1 - cooldown) T on, x = (u - S) / (T - S): peak (final + (1 - final) cooldown_shape(x)),
      `exponential`: peak final^x.

    x = 1 falls on the step after the last one, so no step of the run is spent at a rate of 0. Before S a wsd schedule does not
    depend on `steps`: runs of different lengths agree there to the last bit, and with `constant`.

    Raises ValueError when the cooldown or a milestone would come before warm-up ends.

    >>> rate = learning_rate(wsd(warmup=40, cooldown=0.5, shape="linear"), peak=1.0, steps=10, batch_tokens=10)
    >>> [round(float(rate(step)), 2) for step in range(10)]
    [0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 0.8, 0.6, 0.4, 0.2]
    """
    batches = BatchSchedule(batch_tokens=batch_tokens, doublings=batch_doublings)
    warm = float(batches.batches_after(np.asarray(batches.steps_for(schedule.warmup))))
    end = float(batches.batches_after(np.asarray(steps)))
    share = _after_warmup(schedule, batches, warm, end)

    def rate(step):
        step = np.asarray(step, np.float64)
        before, after = batches.batches_after(step), batches.batches_after(step + 1)
        rising = np.minimum(after / (warm or 1.0), 1.0)
        if schedule.warmup_shape == "cosine":
            rising = (1 - np.cos(np.pi * rising)) / 2
        return peak * np.where(before < warm, rising, share(before, after))

    return rate


def _after_warmup(
    schedule: Schedule, batches: BatchSchedule, warm: float, end: float
) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Share of the peak from (batches before the step, batches after it)."""
    final = schedule.final

    def falling(fall: Fall, start: float) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
        def share(before, after):
            done = np.clip((before - start) / ((end - start) or 1.0), 0.0, 1.0)
            return np.where(before < start, 1.0, final + (1 - final) * fall(done))

        return share

    match schedule.shape:
        case "constant":
            return lambda before, after: np.ones_like(before)
        case "linear":
            return falling(COOLDOWNS["linear"], warm)
        case "cosine":
            return falling(_cosine, warm)
        case "inverse_sqrt":
            return lambda before, after: np.sqrt(warm / np.maximum(after, warm))
        case "multistep":
            falls = [_nearest_step(batches, milestone * end) for milestone in schedule.milestones]
            _check_after_warmup(schedule, batches, "first milestone", min([*falls, end]), warm)
            return lambda before, after: (
                schedule.factor ** np.searchsorted(falls, before, side="right")
            )
        case "cyclic":
            period = schedule.period / batches.batch_tokens
            return lambda before, after: (
                final + (1 - final) * np.abs(1 - 2 * (np.maximum(before - warm, 0.0) / period % 1))
            )
        case _:
            start = _nearest_step(batches, (1 - schedule.cooldown) * end)
            _check_after_warmup(schedule, batches, "cooldown", start, warm)
            if schedule.cooldown_shape == "exponential":  # falls from 1 to `final` by itself
                return falling(lambda x: (final**x - final) / ((1 - final) or 1.0), start)
            return falling(COOLDOWNS[schedule.cooldown_shape], start)


def _nearest_step(batches: BatchSchedule, target: float) -> float:
    """The beginning of the step nearest to `target`, halves up. Both are in batches."""
    step = batches.steps_for(target * batches.batch_tokens)
    below = float(batches.batches_after(np.asarray(max(0, step - 1))))
    above = float(batches.batches_after(np.asarray(max(0, step))))
    return above if target >= (below + above) / 2 else below


def _check_after_warmup(
    schedule: Schedule, batches: BatchSchedule, what: str, start: float, warm: float
) -> None:
    if start < warm:
        begin = start * batches.batch_tokens
        raise ValueError(
            f"Schedule.warmup of {schedule.warmup} tokens runs into the {what}, which begins after {begin:.0f} tokens: shorten "
            "the warm-up or what follows it, or train for more tokens"
        )


def learning_rates(run: Run) -> np.ndarray:
    """float32[steps]: the rate with which each step is trained. Raises ValueError as `learning_rate` does."""
    rate = learning_rate(
        run.schedule,
        peak=run.optimizer.learning_rate,
        steps=run.steps,
        batch_tokens=run.batch_tokens,
        batch_doublings=run.batch_doublings,
    )
    return np.asarray(rate(np.arange(run.steps)), np.float32)
