"""A profile of a few training steps, which XProf and Perfetto show."""

import contextlib
from pathlib import Path

import jax
from jax.typing import ArrayLike

from scalejax.training.step import Metrics, Step, TrainState

# Steps before the profile: the first one compiles, and the next ones fill caches.
WARMUP_STEPS = 5


def profiled(step: Step, folder: Path, steps: int) -> Step:
    """Return the training step, with a trace of some of its calls written to `folder`.

    steps: number of calls to trace, after WARMUP_STEPS; 0 traces none. A folder that
    exists is left alone: it holds the profile of an earlier attempt.
    """
    if not steps or folder.exists():
        return step
    calls = 0

    def traced(
        state: TrainState, rows: ArrayLike, learning_rate: ArrayLike
    ) -> tuple[TrainState, Metrics]:
        nonlocal calls
        if calls == WARMUP_STEPS:
            # A run that ended while it was traced has left its trace open.
            with contextlib.suppress(RuntimeError):
                jax.profiler.stop_trace()
            jax.profiler.start_trace(str(folder))
        state, metrics = step(state, rows, learning_rate)
        calls += 1
        if calls == WARMUP_STEPS + steps:
            # Steps are dispatched ahead of the device, which must have done them.
            jax.block_until_ready(state)
            jax.profiler.stop_trace()
        return state, metrics

    return traced
