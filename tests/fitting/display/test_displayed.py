"""A fit shows itself (mirrors scalejax/fitting/display/)."""

import re

import numpy as np
import pandas as pd
import pytest

import scalejax
from scalejax.fitting.result import Estimate, Estimates

N, D = (x.ravel() for x in np.meshgrid(np.geomspace(5e7, 8e8, 5), np.geomspace(1e9, 1e11, 5)))
NOISE = np.exp(0.002 * np.random.default_rng(0).standard_normal(25))
LOSS = (1.69 + 406.4 * N**-0.34 + 410.7 * D**-0.28) * NOISE


@pytest.fixture(scope="module")
def fit():
    # A dictionary of columns is a table, and a law has a name.
    return scalejax.fit({"params": N, "tokens": D, "loss": LOSS}, "chinchilla", bootstrap=60)


def test_printing_a_fit_shows_what_the_command_line_prints(fit):
    text = str(fit)
    assert text.startswith("chinchilla on 25 rows: ok") and "95% [" in text
    assert len(text) < 2000, "a fit of draws must not print them"


def test_a_notebook_shows_a_table_of_parameters(fit):
    html = fit._repr_html_()
    assert html.count("<tr>") == 1 + len(fit.params) and "chinchilla on 25 rows" in html


def test_a_notebook_shows_the_figure_as_one_image_for_each_chart(fit):
    html = fit.figure()._repr_html_()
    alts = re.findall(r'<img src="data:image/png;base64,\w[^"]+" alt="([^"]+)"', html)
    assert [alt.partition(". ")[0] for alt in alts] == [chart.title for chart in fit.charts()]


def test_a_data_frame_has_values_and_ends(fit):
    frame = fit.to_frame()
    assert list(frame.columns) == ["value", "low", "high"]
    assert frame.loc["alpha", "value"] == fit.params["alpha"]
    assert (frame.low <= frame.value).all() and (frame.value <= frame.high).all()


def test_tables_for_a_paper_and_for_a_page(fit):
    markdown = fit.table("markdown").splitlines()
    assert markdown[0] == "| parameter | value | 95% interval |" and len(markdown) == 7
    latex = fit.table("latex")
    assert r"95\% interval \\" in latex and latex.startswith(r"\begin{tabular}{lrr}")
    with pytest.raises(ValueError, match="latex or markdown; got 'html'"):
        fit.table("html")


def test_arrays_predict_several_runs(fit):
    sizes = np.array([1e9, 2e9, 4e9])
    several = fit.predict(params=sizes, tokens=2e10)
    single = fit.predict(params=2e9, tokens=2e10)
    assert isinstance(several, Estimates) and isinstance(single, Estimate)
    assert several.value.shape == several.low.shape == (3,)
    assert (several.value[1], several.low[1], several.high[1]) == single[:3]
    assert several.method[1] == single.method
    grid = fit.predict(params=sizes[:, None], tokens=pd.Series([1e10, 2e10]))
    assert grid.value.shape == (3, 2) and grid.value[1, 1] == single.value
    assert fit.predict(params=sizes[:0], tokens=2e10).low.shape == (0,)


def test_runs_without_an_interval_have_nan_ends():
    without = scalejax.fit({"params": N, "tokens": D, "loss": LOSS}, "chinchilla", bootstrap=0)
    several = without.predict(flops=[1e20, 1e21])
    assert isinstance(several, Estimates)
    assert np.isnan(several.low).all() and np.isfinite(several.value).all()


@pytest.mark.parametrize("suffix", ["png", "svg", "html"])
def test_a_figure_is_written_by_its_suffix(fit, tmp_path, suffix):
    path = tmp_path / f"fit.{suffix}"
    fit.plot(path)
    start = {"png": b"\x89PNG", "svg": b"<?xml", "html": b"<!doctype html>"}[suffix]
    assert path.read_bytes().startswith(start)


def test_the_figure_has_the_law_its_band_and_its_rows(fit):
    tokens, flops, residuals = fit.charts()
    points = sum(len(mark.x) for mark in tokens.marks if type(mark).__name__ == "Points")
    bands = [mark for mark in tokens.marks if type(mark).__name__ == "Band"]
    assert points == 25 and len(bands) == 5, "one band for each of five sizes"
    assert any(type(mark).__name__ == "Band" for mark in flops.marks)
    shown = np.concatenate([mark.y for mark in residuals.marks])
    assert np.abs(shown).max() < 1.5, "percent, at a noise of 0.2%"


def test_another_suffix_and_a_loaded_fit_are_refused(fit, tmp_path):
    with pytest.raises(ValueError, match=r"\.png, \.svg, \.html; got .*fit\.jpg"):
        fit.plot(tmp_path / "fit.jpg")
    fit.save(tmp_path / "fit.json")
    from scalejax.fitting.fit import load

    with pytest.raises(ValueError, match="a file does not hold"):
        load(tmp_path / "fit.json").plot(tmp_path / "fit.png")
    assert not (tmp_path / "fit.png").exists()
