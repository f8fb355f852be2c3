"""`scalejax compare` (mirrors scalejax/cli/compare.py)."""

import json

import pytest

from tests.fitting.comparison.test_compare import runs


@pytest.fixture
def tables(tmp_path):
    """The paths of two tables; B saves a third of the compute."""
    for name, saving in (("a", 1.0), ("b", 1.5)):
        runs(saving, noise=0.001).to_csv(tmp_path / f"{name}.csv", index=False)
    return tmp_path / "a.csv", tmp_path / "b.csv"


def test_the_gate_passes_below_the_gain_and_fails_above_it(call, tables):
    command = ("compare", *tables, "--law", "chinchilla", "--draws", 60, "--flops", "1e12")
    code, out, err = call(*command, "--require", 1.3, "--json")
    record = json.loads(out)
    assert code == 0 and not err and record["pairs"] == 20
    (gain,) = record["gains"]
    assert gain["interval"][0] < gain["gain"] < gain["interval"][1]
    code, out, err = call(*command, "--require", 1.7)
    assert code == 1 and "B against A" in out and "--require asks for 1.7" in err


def test_bad_input_is_exit_2_and_nothing_is_written(call, tables, tmp_path):
    command = ("compare", *tables, "--law", "chinchilla")
    for more, message in (
        (("--flops", "1e12;1e13"), "--flops takes numbers separated by commas"),
        (("--plot", tmp_path / "gain.pdf"), ".png, .svg, .html"),
        (("--columns", "loss=ppl"), "no column 'ppl'"),
    ):
        code, out, err = call(*command, *more)
        assert code == 2 and not out and message in err and "Traceback" not in err
    code, _, err = call("compare", tmp_path, tables[1], "--law", "chinchilla")
    assert code == 2 and "a folder without results.parquet" in err
