"""Checks the annotations of array functions, including shapes, while tests run.

jaxtyping's import hook decorates every function of the named modules. A call whose
arrays do not have the annotated dtypes and axes, or whose other arguments have the
wrong types, raises an error.
"""

from beartype import BeartypeConf, beartype
from jaxtyping import install_import_hook

CHECKED = ("scalejax.model",)

# As for any type checker, an int is a valid float (PEP 484).
check = beartype(conf=BeartypeConf(is_pep484_tower=True))


def install() -> None:
    """Check the modules in CHECKED that are imported from now on."""
    install_import_hook(CHECKED, "tests.typechecking.check")
