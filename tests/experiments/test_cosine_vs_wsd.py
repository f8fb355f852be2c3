"""The study of cosine against cooldowns (mirrors experiments/cosine_vs_wsd.py)."""

import numpy as np
import pandas as pd
import pytest

from experiments import cosine_vs_wsd as study
from scalejax.grids import flatten, run_id

# Loss above that of a cosine of the same length, in nats per token.
OFFSETS = {"10% 1-sqrt": 0.01, "20% 1-sqrt": 0.002, "40% 1-sqrt": 0.0, "20% linear": 0.008}
OFFSETS |= {"cosine": 0.0, "constant": 0.1, "average": 0.04, "schedule-free": 0.03}


def made_tables(offsets: dict[str, float]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Results of the mini study and its logged losses, with noise of 0.001 nats."""
    rng = np.random.default_rng(0)
    rows = [
        {**flatten(run), "run": run_id(run), "tokens": run.tokens_read, "status": "done"}
        for run in study.mini.runs
    ]
    table = study.tidy(pd.DataFrame(rows).drop_duplicates("run"))

    def losses(tokens, family):
        offset = np.array([offsets[name] for name in family])
        return 3.0 - 0.2 * np.log(tokens / 4e5) + offset + rng.normal(0, 0.001, len(tokens))

    table["loss"] = losses(table["tokens"], table["family"])
    lengths = sorted(set(table["tokens"]))
    trunks = table.loc[table["family"] == "constant", "run"]
    logged = pd.DataFrame(
        [
            {"run": run, "tokens": tokens, "weights": weights, "family": family}
            for run in trunks
            for tokens in lengths
            for weights, family in (("raw", "constant"), ("window-25600", "average"))
        ]
    )
    return table, logged.assign(loss=losses(logged["tokens"], logged["family"]))


def verdicts(offsets: dict[str, float]) -> dict[str, str]:
    analysis = study.conclude(*made_tables(offsets))
    return {conclusion.claim: conclusion.verdict for conclusion in analysis.conclusions}


def test_the_verdicts_are_those_of_losses_with_known_differences():
    found = verdicts(OFFSETS)
    assert found.pop("More tokens that lower the loss by 0.02 nats") == "measured"
    assert set(found.values()) == {"holds"}
    worse = verdicts(OFFSETS | {"20% 1-sqrt": 0.05})
    assert worse["A 20% 1-sqrt cooldown ends at cosine's loss"] == "does not hold"
    assert worse["A 1-sqrt cooldown beats a linear one"] == "does not hold"
    assert worse["A cooldown ends below schedule-free AdamW"] == "does not hold"


def test_the_bound_is_translated_into_tokens_by_the_slope_of_cosine():
    *_, worth = study.conclude(*made_tables(OFFSETS)).conclusions
    # The made losses fall by 0.2 nats per factor e of tokens.
    assert worth.estimate == pytest.approx(100 * np.expm1(0.02 / 0.2), rel=0.03)


def test_a_missing_run_is_named():
    table, logged = made_tables(OFFSETS)
    with pytest.raises(ValueError, match="with 20% linear"):
        study.conclude(table.loc[table["family"] != "20% linear", :], logged)


@pytest.mark.parametrize(
    ("rung", "ratio"),
    [((384, 8), 0.600), ((640, 12), 0.581), ((768, 24), 0.533), ((1024, 24), 0.556)],
)
def test_sharing_trunks_saves_the_flops_that_the_paper_reports(rung, ratio):
    assert study.cost_ratio(study.paper_runs(*rung)) == pytest.approx(ratio, abs=6e-4)
