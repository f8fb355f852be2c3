"""Steps and tokens: how many of the one make how many of the other, exactly, when the batch doubles on the way."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np


class Phase(NamedTuple):
    """Steps of one batch size: its first step, the tokens read before it, and the tokens of each of its steps."""

    step: int
    tokens: int
    batch_tokens: int


@dataclass(frozen=True, kw_only=True)
class Clock:
    """Batches of `batch_tokens` in the end, of half of that before each of `doublings`.

    Raises ValueError unless `doublings` are rising whole numbers of tokens above 0 and every batch is a multiple of `sequence`.
    """

    batch_tokens: int
    """Tokens per step once every doubling is past."""
    doublings: Sequence[int] = ()
    """Token counts at which the batch doubles: at the first step that begins at or after each."""
    sequence: int = 1
    """Tokens of a sequence, of which a batch has a whole number."""

    def __post_init__(self):
        rising = all(low < high for low, high in pairwise([0, *self.doublings]))
        if not rising or any(float(at) != int(at) for at in self.doublings):
            raise ValueError(
                f"batch_doublings are rising whole numbers of tokens above 0; got {tuple(self.doublings)}"
            )
        unit = self.sequence * 2 ** len(self.doublings)
        if self.batch_tokens % unit:
            times = (
                f" times 2^{len(self.doublings)}, one for each of batch_doublings"
                if self.doublings
                else ""
            )
            raise ValueError(
                f"batch_tokens must be a multiple of Data.sequence_length {self.sequence}{times}; got {self.batch_tokens}"
            )

    @cached_property
    def phases(self) -> tuple[Phase, ...]:
        """The batch sizes in order; one that lasts for no step is there with its step and tokens.

        >>> Clock(batch_tokens=40, doublings=(25,)).phases
        (Phase(step=0, tokens=0, batch_tokens=20), Phase(step=2, tokens=40, batch_tokens=40))
        """
        size = int(self.batch_tokens) >> len(self.doublings)
        found = [Phase(0, 0, size)]
        for until in map(int, self.doublings):
            last = found[-1]
            steps = max(0, -(-(until - last.tokens) // last.batch_tokens))
            found.append(
                Phase(
                    last.step + steps,
                    last.tokens + steps * last.batch_tokens,
                    2 * last.batch_tokens,
                )
            )
        return tuple(found)

    def tokens(self, steps: int) -> int:
        """Tokens of the first `steps` steps.

        >>> [Clock(batch_tokens=40, doublings=(25,)).tokens(steps) for steps in range(5)]
        [0, 20, 40, 80, 120]
        """
        phase = max(
            (phase for phase in self.phases if phase.step <= steps),
            key=lambda phase: phase.batch_tokens,
        )
        return phase.tokens + (steps - phase.step) * phase.batch_tokens

    def steps(self, tokens: float) -> int:
        """The fewest steps that read at least `tokens`.

        >>> Clock(batch_tokens=40, doublings=(25,)).steps(41)
        3
        """
        phase = max(
            (phase for phase in self.phases if phase.tokens < tokens),
            key=lambda phase: phase.batch_tokens,
            default=None,
        )
        return phase.step + math.ceil((tokens - phase.tokens) / phase.batch_tokens) if phase else 0

    def batches(self, steps: np.ndarray) -> np.ndarray:
        """float64: what `tokens` gives in units of `batch_tokens`, exact; equal to `steps` when the batch never doubles."""
        firsts, tokens, sizes = (np.array(column) for column in zip(*self.phases, strict=True))
        phase = np.searchsorted(firsts, steps, side="right") - 1
        return (tokens[phase] + (steps - firsts[phase]) * sizes[phase]) / self.batch_tokens
