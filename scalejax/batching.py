"""The number of tokens in every batch, and the conversion between steps and tokens.

A run trains on batches of one size, or warms the batch size up by doubling it at given
token counts. All counts are Python integers, so they stay exact at any scale.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np


class Phase(NamedTuple):
    """A stretch of consecutive steps that share one batch size."""

    first_step: int
    """0-based index of the first step."""
    tokens_before: int
    """Tokens read before the first step."""
    batch_tokens: int
    """Tokens per step."""


@dataclass(frozen=True, kw_only=True)
class BatchSchedule:
    """The batch size of every step: it doubles until it is `batch_tokens`.

    Raises ValueError unless `doublings` are increasing positive integers and every
    batch holds a whole number of sequences.
    """

    batch_tokens: int
    """Tokens per step after the last doubling."""
    doublings: Sequence[int] = ()
    """Tokens: the batch doubles at the first step that begins at or after each."""
    sequence_length: int = 1
    """Tokens per sequence."""

    def __post_init__(self):
        increasing = all(low < high for low, high in pairwise([0, *self.doublings]))
        if not increasing or any(float(at) != int(at) for at in self.doublings):
            raise ValueError(
                "batch_doublings must be increasing whole numbers of tokens above 0; "
                f"got {tuple(self.doublings)}"
            )
        # If the first and smallest batch holds whole sequences, every batch does.
        if self.batch_tokens % (self.sequence_length * 2 ** len(self.doublings)):
            unit = f"Data.sequence_length {self.sequence_length}"
            if self.doublings:
                unit += f" times 2^{len(self.doublings)}, one factor of 2 per doubling"
            raise ValueError(f"batch_tokens must be a multiple of {unit}; got {self.batch_tokens}")

    @cached_property
    def phases(self) -> tuple[Phase, ...]:
        """One phase per batch size, smallest first. A phase may have no steps.

        >>> first, second = BatchSchedule(batch_tokens=40, doublings=(25,)).phases
        >>> first
        Phase(first_step=0, tokens_before=0, batch_tokens=20)
        >>> second
        Phase(first_step=2, tokens_before=40, batch_tokens=40)
        """
        phase = Phase(0, 0, int(self.batch_tokens) >> len(self.doublings))
        phases = [phase]
        for doubling in map(int, self.doublings):
            steps = max(0, _ceil_div(doubling - phase.tokens_before, phase.batch_tokens))
            phase = Phase(
                first_step=phase.first_step + steps,
                tokens_before=phase.tokens_before + steps * phase.batch_tokens,
                batch_tokens=2 * phase.batch_tokens,
            )
            phases.append(phase)
        return tuple(phases)

    def tokens_after(self, steps: int) -> int:
        """Tokens read by the first `steps` steps.

        >>> schedule = BatchSchedule(batch_tokens=40, doublings=(25,))
        >>> [schedule.tokens_after(steps) for steps in range(5)]
        [0, 20, 40, 80, 120]
        """
        # Of several phases that begin at the same step, only the last has steps.
        phase = [phase for phase in self.phases if phase.first_step <= steps][-1]
        return phase.tokens_before + (steps - phase.first_step) * phase.batch_tokens

    def steps_for(self, tokens: float) -> int:
        """The smallest number of steps that reads at least `tokens` tokens.

        >>> BatchSchedule(batch_tokens=40, doublings=(25,)).steps_for(41)
        3
        """
        begun = [phase for phase in self.phases if phase.tokens_before < tokens]
        if not begun:
            return 0
        phase = begun[-1]
        return phase.first_step + math.ceil((tokens - phase.tokens_before) / phase.batch_tokens)

    def batches_after(self, steps: np.ndarray) -> np.ndarray:
        """Tokens read by the first `steps` steps in units of `batch_tokens`; float64.

        This equals `steps`, exactly, when the batch size never changes. Learning-rate
        schedules are functions of it.
        """
        # Plans ask this of thousands of runs, and most have a single batch size.
        if len(self.phases) == 1:
            return np.asarray(steps, np.float64)
        first_steps = np.array([phase.first_step for phase in self.phases])
        tokens_before = np.array([phase.tokens_before for phase in self.phases])
        batch_tokens = np.array([phase.batch_tokens for phase in self.phases])
        phase = np.searchsorted(first_steps, steps, side="right") - 1
        tokens = tokens_before[phase] + (steps - first_steps[phase]) * batch_tokens[phase]
        return tokens / self.batch_tokens


def _ceil_div(numerator: int, denominator: int) -> int:
    return -(-numerator // denominator)
