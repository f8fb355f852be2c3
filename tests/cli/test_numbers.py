"""Numbers of flags (mirrors scalejax/cli/numbers.py)."""

import json

import numpy as np
import pandas as pd
import pytest

from scalejax.laws.forms import Chinchilla

LAW = Chinchilla(A=400.0, B=410.0, E=1.7, alpha=0.34, beta=0.28)


@pytest.fixture
def fitted(call, tmp_path):
    params, tokens = np.geomspace(1e7, 1e9, 20), np.tile([2e8, 2e9, 2e10, 8e10], 5)
    table, fit = tmp_path / "runs.csv", tmp_path / "fit.json"
    losses = np.asarray(LAW.loss(params, tokens))
    pd.DataFrame({"params": params, "tokens": tokens, "loss": losses}).to_csv(table)
    code, _, err = call("fit", table, "--law", "chinchilla", "--bootstrap", 0, "--out", fit)
    assert code == 0, err
    return fit


def test_a_run_is_given_as_people_write_it(call, fitted):
    code, out, _ = call("predict", fitted, "--params", "7B", "--tokens", "1.4t", "--json")
    assert code == 0
    assert json.loads(out)["value"] == pytest.approx(float(LAW.loss(7e9, 1.4e12)), rel=1e-5)


@pytest.mark.parametrize("text", ["7x", "seven", "1,5", "", "nan"])
def test_what_is_not_a_number_is_named_with_its_flag(call, text):
    code, _, err = call("predict", "fit.json", "--params", text)
    assert code == 2
    assert f"--params: takes a number, such as 7e9 or 7B; got {text!r}" in err
