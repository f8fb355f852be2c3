"""Laws from files of the user's own (mirrors scalejax/cli/law_files.py)."""

import numpy as np
import pandas as pd
import pytest

from scalejax.cli.law_files import find_law

OWN = '''
from typing import NamedTuple

from scalejax.laws.law import EXPONENT, OFFSET, Linear, ParametricLaw, scale


class Decay(NamedTuple):
    """L = E + A N^-alpha."""

    E: float
    A: float
    alpha: float

    def loss(self, N):
        return self.E + self.A * N**-self.alpha


def decay():
    return ParametricLaw(
        name="decay",
        form=Decay,
        predict=Decay.loss,
        inputs=("params",),
        axes=(0,),
        coordinates=(OFFSET, scale(("alpha", 0, 1.0)), EXPONENT),
        linear=Linear(("E", "A"), lambda s, N: (1.0, N**-s.alpha)),
        grid=(("alpha", (0.2, 0.5)),),
    )


law = decay()
number = 3
'''


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(OWN)
    return path


def test_a_law_and_a_function_that_makes_one_are_found(own):
    assert find_law(f"{own}:law").name == find_law(f"{own}:decay").name == "decay"
    assert find_law("chinchilla").name == "chinchilla"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{own}", "names no law in the file; give .*own.py:NAME"),
        ("{own}:number", "`number` in .* must be a law; it is int. The file's laws are: law"),
        ("{own}:none", "`none` in .* must be a law"),
        ("{broken}:law", "broken.py cannot be run: ZeroDivisionError"),
        ("chinchila", "is not one of"),
    ],
)
def test_anything_else_is_refused(own, text, message):
    broken = own.with_name("broken.py")
    broken.write_text("1 / 0\n")
    with pytest.raises(ValueError, match=message):
        find_law(text.format(own=own, broken=broken))


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file"):
        find_law(f"{tmp_path}/none.py:law")


def test_an_own_law_is_fitted_drawn_and_predicts(call, own, tmp_path):
    N = np.geomspace(1e7, 1e9, 8)
    table, out = tmp_path / "runs.csv", tmp_path / "fit.json"
    pd.DataFrame({"params": N, "loss": 1.8 + 400 * N**-0.34}).to_csv(table, index=False)
    law = f"{own}:law"
    code, text, error = call("fit", table, "--law", law, "--bootstrap", 0, "--out", out)
    assert code == 0 and "decay on 8 rows" in text, error
    code, text, error = call("predict", out, "--law", law, "--params", 1e10)
    assert code == 0 and text.startswith("1.959"), error
    code, _, error = call("predict", out, "--params", 1e10)
    assert code == 2 and "is not a law of scalejax" in error
