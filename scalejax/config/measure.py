"""What is measured during and after training."""

from dataclasses import dataclass, field

from scalejax.config.checks import check_choice, require, set_integer, set_tuple

# The kinds of downstream suite, without the `:FOLDER` or `:PATH` that may follow.
SUITES = ("continuation", "foundry-17", "foundry-46", "local")


@dataclass(frozen=True, kw_only=True)
class Average:
    """An average of the weights, evaluated in addition to the weights themselves.

    Create one with `ema(...)` or `window(...)` of `scalejax.optim.averaging`.
    """

    kind: str
    """`ema` or `window`."""
    tokens: int
    """Tokens: the half-life of an exponential average, or the length of a window."""

    def __post_init__(self):
        check_choice(self, "kind", ("ema", "window"))
        set_integer(self, "tokens", 1)

    @property
    def name(self) -> str:
        """The name of the average in the column `weights`, such as `ema-20000`."""
        return f"{self.kind}-{self.tokens}"


@dataclass(frozen=True, kw_only=True)
class Measure:
    """What is measured, and when. It is never part of a run's identity."""

    every: int = 0
    """Tokens between evaluations of the held-out loss during training; 0 evaluates only
    at the end."""
    tokens: int = 65_536
    """Held-out tokens that each evaluation reads."""
    items: int = 256
    """Number of items of the continuation task; 0 leaves the task out."""
    suites: tuple[str, ...] = ("continuation",)
    """Suites of downstream tasks that are scored at the end of a run: `continuation`
    (made from held-out text), `foundry-17` or `foundry-46` (followed by `:FOLDER` with
    the task files), or `local:PATH`. The mean error of the first suite is
    `top1_error`."""
    averages: tuple[Average, ...] = ()
    """Averages of the weights that are taken during training. Their held-out loss is
    measured whenever that of the weights is."""
    profile_steps: int = field(default=0, compare=False)
    """Number of training steps to profile near the start of a run, into its folder
    `profile`; 0 profiles none."""

    def __post_init__(self):
        set_tuple(self, "suites", "suite names")
        set_tuple(self, "averages", "averages")
        others = [average for average in self.averages if not isinstance(average, Average)]
        require(
            not others,
            "Measure.averages must hold the results of ema(...) and window(...) from "
            f"scalejax.optim.averaging; got {others!r}",
        )
        names = [average.name for average in self.averages]
        repeated = sorted({name for name in names if names.count(name) > 1})
        require(
            not repeated,
            f"Measure.averages must be distinct; listed more than once: {', '.join(repeated)}",
        )
        set_integer(self, "every", 0)
        set_integer(self, "tokens", 1)
        set_integer(self, "items", 0)
        set_integer(self, "profile_steps", 0)
        for name in self.suites:
            kind = str(name).partition(":")[0].removesuffix("-available")
            require(
                kind in SUITES,
                f"Measure.suites must name suites among {', '.join(SUITES)}; got {name!r}",
            )
