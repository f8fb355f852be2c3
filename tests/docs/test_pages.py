"""Every code block of the documentation runs, and shows what its page says."""

import json

import numpy as np
import pytest

from tests.docs.pages import DOCS, RUN_ELSEWHERE, blocks, run_page
from tests.published import reference

PAGES = ["../README.md", *sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md"))]
STARTS = tuple(RUN_ELSEWHERE)

# Pages with a test of their own, below or where the optional packages are installed.
OWN_TESTS = {
    "guides/laws.md",
    "guides/data.md",
    "guides/evaluation.md",
    # tests/training/test_export.py
    "guides/huggingface.md",
}
# Pages whose blocks read published tables.
REPLICATIONS = {"papers/porian.md", "papers/gadre.md", "papers/tissue.md"}


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("page", sorted({*PAGES} - OWN_TESTS - REPLICATIONS))
def test_the_examples_of_a_page_run(page, call):
    run_page(page, call)


@pytest.mark.replication
@pytest.mark.parametrize("page", sorted(REPLICATIONS))
def test_the_fits_of_a_paper_run_on_its_released_tables(page, call, monkeypatch):
    monkeypatch.setenv("SCALEJAX_REFERENCE", str(reference("gadre2024").parent))
    outputs = run_page(page, call).outputs
    assert outputs and all("not-converged" not in out for out in outputs)


@pytest.mark.parametrize("page", PAGES)
def test_blocks_that_are_not_run_are_run_elsewhere_or_are_no_commands(page):
    known = {"python", "bash", "console", "text", "yaml", "json"}
    for language, text in blocks(page):
        assert language in known, f"docs/{page}: nothing runs a block of {language!r}"
        if language == "console":
            commands = [line[2:] for line in text.split("\n") if line.startswith("$ ")]
            assert commands
            for command in commands:
                assert any(command.startswith(command_start) for command_start in RUN_ELSEWHERE), (
                    command
                )


@pytest.mark.slow
def test_the_examples_of_the_laws_guide_recover_their_laws(call):
    values = run_page("guides/laws.md", call).values
    fit, curve_fit, own = (values[name] for name in ("fit", "curve_fit", "own"))
    assert fit.verdict == curve_fit.verdict == own.verdict == "ok"
    assert fit.params["alpha"] == pytest.approx(0.35, abs=0.015)
    assert curve_fit.params["lambda"] == pytest.approx(0.99, rel=1e-8)
    critical_batch = {"B": 2000.0, "critical": 5e5, "E": 2.0, "beta": 0.36}
    assert own.params == pytest.approx(critical_batch, rel=1e-8)
    cosine = values["laws"].predict_curve(curve_fit, values["rates"]["cosine"])
    assert values["best"].loss < cosine[-1]
    slopes, many = np.asarray(values["slopes"]), np.asarray(values["many"])
    assert slopes.shape == (30,) and np.isfinite(slopes).all()
    # Noisy losses must move the exponent: otherwise vmap returned one fit eight times.
    assert np.std(many) > 1e-4 * np.abs(many).mean()


def test_the_examples_of_the_data_guide_run(call, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SCALEJAX_CACHE", str(tmp_path / "cache"))
    values: dict = {}
    for language, text in blocks("guides/data.md", after="## Files"):
        # The bash blocks name a corpus of the reader's own; tests/test_cli_data.py runs
        # the same commands on one.
        if language == "python":
            exec(compile(text, "docs/guides/data.md", "exec"), values)
    printed = capsys.readouterr().out
    assert "['book', 'letter']" in printed and "[1. 0.]" in printed
    assert values["data"].packing == "documents"


def test_the_examples_of_the_evaluation_guide_run(call):
    page = run_page("guides/evaluation.md", call)
    assert len(page.outputs) == 2 and json.loads(page.outputs[1])["window"] == 24
    row = page.values["result"].row
    assert row["error_animals"] == row["top1_error"]
