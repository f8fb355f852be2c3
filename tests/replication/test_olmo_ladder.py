"""The OLMo 2 task ladder (Bhagia et al. 2024, arXiv 2412.04403), with intervals.

Tables: olmo_ladder/{runs,targets}.csv, 20 runs of 190M to 1.3B parameters, and the two
runs to predict: 7B on 4T tokens and 13B on 5T.
"""

import numpy as np
import pandas as pd
import pytest

from scalejax.fitting.tasks.ladder import fit_ladder
from tests.published import reference

pytestmark = [pytest.mark.replication, pytest.mark.slow]

TASKS = (
    *("mmlu", "hellaswag", "arc_challenge", "arc_easy"),
    *("piqa", "csqa", "socialiqa", "openbookqa"),
)
# Tokens of the last checkpoint of the 13B run, which its table ends before.
TOKENS_13B = 5_000_088_518_656

# A task's value of a run is the mean over this many last evaluations, as in the paper.
LAST = 5

# The published errors of accuracy at 13B: of the chain, and of compute alone.
CHAIN, COMPUTE = 0.060, 0.051


def mean_of_last(table: pd.DataFrame) -> pd.DataFrame:
    """One row per run: the mean of its last evaluations, with its size and tokens."""
    last = table.sort_values("tokens").groupby("run", as_index=False).tail(LAST)
    tokens = last.groupby("run")["tokens"].max()
    means = pd.DataFrame(last.groupby("run").mean(numeric_only=True))
    return means.assign(tokens=tokens)


@pytest.fixture(scope="module")
def predictions() -> pd.DataFrame:
    folder = reference("olmo_ladder")
    runs = mean_of_last(pd.read_csv(folder / "runs.csv"))
    targets = mean_of_last(pd.read_csv(folder / "targets.csv"))
    targets.loc["13B-5T", "tokens"] = TOKENS_13B
    rows = []
    for task in TASKS:
        ladder = fit_ladder(runs, f"1-{task}_acc", (f"{task}_bpb", "c4_loss"), bootstrap=100)
        for name, target in targets.iterrows():
            error = ladder.predict(params=target.params, tokens=target.tokens)
            accuracy = target[f"{task}_acc"]
            assert error.low is not None and error.high is not None
            rows.append(
                {
                    **{"task": task, "run": name, "measured": accuracy},
                    **{"predicted": 1 - error.value, "low": 1 - error.high, "high": 1 - error.low},
                }
            )
    return pd.DataFrame(rows).assign(error=lambda t: (t.predicted / t.measured - 1).abs())


def test_the_mean_error_at_13B_is_below_that_of_the_published_chain(predictions):
    """Compute alone is still better: 5.1%."""
    print(predictions.round(4).to_string())
    at_13B = predictions[predictions.run == "13B-5T"]
    assert len(at_13B) == len(TASKS) and COMPUTE < at_13B.error.mean() < CHAIN


def test_the_intervals_hold_the_measured_accuracies(predictions):
    inside = (predictions.low < predictions.measured) & (predictions.measured < predictions.high)
    assert inside.sum() >= 14 and len(inside) == 16
    # They are not so wide that they say nothing.
    assert np.median(predictions.high - predictions.low) < 0.25
