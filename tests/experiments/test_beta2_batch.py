"""The conclusions about beta2 on made tables (mirrors experiments/beta2_batch.py)."""

import numpy as np
import pandas as pd
import pytest

from experiments import beta2_batch
from scalejax import Conclusion

BETA2 = [1 - 10.0 ** (-k / 2) for k in range(2, 8)]


def made(*, slope: float, noise: float = 0.002, seed: int = 0) -> pd.DataFrame:
    """A table in which log10(1 - beta2*) is -2 at a batch of 512, with this slope.

    The best rate follows the square root of the batch, and is twice as high at the
    largest beta2 as at the smallest one. Smaller batches are better, by .1 nats each.
    """
    rng, rows = np.random.default_rng(seed), []
    for batch in (128, 512, 2048):
        at = np.log(batch / 512) / np.log(4)
        rates = 0.016 * 2**at * np.array([0.5, 1.0, 2.0])
        for beta2 in BETA2:
            decades = np.log10(1 - beta2)
            best = np.log2(0.016) + at - (decades + 2.25) / 2.5
            loss = 3 + 0.1 * at + 0.02 * (decades + 2 - slope * np.log10(batch / 512)) ** 2
            for run_seed in range(3):
                for rate in rates:
                    measured = loss + 0.03 * (np.log2(rate) - best) ** 2 + 0.1 * run_seed
                    measured += noise * rng.standard_normal()
                    rows.append((batch, beta2, rate, run_seed, measured))
    return pd.DataFrame(rows, columns=["batch_tokens", "beta2", "learning_rate", "seed", "loss"])


def judged(table: pd.DataFrame) -> dict[str, Conclusion]:
    return {it.claim: it for it in beta2_batch.compare(table).conclusions}


RATE, BETA2_LAW = (
    f"{what} rises with the batch: exponent of its power law"
    for what in ("The best learning rate", "The best 1 - beta2, at tuned rates,")
)
MORE = "It lowers it by more at 128 than at 2048 tokens"
GAIN = "Batch of 128 tokens: a larger beta2 lowers the loss"
BATCH = "At tuned rates a batch of 128 tokens beats one of 512"


def test_the_claims_hold_where_the_optimum_rises_as_the_batch_shrinks():
    claims = judged(made(slope=1.0))
    assert {claims[name].verdict for name in (RATE, BETA2_LAW, MORE, GAIN)} == {"holds"}
    # With the minimum of .02 (x + 2.6)^2 at a batch of 128 and x from -3.5 to -1.
    assert claims[GAIN].estimate == pytest.approx(0.02 * 2 * (2.602 - 2.25), abs=0.003)


def test_the_claims_do_not_hold_where_the_optimum_falls():
    claims = judged(made(slope=-1.0))
    assert {claims[name].verdict for name in (BETA2_LAW, MORE, GAIN)} == {"does not hold"}


def test_nothing_is_resolved_where_the_optimum_is_the_same():
    claims = judged(made(slope=0.0))
    assert {claims[name].verdict for name in (BETA2_LAW, MORE)} == {"not resolved at this scale"}


def test_the_intervals_hold_the_truth_where_the_noise_is_that_of_the_runs():
    truths = {RATE: 0.5, BETA2_LAW: 0.5, MORE: 0.02 * 2 * 0.5 * np.log10(16), BATCH: 0.1}
    inside = dict.fromkeys(truths, 0)
    for seed in range(40):
        claims = judged(made(slope=0.5, noise=0.015, seed=seed))
        for name, truth in truths.items():
            low, high = claims[name].interval
            inside[name] += low <= truth <= high
    # 38 are expected; 3 standard errors are 4.
    assert min(inside.values()) >= 34, inside


def test_a_rate_that_suits_one_beta2_better_does_not_count_as_its_merit():
    # At the highest rate alone, a larger beta2 would gain .014 nats per decade.
    claims = judged(made(slope=0.0, noise=0.0001))
    assert claims[GAIN].estimate == pytest.approx(-0.02 * 2 * 0.25, abs=0.001)


def test_a_seed_whose_best_rate_is_at_both_ends_is_not_refused():
    table = made(slope=1.0)
    hump = (table["seed"] == 2) & (table["batch_tokens"] == 512) & (table["learning_rate"] == 0.016)
    assert judged(table.assign(loss=table["loss"] + 0.06 * hump))[GAIN].verdict == "holds"


def test_missing_runs_are_refused():
    with pytest.raises(ValueError, match="some runs are missing"):
        beta2_batch.compare(made(slope=1.0).query("not (beta2 < 0.91 and seed == 1)"))
