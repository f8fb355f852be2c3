"""What tables that say too little lead to: open intervals, reasons, forecasts without one (mirrors scalejax/study/points.py)."""

import numpy as np
import pandas as pd
import pytest

from scalejax import laws
from scalejax.fitting import chain
from scalejax.fitting import fit as fits
from scalejax.fitting import parametric as points
from scalejax.laws.inference import bootstrap

RUN = {"params": 1e9, "tokens": 1e12}


def ladder(rows=24, noise=0.004):
    rng = np.random.default_rng(0)
    params = np.exp(rng.uniform(np.log(1e7), np.log(5e9), rows))
    tokens = params * np.exp(rng.uniform(np.log(4), np.log(200), rows))
    loss = (1.75 + 300 * params**-0.33 + 900 * tokens**-0.34) * np.exp(
        noise * rng.normal(size=rows)
    )
    return pd.DataFrame(
        {"params": params, "tokens": tokens, "loss": loss, "top1_error": 0.9 - 2 * np.exp(-loss)}
    )


ONE_SIZE = ladder().assign(params=1e8)
ONE_RATIO = ladder().assign(tokens=lambda table: 20 * table.params)


@pytest.mark.parametrize(
    ("table", "law", "said", "unknown"),
    [
        (ONE_SIZE, laws.chinchilla(), "params has a single value", {"A", "alpha", "E"}),
        (ONE_SIZE, laws.kaplan(), "params has a single value", {"N_c", "alpha_N"}),
        (
            ONE_RATIO,
            laws.chinchilla(),
            "tokens/params is constant: alpha and beta",
            {"A", "B", "alpha", "beta"},
        ),
        (ONE_RATIO, laws.overtraining(), "the parameters a, b cannot be told apart", {"a", "b"}),
    ],
    ids=["one size", "one size, Kaplan", "one ratio", "one ratio, one exponent"],
)
def test_what_the_design_leaves_free_has_open_intervals_and_no_forecast_off_it(
    table, law, said, unknown
):
    made = fits.fit(table, law, bootstrap=40)
    assert made.verdict == "unidentified" and said in " ".join(made.reasons)
    assert {name for name, ends in made.intervals.items() if ends == (None, None)} >= unknown
    off = made.predict(**RUN)
    assert off.low is None and "in every fitted row, and here it is" in off.method
    assert made.predict(params=table.params[0], tokens=table.tokens[0]).low is not None
    if "kaplan" not in law.name:
        best = made.forecast(flops=1e21).summary()
        assert best["params_interval"] == best["tokens_interval"] == [None, None]


def test_an_exponent_that_another_term_shows_is_known_at_one_size():
    made = fits.fit(ONE_SIZE, laws.overtraining(), bootstrap=40)
    assert made.reasons[0] == "params has a single value: a cannot be identified"
    assert made.intervals["a"] == (None, None) and None not in made.intervals["alpha_C"]
    assert (
        fits.fit(ONE_SIZE, laws.chinchilla(tied=True)).reasons[0]
        == "params has a single value: A cannot be identified"
    )
    held = fits.fit(ONE_SIZE, laws.chinchilla(E=1.0, alpha=0.33), bootstrap=40)
    assert held.verdict == "ok" and held.predict(**RUN).low is not None, (
        "the size term is known where its exponent and E are"
    )


def test_a_forecast_says_how_far_it_lies_beyond_the_rows_and_a_chain_has_no_interval_where_its_first_law_has_none():
    table = ladder()
    loss, error = (
        fits.fit(table, law, bootstrap=40) for law in (laws.chinchilla(), laws.downstream())
    )
    far = {"params": 10 * table.params.max(), "tokens": table.tokens.max()}
    assert loss.predict(**far).method.endswith("; params is 10 times the largest fitted")
    assert chain.predict(loss, error, **RUN).low is not None
    blind = fits.fit(ONE_SIZE, laws.chinchilla(), bootstrap=40)
    assert chain.predict(blind, error, **RUN).low is None


def test_a_ridge_without_noise_is_unidentified_not_a_failure():
    exact = ladder(noise=0.0)
    exact = exact.assign(params=exact.tokens / 20)
    exact["loss"] = 1.75 + 300 * exact.params**-0.33 + 900 * exact.tokens**-0.34
    made = fits.fit(exact, laws.chinchilla())
    assert made.verdict == "unidentified" and "tokens/params is constant" in made.reasons[0]


@pytest.mark.slow  # to compile
def test_what_was_never_repeated_says_nothing_of_repetition():
    table = ladder().assign(unique_tokens=lambda t: t.tokens)
    held = {"A": 300.0, "B": 900.0, "E": 1.75, "alpha": 0.33, "beta": 0.34, "R_N": 5.0}
    made = fits.fit(table, laws.data_constrained(**held), bootstrap=40)
    assert made.verdict == "unidentified" and made.intervals == {"R_D": (None, None)}
    assert made.reasons[0] == "R_D changed nothing on these rows"


def test_a_loss_without_a_slope_gives_no_sizes():
    made = fits.fit(ladder().assign(loss=2.5), laws.chinchilla(), bootstrap=40)
    assert made.verdict == "unidentified" and {
        made.intervals[name] for name in ("A", "B", "E")
    } == {(None, None)}


@pytest.mark.parametrize(
    ("table", "law", "said"),
    [
        (
            ladder(5),
            laws.chinchilla(),
            "5 rows for 5 parameters: nothing is left to check the law with",
        ),
        (
            pd.concat([ladder(), ladder()[:3]]),
            laws.chinchilla(),
            "duplicate rows: 3 repeat another",
        ),
        (ladder(), laws.chinchilla(E=2.5), "E is held at 2.5, above the loss of"),
    ],
    ids=["as many rows as parameters", "copies", "an offset above the losses"],
)
def test_reasons_name_what_a_verdict_does_not(table, law, said):
    assert said in " ".join(fits.fit(table, law).reasons)
    assert said not in " ".join(fits.fit(ladder(), laws.chinchilla()).reasons)


def test_few_draws_are_said_to_be_few():
    assert "20 bootstrap draws are few" in " ".join(
        fits.fit(ladder(), laws.chinchilla(), bootstrap=20).reasons
    )
    assert not fits.fit(ladder(), laws.chinchilla(), bootstrap=40).reasons


def test_draws_that_failed_too_often_give_no_interval(monkeypatch):
    whole = bootstrap.pairs_bootstrap

    def one_in(share):
        return lambda *a, **k: np.where(np.arange(k["count"]) % share, whole(*a, **k), np.nan)

    monkeypatch.setattr(bootstrap, "pairs_bootstrap", one_in(50))
    assert (
        "1 of 50 bootstrap fits did not converge and are left out"
        in fits.fit(ladder(), laws.chinchilla(), bootstrap=50).reasons
    )
    monkeypatch.setattr(bootstrap, "pairs_bootstrap", one_in(10))
    made = fits.fit(ladder(), laws.chinchilla(), bootstrap=50)
    assert made.verdict == "unidentified" and set(made.intervals.values()) == {(None, None)}
    assert (
        "5 of 50 bootstrap fits did not converge" in " ".join(made.reasons)
        and made.predict(**RUN).low is None
    )


def test_a_row_without_its_cluster_is_refused():
    table = ladder().assign(trunk=["a", None] * 12)
    with pytest.raises(ValueError, match=r"'trunk' is missing in row 1 \(from 0\)"):
        fits.fit(table, laws.chinchilla(), bootstrap=40, cluster="trunk")


def test_an_error_in_percent_is_refused():
    table = ladder().assign(top1_error=lambda t: 100 * t.top1_error)
    with pytest.raises(ValueError, match="a top-1 error is a fraction"):
        fits.fit(table, laws.downstream())


def test_many_rows_are_cross_validated_on_a_sample(monkeypatch):
    whole = fits.fit(ladder(64), laws.chinchilla()).cross_validation
    monkeypatch.setattr(points, "LARGE_TABLE_ROWS", 32)
    part = fits.fit(ladder(64), laws.chinchilla()).cross_validation
    assert whole["by_split"][0]["fitted"] == 32 and part["by_split"][0]["fitted"] == 16
    assert part["mean_rel_error"] == pytest.approx(whole["mean_rel_error"], rel=0.8)
