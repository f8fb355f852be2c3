"""Checks the annotations of array functions, including shapes, while tests run.

jaxtyping's import hook decorates every function of the named modules. A call whose
arrays do not have the annotated dtypes and axes, or whose other arguments have the
wrong types, raises an error.
"""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from beartype import BeartypeConf, beartype
from beartype.roar import (
    BeartypeDecorHintPep673Exception,
    BeartypeDecorHintPepUnsupportedException,
)
from jaxtyping import install_import_hook

CHECKED = (
    "scalejax.laws.forms",
    "scalejax.laws.inference",
    "scalejax.laws.log_sum_exp",
    "scalejax.laws.solver",
    "scalejax.model",
)

# As for any type checker, an int is a valid float (PEP 484).
_check = beartype(conf=BeartypeConf(is_pep484_tower=True))

# Annotations that beartype 0.23 cannot read: Self outside a decorated class, and a
# NamedTuple with type parameters.
_UNREADABLE = (BeartypeDecorHintPep673Exception, BeartypeDecorHintPepUnsupportedException)

P = ParamSpec("P")
R = TypeVar("R")


def check(function: Callable[P, R]) -> Callable[P, R]:
    """Check calls of a function; returns it as it is if beartype cannot read it."""
    try:
        return _check(function)
    except _UNREADABLE:
        return function


def install() -> None:
    """Check the modules in CHECKED that are imported from now on."""
    install_import_hook(CHECKED, "tests.typechecking.check")
