"""Fit files with wrong values and a right hash: refused by the name of the field."""

import json
import shutil
import sys
from typing import Any

import pytest

from scalejax import laws
from scalejax.cli.main import main
from scalejax.fitting import fit as fits
from scalejax.fitting.curves.result import CurveFit, read_law
from scalejax.laws import ParametricLaw
from tests.faults.mutations import mutate, reseal
from tests.fitting.test_curves import RATES, fit_table
from tests.fitting.test_hyperparameters import sweep_table
from tests.fitting.test_isoflop import isoflop_table
from tests.report.studies import results_table

SEEDS_PER_KIND = 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a fit of each kind of law."""
    folder = tmp_path_factory.mktemp("fits")
    fits.fit(results_table(), laws.chinchilla(), bootstrap=16).save(folder / "chinchilla.json")
    fits.fit(isoflop_table(), "isoflop", bootstrap=16, noise="0.001").save(folder / "isoflop.json")
    fits.fit(sweep_table(), "hyperparameters", bootstrap=16).save(folder / "hyperparameters.json")
    fit_table().save(folder / "annealing.json")
    return folder


def use(fit: fits.Fit[Any]) -> None:
    """What a user does with a fit that was read from a file."""
    assert all((repr(fit), fit.summary(), fit._repr_html_()))
    runs: list[dict[str, Any]] = [{"params": 1e5, "tokens": 1e6}]
    if isinstance(fit, CurveFit):
        runs = [{"learning_rates": RATES["cosine"]}]
    elif fit.law.name == "isoflop":
        runs = [{"flops": 1e20}, {"loss": 2.5}]
    elif isinstance(fit.law, ParametricLaw):
        runs += [{"flops": 1e12}, {"loss": 3.0}, {"loss": 3.0, "params": 1e5}]
    for run in runs:
        try:
            fit.forecast(**run).summary()
        except ValueError as error:
            # A law at other values may have no such run; the message says so.
            assert str(error)


@pytest.mark.parametrize("name", ["chinchilla", "isoflop", "hyperparameters", "annealing"])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of numbers near the largest float
def test_a_mutated_fit_with_a_right_hash_is_used_or_refused_by_its_field(name, folder, tmp_path):
    path, refused = tmp_path / f"{name}.json", 0
    for seed in range(SEEDS_PER_KIND):
        shutil.copy(folder / path.name, path)
        change = mutate(path, seed)
        reseal(path)
        try:
            fit = fits.load(path)
        except ValueError as error:
            refused += 1
            assert path.name in str(error), f"seed {seed}: {change}: {error}"
            continue
        try:
            use(fit)
        except Exception as error:
            pytest.fail(f"seed {seed}: {change}: {error!r}")
    assert SEEDS_PER_KIND / 3 < refused < SEEDS_PER_KIND


def forge(path, **fields) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    reseal(path)


@pytest.mark.parametrize(
    ("field", "name", "value"),
    [
        ("params.E", "params", {"A": 1.0, "B": 1.0, "E": "1.7", "alpha": 0.5, "beta": 0.5}),
        ("intervals.E", "intervals", {"E": [1.0, True]}),
        ("reasons", "reasons", "none"),
        ("noise", "noise", {"std": 0.01}),
        ("verdict", "verdict", "perfect"),
        ("loss", "loss", "../../outside"),
        ("seconds.solve", "seconds", {"solve": 10**400, "uncertainty": 0.0}),
        ("form.inputs", "form", {"inputs": ["params", "params"], "fixed": {}, "tied": []}),
        ("spread.ranges", "spread", {"ranges": {"params": [2, 1]}, "unvaried": {}}),
    ],
)
def test_predict_refuses_a_forged_field_in_one_message(
    field, name, value, folder, tmp_path, monkeypatch, capsys
):
    path = shutil.copy(folder / "chinchilla.json", tmp_path / "fit.json")
    forge(path, **{name: value})
    arguments = ["predict", str(path), "--params", "1e5", "--tokens", "1e6"]
    monkeypatch.setattr(sys, "argv", ["scalejax", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    message = capsys.readouterr().err
    assert f"{path} is not a fit" in message and f"its field {field} " in message
    assert len(message.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("[]", "field fit"),
        ('{"law": "annealing", "params": {"L0": "3"}}', "field params.L0"),
        ('{"law": "annealing", "params": {"L0": 3}}', "field params.A"),
        ('{"law": "annealing", "par', "a fit in JSON"),
    ],
)
def test_a_whole_curve_law_is_not_read_from_a_forged_file(text, field, tmp_path):
    path = tmp_path / "fit.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"fit\.json is not .*{field}"):
        read_law(path)
