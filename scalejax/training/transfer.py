"""The transfer check: is the best learning rate of a small model the best of larger ones?"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

GRID_STEPS = 1
"""Largest move of the best rate along the grid that passes."""


def transfer_check(table: "pd.DataFrame", *, over: str = "width") -> "Transfer":
    """The best learning rate of every size, from the results of one grid of `over` x learning_rate (x seed).

    `table` is what `scalejax.results` gives, of one parametrization: columns `over`, learning_rate and loss; losses are averaged
    over seeds, and a run that diverged counts as infinite.

    Raises ValueError when a column or a point of the grid is missing, or when runs of several parametrizations are mixed.
    """
    if missing := sorted({over, "learning_rate", "loss"} - set(table.columns)):
        raise ValueError(
            f"transfer_check reads the columns {over}, learning_rate and loss; {', '.join(missing)} is not there"
        )
    if "parametrization" in table and len(table["parametrization"].unique()) > 1:
        names = ", ".join(sorted(table["parametrization"].unique()))
        raise ValueError(
            f"transfer_check compares sizes under one parametrization; got {names}: give the rows of one of them"
        )
    grid = table.assign(loss=table["loss"].fillna(np.inf)).pivot_table(
        index=over, columns="learning_rate", values="loss", aggfunc=["mean", "size"], dropna=False
    )
    losses, runs = grid["mean"], grid["size"].fillna(0)
    if len(losses) < 2 or losses.shape[1] < 3 or runs.to_numpy().min() != runs.to_numpy().max():
        raise ValueError(
            f"transfer_check needs 2 or more sizes and 3 or more learning rates, each pair with as many seeds; runs by {over} "
            f"(down) and rate:\n{runs.astype(int).to_string()}"
        )
    rates = tuple(float(rate) for rate in losses.columns)
    return Transfer(
        over=over,
        sizes=tuple(int(size) for size in losses.index),
        rates=rates,
        losses=losses.to_numpy(float),
    )


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """Loss over a grid of sizes and learning rates."""

    over: str
    """Column of the sizes."""
    sizes: tuple[int, ...]
    rates: tuple[float, ...]
    """Peak learning rates, rising."""
    losses: np.ndarray
    """Mean over seeds, nats per token [sizes, rates]; infinite where a run diverged."""

    @property
    def best(self) -> np.ndarray:
        """Place on the grid of the best rate of every size, [sizes]."""
        return np.argmin(self.losses, axis=1)

    @property
    def drift(self) -> int:
        """Grid steps between the lowest and the highest best rate."""
        return int(np.ptp(self.best))

    @property
    def interior(self) -> bool:
        """Whether every best rate has a measured neighbour on either side; at an end of the grid it is only a bound."""
        return bool(np.all((self.best > 0) & (self.best < len(self.rates) - 1)))

    @property
    def passed(self) -> bool:
        """Whether the best rate stays within GRID_STEPS, inside of the grid."""
        return self.drift <= GRID_STEPS and self.interior

    @property
    def optima(self) -> np.ndarray:
        """Best rate of every size between the points of the grid, [sizes]: the vertex of the parabola through the best loss and
        its neighbours in log rate; the point itself at an end of the grid and beside a diverged run."""
        log_rates, found = np.log(self.rates), []
        for losses, at in zip(self.losses, self.best, strict=True):
            near = slice(at - 1, at + 2)
            if not 0 < at < len(self.rates) - 1 or not np.isfinite(losses[near]).all():
                found.append(self.rates[at])
                continue
            bend, slope, _ = np.polyfit(log_rates[near] - log_rates[at], losses[near], 2)
            found.append(
                float(self.rates[at] * np.exp(-slope / (2 * bend))) if bend > 0 else self.rates[at]
            )
        return np.asarray(found)

    def __str__(self) -> str:
        verdict = (
            "passed"
            if self.passed
            else "FAILED"
            if self.interior
            else "FAILED, a best rate stands at an end of the grid"
        )
        steps = f"{self.drift} grid step{'s' * (self.drift != 1)}"
        lines = [
            f"transfer check over {self.over}: {verdict}; the best learning rate moves by {steps}"
        ]
        for size, at, vertex, losses in zip(
            self.sizes, self.best, self.optima, self.losses, strict=True
        ):
            lines.append(
                f"  {self.over} {size:>5}: best {self.rates[at]:.3g} (vertex {vertex:.3g}), loss {losses[at]:.4f}"
            )
        return "\n".join(lines)

    def draw(self, axes: Any) -> None:
        """Loss against learning rate on matplotlib axes, one line per size, the best point of each marked."""
        from matplotlib import colormaps

        for place, (size, at, losses) in enumerate(
            zip(self.sizes, self.best, self.losses, strict=True)
        ):
            colour = colormaps["viridis"](0.85 * place / (len(self.sizes) - 1))
            finite = np.isfinite(losses)
            axes.plot(
                np.asarray(self.rates)[finite],
                losses[finite],
                "o-",
                ms=3,
                color=colour,
                label=f"{self.over} {size}",
            )
            axes.plot(self.rates[at], losses[at], "*", ms=13, color=colour)
        axes.set_xscale("log", base=2)
        axes.set_xlabel("peak learning rate")
        axes.set_ylabel("loss, nats per token")
        axes.legend(fontsize=8)

    def plot(self, path: str | Path) -> None:
        """Writes the figure that `draw` draws."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(5.5, 4), layout="constrained")
        self.draw(figure.subplots())
        figure.savefig(path, dpi=150)
