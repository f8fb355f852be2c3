"""What the choice of runs is worth: V-optimal design on released tables.

    python benchmarks/next_runs.py REFERENCE/scalebench [--table farseer] [--seeds 3]

A budget is 1, 5 or 10% of the FLOPs (6 N D) of all training rows of a table. Four ways
to spend it are compared by the R2 of the law on the test rows, which are larger runs:

- next: a third of the budget on equally spaced rows, and then five rows at a time that
  narrow the predictions of the test rows most, as `scalejax plan --next` chooses them,
  with a new fit after each five;
- random: rows in random order while the budget lasts; median and range over seeds;
- cheapest: the cheapest rows;
- equal: rows equally spaced in the order of their costs, none above a tenth of the
  budget.

Every table is fitted by the law of its name. No choice sees the losses of rows that it
did not pay for.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from scalejax import laws
from scalejax.fitting.parametric.evaluate import evaluate
from scalejax.fitting.result import Scores
from scalejax.laws.inference.identification import linearize
from scalejax.laws.inference.optimal_design import (
    Candidate,
    Information,
    choose_runs,
    residual_slopes,
)
from scalejax.laws.law import ParametricLaw
from scalejax.laws.solver.losses import parse_loss
from scalejax.laws.solver.multistart import Optimum, find_optimum
from scalejax.laws.solver.problem import parameters_in_table_units

FRACTIONS = (0.01, 0.05, 0.1)
LOSS = parse_loss("huber:1e-3")

# Rows that are added before the law is fitted again.
ROUND = 5

TABLES: dict[str, tuple[ParametricLaw[Any], tuple[str, ...], str]] = {
    "farseer": (laws.farseer(), ("N", "D"), "loss"),
    "data_constrained": (
        laws.data_constrained(),
        ("params", "tokens", "unique_tokens"),
        "loss",
    ),
}


class Table(NamedTuple):
    """The rows of a table that a law reads."""

    law: ParametricLaw[Any]
    inputs: list[np.ndarray]
    target: np.ndarray
    cost: np.ndarray
    test_inputs: list[np.ndarray]
    test_target: np.ndarray

    def fit(self, rows: np.ndarray) -> Optimum:
        inputs = [x[rows] for x in self.inputs]
        return find_optimum(self.law, inputs, self.target[rows], np.ones(len(rows)), LOSS)

    def r2(self, rows: np.ndarray) -> float:
        """R2 on the test rows of the fit to some rows; nan for too few."""
        if len(rows) < self.law.free:
            return np.nan
        at = self.fit(rows)
        params = parameters_in_table_units(self.law, at.problem, at.theta[:, None])
        predicted = np.ravel(evaluate(self.law, params._asdict(), self.test_inputs))
        return Scores.of(predicted, self.test_target).r2 or np.nan


def main() -> None:
    parser = argparse.ArgumentParser(description="R2 of choices of runs of equal cost.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--table", choices=tuple(TABLES))
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    for name in [options.table] if options.table else TABLES:
        table = read(options.folder / f"{name}.csv", *TABLES[name])
        every = np.arange(len(table.target))
        print(f"{name}: {table.law.name} on all {len(every)} rows R2 {table.r2(every):.3f}")
        for fraction in FRACTIONS:
            budget = fraction * float(table.cost.sum())
            for choice in (next_rows, cheapest, equally_spaced):
                print_choice(table, fraction, choice.__name__, [choice(table, budget)])
            drawn = [at_random(table, budget, seed) for seed in range(options.seeds)]
            print_choice(table, fraction, "random", drawn)


def print_choice(table: Table, fraction: float, name: str, choices: list[np.ndarray]) -> None:
    scores = [table.r2(rows) for rows in choices]
    runs = ", ".join(str(len(rows)) for rows in choices)
    spread = f" ({min(scores):.3f} to {max(scores):.3f})" if len(scores) > 1 else ""
    print(
        f"  {fraction:4.0%} {name:14s} R2 {np.median(scores):.3f}{spread}, {runs} rows", flush=True
    )


def read(path: Path, law: ParametricLaw[Any], names: tuple[str, ...], target: str) -> Table:
    frame = pd.read_csv(path)
    by_input = dict(zip(("params", "tokens", "unique_tokens"), names, strict=False))
    columns = [by_input[name] for name in law.inputs]
    train, test = frame[frame["split"] == "train"], frame[frame["split"] == "test"]
    return Table(
        law,
        [train[name].to_numpy(float) for name in columns],
        train[target].to_numpy(float),
        6 * train[by_input["params"]].to_numpy(float) * train[by_input["tokens"]].to_numpy(float),
        [test[name].to_numpy(float) for name in columns],
        test[target].to_numpy(float),
    )


def affordable(order: np.ndarray, cost: np.ndarray, budget: float) -> np.ndarray:
    """The rows of an order that a budget pays for; those too expensive are skipped."""
    chosen = []
    for row in order.tolist():
        if cost[row] <= budget:
            chosen.append(row)
            budget -= cost[row]
    return np.array(chosen, int)


def cheapest(table: Table, budget: float) -> np.ndarray:
    return affordable(np.argsort(table.cost, kind="stable"), table.cost, budget)


def at_random(table: Table, budget: float, seed: int) -> np.ndarray:
    order = np.random.default_rng(seed).permutation(len(table.cost))
    return affordable(order, table.cost, budget)


def equally_spaced(table: Table, budget: float) -> np.ndarray:
    order = np.argsort(table.cost, kind="stable")
    order = order[table.cost[order] <= budget / 10]
    for count in range(len(order), 0, -1):
        rows = order[np.unique(np.linspace(0, len(order) - 1, count).astype(int))]
        if table.cost[rows].sum() <= budget:
            return rows
    return order[:0]


def next_rows(table: Table, budget: float) -> np.ndarray:
    chosen = equally_spaced(table, budget / 3).tolist()
    left = budget - float(table.cost[chosen].sum())
    while True:
        at = table.fit(np.array(chosen))
        count = len(at.theta)
        known = Information(np.zeros((count, count)))
        for row, slope in zip(chosen, linearize(table.law, at).jacobian, strict=True):
            known = known.with_run(slope, str(row))
        slopes = residual_slopes(table.law, at, table.inputs)
        ahead = residual_slopes(table.law, at, table.test_inputs)
        propose = proposals(table.cost, slopes, set(chosen))
        # Early rounds spend no more than their share, because their law is the poorest.
        share = max(left / 2, 0.05 * budget)
        design = choose_runs(known, ahead, propose, count=ROUND, budget=min(left, share))
        if not design.chosen:
            return np.array(chosen)
        chosen += [one.run for one in design.chosen]
        left -= sum(one.cost for one in design.chosen)


def proposals(
    cost: np.ndarray, slopes: np.ndarray, taken: set[int]
) -> Callable[[list[int]], list[Candidate[int]]]:
    """Rows that are not taken, each once, for `choose_runs`."""
    return lambda chosen: [
        Candidate(row, slopes[row], str(row), float(cost[row]))
        for row in range(len(cost))
        if row not in taken and row not in chosen
    ]


if __name__ == "__main__":
    main()
