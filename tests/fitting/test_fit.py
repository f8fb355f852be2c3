"""From a table to a fit and a forecast (mirrors scalejax/study/fits.py and points.py)."""

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scalejax import laws
from scalejax.fitting import fit as fits
from scalejax.laws.law import Coordinate, Linear, ParametricLaw

TRUTH = {"A": 40.0, "B": 300.0, "E": 1.5, "alpha": 0.3, "beta": 0.35}


def true_loss(params, tokens, E=TRUTH["E"]):
    return E + TRUTH["A"] * params ** -TRUTH["alpha"] + TRUTH["B"] * tokens ** -TRUTH["beta"]


def ladder(seed=0, noise=0.004, E=TRUTH["E"]):
    """Four sizes x five budgets, as a small study measures them."""
    rng = np.random.default_rng(seed)
    params, tokens = (
        x.ravel() for x in np.meshgrid([2e5, 6e5, 2e6, 6e6], [1e6, 2e6, 4e6, 8e6, 16e6])
    )
    loss = true_loss(params, tokens, E) * np.exp(rng.normal(0, noise, len(params)))
    return pd.DataFrame(
        {
            "run": [f"r{i}" for i in range(len(params))],
            "params_with_head": params,
            "tokens": tokens,
            "loss": loss,
        }
    )


@pytest.fixture(scope="module")
def fitted():
    return fits.fit(ladder(), laws.chinchilla(), bootstrap=200, seed=0)


def test_a_fit_says_what_it_read_and_how_far_it_can_be_trusted(fitted):
    assert (
        fitted.verdict == "ok"
        and fitted.n_rows == 20
        and fitted.columns["params"] == "params_with_head"
    )
    assert fitted.intervals["beta"][0] < TRUTH["beta"] < fitted.intervals["beta"][1]
    assert fitted.cross_validation["n"] > 0 and 0 < fitted.cross_validation["mean_rel_error"] < 0.02


def test_a_fit_says_how_well_its_parameters_can_be_told_apart_and_which_are_at_an_edge(fitted):
    said = fitted.summary()
    assert (
        10 < said["condition"] < 1e6 and said["at_boundary"] == [] and said["resample"] == "pairs"
    )
    below = ladder(E=0.0).assign(loss=lambda frame: frame.loss - 0.1)
    assert fits.fit(below, laws.chinchilla()).summary()["at_boundary"] == ["E"]


def test_a_saved_fit_predicts_the_same(fitted, tmp_path):
    fitted.save(tmp_path / "fit.json")
    loaded = fits.load(tmp_path / "fit.json")
    assert loaded.predict(params=2e7, tokens=6e7) == fitted.predict(params=2e7, tokens=6e7)
    assert loaded.summary() == fitted.summary()
    with pytest.raises(ValueError, match="is a folder"):
        fitted.save(tmp_path)
    with pytest.raises(ValueError, match="needs the rows"):
        fits.influence(loaded, {"params": 2e7, "tokens": 6e7})


class Line(NamedTuple):
    """L(N) = top - fall log N: a law of a user's own."""

    top: float
    fall: float

    def loss(self, N):
        return self.top - self.fall * jnp.log(N)


LINE = ParametricLaw(
    name="line",
    form=Line,
    predict=Line.loss,
    inputs=("params",),
    axes=(0,),
    coordinates=(Coordinate(-100.0, 100.0), Coordinate(0.0, 10.0)),
    linear=Linear(("top",), lambda law, N: (1.0 + 0 * N,)),
    grid=(("fall", (0.1, 0.3)),),
)


def test_a_fit_of_ones_own_law_is_read_with_that_law(tmp_path):
    made = fits.fit(ladder(), LINE, bootstrap=40)
    made.save(tmp_path / "fit.json")
    with pytest.raises(
        ValueError, match=r"'line' is no law of scalejax's; give your own .*load\(path, law=yours\)"
    ):
        fits.load(tmp_path / "fit.json")
    assert fits.load(tmp_path / "fit.json", LINE).predict(params=2e7) == made.predict(params=2e7)
    with pytest.raises(
        ValueError, match="holds a fit of the line law of top, fall; got the power law of a, b, c"
    ):
        fits.load(tmp_path / "fit.json", laws.power())


def test_the_prediction_interval_is_wider_than_the_laws_own_and_holds_the_truth(fitted):
    estimate = fitted.predict(params=2e7, tokens=6e7)
    drawn = [true_loss_of(fitted.spread["draws"], i, 2e7, 6e7) for i in range(200)]
    low, high = np.percentile(drawn, [2.5, 97.5])
    assert estimate.low < low and estimate.high > high
    assert estimate.low < true_loss(2e7, 6e7) < estimate.high
    assert "200 bootstrap draws of rows x 20 residuals" in estimate.method


def true_loss_of(draws, i, params, tokens):
    A, B, E, alpha, beta = (draws[name][i] for name in ("A", "B", "E", "alpha", "beta"))
    return E + A * params**-alpha + B * tokens**-beta


def test_the_same_seed_gives_the_same_numbers_and_another_seed_others(fitted):
    again = fits.fit(ladder(), laws.chinchilla(), bootstrap=200, seed=0)
    other = fits.fit(ladder(), laws.chinchilla(), bootstrap=200, seed=1)
    assert again.params == fitted.params and again.intervals == fitted.intervals
    assert other.params == fitted.params and other.intervals != fitted.intervals


@pytest.mark.parametrize("run", [{"params": 2e7, "tokens": 6e7}, {"flops": 1e16}])
def test_influence_is_what_refitting_with_a_moved_loss_shows(fitted, run):
    slopes = fits.influence(fitted, run)
    row = int(np.argmax(np.abs(slopes)))
    step = 1e-5
    moved = [ladder(), ladder()]
    for frame, sign in zip(moved, (1, -1), strict=True):
        frame.loc[row, "loss"] += sign * step
    ahead, behind = (fits.fit(frame, laws.chinchilla()).predict(**run).value for frame in moved)
    assert (ahead - behind) / (2 * step) == pytest.approx(slopes[row], rel=1e-4)


def test_laws_that_are_not_of_rows_have_no_influence(fitted):
    with pytest.raises(ValueError, match="the isoflop law is not"):
        fits.influence(dataclasses.replace(fitted, law=laws.isoflop_law()), {"flops": 1e16})


def test_an_open_irreducible_loss_is_named_and_the_forecast_stays_usable():
    made = fits.fit(ladder(E=0.0, noise=0.01), laws.chinchilla(), bootstrap=200)
    assert made.verdict == "unidentified" and made.intervals["E"][0] is None
    estimate = made.predict(params=1e7, tokens=3e7)
    assert estimate.low < true_loss(1e7, 3e7, E=0.0) < estimate.high < 2 * estimate.value


def test_clusters_are_drawn_together():
    frame = ladder().assign(seed_group=lambda f: f["params_with_head"].rank(method="dense"))
    made = fits.fit(frame, laws.chinchilla(), bootstrap=50, cluster="seed_group")
    assert (
        made.clusters == "seed_group"
        and made.intervals != fits.fit(frame, laws.chinchilla(), bootstrap=50).intervals
    )


def test_one_cluster_cannot_be_resampled():
    with pytest.raises(ValueError, match="has one value in all 20 rows"):
        fits.fit(ladder().assign(ladder=1), laws.chinchilla(), bootstrap=50, cluster="ladder")


def test_too_few_rows_to_resample_leave_every_interval_open():
    few = ladder().iloc[[0, 4, 7, 12, 15, 19]]
    made = fits.fit(few, laws.chinchilla(), bootstrap=50)
    assert made.verdict == "unidentified" and set(made.intervals.values()) == {(None, None)}
    assert any("6 rows for 5 parameters: 75%" in reason for reason in made.reasons)
    assert made.predict(params=2e7, tokens=6e7).low is None


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ({"bootstrap": -1}, "bootstrap is a whole number, 0 or more"),
        ({"seed": -1}, "seed is a whole number, 0 or more"),
        ({"columns": {"parms": "params_with_head"}}, "no law reads parms"),
    ],
)
def test_choices_that_cannot_be_are_named(choices, said):
    with pytest.raises(ValueError, match=said):
        fits.fit(ladder(), laws.chinchilla(), **choices)


def test_a_law_whose_parameters_are_all_held_is_no_riddle():
    assert fits.fit(ladder(), laws.chinchilla(**TRUTH)).verdict == "ok"


def test_a_fit_that_did_not_converge_has_no_numbers_and_predicts_nothing(tmp_path):
    frame = ladder()
    frame["loss"] *= 1e-300  # squares of it are nil, so that no start leads anywhere
    made = fits.fit(frame, laws.chinchilla(), bootstrap=5)
    assert made.verdict == "not-converged" and made.reasons
    assert (
        made.summary()["params"] == dict.fromkeys(TRUTH)
        and made.intervals == {}
        and made.cross_validation == {}
    )
    made.save(tmp_path / "fit.json")
    for ask in ({"params": 1e7, "tokens": 1e7}, {"flops": 1e15}):
        with pytest.raises(ValueError, match="did not converge and predicts nothing"):
            fits.load(tmp_path / "fit.json").forecast(**ask).summary()


def test_holdout_rows_are_scored_and_not_fitted():
    frame = ladder(noise=0.0)
    frame.loc[frame.params_with_head > 5e6, "loss"] *= 1.1
    made = fits.fit(frame, laws.chinchilla(), holdout="params_with_head > 5e6")
    assert made.n_rows == 15 and made.holdout["n"] == 5
    assert made.params["alpha"] == pytest.approx(TRUTH["alpha"], rel=1e-6)
    assert made.holdout["max_rel_error"] == pytest.approx(1 - 1 / 1.1, rel=1e-6)


def test_several_rows_of_one_run_are_refused():
    frame = ladder()
    frame.loc[1, "run"] = "r0"
    with pytest.raises(ValueError, match="run 'r0' has several rows"):
        fits.fit(frame, laws.chinchilla())
    with pytest.raises(ValueError, match="run 'r0' has several rows"):
        fits.fit(frame.rename(columns={"run": "name"}), laws.chinchilla(), columns={"run": "name"})


def test_a_power_law_takes_the_one_input_that_the_table_has():
    x = np.geomspace(1e15, 1e19, 8)
    made = fits.fit(pd.DataFrame({"flops": x, "loss": 30 * x**-0.1 + 1.0}), laws.power())
    assert made.law.inputs == ("flops",) and made.params["b"] == pytest.approx(-0.1, rel=1e-8)
    both = pd.DataFrame({"flops": x, "tokens": x, "loss": 30 * x**-0.1})
    with pytest.raises(ValueError, match="name one"):
        fits.fit(both, laws.power())
    assert fits.fit(both, laws.power("tokens")).law.inputs == ("tokens",)


def test_the_compute_optimal_run_minimizes_the_fitted_loss(fitted):
    best = fitted.forecast(flops=1e16).summary()
    assert 6 * best["params"] * best["tokens"] == pytest.approx(1e16)
    for factor in (0.9, 1.1):
        assert (
            fitted.predict(params=best["params"] * factor, tokens=best["tokens"] / factor).value
            > best["value"]
        )


def test_the_compute_optimal_run_comes_with_bands_that_hold_the_truths(fitted):
    best = fitted.forecast(flops=1e14).summary()
    truth = laws.compute_optimal(laws.chinchilla().form(**TRUTH), 1e14)
    for name, true in truth._asdict().items():
        low, high = best[f"{name}_interval"]
        assert low < true < high < 100 * low, name
    assert best["params_interval"][0] < best["params"] < best["params_interval"][1]
    plain = fits.fit(ladder(), laws.chinchilla())
    assert set(plain.forecast(flops=1e14).summary()) == {
        "value",
        "interval",
        "params",
        "tokens",
        "method",
    }


def test_a_size_term_that_may_vanish_leaves_the_optimal_size_open_below():
    frame = ladder()
    frame["loss"] = (1.5 + 300.0 * frame.tokens**-0.35) * np.exp(
        np.random.default_rng(1).normal(0, 0.01, len(frame))
    )
    made = fits.fit(frame, laws.chinchilla(), bootstrap=200)
    assert made.intervals["A"][0] is None
    best = made.forecast(flops=1e14).summary()
    assert best["params_interval"][0] is None and best["tokens_interval"][1] is None


@pytest.mark.parametrize(
    "wrong",
    [{"params": 1e7}, {"params": 1e7, "tokens": -1.0}, {"params": 1e7, "tokens": float("nan")}],
)
def test_a_prediction_needs_every_input_and_positive(fitted, wrong):
    with pytest.raises(ValueError):
        fitted.predict(**wrong)


@st.composite
def any_table(draw):
    """Few rows; columns constant, within rounding of each other, or over twenty orders of magnitude."""
    rows, rng = draw(st.integers(3, 12)), np.random.default_rng(draw(st.integers(0, 10**6)))
    column = lambda centre, width: 10.0 ** (centre + width * rng.uniform(-1, 1, rows))
    widths = st.sampled_from([0.0, 1e-9, 1e-3, 0.3, 2.0, 10.0])
    params, tokens = column(8, draw(widths)), column(10, draw(widths))
    loss = column(
        draw(st.sampled_from([-3, 0.5, 6])), draw(st.sampled_from([0.0, 1e-9, 1e-3, 0.1, 3.0]))
    )
    return pd.DataFrame({"params": params, "tokens": tokens, "loss": loss})


@given(
    table=any_table(),
    loss=st.sampled_from(["huber:1e-3", "log-mse", "mse"]),
    bootstrap=st.sampled_from([0, 8]),
)
@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
def test_any_table_gives_a_fit_or_one_clear_error_and_ok_only_at_an_optimum(table, loss, bootstrap):
    try:
        made = fits.fit(table, laws.chinchilla(), loss=loss, bootstrap=bootstrap)
    except ValueError as error:
        assert str(error)
        return
    assert made.verdict in ("ok", "at-boundary", "unidentified", "not-converged")
    assert all(np.isnan(x) for x in made.params.values()) == (made.verdict == "not-converged")
    if made.verdict == "ok":
        assert all(np.isfinite(x) for x in made.params.values())
        best = objective(table, loss, made.params)
        for name, value in made.params.items():
            for factor in (1 - 1e-4, 1 + 1e-4):
                assert objective(table, loss, made.params | {name: value * factor}) >= best * (
                    1 - 1e-6
                )


def objective(table, loss, p):
    predicted = p["E"] + p["A"] * table.params ** -p["alpha"] + p["B"] * table.tokens ** -p["beta"]
    r = np.abs(predicted - table.loss if loss == "mse" else np.log(predicted / table.loss))
    return np.sum(
        np.where(r <= 1e-3, r**2 / 2, 1e-3 * (r - 5e-4)) if loss == "huber:1e-3" else r**2
    )


CELLS = st.sampled_from(
    [
        "3.1",
        "2.9",
        "1e9",
        "1e10",
        "7e8",
        "",
        "nan",
        "inf",
        "-inf",
        "0",
        "-1",
        "many",
        "True",
        "1e400",
        "3e-320",
        "1,2",
    ]
)


@given(rows=st.lists(st.tuples(CELLS, CELLS, CELLS), max_size=12))
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
def test_any_cells_give_a_typed_verdict_or_one_clear_error(tmp_path_factory, rows):
    good = [f"{n},{d},{true_loss(n, d)}" for n in (2e5, 6e5, 2e6) for d in (1e6, 4e6)]
    path = tmp_path_factory.mktemp("cells") / "runs.csv"
    path.write_text("\n".join(["params,tokens,loss", *good, *map(",".join, rows)]) + "\n")
    try:
        made = fits.fit(path, laws.chinchilla())
    except ValueError as error:
        assert str(error)
        return
    assert made.verdict in (
        "ok",
        "at-boundary",
        "unidentified",
        "not-converged",
    ) and made.n_rows >= len(good)
    assert made.n_rows == len(good) + len(rows) or "dropped" in str(made.reasons)
