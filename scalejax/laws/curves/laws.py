"""The whole-curve laws as their solver sees them: sums of terms, each linear in one parameter and shaped by the others."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from scalejax.laws.curves import forms as curves
from scalejax.laws.curves.rows import (
    Rows,
    annealing_credit,
    exact_power_credit,
    power_credit,
    power_of_rates,
    power_of_size,
    sized,
)
from scalejax.laws.law import Allowed, Law


class Coordinate(NamedTuple):
    """How the solver sees one parameter: bounds, starting values, and the way to and from the parameter."""

    low: float
    high: float
    starts: tuple[float, ...] = ()
    to: Callable = float
    back: Callable = float


class Term(NamedTuple):
    """One summand of a law: sign x scale x basis(shape)."""

    scale: str
    """The parameter that enters linearly."""
    shape: tuple[str, ...]
    basis: Callable[[Rows], Callable]
    """rows -> (coordinates of the shape -> value of every row, (rows,), and its Jacobian, (rows, shape))."""
    sign: int = 1
    exact: Callable[[Rows], Callable] | None = None
    """rows -> (coordinates of the shape -> value of every row), where `basis` is an approximation."""


class Form(NamedTuple):
    """One law for the solver."""

    law: type
    coordinates: dict[str, Coordinate]
    """By the papers' names (lambda, not momentum), in the order of the law's fields."""
    terms: tuple[Term, ...]
    """What stands beside L0."""
    prior: tuple[tuple[str, float, float], ...] = ()
    """(parameter, centre, standard deviation), both in its coordinate."""
    inputs: tuple[str, ...] = ("learning_rate",)

    def unidentified(self, free: set[str], n_curves: int, sizes: int) -> list[str]:
        """What the design alone leaves open: shapes of annealing on one curve, terms of N on few sizes."""
        shape = [name for name in self.terms[-1].shape if name in free]
        found = (
            [f"one curve cannot identify {', '.join(shape)}: add curves that anneal differently"]
            if n_curves == 1 and shape
            else []
        )
        for names in (("L0", "B", "beta"), ("C", "gamma")) if "params" in self.inputs else ():
            loose = [name for name in names if name in free]
            if len(loose) > sizes:
                number = "one model size does" if sizes == 1 else f"{sizes} model sizes do"
                found.append(
                    f"{number} not tell {', '.join(loose)} apart: at least {len(loose)} sizes do"
                )
        return found


_POSITIVE, _EXPONENT = (
    Coordinate(0.0, np.inf),
    Coordinate(1e-3, 3.0, (0.15, 0.25, 0.35, 0.5, 0.7, 1.0)),
)
_LOG_C = Coordinate(
    np.log(1e-6), np.log(1e6), tuple(np.log([0.01, 0.3, 3.0, 30.0])), np.log, np.exp
)
_LOG_BETA = Coordinate(np.log(1e-2), np.log(1e2), tuple(np.log([0.2, 0.6, 2.0])), np.log, np.exp)
_MOMENTUM = Coordinate(
    np.log(1e-6),
    0.0,
    tuple(np.log([0.3, 0.05, 0.01, 3e-3, 1e-3, 3e-4])),
    lambda x: np.log1p(-x),
    lambda u: -np.expm1(u),
)
_SIGNED = Coordinate(-3.0, 3.0, (-0.3, 0.0, 0.3))
_SHARED = {"L0": _POSITIVE, "A": _POSITIVE, "alpha": _EXPONENT}
_MAIN = Term("A", ("alpha",), power_of_rates)
FORMS = {
    "annealing": Form(
        curves.Annealing,
        {**_SHARED, "C": _POSITIVE, "lambda": _MOMENTUM},
        (_MAIN, Term("C", ("lambda",), annealing_credit, -1)),
    ),
    "annealing-size": Form(
        curves.AnnealingSize,
        {
            **_SHARED,
            "B": _POSITIVE,
            "beta": _EXPONENT,
            "C": _POSITIVE,
            "lambda": _MOMENTUM,
            "gamma": _SIGNED,
        },
        (
            _MAIN,
            Term("B", ("beta",), power_of_size),
            Term("C", ("lambda", "gamma"), sized(annealing_credit), -1),
        ),
        inputs=("learning_rate", "params"),
    ),
    # gamma sets the clock of annealing: 0 counts summed rates, 1 counts steps; the prior's 95% are those two. beta is a power
    # of the same loss curve as alpha, which is near 1/2, give or take a factor 2.
    "multipower": Form(
        curves.MultiPower,
        {
            **_SHARED,
            "B": _POSITIVE,
            "C": _LOG_C,
            "beta": _LOG_BETA,
            "gamma": Coordinate(0.0, 3.0, (0.2, 0.5, 1.0)),
        },
        (_MAIN, Term("B", ("C", "beta", "gamma"), power_credit, -1, exact_power_credit)),
        (("beta", float(np.log(0.5)), float(np.log(2.0))), ("gamma", 0.5, 0.25)),
    ),
}


@dataclass(frozen=True, kw_only=True)
class CurveLaw(Law):
    """A law of the whole loss curve, given the learning rate of every step.

    Its parameters have the papers' names (lambda, not momentum).
    """

    @property
    def form(self) -> Form:
        """The law as its solver sees it."""
        return FORMS[self.name]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the parameters."""
        return tuple(self.form.coordinates)

    @property
    def formula(self) -> str:
        """The docstring of the law's NamedTuple."""
        return inspect.getdoc(self.form.law) or ""

    def allowed(self, name: str) -> Allowed:
        """The solver's bounds, in the parameter's own units."""
        coordinate = self.form.coordinates[name]
        return Allowed(*sorted(map(coordinate.back, (coordinate.low, coordinate.high))))


def annealing(**fixed: float) -> CurveLaw:
    """The annealing law of the rate of every step; keywords (a dict for lambda) hold a parameter at a value."""
    return _law("annealing", **fixed)


def annealing_size(**fixed: float) -> CurveLaw:
    """The annealing law over several model sizes, of the rate of every step and params; keywords hold a parameter at a value."""
    return _law("annealing-size", **fixed)


def multipower(**fixed: float) -> CurveLaw:
    """The multi-power law of the rate of every step; keywords hold a parameter at a value."""
    return _law("multipower", **fixed)


def _law(name: str, **fixed: float) -> CurveLaw:
    return CurveLaw(name=name, inputs=FORMS[name].inputs).hold(**fixed)
