"""Laws of one row per run, fitted to tables (mirrors scalejax/fitting/parametric/).

Most tables here determine too little: they lead to open intervals, reasons, and
forecasts without an interval.
"""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from scalejax import laws
from scalejax.cli.text.fit import fit_text
from scalejax.fitting import chain
from scalejax.fitting import fit as fits
from scalejax.fitting.parametric import cross_validation
from scalejax.fitting.parametric import fit as parametric_fit
from scalejax.laws.inference import bootstrap

RUN = {"params": 1e9, "tokens": 1e12}


def ladder(rows=24, noise=0.004):
    """Runs at random sizes and tokens, with a loss and a top-1 error."""
    rng = np.random.default_rng(0)
    params = np.exp(rng.uniform(np.log(1e7), np.log(5e9), rows))
    tokens = params * np.exp(rng.uniform(np.log(4), np.log(200), rows))
    exact = 1.75 + 300 * params**-0.33 + 900 * tokens**-0.34
    loss = exact * np.exp(noise * rng.normal(size=rows))
    error = 0.9 - 2 * np.exp(-loss)
    return pd.DataFrame({"params": params, "tokens": tokens, "loss": loss, "top1_error": error})


ONE_SIZE = ladder().assign(params=1e8)
ONE_RATIO = ladder().assign(tokens=lambda table: 20 * table.params)


@pytest.mark.parametrize(
    ("table", "law", "reason", "unknown"),
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
def test_an_undetermined_design_has_open_intervals_and_no_forecast_off_it(
    table, law, reason, unknown
):
    fit = fits.fit(table, law, bootstrap=40)
    assert fit.verdict == "unidentified" and reason in " ".join(fit.reasons)
    assert {name for name, ends in fit.intervals.items() if ends == (None, None)} >= unknown
    off = fit.predict(**RUN)
    assert off.low is None and "in every fitted row, and here it is" in off.method
    assert fit.predict(params=table.params[0], tokens=table.tokens[0]).low is not None
    if "kaplan" not in law.name:
        intervals = fit.forecast(flops=1e21).intervals
        assert intervals["params"] == intervals["tokens"] == (None, None)


def test_an_exponent_that_another_term_shows_is_known_at_one_size():
    fit = fits.fit(ONE_SIZE, laws.overtraining(), bootstrap=40)
    assert fit.reasons[0] == "params has a single value: a cannot be identified"
    assert fit.intervals["a"] == (None, None) and None not in fit.intervals["alpha_C"]
    tied = fits.fit(ONE_SIZE, laws.chinchilla(tied=True), bootstrap=0)
    assert tied.reasons[0] == "params has a single value: A cannot be identified"


def test_the_size_term_is_known_at_one_size_when_its_exponent_and_offset_are_held():
    held = fits.fit(ONE_SIZE, laws.chinchilla(E=0.5, alpha=0.33), bootstrap=40)
    assert held.verdict == "ok" and held.predict(**RUN).low is not None


def test_a_forecast_says_how_far_it_lies_beyond_the_rows():
    table = ladder()
    fit = fits.fit(table, laws.chinchilla(), bootstrap=40)
    far = {"params": 10 * float(table.params.max()), "tokens": float(table.tokens.max())}
    assert fit.predict(**far).method.endswith("; params is 10 times the largest fitted")
    near = {"params": float(table.params.min()) / 4, "tokens": float(table.tokens.max())}
    assert fit.predict(**near).method.endswith("; params is 0.25 times the smallest fitted")


def test_a_chain_has_no_interval_when_its_first_law_has_none():
    loss, error = (
        fits.fit(ladder(), law, bootstrap=40) for law in (laws.chinchilla(), laws.downstream())
    )
    assert chain.predict(loss, error, **RUN).low is not None
    undetermined = fits.fit(ONE_SIZE, laws.chinchilla(), bootstrap=40)
    assert chain.predict(undetermined, error, **RUN).low is None


def test_a_ridge_without_noise_is_unidentified_and_not_a_failure():
    exact = ladder(noise=0.0)
    exact = exact.assign(params=exact.tokens / 20)
    exact["loss"] = 1.75 + 300 * exact.params**-0.33 + 900 * exact.tokens**-0.34
    fit = fits.fit(exact, laws.chinchilla(), bootstrap=0)
    assert fit.verdict == "unidentified" and "tokens/params is constant" in fit.reasons[0]


# Slow: the data-constrained law takes long to compile.
@pytest.mark.slow
def test_without_repeated_tokens_the_value_of_repetition_is_open():
    table = ladder().assign(unique_tokens=lambda t: t.tokens)
    held = {"A": 300.0, "B": 900.0, "E": 1.75, "alpha": 0.33, "beta": 0.34, "R_N": 5.0}
    fit = fits.fit(table, laws.data_constrained(**held), bootstrap=40)
    assert fit.verdict == "unidentified" and fit.intervals == {"R_D": (None, None)}
    assert fit.reasons[0] == "R_D changed nothing on these rows"


def test_a_constant_loss_leaves_the_sizes_open():
    fit = fits.fit(ladder().assign(loss=2.5), laws.chinchilla(), bootstrap=40)
    assert fit.verdict == "unidentified"
    assert {fit.intervals[name] for name in ("A", "B", "E")} == {(None, None)}


@pytest.mark.parametrize(
    ("table", "law", "reason"),
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
def test_reasons_name_what_the_verdict_does_not(table, law, reason):
    assert reason in " ".join(fits.fit(table, law, bootstrap=0).reasons)
    assert reason not in " ".join(fits.fit(ladder(), laws.chinchilla(), bootstrap=0).reasons)


def test_few_bootstrap_draws_are_called_few():
    few = fits.fit(ladder(), laws.chinchilla(), bootstrap=20)
    assert "20 bootstrap draws are few" in " ".join(few.reasons)
    assert not fits.fit(ladder(), laws.chinchilla(), bootstrap=40).reasons


def test_draws_that_fail_too_often_give_no_interval(monkeypatch):
    original = bootstrap.pairs_bootstrap

    def failing_once_in(period):
        def draws(*args, **kwargs):
            fails = np.arange(kwargs["count"]) % period == 0
            return np.where(fails, np.nan, original(*args, **kwargs))

        return draws

    monkeypatch.setattr(bootstrap, "pairs_bootstrap", failing_once_in(50))
    fit = fits.fit(ladder(), laws.chinchilla(), bootstrap=50)
    assert "1 of 50 bootstrap fits did not converge and is left out" in fit.reasons
    monkeypatch.setattr(bootstrap, "pairs_bootstrap", failing_once_in(10))
    fit = fits.fit(ladder(), laws.chinchilla(), bootstrap=50)
    assert fit.verdict == "unidentified" and set(fit.intervals.values()) == {(None, None)}
    assert "5 of 50 bootstrap fits did not converge" in " ".join(fit.reasons)
    assert fit.predict(**RUN).low is None


def test_a_row_without_its_cluster_is_refused():
    table = ladder().assign(trunk=["a", None] * 12)
    with pytest.raises(ValueError, match=r"'trunk' is missing in row 1 \(from 0\)"):
        fits.fit(table, laws.chinchilla(), bootstrap=40, cluster="trunk")


def test_an_error_in_percent_is_refused():
    table = ladder().assign(top1_error=lambda t: 100 * t.top1_error)
    with pytest.raises(ValueError, match="a top-1 error is a fraction"):
        fits.fit(table, laws.downstream(), bootstrap=0)


def three_sizes(factor):
    """Three sizes, each `factor` times the one before, at six token budgets each."""
    rng = np.random.default_rng(0)
    sizes, budgets = 1e7 * factor ** np.arange(3.0), np.geomspace(1e9, 3.2e10, 6)
    params, tokens = (x.ravel() for x in np.meshgrid(sizes, budgets))
    exact = 1.8 + 480 * params**-0.35 + 2100 * tokens**-0.37
    loss = exact * np.exp(0.004 * rng.normal(size=len(params)))
    return pd.DataFrame({"params": params, "tokens": tokens, "loss": loss})


def test_every_split_of_cross_validation_equals_a_fit_to_its_own_rows():
    table = three_sizes(4)
    table = table.loc[np.argsort(table.params * table.tokens)]
    scores = fits.fit(table, laws.chinchilla(), bootstrap=0).cross_validation
    assert scores.splits >= 3 and scores.left_out == 0
    for split in scores.by_split:
        cheap, rest = table.iloc[: split.fitted], table.iloc[split.fitted :]
        alone = fits.fit(cheap, laws.chinchilla(), bootstrap=0)
        predicted = [
            alone.predict(params=r.params, tokens=r.tokens).value for r in rest.itertuples()
        ]
        errors = np.abs(np.array(predicted) / rest.loss.to_numpy() - 1)
        assert split.mean_rel_error == pytest.approx(errors.mean(), rel=1e-4)


def test_cross_validation_leaves_out_splits_that_do_not_determine_the_law():
    # The 9 to 12 cheapest runs have two of the sizes only: nothing tells A from alpha.
    # A fit that starts at the optimum of all rows would keep their values and look
    # good.
    fit = fits.fit(three_sizes(100), laws.chinchilla(), bootstrap=0)
    scores = fit.cross_validation
    assert (scores.splits, scores.left_out) == (2, 3)
    assert [split.fitted for split in scores.by_split] == [14, 16]
    assert "3 of 5 splits have no score" in fit_text(fit)
    everywhere = fits.fit(three_sizes(4), laws.chinchilla(), bootstrap=0)
    assert "have no score" not in fit_text(everywhere)


def test_cross_validation_does_not_split_runs_of_equal_cost():
    flops = np.repeat(np.geomspace(1e18, 1e21, 4), 5)
    params = np.sqrt(flops / 120) * np.tile(np.geomspace(0.3, 3, 5), 4)
    table = pd.DataFrame({"params": params, "tokens": flops / 6 / params})
    table["loss"] = 1.8 + 480 * table.params**-0.35 + 2100 * table.tokens**-0.37
    # Rounding of params x tokens would cut the third budget after its second run.
    scores = fits.fit(table, laws.chinchilla(), bootstrap=0).cross_validation
    assert [split.fitted for split in scores.by_split] == [10, 15]


def test_proportions_of_a_mixture_add_up_to_one():
    proportions = np.random.default_rng(0).dirichlet([1, 1, 1], 12)
    table = pd.DataFrame(proportions, columns=["web", "code", "books"])
    table["loss"] = 2.2 + 0.6 * np.exp(-3 * table.code + table.books)
    law = laws.mixture(("web", "code", "books"))
    fit = fits.fit(table, law, bootstrap=0)
    assert fit.params["t_code"] == pytest.approx(-3, rel=1e-3)
    with pytest.raises(ValueError, match=r"web, code, books add up to 2\.3, and shares of"):
        fit.predict(web=0.5, code=0.9, books=0.9)
    with pytest.raises(ValueError, match="Name every domain in the law"):
        fits.fit(table, laws.mixture(("web", "code")), bootstrap=0)
    percent = table.assign(**{name: 100 * table[name] for name in law.inputs})
    with pytest.raises(ValueError, match=r"add up to 100, .*web=web/100"):
        fits.fit(percent, law, bootstrap=0)


def test_the_order_of_the_domains_of_a_mixture_does_not_matter():
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.dirichlet([1, 1, 1], 20), columns=["web", "code", "books"])
    exact = 1.6 + 0.6 * np.exp(-20 * table.code)
    table["loss"] = exact * np.exp(0.01 * rng.normal(size=20))
    # A run on the first domain by itself has a term of 0.6 nats, or of 0.6 e^-20.
    last, first = (
        fits.fit(table, laws.mixture(domains), bootstrap=0)
        for domains in (("web", "books", "code"), ("code", "web", "books"))
    )
    assert first.params["c"] == pytest.approx(last.params["c"], rel=1e-6)
    assert first.objective == pytest.approx(last.objective, rel=1e-6)
    assert first.params["t_web"] == pytest.approx(-last.params["t_code"], rel=1e-4)


def test_many_rows_are_cross_validated_on_a_sample(monkeypatch):
    everything = fits.fit(ladder(64), laws.chinchilla(), bootstrap=0).cross_validation
    monkeypatch.setattr(cross_validation, "LARGE_TABLE_ROWS", 32)
    sample = fits.fit(ladder(64), laws.chinchilla(), bootstrap=0).cross_validation
    assert everything.by_split[0].fitted == 32 and sample.by_split[0].fitted == 16
    assert sample.mean_rel_error == pytest.approx(everything.mean_rel_error, rel=0.8)


def test_a_forecast_without_draws_says_how_far_it_lies_beyond_the_rows():
    table = ladder()
    fit = fits.fit(table, laws.chinchilla(), bootstrap=0)
    far = fit.predict(params=10 * table.params.max(), tokens=table.tokens.max())
    assert far.low is None and far.method.endswith("; params is 10 times the largest fitted")
    error = fits.fit(table, laws.downstream(), bootstrap=0)
    chained = chain.predict(fit, error, params=10 * table.params.max(), tokens=1e15)
    assert "params is 10 times" in chained.method and "times the smallest fitted" in chained.method
    undetermined = fits.fit(ONE_SIZE, laws.chinchilla(), bootstrap=40)
    assert "tokens is" in undetermined.predict(params=1e9, tokens=1e15).method


def test_an_offset_at_zero_ends_where_its_profile_does():
    # The rows want an offset below zero, so most bootstrap fits end at zero too.
    table = ladder(noise=0.02).assign(loss=lambda t: t.loss - 1.75)
    fit = fits.fit(table, laws.chinchilla(), loss="mse", bootstrap=100)
    assert fit.at_boundary == ["E"]
    low, high = fit.intervals["E"]
    assert low is None and high is not None
    inputs = tuple(table[name].to_numpy() for name in ("params", "tokens"))
    lowest, at_end = laws.profile(
        laws.chinchilla(), inputs, table.loss.to_numpy(), "E", [0.0, high], loss="mse"
    )
    # F(1, 19) at 95% is 4.381.
    assert at_end / lowest >= 0.98 * (1 + 4.381 / 19)


def test_an_absurd_optimum_is_refused():
    fit = fits.fit(ladder(), laws.chinchilla(), bootstrap=0)
    assert fit.predict(flops=1e24).value > 1.75
    with pytest.raises(ValueError, match=r"no compute-optimal run of 1e\+60 FLOPs: the law puts"):
        fit.predict(flops=1e60)


def test_standard_errors_as_weights_mean_inverse_variances():
    rng = np.random.default_rng(0)
    table = ladder().assign(loss_se=lambda t: t.loss * rng.uniform(0.001, 0.01, len(t)))
    table["precision"] = (table.loss / table.loss_se) ** 2
    table["precision"] *= (1 / table.precision).mean()
    by_error = fits.fit(table, laws.chinchilla(), weights="loss_se", bootstrap=0)
    by_precision = fits.fit(table, laws.chinchilla(), weights="precision", bootstrap=0)
    assert by_error.params == pytest.approx(by_precision.params, rel=1e-6)
    assert by_error.params != pytest.approx(
        fits.fit(table, laws.chinchilla(), bootstrap=0).params, rel=1e-6
    )


def test_kaplans_law_reads_parameters_without_embeddings():
    table = ladder().assign(params_non_embedding=lambda t: t.params / 2, params_with_head=1e9)
    fit = fits.fit(table, laws.kaplan(), bootstrap=0)
    assert fit.columns["params"] == "params_non_embedding"
    assert (
        fits.fit(table, laws.kaplan(), columns={"params": "params"}, bootstrap=0).columns["params"]
        == "params"
    )
    assert fits.fit(table, laws.chinchilla(), bootstrap=0).columns["params"] == "params_with_head"


def test_tokens_of_skipped_steps_do_not_count():
    table = ladder()
    skipped = table.assign(tokens=lambda t: t.tokens + 1e8, tokens_skipped=1e8)
    wanted = fits.fit(table, laws.chinchilla(), bootstrap=0).params
    assert fits.fit(skipped, laws.chinchilla(), bootstrap=0).params == pytest.approx(
        wanted, rel=1e-6
    )
    named = fits.fit(skipped, laws.chinchilla(), columns={"tokens": "tokens"}, bootstrap=0)
    assert named.params != pytest.approx(wanted, rel=1e-6)


def branches(seeds):
    """Runs at five budgets off the trunks of four sizes, with a shared error of .8."""
    rng = np.random.default_rng(1)
    trunk = np.repeat(np.arange(4 * seeds), 5)
    params = 33e3 * 2.0 ** (trunk // seeds)
    tokens = np.tile(np.geomspace(0.45e6, 1.75e6, 5), 4 * seeds)
    exact = 1.6 + 20 * params**-0.34 + 60 * tokens**-0.35
    error = np.sqrt(0.8) * rng.normal(size=4 * seeds)[trunk]
    error += np.sqrt(0.2) * rng.normal(size=len(trunk))
    loss = exact * np.exp(0.004 * error)
    return pd.DataFrame({"params": params, "tokens": tokens, "loss": loss, "trunk": trunk})


def test_branches_of_one_trunk_share_an_error_by_default(tmp_path):
    table, far = branches(3), {"params": 528e3, "tokens": 1.75e6}
    fit = fits.fit(table, laws.chinchilla(), bootstrap=200)
    assert (fit.clusters, fit.resample) == ("trunk", "trunks")
    assert "rows of a trunk count as correlated by about 0." in " ".join(fit.reasons)
    estimate = fit.predict(**far)
    assert "effects of trunk and noise of runs" in estimate.method
    assert "the repeated ones among 12 trunks measure" in estimate.method
    fit.save(tmp_path / "fit.json")
    assert fits.load(tmp_path / "fit.json").predict(**far) == estimate
    rows = fits.fit(table, laws.chinchilla(), bootstrap=200, resample="pairs")
    assert (rows.clusters, rows.resample) == (None, "pairs")

    def width(fit):
        low, high = fit.intervals["alpha"]
        return high - low

    assert width(fit) > 1.5 * width(rows)


def test_many_trunks_are_resampled_and_single_runs_are_rows():
    table = branches(3).assign(trunk=np.arange(60) // 2)
    many = fits.fit(table, laws.chinchilla(), bootstrap=40)
    assert (many.clusters, many.resample) == ("trunk", "pairs")
    single = fits.fit(table.assign(trunk=np.arange(60)), laws.chinchilla(), bootstrap=40)
    assert (single.clusters, single.resample) == (None, "pairs")
    with pytest.raises(ValueError, match="needs rows that share a trunk"):
        fits.fit(ladder(), laws.chinchilla(), resample="trunks", bootstrap=0)


def test_a_fit_makes_a_thousand_draws_unless_that_takes_long(monkeypatch):
    by_default = fits.fit(ladder(), laws.chinchilla())
    assert len(by_default.draws["alpha"]) == 1000 and by_default.reasons == []
    assert fits.fit(ladder(), laws.chinchilla(), bootstrap=0).intervals == {}
    # With 24 rows, these limits leave 300 draws, and 100, which are too few.
    for rows, count in ((7200, "300"), (2400, "no")):
        monkeypatch.setattr(parametric_fit, "MAX_DRAWN_ROWS", rows)
        fit = fits.fit(ladder(), laws.chinchilla())
        assert len(fit.draws.get("alpha", ())) == (300 if count == "300" else 0)
        assert any(reason.startswith(f"{count} bootstrap draws instead") for reason in fit.reasons)


def test_rows_of_one_trunk_are_not_independent():
    table = ladder()
    alone = fits.fit(table, laws.chinchilla(), bootstrap=100)
    fit = fits.fit(table.assign(trunk="a"), laws.chinchilla(), bootstrap=100)
    assert (fit.clusters, fit.resample) == ("trunk", "trunks")
    assert any("one trunk" in reason for reason in fit.reasons)
    run = {"params": 2e9, "tokens": 1e11}
    (_, low, high, *_), (_, near_low, near_high, *_) = fit.predict(**run), alone.predict(**run)
    assert low and high and near_low and near_high
    wide, narrow = high - low, near_high - near_low
    # Nothing in the rows measures the error that all of them share.
    assert wide > 1.5 * narrow


def test_beyond_two_sizes_a_forecast_has_no_interval(tmp_path):
    table = ladder().assign(params=np.tile([1e8, 4e8], 12))
    exact = 1.75 + 300 * table.params**-0.33 + 900 * table.tokens**-0.34
    noise = np.exp(0.004 * np.random.default_rng(1).normal(size=24))
    fit = fits.fit(table.assign(loss=exact * noise), "chinchilla", bootstrap=60)
    assert fit.verdict == "unidentified"
    fit.save(tmp_path / "fit.json")
    inside = {"params": 1e8, "tokens": float(table.tokens.max())}
    for one in (fit, fits.load(tmp_path / "fit.json")):
        assert one.predict(**inside).low is not None
        ahead = one.predict(**(inside | {"params": 4e10}))
        assert ahead.low is None and "leave A and alpha free" in ahead.method


def test_a_predicted_error_outside_of_0_to_1_has_no_interval():
    fit = fits.fit(ladder(), laws.downstream(), bootstrap=60)
    inside = fit.predict(loss=2.5)
    assert 0 < inside.value < 1 and inside.low is not None
    beyond = dataclasses.replace(fit, params=fit.params | {"k": 100.0}).predict(loss=2.5)
    assert beyond.value < 0 and beyond.low is None and "between 0 and 1" in beyond.method
