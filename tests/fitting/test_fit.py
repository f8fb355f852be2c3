"""From a table to a fit, a forecast and a file (mirrors scalejax/fitting/fit.py)."""

import json
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scalejax import laws
from scalejax.fitting import fit as fits
from scalejax.fitting.parametric.result import ParametricFit
from scalejax.laws.law import Coordinate, Linear, ParametricLaw

TRUTH = {"A": 40.0, "B": 300.0, "E": 1.5, "alpha": 0.3, "beta": 0.35}
VERDICTS = ("ok", "at-boundary", "unidentified", "not-converged")


def true_loss(params, tokens, E=TRUTH["E"]):
    return E + TRUTH["A"] * params ** -TRUTH["alpha"] + TRUTH["B"] * tokens ** -TRUTH["beta"]


def ladder(seed=0, noise=0.004, E=TRUTH["E"]):
    """A table of four sizes and five budgets, as a small study measures them."""
    rng = np.random.default_rng(seed)
    sizes, budgets = [2e5, 6e5, 2e6, 6e6], [1e6, 2e6, 4e6, 8e6, 16e6]
    params, tokens = (x.ravel() for x in np.meshgrid(sizes, budgets))
    loss = true_loss(params, tokens, E) * np.exp(rng.normal(0, noise, len(params)))
    run = [f"r{i}" for i in range(len(params))]
    return pd.DataFrame({"run": run, "params_with_head": params, "tokens": tokens, "loss": loss})


@pytest.fixture(scope="module")
def fitted() -> ParametricFit:
    return fits.fit(ladder(), laws.chinchilla(), bootstrap=200, seed=0)


def test_a_fit_names_its_columns_and_its_interval_holds_the_truth(fitted):
    assert fitted.verdict == "ok" and fitted.n_rows == 20
    assert fitted.columns["params"] == "params_with_head"
    assert fitted.intervals["beta"][0] < TRUTH["beta"] < fitted.intervals["beta"][1]
    errors = fitted.cross_validation
    assert errors.n > 0 and 0 < errors.mean_rel_error < 0.02


def test_the_summary_has_the_condition_number_and_the_parameters_at_a_bound(fitted):
    record = fitted.summary()
    assert 10 < record["condition"] < 1e6
    assert record["at_boundary"] == [] and record["resample"] == "pairs"
    # These losses fall below what E = 0 allows, so that E ends at its bound.
    below = ladder(E=0.0).assign(loss=lambda frame: frame.loss - 0.1)
    assert fits.fit(below, laws.chinchilla(), bootstrap=0).summary()["at_boundary"] == ["E"]


def test_a_saved_fit_predicts_the_same(fitted, tmp_path):
    fitted.save(tmp_path / "fit.json")
    loaded = fits.load(tmp_path / "fit.json")
    assert loaded.predict(params=2e7, tokens=6e7) == fitted.predict(params=2e7, tokens=6e7)
    assert loaded.summary() == fitted.summary()
    with pytest.raises(ValueError, match="is a folder"):
        fitted.save(tmp_path)
    with pytest.raises(ValueError, match="needs the fitted rows"):
        fits.influence(loaded, {"params": 2e7, "tokens": 6e7})


def test_a_loaded_fit_is_saved_as_it_was(fitted, tmp_path):
    fitted.save(tmp_path / "fit.json")
    fits.load(tmp_path / "fit.json").save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_text() == (tmp_path / "fit.json").read_text()


def test_a_fit_that_was_changed_by_hand_or_has_lost_its_hash_is_refused(fitted, tmp_path):
    path = tmp_path / "fit.json"
    fitted.save(path)
    record = json.loads(path.read_text())
    seal = record.pop("sha256")
    # The first one is the fit itself, without its hash.
    for change in ({}, {"draws": {}, "sha256": seal}, {"resample": []}):
        path.write_text(json.dumps(record | change))
        with pytest.raises(ValueError, match=r"fit\.json is not as it was written"):
            fits.load(path)
    path.write_text(json.dumps(record | {"sha256": seal}))
    assert fits.load(path).summary() == fitted.summary()


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
    # `top` is the value at one parameter, so it changes with the unit of params.
    raw=("params",),
)


def test_a_fit_of_a_users_own_law_is_loaded_with_that_law(tmp_path):
    path = tmp_path / "fit.json"
    line = fits.fit(ladder(), LINE, bootstrap=40)
    line.save(path)
    with pytest.raises(
        ValueError,
        match=r"'line' is not a law of scalejax; give your own .*load\(path, law=yours\)",
    ):
        fits.load(path)
    assert fits.load(path, LINE).predict(params=2e7) == line.predict(params=2e7)
    with pytest.raises(
        ValueError, match="holds a fit of the line law of top, fall; got the power law of a, b, c"
    ):
        fits.load(path, laws.power())


def test_something_that_is_not_a_law_is_refused():
    with pytest.raises(ValueError, match=r"'chinchila' is not one of .*chinchilla"):
        fits.fit(ladder(), "chinchila", bootstrap=0)
    not_a_law: Any = 3
    with pytest.raises(ValueError, match=r"expected a law, such as .*; got 3"):
        fits.fit(ladder(), not_a_law, bootstrap=0)


def test_the_prediction_interval_is_wider_than_the_laws_own_and_holds_the_truth(fitted):
    estimate = fitted.predict(params=2e7, tokens=6e7)
    A, B, E, alpha, beta = (fitted.draws[name] for name in TRUTH)
    law_alone = E + A * 2e7**-alpha + B * 6e7**-beta
    low, high = np.percentile(law_alone, [2.5, 97.5])
    assert len(law_alone) == 200 and estimate.low < low and estimate.high > high
    assert estimate.low < true_loss(2e7, 6e7) < estimate.high
    assert "200 bootstrap draws of rows x 20 residuals" in estimate.method


def test_the_same_seed_gives_the_same_intervals_and_another_seed_others(fitted):
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
    above, below = (
        fits.fit(frame, laws.chinchilla(), bootstrap=0).predict(**run).value for frame in moved
    )
    assert (above - below) / (2 * step) == pytest.approx(slopes[row], rel=1e-4)


def test_laws_that_are_not_fitted_to_one_row_per_run_have_no_influence():
    C = np.repeat([1e18, 1e19], 3)
    N = np.tile([1e8, 3e8, 1e9], 2)
    loss = 2 + np.log(N / (3e8 * np.sqrt(C / 3e18))) ** 2
    isoflop = fits.fit(
        pd.DataFrame({"params": N, "flops": C, "loss": loss}), laws.isoflop_law(), bootstrap=0
    )
    with pytest.raises(ValueError, match="the isoflop law is not"):
        fits.influence(isoflop, {"flops": 1e16})


def test_an_open_irreducible_loss_is_named_and_the_forecast_stays_usable():
    fit = fits.fit(ladder(E=0.0, noise=0.01), laws.chinchilla(), bootstrap=200)
    assert fit.verdict == "unidentified" and fit.intervals["E"][0] is None
    estimate = fit.predict(params=1e7, tokens=3e7)
    assert estimate.low is not None and estimate.high is not None
    assert estimate.low < true_loss(1e7, 3e7, E=0.0) < estimate.high < 2 * estimate.value


def test_clusters_are_resampled_together():
    frame = ladder().assign(seed_group=lambda f: f["params_with_head"].rank(method="dense"))
    clustered = fits.fit(frame, laws.chinchilla(), bootstrap=50, cluster="seed_group")
    assert clustered.clusters == "seed_group"
    assert clustered.intervals != fits.fit(frame, laws.chinchilla(), bootstrap=50).intervals


def test_a_single_cluster_cannot_be_resampled():
    with pytest.raises(ValueError, match="has one value in all 20 rows"):
        fits.fit(ladder().assign(ladder=1), laws.chinchilla(), bootstrap=50, cluster="ladder")


def test_too_few_rows_to_resample_leave_every_interval_open():
    few = ladder().iloc[[0, 4, 7, 12, 15, 19]]
    fit = fits.fit(few, laws.chinchilla(), bootstrap=50)
    assert fit.verdict == "unidentified" and set(fit.intervals.values()) == {(None, None)}
    assert any("6 rows for 5 parameters: 75%" in reason for reason in fit.reasons)
    assert fit.predict(params=2e7, tokens=6e7).low is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bootstrap": -1}, "bootstrap must be a whole number, 0 or more"),
        ({"seed": -1}, "seed must be a whole number, 0 or more"),
        ({"columns": {"parms": "params_with_head"}}, "no law reads parms"),
        ({"protocol": "akima"}, "the chinchilla law does not read protocol"),
        ({"schedules": "x.csv", "noise": "0.1"}, "does not read schedules, noise"),
    ],
)
def test_impossible_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        fits.fit(ladder(), laws.chinchilla(), **options)


def test_a_law_whose_parameters_are_all_held_is_ok():
    assert fits.fit(ladder(), laws.chinchilla().hold(**TRUTH), bootstrap=0).verdict == "ok"


def test_a_fit_that_did_not_converge_has_no_numbers_and_predicts_nothing(tmp_path):
    frame = ladder()
    # Their squares underflow to zero, so that no start leads anywhere.
    frame["loss"] *= 1e-300
    fit = fits.fit(frame, laws.chinchilla(), bootstrap=5)
    assert fit.verdict == "not-converged" and fit.reasons
    record = fit.summary()
    assert record["params"] == dict.fromkeys(TRUTH) and record["intervals"] == {}
    assert record["cross_validation"] == {} and fit.cross_validation.n == 0
    fit.save(tmp_path / "fit.json")
    loaded = fits.load(tmp_path / "fit.json")
    for run in ({"params": 1e7, "tokens": 1e7}, {"flops": 1e15}):
        with pytest.raises(ValueError, match="did not converge and predicts nothing"):
            loaded.forecast(**run)


def test_holdout_rows_are_scored_and_not_fitted():
    frame = ladder(noise=0.0)
    frame.loc[frame.params_with_head > 5e6, "loss"] *= 1.1
    fit = fits.fit(frame, laws.chinchilla(), holdout="params_with_head > 5e6", bootstrap=0)
    assert fit.n_rows == 15 and fit.holdout.n == 5
    assert fit.params["alpha"] == pytest.approx(TRUTH["alpha"], rel=1e-6)
    assert fit.holdout.max_rel_error == pytest.approx(1 - 1 / 1.1, rel=1e-6)


def test_a_holdout_without_rows_is_told():
    fit = fits.fit(ladder(), laws.chinchilla(), holdout="tokens > 1e12", bootstrap=0)
    assert fit.reasons[0] == "--holdout 'tokens > 1e12' chooses 0 of 20 rows, and none is scored"


def test_several_rows_of_one_run_are_refused():
    frame = ladder()
    frame.loc[1, "run"] = "r0"
    with pytest.raises(ValueError, match="run 'r0' has several rows"):
        fits.fit(frame, laws.chinchilla(), bootstrap=0)
    with pytest.raises(ValueError, match="name 'r0' has several rows"):
        fits.fit(
            frame.rename(columns={"run": "name"}),
            laws.chinchilla(),
            columns={"run": "name"},
            bootstrap=0,
        )


def test_a_power_law_reads_the_one_input_that_the_table_has():
    x = np.geomspace(1e15, 1e19, 8)
    fit = fits.fit(
        pd.DataFrame({"flops": x, "loss": 30 * x**-0.1 + 1.0}), laws.power(), bootstrap=0
    )
    assert fit.law.inputs == ("flops",) and fit.params["b"] == pytest.approx(-0.1, rel=1e-8)
    both = pd.DataFrame({"flops": x, "tokens": x, "loss": 30 * x**-0.1})
    with pytest.raises(ValueError, match="name one"):
        fits.fit(both, laws.power(), bootstrap=0)
    assert fits.fit(both, laws.power("tokens"), bootstrap=0).law.inputs == ("tokens",)


def test_the_compute_optimal_run_minimizes_the_fitted_loss(fitted):
    best = fitted.forecast(flops=1e16)
    params, tokens = best.run["params"], best.run["tokens"]
    assert 6 * params * tokens == pytest.approx(1e16)
    for factor in (0.9, 1.1):
        other = fitted.predict(params=params * factor, tokens=tokens / factor)
        assert other.value > best.estimate.value


def test_the_intervals_of_the_compute_optimal_run_hold_the_truth(fitted):
    best = fitted.forecast(flops=1e14)
    truth = laws.compute_optimal(laws.chinchilla().form(**TRUTH), 1e14)
    for name, true in truth._asdict().items():
        low, high = best.intervals[name]
        assert low < true < high < 100 * low, name
    assert best.intervals["params"][0] < best.run["params"] < best.intervals["params"][1]


def test_without_bootstraps_the_compute_optimal_run_has_no_intervals():
    plain = fits.fit(ladder(), laws.chinchilla(), bootstrap=0)
    record = plain.forecast(flops=1e14).summary()
    assert list(record) == ["value", "interval", "params", "tokens", "method"]
    assert record["interval"] == [None, None]


def test_a_size_term_that_may_vanish_leaves_the_optimal_size_open_below():
    frame = ladder()
    noise = np.random.default_rng(1).normal(0, 0.01, len(frame))
    frame["loss"] = (1.5 + 300.0 * frame.tokens**-0.35) * np.exp(noise)
    fit = fits.fit(frame, laws.chinchilla(), bootstrap=200)
    assert fit.intervals["A"][0] is None
    intervals = fit.forecast(flops=1e14).intervals
    assert intervals["params"][0] is None and intervals["tokens"][1] is None


@pytest.mark.parametrize(
    "inputs",
    [{"params": 1e7}, {"params": 1e7, "tokens": -1.0}, {"params": 1e7, "tokens": float("nan")}],
)
def test_a_prediction_needs_every_input_and_positive_values(fitted, inputs):
    with pytest.raises(ValueError):
        fitted.predict(**inputs)


@st.composite
def any_table(draw):
    """Few rows; columns constant, within rounding of each other, or very wide."""
    rows, rng = draw(st.integers(3, 12)), np.random.default_rng(draw(st.integers(0, 10**6)))

    def column(centre, width):
        return 10.0 ** (centre + width * rng.uniform(-1, 1, rows))

    widths = st.sampled_from([0.0, 1e-9, 1e-3, 0.3, 2.0, 10.0])
    params, tokens = column(8, draw(widths)), column(10, draw(widths))
    centre = draw(st.sampled_from([-3, 0.5, 6]))
    loss = column(centre, draw(st.sampled_from([0.0, 1e-9, 1e-3, 0.1, 3.0])))
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
        fit = fits.fit(table, laws.chinchilla(), loss=loss, bootstrap=bootstrap)
    except ValueError as error:
        assert str(error)
        return
    assert fit.verdict in VERDICTS
    assert all(np.isnan(x) for x in fit.params.values()) == (fit.verdict == "not-converged")
    if fit.verdict == "ok":
        assert all(np.isfinite(x) for x in fit.params.values())
        best = objective(table, loss, fit.params)
        for name, value in fit.params.items():
            for factor in (1 - 1e-4, 1 + 1e-4):
                moved = objective(table, loss, fit.params | {name: value * factor})
                assert moved >= best * (1 - 1e-6)


def objective(table, loss, p):
    predicted = p["E"] + p["A"] * table.params ** -p["alpha"] + p["B"] * table.tokens ** -p["beta"]
    r = np.abs(predicted - table.loss if loss == "mse" else np.log(predicted / table.loss))
    huber = np.where(r <= 1e-3, r**2 / 2, 1e-3 * (r - 5e-4))
    return np.sum(huber if loss == "huber:1e-3" else r**2)


# Numbers, and what else a cell may hold: nothing, an infinity, text, a number that
# overflows or underflows, a decimal comma.
NUMBERS = ["3.1", "2.9", "1e9", "1e10", "7e8"]
OTHERS = ["", "nan", "inf", "-inf", "0", "-1", "many", "True", "1e400", "3e-320", "1,2"]
CELLS = st.sampled_from([*NUMBERS, *OTHERS])


@given(rows=st.lists(st.tuples(CELLS, CELLS, CELLS), max_size=12))
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
def test_any_cells_give_a_verdict_or_one_clear_error(tmp_path_factory, rows):
    good = [f"{n},{d},{true_loss(n, d)}" for n in (2e5, 6e5, 2e6) for d in (1e6, 4e6)]
    path = tmp_path_factory.mktemp("cells") / "runs.csv"
    path.write_text("\n".join(["params,tokens,loss", *good, *map(",".join, rows)]) + "\n")
    try:
        fit = fits.fit(path, laws.chinchilla(), bootstrap=0)
    except ValueError as error:
        assert str(error)
        return
    assert fit.verdict in VERDICTS and fit.n_rows >= len(good)
    assert fit.n_rows == len(good) + len(rows) or "dropped" in str(fit.reasons)


@pytest.mark.parametrize("params", ["7B", None, True, 7 + 1j, ["7B"], {"a": 1}])
def test_inputs_of_a_prediction_that_are_no_numbers_are_refused_by_name(fitted, params):
    for predict in (fitted.predict, fitted.forecast, fitted.estimate):
        with pytest.raises(ValueError, match=r"params .*must be a (single )?number"):
            predict(params=params, tokens=1e8)
    with pytest.raises(ValueError, match=r"loss must be a number, such as 7e9; got .2.1."):
        fitted.forecast(loss="2.1", tokens=1e8)
    with pytest.raises(ValueError, match="params of one run must be a single number"):
        fitted.forecast(params=np.array([1e7, 2e7]), tokens=1e8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"columns": "params=N"}, "columns must be a dictionary"),
        ({"columns": {"params": None}}, "the column of params must be text"),
        ({"where": ladder().tokens > 2e6}, r"where must be text.*got Series"),
        ({"holdout": True}, "holdout must be text"),
        ({"bootstrap": "100"}, "bootstrap must be a whole number, 0 or more; got '100'"),
        ({"bootstrap": 99.5}, "bootstrap must be a whole number"),
        ({"bootstrap": True}, "bootstrap must be a whole number"),
        ({"loss": 1e-3}, "loss must be text"),
        ({"weights": np.ones(3)}, r"weights must be text.*got ndarray"),
        ({"cluster": np.ones(3)}, "cluster must be text"),
        ({"resample": 0.01}, "resample must be text"),
    ],
)
def test_options_of_another_type_are_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        fits.fit(ladder(), laws.chinchilla(), **options)
