"""The names of scalejax.laws, and their types (mirrors scalejax/laws/__init__.py)."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from scalejax import laws

# What a user writes to fit a table, and to fit arrays inside compiled code.
SCRIPT = """
import jax
import numpy as np
import scalejax
from scalejax import laws

fit = scalejax.fit("runs.csv", laws.chinchilla(), bootstrap=100)
law = fit.law.form(**fit.params)
x = np.geomspace(1e6, 1e9, 20)
exponent = jax.jit(lambda y: laws.solve(laws.power(), (x,), y).parameters.b)(x**-0.4)
solution = laws.solve(laws.power(), (x,), x**-0.4)
"""

# Expressions of the script, and what their types must contain.
TYPES = {
    "scalejax.fit": "law: ParametricLaw[F@fit]",
    "laws.chinchilla": "ParametricLaw[Chinchilla]",
    "laws.solve": "Solution[F@solve]",
    "fit": "ParametricFit[Chinchilla]",
    "law": "Chinchilla",
    "solution": "Solution[Power]",
    "fit.residuals": "ndarray",
    "solution.parameters.b": "Array",
}


def test_a_name_gives_the_law_of_that_name():
    assert laws.named("power", x="flops").inputs == ("flops",)
    with pytest.raises(ValueError, match=r"'chinchila' is not one of annealing, .*chinchilla"):
        laws.named("chinchila")


def test_dir_lists_exactly_the_public_names():
    assert dir(laws) == sorted(laws.__all__)
    assert all(hasattr(laws, name) for name in laws.__all__)


def test_the_public_names_are_re_exported_statically():
    source = Path(laws.__file__).read_text(encoding="utf-8")
    own = {"NAMES", "named"}
    for name in set(laws.__all__) - own:
        assert f" import {name} as {name}\n" in source, name


# Slow: pyright takes seconds, and a minute on a busy machine.
@pytest.mark.slow
def test_a_user_script_sees_the_types_of_laws_and_fits(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT + "".join(f"reveal_type({name})\n" for name in TYPES))
    root = Path(__file__).parents[2]
    config = {"extraPaths": [str(root)], "typeCheckingMode": "standard"}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(config))
    pyright = Path(sys.executable).parent / "pyright"
    done = subprocess.run(
        [pyright, "--outputjson", "--pythonpath", sys.executable, "-p", tmp_path],
        capture_output=True,
        text=True,
    )
    diagnostics = json.loads(done.stdout)["generalDiagnostics"]
    assert not [d["message"] for d in diagnostics if d["severity"] == "error"]
    revealed = [d["message"] for d in diagnostics if d["severity"] == "information"]
    for (name, expected), message in zip(TYPES.items(), revealed, strict=True):
        assert f'Type of "{name}" is ' in message and expected in message, message
        if name in ("scalejax.fit", "laws.chinchilla", "laws.solve"):
            assert not re.search(r"\b(Any|Unknown)\b", message), message
