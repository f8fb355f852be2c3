"""Fault F28: a pickle in a results folder is never executed.

Whoever can write a file that another person loads as a pickle can run code as that
person.
"""

import ast

import pytest

from tests.test_house import MODULES, tree_of

UNSAFE = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}


def unsafe_uses(tree):
    """The imports and calls in a module that can execute what a file holds."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.split(".")[0] in UNSAFE)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in UNSAFE:
            yield str(node.module)
        elif isinstance(node, ast.Call):
            call = ast.unparse(node.func)
            allows = any(
                word.arg == "allow_pickle" and ast.unparse(word.value) != "False"
                for word in node.keywords
            )
            if allows or call.endswith((".read_pickle", ".to_pickle")) or call == "torch.load":
                yield call


def test_nothing_in_the_package_can_unpickle():
    found = {
        name: uses for name, path in MODULES.items() if (uses := [*unsafe_uses(tree_of(path))])
    }
    assert not found


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from joblib import load",
        "np.load(f, allow_pickle=True)",
        "pd.read_pickle(f)",
    ],
)
def test_what_could_unpickle_is_found(code):
    assert list(unsafe_uses(ast.parse(code)))
