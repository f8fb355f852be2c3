"""`scalejax fit` and `scalejax predict` (mirrors scalejax/cli/fit.py)."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from scalejax import laws
from scalejax.fitting import fit as fits


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("fit") / "runs.csv"
    N, D = (x.ravel() for x in np.meshgrid([1e7, 3e7, 1e8, 3e8], [1e9, 3e9, 1e10]))
    rows = [f"{n},{d},{1.8 + 400 / n**0.34 + 2000 / d**0.37}" for n, d in zip(N, D, strict=True)]
    path.write_text("size,seen,val\n" + "\n".join(rows) + "\n")
    return path


def scalejax(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "scalejax.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_fit_prints_one_object_and_predict_reads_its_file(table, tmp_path):
    out = tmp_path / "fit.json"
    columns = ("--columns", "params=size,tokens=seen,loss=val")
    done = scalejax(
        *("fit", table, "--law", "chinchilla", *columns, "--fix", "E=1.8", "--out", out, "--json"),
        *("--bootstrap", 0),
    )
    assert done.returncode == 0, done.stderr
    fit = json.loads(done.stdout)
    assert fit["params"]["E"] == 1.8 and fit["params"]["alpha"] == pytest.approx(0.34, rel=1e-9)
    assert fit["verdict"] == "ok" and fit["intervals"] == {} and fit["n_rows"] == 12
    done = scalejax("predict", out, "--flops", 1e21, "--json")
    assert done.returncode == 0, done.stderr
    best = json.loads(done.stdout)
    assert best["params"] * best["tokens"] * 6 == pytest.approx(1e21)
    assert best["value"] == pytest.approx(
        1.8 + 400 / best["params"] ** 0.34 + 2000 / best["tokens"] ** 0.37, rel=1e-9
    )


def test_predict_prints_the_run_that_its_prediction_is_about(call, table, tmp_path):
    columns = ("--columns", "params=size,tokens=seen,loss=val")
    law = ("--law", "chinchilla", *columns)
    call("fit", table, *law, "--bootstrap", 40, "--out", tmp_path / "fit.json")
    code, printed, _ = call("predict", tmp_path / "fit.json", "--flops", 1e21)
    first, *run = printed.splitlines()
    assert code == 0 and "95% [" in first and "times the largest fitted" in first
    assert [line.split()[0] for line in run] == ["params", "tokens"]
    assert "e+" in run[0] and "95% [" in run[0]
    call("fit", table, *law, "--bootstrap", 0, "--out", tmp_path / "fit.json")
    assert "95%" not in call("predict", tmp_path / "fit.json", "--flops", 1e21)[1]


def test_a_width_depth_fit_predicts_a_model_of_another_width_and_depth(tmp_path):
    columns = (x.ravel() for x in np.meshgrid([64.0, 128, 256, 512], [2.0, 4, 8], [1e8, 1e9, 1e10]))
    frame = pd.DataFrame(dict(zip(("width", "depth", "tokens"), columns, strict=True)))
    frame["loss"] = (
        1.7 + 9 * frame.width**-0.45 + 1.2 * frame.depth**-0.8 + 400 * frame.tokens**-0.3
    )
    fit = fits.fit(frame, laws.width_depth(), bootstrap=0)
    fit.save(tmp_path / "fit.json")
    done = scalejax(
        "predict", tmp_path / "fit.json", "--width", 1024, "--depth", 16, "--tokens", 1e11, "--json"
    )
    assert done.returncode == 0, done.stderr
    truth = 1.7 + 9 * 1024**-0.45 + 1.2 * 16**-0.8 + 400 * 1e11**-0.3
    assert json.loads(done.stdout)["value"] == pytest.approx(truth, rel=1e-8)
    assert fit.cross_validation.max_rel_error < 1e-6


@pytest.mark.parametrize(
    "arguments",
    [
        ("fit", "none.csv", "--law", "chinchilla"),
        ("predict", "none.json", "--flops", "1e20"),
        ("fit", "TABLE", "--law", "chinchila"),
        ("fit", "TABLE", "--law", "chinchilla", "--fix", "A=400,A=500"),
        ("fitt",),
    ],
)
def test_bad_input_is_exit_2_with_one_message_and_nothing_on_stdout(table, arguments):
    done = scalejax(*[table if a == "TABLE" else a for a in arguments])
    assert done.returncode == 2 and done.stdout == "" and done.stderr.strip()
    assert "Traceback" not in done.stderr


def test_debug_shows_the_traceback():
    assert "Traceback" in scalejax("fit", "none.csv", "--law", "chinchilla", "--debug").stderr


def random_runs(rows=40, seed=0):
    """A table of runs that follow a chinchilla law with 0.3% of noise."""
    rng = np.random.default_rng(seed)
    N = np.exp(rng.uniform(np.log(1e7), np.log(1e10), rows))
    D = N * np.exp(rng.uniform(np.log(5), np.log(300), rows))
    loss = (1.8 + 400 / N**0.34 + 2000 / D**0.37) * np.exp(0.003 * rng.normal(size=rows))
    return pd.DataFrame({"params": N, "tokens": D, "loss": loss})


def with_loss(value):
    """The table with another loss in its first row."""
    return random_runs().astype({"loss": object}).assign(loss=lambda t: [value, *t.loss[1:]])


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (random_runs(4), "5 free parameters"),
        (with_loss(0), "0"),
        (with_loss(-2.5), "-2.5"),
        (with_loss("n/a?"), "n/a?"),
        (random_runs().drop(columns="loss"), "loss"),
        (random_runs().iloc[:0], "rows"),
        (None, "cannot be read as CSV"),
    ],
    ids=["few", "zero", "negative", "text", "no column", "no rows", "empty"],
)
def test_a_table_that_cannot_be_fitted_is_exit_2_and_the_message_says_why(
    call, tmp_path, table, message
):
    path, out = tmp_path / "runs.csv", tmp_path / "fit.json"
    path.write_text("" if table is None else table.to_csv(index=False))
    code, printed, err = call(
        "fit", path, "--law", "chinchilla", "--bootstrap", 20, "--json", "--out", out
    )
    assert code == 2 and printed == "" and message in err and "Traceback" not in err
    assert not out.exists()


@pytest.mark.parametrize(
    ("table", "verdict", "reason"),
    [
        (random_runs().assign(params=1e8), "unidentified", "params"),
        (
            random_runs().assign(tokens=lambda t: 20 * t.params),
            "unidentified",
            "tokens/params is constant",
        ),
        (with_loss(float("inf")), "ok", "dropped 1 row"),
        (with_loss(float("nan")), "ok", "dropped 1 row"),
        (pd.concat([random_runs(), random_runs()[:1].assign(loss=9.0)]), None, "duplicate"),
    ],
    ids=["one size", "one ratio", "infinite", "missing", "duplicate"],
)
def test_a_table_that_does_not_determine_the_law_gets_a_verdict_with_a_reason(
    call, tmp_path, table, verdict, reason
):
    path = tmp_path / "runs.csv"
    table.to_csv(path, index=False)
    code, printed, _ = call("fit", path, "--law", "chinchilla", "--json")
    record = json.loads(printed)
    assert code == 0 and record["verdict"] == (verdict or record["verdict"])
    assert any(reason in text for text in record["reasons"])


@pytest.mark.slow
def test_a_million_rows_are_fitted(call, tmp_path):
    random_runs(10**6).to_parquet(tmp_path / "runs.parquet")
    code, printed, _ = call("fit", tmp_path / "runs.parquet", "--law", "chinchilla", "--json")
    record = json.loads(printed)
    assert code == 0 and record["verdict"] == "ok" and record["n_rows"] == 10**6
    assert record["params"]["alpha"] == pytest.approx(0.34, abs=2e-3)
    assert record["params"]["beta"] == pytest.approx(0.37, abs=2e-3)


def test_groups_of_rows_give_one_table(call, tmp_path):
    path = tmp_path / "runs.csv"
    runs = random_runs(24)
    sets = pd.concat([runs.assign(set="c4"), runs.assign(set="books", loss=runs.loss + 0.1)])
    sets.to_csv(path, index=False)
    law = ("--law", "chinchilla", "--fix", "alpha=0.34,beta=0.37", "--bootstrap", 0, "--by", "set")
    code, text, error = call("fit", path, *law)
    head, books, c4, *_ = text.splitlines()
    assert code == 0 and head.split()[:4] == ["set", "rows", "verdict", "A"], error
    assert books.split()[:2] == ["books", "24"] and c4.split()[:2] == ["c4", "24"]
    code, text, _ = call("fit", path, *law, "--table", "markdown")
    assert code == 0 and text.startswith("| set | rows | verdict | A |")
    assert len(text.splitlines()) == 4
    code, text, _ = call("fit", path, *law, "--json")
    assert set(json.loads(text)) == {"books", "c4"}
    # One group, as it reads, whatever the type of its name.
    sets.assign(set=[1, "1"] * 24).to_json(tmp_path / "runs.json", orient="records")
    code, text, error = call("fit", tmp_path / "runs.json", *law, "--json")
    assert code == 0 and json.loads(text)["1"]["n_rows"] == 48, error
    # Rows without a value are a group, and a group without enough rows is named.
    few = runs.iloc[:2].assign(set="few")
    pd.concat([runs.assign(set="c4"), runs.assign(set=None), few]).to_csv(path, index=False)
    code, text, error = call("fit", path, *law, "--json")
    assert code == 2 and "(in the rows whose set is few, which --where can leave out)" in error
    # The others are fitted all the same.
    records = json.loads(text)
    assert records["c4"]["n_rows"] == 24 and "needs as many rows" in records["few"]["error"]
    code, text, error = call("fit", path, *law, "--where", "set == 'few'")
    assert code == 2 and not text and "in the rows whose set is few" in error
    code, text, _ = call("fit", path, *law, "--json", "--where", "params > 0 and set != 'few'")
    assert code == 0 and {name: fit["n_rows"] for name, fit in json.loads(text).items()} == {
        "c4": 24,
        "(no value)": 24,
    }
    code, _, error = call("fit", path, *law, "--out", tmp_path / "fit.json")
    assert code == 2 and "remove --out" in error and not (tmp_path / "fit.json").exists()


def test_a_figure_and_a_table_are_printed_for_one_fit(call, table, tmp_path):
    columns = ("--columns", "params=size,tokens=seen,loss=val", "--bootstrap", 0)
    law = ("--law", "chinchilla", "--fix", "E=1.8", *columns)
    code, text, error = call("fit", table, *law, "--plot", tmp_path / "fit.png", "--table", "latex")
    assert code == 0 and text.startswith(r"\begin{tabular}"), error
    assert (tmp_path / "fit.png").stat().st_size > 10_000
    code, _, error = call("fit", table, *law, "--plot", tmp_path / "fit.jpg")
    assert code == 2 and ".png, .svg, .html" in error
