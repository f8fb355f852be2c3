"""One training run: everything that decides which weights come out."""

import dataclasses
import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from scalejax.batching import BatchSchedule
from scalejax.config.checks import (
    check_choice,
    check_text,
    require,
    set_integer,
    set_number,
    set_numbers,
)
from scalejax.config.data import Data
from scalejax.config.model import ADDED_LATER, Model, Parametrization
from scalejax.config.optimizer import Optimizer
from scalejax.config.schedule import Schedule

# A token count that is relatively closer than this to a whole number differs from it
# by rounding errors.
ROUNDING = 1e-12

# Without 64-bit integers, jax.random.key reads the low 32 bits of a seed only.
SEEDS = 2**32

COMPUTE_DTYPES = ("float32", "bfloat16")


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training run and nothing else.

    The hash of a run is its identity, so two equal runs are the same run.
    """

    model: Model
    """The network."""
    data: Data
    """The tokens."""
    tokens: float
    """Training tokens; the last batch is filled up."""
    batch_tokens: int
    """Tokens per optimizer step; a multiple of the sequence length."""
    batch_doublings: tuple[int, ...] = ()
    """Batch-size warmup: token counts at which the batch doubles, ending at
    `batch_tokens`."""
    optimizer: Optimizer
    """The update rule and its peak learning rate."""
    schedule: Schedule
    """The learning rate of every step, as a fraction of the peak."""
    parametrization: Parametrization = field(default_factory=Parametrization)
    """`standard()`, `mup(base_width=...)` or `completep(base_width=...,
    base_depth=...)`."""
    compute_dtype: str = "float32"
    """Dtype of activations. Parameters, logits and losses are always float32."""
    seed: int = 0
    """Seed of the initial values and of the order of the data."""
    start: str = field(default="", metadata=ADDED_LATER)
    """Where the initial weights come from: the folder of a finished run, the id of
    another run of the study, or the folder of a Hugging Face checkpoint. Empty: they
    are random. The optimizer state and the step count always begin anew."""

    def __post_init__(self):
        self._check_parts()
        set_numbers(self, "batch_doublings", "token counts")
        set_integer(self, "batch_tokens", 1)
        try:
            _ = self.batch_schedule
        except ValueError as error:
            raise ValueError(f"Run.{error}") from None
        self._check_tokens()
        check_choice(self, "compute_dtype", COMPUTE_DTYPES)
        set_integer(self, "seed", 0)
        require(
            self.seed < SEEDS,
            f"Run.seed must be below 2^32, because initial weights depend on 32 bits of it; got "
            f"{self.seed}, whose initial weights are those of seed {self.seed % SEEDS}",
        )
        check_text(self, "start")

    def _check_parts(self):
        parts = {
            "model": Model,
            "data": Data,
            "optimizer": Optimizer,
            "schedule": Schedule,
            "parametrization": Parametrization,
        }
        for name, kind in parts.items():
            value = getattr(self, name)
            require(isinstance(value, kind), f"Run.{name} must be a {kind.__name__}; got {value!r}")

    def _check_tokens(self):
        set_number(self, "tokens", 0, math.inf, "()")
        # 1.1 * 100 * 256 is 28160.000000000004. Taken literally, it would cost one more
        # batch than 28160 tokens do, and be another run.
        whole = round(self.tokens)
        if self.tokens != whole and math.isclose(self.tokens, whole, rel_tol=ROUNDING):
            object.__setattr__(self, "tokens", float(whole))
        require(
            self.tokens >= self.batch_tokens,
            f"Run.tokens must be at least one batch of {self.batch_tokens} tokens; "
            f"got {self.tokens:g}, which is below one batch",
        )
        require(
            self.schedule.warmup <= self.tokens,
            f"Schedule.warmup of {self.schedule.warmup} tokens is longer than the run of "
            f"{self.tokens:g} tokens",
        )

    @cached_property
    def batch_schedule(self) -> BatchSchedule:
        """The batch size of every step, which converts steps to tokens and back."""
        return BatchSchedule(
            batch_tokens=self.batch_tokens,
            doublings=self.batch_doublings,
            sequence_length=self.data.sequence_length,
        )

    @property
    def steps(self) -> int:
        """Number of optimizer steps: the fewest that read `tokens` tokens."""
        return self.batch_schedule.steps_for(self.tokens)

    @property
    def tokens_read(self) -> int:
        """Tokens that all steps together read: `tokens` rounded up to whole batches."""
        return self.batch_schedule.tokens_after(self.steps)

    @property
    def batch_sequences(self) -> int:
        """Sequences in a batch of `batch_tokens`."""
        return self.batch_tokens // self.data.sequence_length

    @property
    def first_batch_sequences(self) -> int:
        """Sequences in the first batch. It is the smallest and divides all others."""
        return self.batch_sequences // 2 ** len(self.batch_doublings)

    def replace(self, **changes: Any) -> "Run":
        """A copy with other values for some fields.

        Raises TypeError for a name that is not a field.
        """
        return dataclasses.replace(self, **changes)
