"""The report of a study, with all of its parts and without (mirrors
scalejax/report/write.py)."""

import re
from pathlib import Path

import numpy as np
import pytest

from scalejax import laws
from scalejax.files import write_json
from scalejax.fitting.fit import fit
from scalejax.report.record import read_study
from scalejax.report.write import run_table, write_report
from tests.report.studies import (
    DIVERGED_RUN,
    FORECAST_RUN,
    ledger,
    register_forecast,
    results_table,
    write_study,
)


@pytest.fixture(scope="module")
def fits():
    """A law of the loss and a law of the error, fitted to the study's runs."""
    rows = results_table()
    used = rows.loc[~rows["run"].isin([FORECAST_RUN, DIVERGED_RUN]), :]
    return {
        law.name: fit(used, law, bootstrap=64) for law in (laws.chinchilla(), laws.downstream())
    }


@pytest.fixture(scope="module")
def complete(tmp_path_factory, fits):
    """The folder of a study that has every part, with its report. One run diverged."""
    rows = results_table()
    diverged = rows["run"] == DIVERGED_RUN
    rows.loc[diverged, ["status", "loss"]] = ["diverged", np.inf]
    rows.loc[diverged, ["loss_se", "top1_error"]] = np.nan
    folder = write_study(tmp_path_factory.mktemp("out") / "made@1", rows)
    for name, law_fit in fits.items():
        law_fit.save(folder / "fits" / f"{name}.json")
    forecast = fits["chinchilla"].predict(params=250_000, tokens=2.4e6)
    measured = float(rows["loss"].iloc[-1])
    register_forecast(
        folder, value=forecast.value, low=forecast.low, high=forecast.high, measured=measured
    )
    write_report(folder)
    return folder


def page(folder: Path) -> str:
    return (folder / "report.html").read_text(encoding="utf-8")


def text_of(folder: Path) -> str:
    """The page without scripts, styles and drawings."""
    not_text = r"<script.*?</script>|<svg.*?</svg>|<style.*?</style>"
    return re.sub(not_text, "", page(folder), flags=re.DOTALL)


def words_of(folder: Path) -> str:
    """The text of the page without tags, a blank between any two words."""
    return " ".join(re.sub(r"<[^>]*>", " ", text_of(folder)).split())


def test_the_page_loads_nothing_from_a_network(complete):
    html = page(complete)
    assert html.count('<figure class="chart"') == 5, "no charts: this test could not fail"
    tags = r"<(script|link|img|iframe)[^>]*(src|href)\s*=\s*[\"']?(https?:)?//"
    assert not re.search(tags, html)
    files = r"(src|href)\s*=\s*[\"']https?://[^\"']*\.(js|css|woff2?|png)"
    assert not re.search(files, html)
    assert len(html.encode()) < 2e6


def test_every_run_is_in_the_table_and_a_diverged_one_is_marked(complete):
    text = text_of(complete)
    assert all(f">{run}</td>" in text for run in results_table()["run"])
    row = next(line for line in text.split("<tr>") if f">{DIVERGED_RUN}</td>" in line)
    assert 'class="alarm">diverged' in row and "inf" not in row
    assert f"left out of every fit: {DIVERGED_RUN}" in text


def test_every_law_is_there_with_its_numbers_intervals_and_verdict(complete, fits):
    text = text_of(complete)
    for law_fit in fits.values():
        for name, value in law_fit.params.items():
            ends = law_fit.intervals[name]
            low, high = ("open" if end is None else f"{end:.4g}" for end in ends)
            assert f"{name} = {value:.4g} [{low}, {high}]" in text
        assert f"Verdict {law_fit.verdict}" in text
    assert "Hoffmann et al. 2022" in text


def test_a_forecast_is_beside_its_measurement(complete):
    forecast, score = ledger(complete)
    text = words_of(complete)
    interval = f"[{forecast['low']:.4f}, {forecast['high']:.4f}]"
    numbers = f"{forecast['value']:.4f} {interval} {score['measured']:.4f} {score['error']:+.4f}"
    assert f"chinchilla loss {numbers}" in text
    assert "1 forecast registered before the runs started, 1 measured: 1 inside" in text


def test_the_saved_compute_and_the_error_of_guessing_are_stated(complete):
    text = text_of(complete)
    assert "40% is saved" in text and "guessing has 0.75" in text


def test_text_of_users_is_escaped(complete):
    assert "Does &lt;b&gt;size&lt;/b&gt; &amp; data pay alike?" in page(complete)
    assert "<b>size</b>" not in page(complete)


def test_every_view_of_a_figure_is_written_as_png_and_as_svg(complete):
    files = {path.name: path for path in (complete / "figures").iterdir()}
    names = {
        *("loss_curves", "loss_curves_flops", "law_chinchilla", "law_chinchilla_flops"),
        *("law_chinchilla_collapsed", "residuals_chinchilla", "forecast_loss"),
        "error_against_loss",
    }
    assert set(files) == {f"{name}.{form}" for name in names for form in ("png", "svg")}
    starts = {".png": b"\x89PNG", ".svg": b"<?xml"}
    assert all(path.read_bytes().startswith(starts[path.suffix]) for path in files.values())


def test_a_forecast_that_missed_stands_out(tmp_path):
    folder = write_study(tmp_path / "made@1", results_table())
    register_forecast(folder, value=2.4, low=2.35, high=2.45, measured=2.5)
    text = words_of(write_report(folder).parent)
    assert "OUTSIDE the interval" in text and "[2.3500, 2.4500]" in text


def test_the_open_end_of_an_interval_is_called_open(tmp_path):
    folder = write_study(tmp_path / "made@1", results_table())
    register_forecast(folder, value=2.4, low=2.35, high=None, measured=2.5)
    text = words_of(write_report(folder).parent)
    assert "loss 2.4000 [2.3500, open]" in text


def test_a_forecast_without_an_interval_is_not_called_inside_one(tmp_path):
    folder = write_study(tmp_path / "made@1", results_table())
    register_forecast(folder, value=2.4, low=None, high=None, measured=2.5)
    text = words_of(write_report(folder).parent)
    assert "2.4000 without an interval 2.5000 +0.1000 (+4.17%) with no interval" in text


def test_a_study_of_one_run_has_a_page_that_says_what_is_missing(tmp_path):
    rows = results_table().iloc[:1]
    rows = rows.drop(columns=["top1_error", "top1_error_se", "top1_chance", "loss_se"])
    folder = write_study(tmp_path / "made@1", rows)
    (folder / "curves.parquet").unlink()
    text = text_of(write_report(folder).parent)
    for sentence in (
        "No law was fitted: laws are fitted when all runs are finished",
        "No forecast was registered",
        "There are no curves",
        "No run of this study measured",
    ):
        assert sentence in text
    assert "1 of 2 runs finished: 1 model size (20k parameters" in text
    assert f"Not finished: {FORECAST_RUN}" in text


def test_a_finished_study_without_laws_does_not_ask_for_more_runs(tmp_path):
    text = text_of(write_report(write_study(tmp_path / "made@1", results_table())).parent)
    assert "No law was fitted, because the study names none." in text


def test_what_a_study_does_not_have_gets_a_sentence_and_no_section(tmp_path):
    rows = results_table().drop(columns=["top1_error", "top1_error_se", "top1_chance"])
    html = page(write_report(write_study(tmp_path / "made@1", rows)).parent)
    assert re.findall(r"<h2>(.*?)</h2>", html) == ["Summary", "Loss curves", "Runs"]


def test_a_parameter_that_was_held_does_not_say_that_there_was_no_bootstrap(tmp_path):
    folder = write_study(tmp_path / "made@1", results_table())
    law_fit = fit(results_table(), laws.chinchilla(E=1.5), bootstrap=64)
    law_fit.save(folder / "fits" / "chinchilla.json")
    text = text_of(write_report(folder).parent)
    assert "held at this value" in text and "no bootstrap" not in text


def test_a_study_in_which_every_run_diverged_has_a_page(tmp_path):
    rows = results_table().assign(status="diverged", loss=np.inf, top1_error=np.nan)
    text = text_of(write_report(write_study(tmp_path / "made@1", rows)).parent)
    assert text.count('class="alarm">diverged') == len(rows)
    assert "0 runs finished that a law could use" in text


def test_mixed_code_and_changed_placement_are_warned_about(tmp_path):
    rows = results_table()
    rows.loc[2, "code"] = "0.1.0+fff"
    rows["placement_changed"] = rows["run"] == DIVERGED_RUN
    text = text_of(write_report(write_study(tmp_path / "made@1", rows)).parent)
    assert "2 versions of the code: 0.1.0+abc, 0.1.0+fff" in text
    assert f"under another placement, so not reproducible bit for bit: {DIVERGED_RUN}." in text


def test_a_fit_that_cannot_be_read_is_named_and_the_rest_is_reported(tmp_path):
    folder = write_study(tmp_path / "made@1", results_table())
    (folder / "fits").mkdir()
    write_json(folder / "fits" / "kaplan.json", {})
    assert "kaplan.json is not a fit" in text_of(write_report(folder).parent)


def test_a_setting_has_a_column_only_if_runs_differ_in_it():
    rows = results_table()
    html = run_table(rows)
    assert "The same in every run: learning rate 0.008." in html
    assert "learning rate</button>" not in html
    rows.loc[0, "learning_rate"] = 0.016
    html = run_table(rows)
    assert "learning rate</button>" in html and "same in every run" not in html


def test_batch_sizes_are_written_with_all_their_digits():
    assert "batch tokens 1,024" in run_table(results_table().assign(batch_tokens=1024))


def test_a_study_that_read_one_held_out_document_has_a_report(tmp_path):
    """Its losses have no standard error, which is None in the table."""
    rows = results_table()
    rows["loss_se"] = None
    folder = write_study(tmp_path / "made@1", rows)
    write_report(folder)
    assert "made@1" in page(folder)
    assert not np.isfinite(read_study(folder).results["loss_se"]).any()
