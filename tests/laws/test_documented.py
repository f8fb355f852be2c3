"""docs/laws.md runs as it stands, and its laws come back from the tables that they made."""

import re
from pathlib import Path

import numpy as np
import pytest


@pytest.mark.slow
def test_the_documented_examples_run_and_recover_their_laws(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[2] / "docs" / "laws.md").read_text()
    values: dict = {}
    for language, block in re.findall(r"```(python|bash)\n(.*?)```", page, re.DOTALL):
        if language == "python":
            exec(compile(block, "docs/laws.md", "exec"), values)
            continue
        for command in [line for line in block.strip().split("\n") if line.startswith("scalejax ")]:
            code, _, err = call(*command.split()[1:])
            assert code == 0, err
    fit, curve_fit, own = (values[name] for name in ("fit", "curve_fit", "own"))
    assert fit.verdict == curve_fit.verdict == own.verdict == "ok"
    assert fit.params["alpha"] == pytest.approx(0.35, abs=0.015)
    assert curve_fit.params["lambda"] == pytest.approx(0.99, rel=1e-8)
    assert own.params == pytest.approx(
        {"B": 2000.0, "critical": 5e5, "E": 2.0, "beta": 0.36}, rel=1e-8
    )
    assert (
        values["best"].loss < values["laws"].predict_curve(curve_fit, values["rates"]["cosine"])[-1]
    )
    slopes, nudge = np.asarray(values["slopes"]), 1e-4
    assert slopes.shape == (30,) and np.isfinite(slopes).all()
    assert np.std(values["many"]) > nudge * np.abs(values["many"]).mean(), (
        "resampled losses left the exponent where it was"
    )
