"""The report of a study: what its page says, what it needs, and what it does without."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from scalejax import laws
from scalejax.files import append_lines, write_json
from scalejax.fitting.fit import fit
from scalejax.laws.forms import Chinchilla
from scalejax.report.write import run_table, write_report

TRUTH = Chinchilla(A=60.0, B=900.0, E=1.7, alpha=0.45, beta=0.5)
SIZES, BUDGETS = (20_000, 45_000, 80_000, 120_000), (6e5, 8.5e5, 1.2e6, 1.7e6, 2.4e6)
AHEAD, LOST = "feed0000feed0000", "0000000000000004"
QUESTION = "Does <b>size</b> & data pay alike?\n\nScientific: size."


def rows_of(sizes=SIZES, budgets=BUDGETS) -> pd.DataFrame:
    """A results table on a Chinchilla surface, with noise of 0.004 nats; the last row is the forecast run."""
    noise = np.random.default_rng(0)
    grid = [(size, tokens) for size in sizes for tokens in budgets] + [(250_000, 2.4e6)]
    rows = pd.DataFrame(grid, columns=["params_with_head", "tokens"])
    rows["run"] = [f"{index:016x}" for index in range(1, len(rows))] + [AHEAD]
    rows["loss"] = np.asarray(
        TRUTH.loss(rows["params_with_head"].to_numpy(), rows["tokens"].to_numpy())
    )
    rows["loss"] += noise.normal(0, 0.004, len(rows))
    rows["loss_se"], rows["status"], rows["learning_rate"] = 0.008, "done", 0.008
    rows["flops"] = 6.0 * rows["params_with_head"] * rows["tokens"]
    rows["top1_error"] = 0.75 - 4 * np.exp(-0.9 * rows["loss"]) + noise.normal(0, 0.008, len(rows))
    rows["top1_error_se"], rows["top1_chance"] = 0.02, 0.75
    rows["wall_seconds"], rows["code"], rows["jax"] = 4.2, "0.1.0+abc", "0.10.2"
    return rows


def curves_of(rows: pd.DataFrame) -> pd.DataFrame:
    """Training losses every 16 steps of 512 tokens, falling to the final loss, which alone was measured on held-out text."""
    noise, parts = np.random.default_rng(1), []
    for row in rows.to_dict("records"):
        tokens = np.arange(1, int(row["tokens"] // (16 * 512)) + 1) * 16 * 512.0
        end = row["loss"] if np.isfinite(row["loss"]) else 6.0
        loss = end + 3 * (tokens / 8192) ** -0.6 + noise.normal(0, 0.03, len(tokens))
        part = pd.DataFrame(
            {
                "run": row["run"],
                "step": tokens / 512,
                "tokens": tokens,
                "train_loss": loss,
                "loss": np.nan,
            }
        )
        part.loc[part.index[-1], "loss"] = row["loss"]
        parts.append(part.assign(learning_rate=0.008, weights="raw"))
    return pd.concat(parts, ignore_index=True)


def write_study(folder: Path, rows: pd.DataFrame) -> Path:
    """study.json and the tables of a study that has just ended."""
    folder.mkdir(parents=True)
    plan = {"flops": 6.0e13, "flops_separate": 1.0e14, "saved_fraction": 0.4, "warnings": []}
    ids = [run for run in rows["run"] if run != AHEAD]
    write_json(
        folder / "study.json",
        {"name": "made@1", "question": QUESTION, "runs": ids, "forecast": [AHEAD], "plan": plan},
    )
    rows.to_parquet(folder / "results.parquet", index=False)
    curves_of(rows).to_parquet(folder / "curves.parquet", index=False)
    return folder


@pytest.fixture(scope="module")
def fitted():
    rows = rows_of()
    known = rows[(rows["run"] != AHEAD) & (rows["run"] != LOST)]
    return {
        law.name: fit(known, law, bootstrap=64) for law in (laws.chinchilla(), laws.downstream())
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory, fitted):
    """The folder of a study with everything in it, reported on; one run diverged."""
    rows = rows_of()
    rows.loc[rows["run"] == LOST, ["status", "loss", "loss_se", "top1_error"]] = [
        "diverged",
        np.inf,
        np.nan,
        np.nan,
    ]
    folder = write_study(tmp_path_factory.mktemp("out") / "made@1", rows)
    for name, one in fitted.items():
        one.save(folder / "fits" / f"{name}.json")
    estimate = fitted["chinchilla"].predict(params=250_000, tokens=2.4e6)
    measured = float(rows["loss"].iloc[-1])
    line = {
        "kind": "forecast",
        "id": "f1",
        "run": f"made@1/{AHEAD}",
        "law": "chinchilla",
        "metric": "loss",
        "level": 0.95,
    }
    score = {
        "kind": "score",
        "id": "f1",
        "measured": measured,
        "error": measured - estimate.value,
        "inside": True,
    }
    append_lines(
        folder / "forecasts.jsonl",
        [line | {"value": estimate.value, "low": estimate.low, "high": estimate.high}, score],
    )
    write_report(folder)
    return folder


def words(folder: Path) -> str:
    """The page without plotly's script, its charts and its pictures."""
    page = (folder / "report.html").read_text(encoding="utf-8")
    return re.sub(
        r"<script.*?</script>|base64,[^\"]*|<style>.*?</style>", "", page, flags=re.DOTALL
    )


def test_the_page_loads_nothing_from_a_network(whole):
    page = (whole / "report.html").read_text(encoding="utf-8")
    assert page.count("Plotly.newPlot(") >= 5, "no charts: this test could not fail"
    assert not re.search(r"<(script|link|img|iframe)[^>]*(src|href)\s*=\s*[\"']?(https?:)?//", page)
    assert not re.search(r"(src|href)\s*=\s*[\"']https?://[^\"']*\.(js|css|woff2?|png)", page)
    assert len(page) < 8e6, "plotly's script is in the page more than once"


def test_every_run_is_in_the_table_and_a_diverged_one_is_labelled(whole):
    text = words(whole)
    assert all(f">{run}</td>" in text for run in rows_of()["run"])
    row = next(line for line in text.split("<tr>") if f">{LOST}</td>" in line)
    assert 'class="alarm">diverged' in row and "inf" not in row
    assert f"left out of every fit: {LOST}" in text


def test_the_law_is_there_with_its_numbers_intervals_and_verdict(whole, fitted):
    text = words(whole)
    for law in fitted.values():
        for name, value in law.params.items():
            low, high = ("open" if end is None else f"{end:.4g}" for end in law.intervals[name])
            assert f"{name} = {value:.4g} [{low}, {high}]" in text
        assert f"Verdict {law.verdict}" in text
    assert "Hoffmann et al. 2022" in text


def test_the_forecast_stands_beside_its_measurement(whole):
    forecast, score = (
        json.loads(line) for line in (whole / "forecasts.jsonl").read_text().splitlines()
    )
    text = words(whole)
    assert (
        f"gave loss {forecast['value']:.4f} [{forecast['low']:.4f}, {forecast['high']:.4f}]" in text
    )
    assert f"Measured: {score['measured']:.4f}, inside the interval" in text
    assert "40% saved" in text and "guessing gives 0.75" in text


def test_what_a_user_wrote_is_escaped(whole):
    page = (whole / "report.html").read_text(encoding="utf-8")
    assert "Does &lt;b&gt;size&lt;/b&gt; &amp; data pay alike?" in page
    assert "<b>size</b>" not in page


def test_figures_are_written_as_png_files(whole):
    names = {path.name for path in (whole / "figures").iterdir()}
    assert names == {
        "loss_curves.png",
        "law_chinchilla.png",
        "residuals_chinchilla.png",
        "forecast_loss.png",
        "error_against_loss.png",
    }
    assert all((whole / "figures" / name).read_bytes().startswith(b"\x89PNG") for name in names)


def test_a_forecast_that_missed_is_said_loudly(tmp_path):
    folder = write_study(tmp_path / "made@1", rows_of())
    line = {
        "kind": "forecast",
        "id": "f1",
        "run": f"made@1/{AHEAD}",
        "law": "chinchilla",
        "metric": "loss",
        "level": 0.95,
    }
    score = {"kind": "score", "id": "f1", "measured": 2.5, "error": 0.1, "inside": False}
    append_lines(
        folder / "forecasts.jsonl", [line | {"value": 2.4, "low": 2.35, "high": None}, score]
    )
    text = words(write_report(folder).parent)
    assert "OUTSIDE the interval" in text and "[2.3500, open]" in text


def test_a_forecast_without_an_interval_is_not_said_to_be_inside_one(tmp_path):
    folder = write_study(tmp_path / "made@1", rows_of())
    line = {
        "kind": "forecast",
        "id": "f1",
        "run": f"made@1/{AHEAD}",
        "law": "chinchilla",
        "metric": "loss",
        "level": 0.95,
    }
    score = {"kind": "score", "id": "f1", "measured": 2.5, "error": 0.1, "inside": True}
    append_lines(
        folder / "forecasts.jsonl", [line | {"value": 2.4, "low": None, "high": None}, score]
    )
    text = words(write_report(folder).parent)
    assert "gave loss 2.4000 without an interval. Measured: 2.5000, no interval to judge by" in text


def test_one_run_without_fits_forecasts_or_curves_makes_a_page_that_says_what_is_missing(tmp_path):
    rows = (
        rows_of().iloc[:1].drop(columns=["top1_error", "top1_error_se", "top1_chance", "loss_se"])
    )
    folder = write_study(tmp_path / "made@1", rows)
    (folder / "curves.parquet").unlink()
    text = words(write_report(folder).parent)
    for said in (
        "No law was fitted",
        "No forecast was registered",
        "There are no curves",
        "No run of this study measured",
    ):
        assert said in text
    assert (
        "1 of 2 finished: 1 model size (20k parameters" in text and f"Not finished: {AHEAD}" in text
    )


def test_a_study_whose_every_run_diverged_has_a_page(tmp_path):
    rows = rows_of().assign(status="diverged", loss=np.inf, top1_error=np.nan)
    text = words(write_report(write_study(tmp_path / "made@1", rows)).parent)
    assert text.count('class="alarm">diverged') == len(rows)
    assert "0 runs finished that could be fitted" in text


def test_mixed_code_and_moved_runs_are_warned_of(tmp_path):
    rows = rows_of()
    rows.loc[2, "code"] = "0.1.0+fff"
    rows["placement_changed"] = rows["run"] == LOST
    text = words(write_report(write_study(tmp_path / "made@1", rows)).parent)
    assert "2 versions of the code: 0.1.0+abc, 0.1.0+fff" in text
    assert f"Resumed under another placement, so not repeatable bit for bit: {LOST}." in text


def test_a_fit_that_cannot_be_read_is_named_and_the_rest_is_reported(tmp_path):
    folder = write_study(tmp_path / "made@1", rows_of())
    write_json(folder / "kaplan.json", {})
    (folder / "fits").mkdir()
    (folder / "kaplan.json").rename(folder / "fits" / "kaplan.json")
    assert "kaplan.json is not a fit" in words(write_report(folder).parent)


@pytest.mark.parametrize("missing", ["study.json", "results.parquet"])
def test_a_folder_without_a_study_is_refused_and_nothing_is_written(tmp_path, missing):
    folder = write_study(tmp_path / "made@1", rows_of())
    (folder / missing).unlink()
    with pytest.raises(FileNotFoundError, match=f"made@1 is no study's folder.*{missing}"):
        write_report(folder)
    assert not (folder / "report.html").exists() and not (folder / "figures").exists()
    with pytest.raises(FileNotFoundError, match="nowhere is no study's folder"):
        write_report(tmp_path / "nowhere")


def test_a_table_without_a_finished_run_is_refused(tmp_path):
    folder = write_study(tmp_path / "made@1", rows_of())
    rows_of().iloc[:0].to_parquet(folder / "results.parquet")
    with pytest.raises(ValueError, match="no finished run"):
        write_report(folder)


def test_a_setting_is_a_column_only_where_runs_differ_in_it():
    rows = rows_of()
    assert "The same in every run: learning rate 0.008." in run_table(
        rows
    ) and "learning rate</button>" not in run_table(rows)
    rows.loc[0, "learning_rate"] = 0.016
    assert "learning rate</button>" in run_table(rows) and "same in every run" not in run_table(
        rows
    )


def test_damaged_tables_are_named(tmp_path):
    folder = write_study(tmp_path / "made@1", rows_of())
    rows_of().drop(columns=["loss", "status"]).to_parquet(folder / "results.parquet")
    with pytest.raises(ValueError, match=r"results.parquet lacks status, loss"):
        write_report(folder)
    write_json(folder / "study.json", {"name": "made@1"})
    with pytest.raises(ValueError, match=r"study.json lacks question, runs, forecast, plan"):
        write_report(folder)
