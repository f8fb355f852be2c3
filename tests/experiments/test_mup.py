"""How the best rate moves, on made tables (mirrors experiments/mup.py)."""

import numpy as np
import pandas as pd
import pytest

from experiments import mup

RATES = [2.0**-k for k in range(11, 3, -1)]


def made(*, slopes: dict[str, float], over: str = "width", noise: float = 0.005) -> pd.DataFrame:
    """A table whose best rate is 2^-6 at size 32 and has these slopes in the size."""
    rng, rows = np.random.default_rng(1), []
    for name, slope in slopes.items():
        for doublings, size in enumerate((32, 64, 128, 256)):
            for rate in RATES:
                for seed in range(2):
                    off = np.log2(rate) + 6 - slope * doublings
                    loss = 4 - 0.05 * doublings + 0.04 * off**2 + 0.03 * seed
                    rows.append((name, size, rate, seed, loss + noise * rng.standard_normal()))
    return pd.DataFrame(rows, columns=["parametrization", over, "learning_rate", "seed", "loss"])


def test_the_slopes_that_made_the_table_are_measured_and_judged():
    found = mup.compare(made(slopes={"mup": 0.1, "standard": -0.8}), mup.ADAMW)
    for conclusion, slope in zip(found.conclusions, (0.1, -0.8), strict=True):
        low, high = conclusion.interval
        assert low <= slope <= high and high - low < 0.2
        assert conclusion.verdict == "holds"
    assert [chart.name for chart in found.charts] == ["loss-by-rate-mup", "loss-by-rate-standard"]


def test_a_best_rate_that_moves_the_other_way_round_is_said():
    found = mup.compare(made(slopes={"mup": -0.8, "standard": 0.1}), mup.ADAMW)
    assert [it.verdict for it in found.conclusions] == ["does not hold", "does not hold"]


def test_runs_that_diverged_are_left_out():
    table = made(slopes={"mup": 0.0, "standard": -0.5})
    diverged = table["learning_rate"] == RATES[-1]
    found = mup.compare(table.assign(loss=table["loss"].mask(diverged)), mup.ADAMW)
    assert [it.verdict for it in found.conclusions] == ["holds", "holds"]


def test_losses_without_a_minimum_give_no_slope():
    table = made(slopes={"mup": 0.0, "standard": -0.5})
    falls = 4 - 0.01 * (np.log2(table["learning_rate"]) + 6) ** 2
    is_mup = table["parametrization"] == "mup"
    found = mup.compare(table.assign(loss=table["loss"].mask(is_mup, falls)), mup.ADAMW)
    assert [it.claim for it in found.conclusions] == [mup.ADAMW[1].text]


def test_missing_runs_are_refused():
    with pytest.raises(ValueError, match="equally many seeds"):
        mup.compare(made(slopes={"mup": 0.0, "standard": -0.5}).iloc[1:], mup.ADAMW)


@pytest.mark.parametrize("slope, verdict", [(0.0, "holds"), (-0.2, "does not hold")])
def test_muon_is_held_to_a_quarter_octave_over_a_factor_of_eight(slope, verdict):
    for claim in mup.MUON:
        table = made(slopes={claim.parametrization: slope}, over=claim.over)
        (conclusion,) = mup.compare(table, [claim]).conclusions
        assert conclusion.verdict == verdict, claim.text
