"""The whole-curve laws as their solver needs them: separable into terms.

Each law is L0 plus or minus terms, and each term is linear in one parameter once its
nonlinear parameters are held. The solver uses this to find starting points.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from scalejax.laws.curves.data import CurveData
from scalejax.laws.curves.forms import Annealing, AnnealingSize, CurveFormula, MultiPower
from scalejax.laws.curves.terms import (
    Basis,
    Value,
    annealing_area,
    multi_power_exact,
    multi_power_in_blocks,
    power_of_params,
    power_of_rate_sum,
    times_power_of_params,
)
from scalejax.laws.inference.design import Undetermined


class Coordinate(NamedTuple):
    """How the solver represents one parameter."""

    low: float
    """Lower bound of the coordinate."""
    high: float
    """Upper bound of the coordinate."""
    starts: tuple[float, ...] = ()
    """Starting values of the coordinate; empty for a linear parameter."""
    encode: Callable[[float], float] = float
    """Maps the parameter to its coordinate."""
    decode: Callable[[float], float] = float
    """Maps the coordinate to the parameter."""


class Term(NamedTuple):
    """One term of a law: sign x linear parameter x basis(nonlinear parameters)."""

    linear: str
    nonlinear: tuple[str, ...]
    basis: Callable[[CurveData], Basis]
    sign: int = 1
    exact: Callable[[CurveData], Value] | None = None
    """The exact value, where `basis` is an approximation."""


class Prior(NamedTuple):
    """A Gaussian prior on the coordinate of one parameter."""

    parameter: str
    mean: float
    std: float


class SeparableLaw(NamedTuple):
    """A whole-curve law as a sum of terms: L0 + sum of `terms`."""

    name: str
    formula: type[CurveFormula]
    coordinates: dict[str, Coordinate]
    """By the papers' names (lambda, not momentum), in the order of the formula's
    fields. L0 is the first."""
    terms: tuple[Term, ...]
    """The term of annealing is the last."""
    priors: tuple[Prior, ...] = ()
    inputs: tuple[str, ...] = ("learning_rate",)

    def hold(self, fixed: Mapping[str, float]) -> np.ndarray:
        """Coordinates (parameters,) of the held parameters, nan for the others.

        Raises ValueError for a parameter that the law does not have, and for a value
        outside the bounds.
        """
        unknown = [name for name in fixed if name not in self.coordinates]
        if unknown:
            raise ValueError(
                f"the {self.name} law has no parameter {', '.join(unknown)}; "
                f"it has {', '.join(self.coordinates)}"
            )
        held = np.full(len(self.coordinates), np.nan)
        for i, (name, coordinate) in enumerate(self.coordinates.items()):
            if name not in fixed:
                continue
            # An impossible value has a logarithm of nan or infinity: out of bounds.
            with np.errstate(all="ignore"):
                held[i] = coordinate.encode(fixed[name])
            if not (coordinate.low <= held[i] <= coordinate.high):
                low, high = sorted(map(coordinate.decode, (coordinate.low, coordinate.high)))
                raise ValueError(
                    f"{name} of the {self.name} law cannot be held at {fixed[name]}, "
                    f"which is outside [{low:.3g}, {high:.3g}]"
                )
        return held

    def unidentified(self, free: set[str], n_schedules: int, n_sizes: int) -> Undetermined:
        """What the design leaves open, whatever the losses.

        Curves of one schedule do not show how annealing depends on its shape, and few
        model sizes do not determine the parameters of a function of size.
        """
        reasons: list[str] = []
        parameters: set[str] = set()
        # Two functions of size: L0 + B N^-beta and C N^gamma. Each needs as many sizes
        # as it has free parameters.
        functions_of_size = (("L0", "B", "beta"), ("C", "gamma")) if self.is_sized else ()
        of_size = {name for names in functions_of_size for name in names}
        term = self.terms[-1]
        shape = [name for name in term.nonlinear if name in free - of_size]
        if n_schedules == 1 and shape:
            reasons.append(
                f"one schedule cannot identify {', '.join(shape)}; add curves that anneal "
                "differently"
            )
            # The size of the term makes up for any shape.
            parameters |= {*shape, term.linear} & free
        for names in functions_of_size:
            loose = [name for name in names if name in free]
            if len(loose) > n_sizes:
                parameters |= {*loose}
                sizes = "one model size" if n_sizes == 1 else f"{n_sizes} model sizes"
                reasons.append(
                    f"{sizes} cannot tell {', '.join(loose)} apart; "
                    f"at least {len(loose)} are needed"
                )
        return Undetermined(reasons, parameters)

    @property
    def is_sized(self) -> bool:
        """Whether the law reads the size of the model."""
        return "params" in self.inputs


_POSITIVE = Coordinate(0.0, np.inf)
_EXPONENT = Coordinate(1e-3, 3.0, (0.15, 0.25, 0.35, 0.5, 0.7, 1.0))
# The solver works with log(1 - lambda): curves resolve 1 - lambda, the inverse of the
# number of steps over which annealing takes effect, on a logarithmic scale.
_MOMENTUM = Coordinate(
    np.log(1e-6),
    0.0,
    tuple(np.log([0.3, 0.05, 0.01, 3e-3, 1e-3, 3e-4])),
    encode=lambda momentum: np.log1p(-momentum),
    decode=lambda coordinate: -np.expm1(coordinate),
)
# The exponent of size in the annealing term may have either sign.
_SIZE_EXPONENT = Coordinate(-3.0, 3.0, (-0.3, 0.0, 0.3))
_KERNEL_C = Coordinate(
    np.log(1e-6), np.log(1e6), tuple(np.log([0.01, 0.3, 3.0, 30.0])), np.log, np.exp
)
_KERNEL_BETA = Coordinate(np.log(1e-2), np.log(1e2), tuple(np.log([0.2, 0.6, 2.0])), np.log, np.exp)
_KERNEL_GAMMA = Coordinate(0.0, 3.0, (0.2, 0.5, 1.0))

_MAIN_COORDINATES = {"L0": _POSITIVE, "A": _POSITIVE, "alpha": _EXPONENT}
_MAIN_TERM = Term("A", ("alpha",), power_of_rate_sum)

_ANNEALING = SeparableLaw(
    "annealing",
    Annealing,
    {**_MAIN_COORDINATES, "C": _POSITIVE, "lambda": _MOMENTUM},
    (_MAIN_TERM, Term("C", ("lambda",), annealing_area, -1)),
)

_ANNEALING_SIZE = SeparableLaw(
    "annealing-size",
    AnnealingSize,
    {
        **_MAIN_COORDINATES,
        "B": _POSITIVE,
        "beta": _EXPONENT,
        "C": _POSITIVE,
        "lambda": _MOMENTUM,
        "gamma": _SIZE_EXPONENT,
    },
    (
        _MAIN_TERM,
        Term("B", ("beta",), power_of_params),
        Term("C", ("lambda", "gamma"), times_power_of_params(annealing_area), -1),
    ),
    inputs=("learning_rate", "params"),
)

# gamma sets the clock of annealing: 0 counts summed learning rates, 1 counts steps, and
# the central 95% of its prior reach from one to the other. beta is an exponent of the
# same loss curve as alpha, which is near 1/2; its prior allows a factor of 2 (one
# standard deviation).
_MULTI_POWER = SeparableLaw(
    "multipower",
    MultiPower,
    {
        **_MAIN_COORDINATES,
        "B": _POSITIVE,
        "C": _KERNEL_C,
        "beta": _KERNEL_BETA,
        "gamma": _KERNEL_GAMMA,
    },
    (
        _MAIN_TERM,
        Term("B", ("C", "beta", "gamma"), multi_power_in_blocks, -1, exact=multi_power_exact),
    ),
    priors=(
        Prior("beta", float(np.log(0.5)), float(np.log(2.0))),
        Prior("gamma", 0.5, 0.25),
    ),
)

# By the name on the command line.
SEPARABLE_LAWS = {law.name: law for law in (_ANNEALING, _ANNEALING_SIZE, _MULTI_POWER)}
