"""Learning-rate schedules.

A schedule gives the learning rate of every step. It is evaluated in float64 on the
host, and the training step takes the rate as an argument. One compiled step therefore
serves every schedule, and laws of whole loss curves read exactly the rates that were
trained with.
"""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from scalejax.batching import BatchSchedule
from scalejax.config import Run, Schedule

# Maps the completed fraction of a decay, 0 to 1, to the remaining fraction of the way
# from the final rate to the peak, 1 to 0.
Decay = Callable[[np.ndarray], np.ndarray]

# Maps the tokens read before and after a step, in batches, to a fraction of the peak.
FractionOfPeak = Callable[[np.ndarray, np.ndarray], np.ndarray]


def constant(*, warmup: int, warmup_shape: str = "linear") -> Schedule:
    """Warmup over `warmup` tokens, then the peak. Cooldowns branch off such a run."""
    return Schedule(shape="constant", warmup=warmup, warmup_shape=warmup_shape)


def linear(*, warmup: int, final: float = 0.0, warmup_shape: str = "linear") -> Schedule:
    """Warmup over `warmup` tokens, then linear decay to `final` x peak."""
    return Schedule(shape="linear", warmup=warmup, final=final, warmup_shape=warmup_shape)


def cosine(*, warmup: int, final: float = 0.0, warmup_shape: str = "linear") -> Schedule:
    """Warmup over `warmup` tokens, then half a cosine down to `final` x peak.

    0.1 is usual for `final` (Loshchilov & Hutter 2017).
    """
    return Schedule(shape="cosine", warmup=warmup, final=final, warmup_shape=warmup_shape)


def inverse_sqrt(*, warmup: int, warmup_shape: str = "linear") -> Schedule:
    """Warmup over `warmup` tokens, then decay as 1 / sqrt(tokens).

    This is the schedule of Vaswani et al. 2017, section 5.3.
    """
    return Schedule(shape="inverse_sqrt", warmup=warmup, warmup_shape=warmup_shape)


def multistep(
    *,
    warmup: int,
    milestones: tuple[float, ...] = (0.8, 0.9),
    factor: float = 10**-0.5,
    warmup_shape: str = "linear",
) -> Schedule:
    """Warmup over `warmup` tokens, then the peak with a drop at each milestone.

    Each drop multiplies the rate by `factor`. `milestones` are fractions of the run.
    The defaults are those of DeepSeek LLM (2024).
    """
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
    """Warmup over `warmup` tokens, then triangles between the peak and `final` x peak.

    It is `period` tokens from one peak to the next (Smith 2017).
    """
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
    """Warmup, stable, decay: the peak, then a cooldown to `final` x peak.

    The warmup takes `warmup` tokens, the cooldown the last `cooldown` of the run's
    tokens (Hägele et al. 2024).
    """
    return Schedule(
        shape="wsd",
        warmup=warmup,
        cooldown=cooldown,
        cooldown_shape=shape,
        final=final,
        warmup_shape=warmup_shape,
    )


def learning_rates(run: Run) -> Float[np.ndarray, " steps"]:
    """The learning rate of every step of a run, as float32.

    Raises ValueError as `learning_rate` does.
    """
    rate = learning_rate(
        run.schedule,
        peak=run.optimizer.learning_rate,
        steps=run.steps,
        batch_tokens=run.batch_tokens,
        batch_doublings=run.batch_doublings,
    )
    return np.asarray(rate(np.arange(run.steps)), np.float32)


def learning_rate(
    schedule: Schedule,
    *,
    peak: float,
    steps: int,
    batch_tokens: int,
    batch_doublings: Sequence[int] = (),
) -> Callable[[ArrayLike], np.ndarray]:
    """The learning rate as a function of the step, in float64.

    The step counts from 0 and may be an array. All times are tokens in units of
    `batch_tokens`, so they equal steps unless the batch size changes: u before the
    step, u' after it, W at the end of the warmup, T at the end of the run.

    - Warmup, u < W: peak u' / W, or peak (1 - cos(pi u' / W)) / 2.
    - constant: peak.
    - linear: peak (final + (1 - final) (1 - x)) with x = (u - W) / (T - W).
    - cosine: as linear, with (1 + cos(pi x)) / 2 for 1 - x.
    - inverse_sqrt: peak sqrt(W / u').
    - multistep: peak factor^k after k milestones. Milestone M comes at the step that
      is nearest to M T.
    - cyclic with period p: peak (final + (1 - final) |1 - 2 ((u - W) / p mod 1)|).
    - wsd: as linear from the step nearest to S = (1 - cooldown) T, with
      x = (u - S) / (T - S) and the cooldown shape for 1 - x. The exponential cooldown
      is peak final^x.

    The last step of the warmup is the first at the peak. x = 1 falls on the step after
    the last one, so that no step is spent at a rate of 0. Before S a wsd schedule does
    not depend on `steps`: runs of different lengths have the same bits there, and so
    has `constant`.

    Raises ValueError if the cooldown or a milestone comes before the end of the warmup.

    >>> schedule = wsd(warmup=40, cooldown=0.5, shape="linear")
    >>> rate = learning_rate(schedule, peak=1.0, steps=10, batch_tokens=10)
    >>> [round(float(rate(step)), 2) for step in range(10)]
    [0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 0.8, 0.6, 0.4, 0.2]
    """
    batches = BatchSchedule(batch_tokens=batch_tokens, doublings=batch_doublings)
    warmup_end = float(batches.batches_after(np.asarray(batches.steps_for(schedule.warmup))))
    end = float(batches.batches_after(np.asarray(steps)))
    after_warmup = _after_warmup(schedule, batches, warmup_end, end)

    def rate(step: ArrayLike) -> np.ndarray:
        step = np.asarray(step, np.float64)
        before, after = batches.batches_after(step), batches.batches_after(step + 1)
        during_warmup = np.minimum(after / (warmup_end or 1.0), 1.0)
        if schedule.warmup_shape == "cosine":
            during_warmup = (1 - np.cos(np.pi * during_warmup)) / 2
        return peak * np.where(before < warmup_end, during_warmup, after_warmup(before, after))

    return rate


def _after_warmup(
    schedule: Schedule, batches: BatchSchedule, warmup_end: float, end: float
) -> FractionOfPeak:
    """The schedule after its warmup. `warmup_end` and `end` are in batches."""
    match schedule.shape:
        case "constant":
            return lambda before, after: np.ones_like(before)
        case "linear" | "cosine":
            return _decay(COOLDOWNS[schedule.shape], warmup_end, end, schedule.final)
        case "inverse_sqrt":
            return lambda before, after: np.sqrt(warmup_end / np.maximum(after, warmup_end))
        case "multistep":
            return _multistep(schedule, batches, warmup_end, end)
        case "cyclic":
            return _cyclic(schedule.period / batches.batch_tokens, warmup_end, schedule.final)
        case _:
            return _wsd(schedule, batches, warmup_end, end)


def _decay(decay: Decay, start: float, end: float, final: float) -> FractionOfPeak:
    """The peak until `start`, then a decay that reaches `final` at `end`."""

    def fraction(before: np.ndarray, after: np.ndarray) -> np.ndarray:
        completed = np.clip((before - start) / ((end - start) or 1.0), 0.0, 1.0)
        return np.where(before < start, 1.0, final + (1 - final) * decay(completed))

    return fraction


def _multistep(
    schedule: Schedule, batches: BatchSchedule, warmup_end: float, end: float
) -> FractionOfPeak:
    drops = [_nearest_step(batches, milestone * end) for milestone in schedule.milestones]
    first = min([*drops, end])
    _check_after_warmup(schedule, batches, "first milestone", first, warmup_end)
    return lambda before, after: schedule.factor ** np.searchsorted(drops, before, side="right")


def _cyclic(period: float, warmup_end: float, final: float) -> FractionOfPeak:
    def fraction(before: np.ndarray, after: np.ndarray) -> np.ndarray:
        phase = np.maximum(before - warmup_end, 0.0) / period % 1
        return final + (1 - final) * np.abs(1 - 2 * phase)

    return fraction


def _wsd(
    schedule: Schedule, batches: BatchSchedule, warmup_end: float, end: float
) -> FractionOfPeak:
    start = _nearest_step(batches, (1 - schedule.cooldown) * end)
    _check_after_warmup(schedule, batches, "cooldown", start, warmup_end)
    final = schedule.final
    if schedule.cooldown_shape != "exponential":
        return _decay(COOLDOWNS[schedule.cooldown_shape], start, end, final)
    # final^x falls from 1 to `final`, not to 0 like the other shapes. This inverts the
    # map from a shape to the fraction of the peak.
    return _decay(lambda x: (final**x - final) / ((1 - final) or 1.0), start, end, final)


def _cosine(x: np.ndarray) -> np.ndarray:
    return (1 + np.cos(np.pi * x)) / 2


# The cooldown shapes of Hägele et al. 2024 and of their code. They found 1-sqrt better
# than linear at every run length that they tried (section 4). The shape `exponential`
# depends on the final rate; see `_wsd`.
COOLDOWNS: dict[str, Decay] = {
    "linear": lambda x: 1 - x,
    "1-sqrt": lambda x: 1 - np.sqrt(x),
    "cosine": _cosine,
    "mirror-cosine": lambda x: 2 * (1 - x) - _cosine(x),
    "square": lambda x: 1 - x**2,
}


def _nearest_step(batches: BatchSchedule, target: float) -> float:
    """The beginning of the step nearest to `target`, halves up. Both are in batches.

    Cooldowns and milestones begin at whole steps, so that a run shares its trunk with
    another up to that very step.
    """
    step = batches.steps_for(target * batches.batch_tokens)
    below = float(batches.batches_after(np.asarray(max(0, step - 1))))
    above = float(batches.batches_after(np.asarray(max(0, step))))
    return above if target >= (below + above) / 2 else below


def _check_after_warmup(
    schedule: Schedule, batches: BatchSchedule, event: str, start: float, warmup_end: float
) -> None:
    if start < warmup_end:
        raise ValueError(
            f"Schedule.warmup of {schedule.warmup} tokens runs into the {event}, which begins "
            f"after {start * batches.batch_tokens:.0f} tokens; shorten the warmup or what "
            "follows it, or train for more tokens"
        )
