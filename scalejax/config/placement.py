"""Where a run executes."""

import math
from dataclasses import dataclass

from scalejax.config.checks import check_choice, require, set_flag, set_integer, set_number
from scalejax.config.run import Run

REMAT = ("none", "block", "dots")
TRACKERS = ("none", "tensorboard", "wandb")


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where and how a run executes. It is never part of a run's identity.

    A run uses data x fsdp x tensor devices.
    """

    data: int = 1
    """Number of parts that the batch is split into; each holds a copy of the
    parameters."""
    fsdp: int = 1
    """Number of further parts of the batch, over which the parameters are split too."""
    tensor: int = 1
    """Number of devices over which attention heads and MLP are split."""
    accumulate: int = 1
    """Micro-batches per step, which save memory. Their gradients are summed over
    tokens."""
    remat: str = "none"
    """What the backward pass computes again instead of keeping it: `none`; `block`,
    everything inside a block; `dots`, everything but the products with weights."""
    scan_layers: bool = False
    """Whether the blocks are compiled once, as a loop. Deep models then compile faster,
    but every step copies the weights."""
    checkpoint_seconds: float = 60.0
    """Seconds of training between checkpoints. One is always written at the end."""
    population: int = 0
    """Largest number of runs that are trained as one program, if they differ in numbers
    only. 1 trains every run by itself. 0 lets workers choose: on an accelerator as many
    small runs as keep it busy, on CPU 1."""
    track: str = "none"
    """Where the curves are copied to as a run trains: `none`, `tensorboard` or
    `wandb`."""

    def __post_init__(self):
        for name in ("data", "fsdp", "tensor", "accumulate"):
            set_integer(self, name, 1)
        set_integer(self, "population", 0)
        require(
            self.population < 2 or self.data == self.fsdp == self.tensor == 1,
            f"Placement.population {self.population} trains several runs on one device, but data "
            f"{self.data} x fsdp {self.fsdp} x tensor {self.tensor} splits each run over several; "
            "use population=1, or leave the mesh at 1 x 1 x 1",
        )
        check_choice(self, "remat", REMAT)
        check_choice(self, "track", TRACKERS)
        set_flag(self, "scan_layers")
        set_number(self, "checkpoint_seconds", 0, math.inf, "()")

    @property
    def devices(self) -> int:
        """Number of devices that a run uses."""
        return self.data * self.fsdp * self.tensor


def check_placement(run: Run, placement: Placement) -> None:
    """Raise ValueError if the placement cannot divide the run's model or its batch.

    The message names the sizes, the number of parts that does not divide them, and the
    nearest values that work. No device is needed for this check.

    The numbers of kv heads and of token ids need not be divisible; see
    `scalejax.model.layout`.
    """
    model = run.model
    for axis, name in (("tensor", "heads"), ("tensor", "mlp_width"), ("fsdp", "width")):
        parts, size = getattr(placement, axis), getattr(model, name)
        if size % parts:
            raise ValueError(
                f"Placement.{axis} {parts} does not divide Model.{name} {size}; use {axis} "
                f"{_divisors_near(size, parts)}, or {name} {_multiples_near(size, parts)}"
            )

    sequences, length = run.first_batch_sequences, run.data.sequence_length
    parts = placement.data * placement.fsdp * placement.accumulate
    if sequences % parts:
        batch = "first batch" if run.batch_doublings else "batch"
        raise ValueError(
            f"Placement.data {placement.data} x fsdp {placement.fsdp} x accumulate "
            f"{placement.accumulate} = {parts} does not divide the {batch} of {sequences} "
            f"sequences of {length} tokens; use a product of {_divisors_near(sequences, parts)}, "
            f"or a {batch} of {_multiples_near(sequences, parts)} sequences"
        )


def _divisors_near(size: int, parts: int) -> str:
    """The divisors of `size` next below and next above `parts`."""
    divisors = [n for n in range(1, size + 1) if size % n == 0]
    return _either([n for n in divisors if n < parts][-1:] + [n for n in divisors if n > parts][:1])


def _multiples_near(size: int, parts: int) -> str:
    """The multiples of `parts` next below and next above `size`."""
    below = size // parts * parts
    return _either([n for n in (below, below + parts) if n > 0])


def _either(values: list[int]) -> str:
    return " or ".join(map(str, values))
