"""The conclusions about beta2 on made tables (mirrors experiments/beta2_batch.py)."""

import numpy as np
import pandas as pd
import pytest

from experiments import beta2_batch
from scalejax import Conclusion

BETA2 = [1 - 10.0 ** (-k / 2) for k in range(2, 8)]


def made(*, slope: float, noise: float = 0.002) -> pd.DataFrame:
    """A table in which log10(1 - beta2*) is -2 at a batch of 512, with this slope.

    The higher of two rates is the worse one by .1 nats.
    """
    rng, rows = np.random.default_rng(0), []
    for batch in (128, 512, 2048):
        best = -2 + slope * np.log10(batch / 512)
        for beta2 in BETA2:
            for seed in range(3):
                loss = 3 + 0.02 * (np.log10(1 - beta2) - best) ** 2 + 0.1 * seed
                for rate, worse in ((0.004, 0.0), (0.008, 0.1)):
                    measured = loss + worse + noise * rng.standard_normal()
                    rows.append((batch, beta2, rate, seed, measured))
    return pd.DataFrame(rows, columns=["batch_tokens", "beta2", "learning_rate", "seed", "loss"])


def judged(table: pd.DataFrame) -> dict[str, Conclusion]:
    return {it.claim: it for it in beta2_batch.compare(table).conclusions}


MORE = "Lower rate: it lowers it by more at 128 than at 2048 tokens"
SLOPE = "slope of log(1 - beta2) in log(batch)"
RISES = f"Lower rate: the best beta2 is larger at 128 than at 512 tokens: {SLOPE}"
TUNED = "At a batch of 128 tokens and tuned rates, beta2 0.999 beats 0.968"


def test_the_claims_hold_where_the_optimum_rises_as_the_batch_shrinks():
    claims = judged(made(slope=1.0))
    assert {claims[name].verdict for name in (MORE, RISES, TUNED)} == {"holds"}
    low, high = claims[RISES].interval
    assert low <= 1.0 <= high
    # (2.6 - 1.5)^2 - (3 - 2.6)^2 = 1.06 is the gain at a batch of 128, in units of .02.
    assert claims[TUNED].estimate == pytest.approx(0.02 * 1.06, abs=0.004)


def test_the_claims_do_not_hold_where_the_optimum_falls():
    claims = judged(made(slope=-1.0))
    assert {claims[name].verdict for name in (MORE, RISES, TUNED)} == {"does not hold"}


def test_nothing_is_resolved_where_the_optimum_is_the_same():
    claims = judged(made(slope=0.0))
    assert {claims[name].verdict for name in (MORE, RISES)} == {"not resolved at this scale"}


def test_a_better_rate_of_one_beta2_counts_only_where_rates_are_tuned():
    table = made(slope=0.0)
    better = (table["learning_rate"] == 0.008) & np.isclose(table["beta2"], 0.999)
    claims = judged(table.assign(loss=table["loss"] - 0.5 * better))
    assert claims[TUNED].estimate == pytest.approx(0.4, abs=0.02)
    assert claims[MORE].verdict == "not resolved at this scale"


def test_an_effect_at_the_worse_rate_only_is_not_claimed_for_the_better_one():
    table = made(slope=0.0)
    # The lower rate becomes the worse one at 128 tokens, where a larger beta2 mends it.
    worse = (table["learning_rate"] == 0.004) & (table["batch_tokens"] == 128)
    claims = judged(
        table.assign(loss=table["loss"] + worse * (0.4 + 0.05 * np.log10(1 - table["beta2"])))
    )
    assert claims[MORE].verdict == "holds"
    assert claims[MORE.replace("Lower", "Better")].verdict == "not resolved at this scale"


def test_missing_runs_are_refused():
    with pytest.raises(ValueError, match="some runs are missing"):
        beta2_batch.compare(made(slope=1.0).query("not (beta2 < 0.91 and batch_tokens == 128)"))
