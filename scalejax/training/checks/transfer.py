"""The transfer check: is the best learning rate the same for models of growing size?"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

# The check passes when the best rates of all sizes lie within this many steps of the
# grid.
MAX_DRIFT = 1


def transfer_check(table: "pd.DataFrame", *, over: str = "width") -> "TransferCheck":
    """Find the best learning rate of every size in a grid of sizes and learning rates.

    `table` is what `scalejax.results` returns, with the columns `over`, learning_rate
    and loss, restricted to one parametrization. Losses are averaged over seeds; a run
    that diverged counts as infinite.

    Raises ValueError when a column or a point of the grid is missing, or when the table
    mixes parametrizations.
    """
    if missing := sorted({over, "learning_rate", "loss"} - set(table.columns)):
        raise ValueError(
            f"transfer_check reads the columns {over}, learning_rate and loss; "
            f"the table has no {', '.join(missing)}"
        )
    if "parametrization" in table and len(table["parametrization"].unique()) > 1:
        names = ", ".join(sorted(table["parametrization"].unique()))
        raise ValueError(
            "transfer_check compares sizes under one parametrization; the table has "
            f"{names}: pass the rows of one of them"
        )
    grid = table.assign(loss=table["loss"].fillna(np.inf)).pivot_table(
        index=over, columns="learning_rate", values="loss", aggfunc=["mean", "size"], dropna=False
    )
    losses, runs = grid["mean"], grid["size"].fillna(0)
    # A pair with fewer seeds than the others would win or lose by noise.
    seeds = runs.to_numpy()
    if len(losses) < 2 or losses.shape[1] < 3 or seeds.min() != seeds.max():
        raise ValueError(
            "transfer_check needs at least 2 sizes and 3 learning rates, and equally many seeds "
            f"for every pair of them; the numbers of runs by {over} (down) and learning rate "
            f"are\n{runs.astype(int).to_string()}"
        )
    return TransferCheck(
        over=over,
        sizes=tuple(int(size) for size in losses.index),
        rates=tuple(float(rate) for rate in losses.columns),
        losses=losses.to_numpy(float),
    )


@dataclass(frozen=True, kw_only=True)
class TransferCheck:
    """The result of a transfer check."""

    over: str
    """The column of the sizes."""
    sizes: tuple[int, ...]
    """Its values, ascending."""
    rates: tuple[float, ...]
    """Peak learning rates, ascending."""
    losses: np.ndarray
    """Mean over seeds in nats per token, [sizes, rates]; infinite after divergence."""

    @property
    def best(self) -> np.ndarray:
        """Index in `rates` of the best learning rate of every size, [sizes]."""
        return np.argmin(self.losses, axis=1)

    @property
    def drift(self) -> int:
        """Steps of the grid between the lowest and the highest best rate."""
        return int(np.ptp(self.best))

    @property
    def interior(self) -> bool:
        """Whether every best rate has a neighbour on both sides in the grid.

        At an end of the grid, the best rate is only a bound on the true optimum.
        """
        return bool(np.all((self.best > 0) & (self.best < len(self.rates) - 1)))

    @property
    def passed(self) -> bool:
        """Whether the best rates drift by MAX_DRIFT at most and are all interior."""
        return self.drift <= MAX_DRIFT and self.interior

    @property
    def optima(self) -> np.ndarray:
        """Optimal rate of every size, interpolated between points of the grid, [sizes].

        It is the vertex of the parabola through the best loss and its two neighbours,
        in the logarithm of the rate. Where a neighbour is missing or diverged, or where
        the three points have no minimum, it is the best rate itself.
        """
        log_rates, optima = np.log(self.rates), []
        for losses, index in zip(self.losses, self.best, strict=True):
            optimum = self.rates[index]
            # A parabola needs finite losses on both sides of the best one.
            around = slice(index - 1, index + 2)
            at_end = not 0 < index < len(self.rates) - 1
            if not at_end and np.isfinite(losses[around]).all():
                distance = log_rates[around] - log_rates[index]
                curvature, slope, _ = np.polyfit(distance, losses[around], 2)
                if curvature > 0:
                    optimum = float(optimum * np.exp(-slope / (2 * curvature)))
            optima.append(optimum)
        return np.asarray(optima)

    def __str__(self) -> str:
        verdict = "passed" if self.passed else "FAILED"
        if not self.interior:
            verdict = "FAILED, a best rate lies at an end of the grid"
        steps = f"{self.drift} grid step{'s' * (self.drift != 1)}"
        lines = [
            f"transfer check over {self.over}: {verdict}; the best learning rate moves by {steps}"
        ]
        by_size = zip(self.sizes, self.best, self.optima, self.losses, strict=True)
        for size, index, optimum, losses in by_size:
            lines.append(
                f"  {self.over} {size:>5}: best {self.rates[index]:.3g} "
                f"(vertex {optimum:.3g}), loss {losses[index]:.4f}"
            )
        return "\n".join(lines)

    def draw(self, axes: "Axes") -> None:
        """Draw loss against learning rate: one line per size, its best point marked."""
        from matplotlib import colormaps

        rates = np.asarray(self.rates)
        by_size = zip(self.sizes, self.best, self.losses, strict=True)
        for number, (size, index, losses) in enumerate(by_size):
            color = colormaps["viridis"](0.58 * number / (len(self.sizes) - 1))
            finite = np.isfinite(losses)
            label = f"{self.over} {size}"
            axes.plot(rates[finite], losses[finite], "o-", ms=3, color=color, label=label)
            axes.plot(rates[index], losses[index], "*", ms=13, color=color)
        axes.set_xscale("log", base=2)
        axes.set_xlabel("peak learning rate")
        axes.set_ylabel("loss, nats per token")
        axes.legend(fontsize=8)

    def plot(self, path: str | Path) -> None:
        """Write the figure of `draw` to a file."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(5.5, 4), layout="constrained")
        self.draw(figure.subplots())
        figure.savefig(path, dpi=150)
