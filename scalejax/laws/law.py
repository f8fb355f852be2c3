"""What a law is: the base of all kinds of law, and what the solver needs of a formula.

A law of one row per run (`ParametricLaw`) consists of a NamedTuple with the formula and
of one value that tells the solver which columns the formula reads, which parameters
enter linearly, which are positive and where to start. The other kinds of law are
`CurveLaw` (whole loss curves), `IsoFLOP` and `HyperparameterLaw`; their modules define
them.
"""

import dataclasses
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, NamedTuple, Protocol, Self, TypeVar, runtime_checkable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Real

# Inputs that are positive whatever a law does with them.
ALWAYS_POSITIVE = ("params", "tokens", "unique_tokens", "flops", "loss", "width", "depth")

# The solver keeps numpy arrays between compiled programs and jax arrays inside them.
AnyArray = Array | np.ndarray


@runtime_checkable
class SupportsArray(Protocol):
    """What numpy can read as an array: arrays of jax or numpy, columns of a data frame.

    Type checkers show this name to users. `np.ndarray` would show the type parameters
    that it leaves open.
    """

    def __array__(self) -> np.ndarray: ...


# A number, or an array of any shape: an input of a formula, or one of its parameters,
# which is an array for bootstrap draws.
Number = Real[Array, "..."] | Real[np.ndarray, "..."] | float | int

# The NamedTuple of a law's parameters. For type checkers of running programs it is a
# tuple, because typing.NamedTuple is then a function that makes classes.
if TYPE_CHECKING:
    Form = NamedTuple
else:
    Form = tuple

F = TypeVar("F", bound=Form)


class Allowed(NamedTuple):
    """The values that a parameter may take, from `low` to `high`."""

    low: float
    high: float
    positive: bool = False
    """Whether zero is excluded."""

    def contains(self, value: float) -> bool:
        """Whether the parameter may take this value."""
        inside = self.low <= value <= self.high and bool(np.isfinite(value))
        return inside and (value > 0 or not self.positive)

    def __str__(self) -> str:
        if self.positive:
            return "positive"
        if np.isfinite(self.high):
            return f"between {self.low:g} and {self.high:g}"
        return f"{self.low:g} or more"


@dataclass(frozen=True, kw_only=True)
class Law(ABC):
    """What all kinds of law share: their name, columns and parameters."""

    name: str
    """Name on the command line and in fit.json."""
    inputs: tuple[str, ...]
    """Columns that the law reads."""
    target: str = "loss"
    """Column that the law predicts."""
    fixed: tuple[tuple[str, float], ...] = ()
    """(parameter, value) of the parameters that are held."""

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """Names of the parameters."""

    @property
    @abstractmethod
    def formula(self) -> str:
        """The formula with its source, and after a blank line what its letters mean."""

    @abstractmethod
    def allowed(self, name: str) -> Allowed:
        """The values at which a parameter may be held."""

    def hold(self, **values: float) -> Self:
        """Return the same law with parameters held at values.

        >>> from scalejax.laws.forms import chinchilla
        >>> chinchilla().hold(E=1.69).fixed
        (('E', 1.69),)

        Raises ValueError for a parameter that the law does not have, or for a value
        that the parameter cannot take.
        """
        if unknown := [name for name in values if name not in self.names]:
            raise ValueError(
                f"the {self.name} law has no parameter {', '.join(unknown)}; "
                f"it has {', '.join(self.names)}"
            )
        for name, value in values.items():
            if not (allowed := self.allowed(name)).contains(value):
                raise ValueError(
                    f"{name} of the {self.name} law is {allowed}; it cannot be held at {value}"
                )
        fixed = dict(self.fixed) | values
        return dataclasses.replace(self, fixed=tuple(sorted(fixed.items())))

    @property
    def free(self) -> int:
        """Number of parameters that the data determine."""
        return len(self.names) - len({name for name, _ in self.fixed})


@dataclass(frozen=True)
class Coordinate:
    """How the solver represents one parameter."""

    low: float
    """Lower bound: of the logarithm when `log`, and relative to the log of the typical
    target when `scale`."""
    high: float
    """Upper bound, in the same terms."""
    log: bool = False
    """Whether the solver works with the logarithm; the parameter is then positive."""
    scale: bool = False
    """Whether the parameter is the size of a term, in units of the target."""
    units: tuple[tuple[str, int, float], ...] = ()
    """(exponent, axis, power) of every rescaled input that the parameter depends on.
    The parameter, or its logarithm, is its value in centred units plus the sum of
    power x exponent x centre[axis]; an exponent named "" is 1."""


def scale(*units: tuple[str, int, float]) -> Coordinate:
    """The coordinate of a positive coefficient, the size of a term.

    At the centre of the data the term is between e^-14 (1e-6, as good as zero) and e^14
    times the typical target.
    """
    return Coordinate(-14.0, 14.0, log=True, scale=True, units=units)


# An additive constant in the units of the target, such as the irreducible loss.
OFFSET = Coordinate(0.0, np.inf)

# An offset that is a fraction. Without the upper bound, nearly straight data send
# epsilon and k of the error law to infinity together.
FRACTION = Coordinate(0.0, 1.0)

# The exponent of a power law that falls.
EXPONENT = Coordinate(0.0, 5.0)


@dataclass(frozen=True)
class Linear:
    """The parameters that enter a law linearly when the others are held."""

    names: tuple[str, ...]
    columns: Callable[..., tuple[Number, ...]]
    """(form, *inputs) -> the factor that multiplies each of them."""


@dataclass(frozen=True)
class Decays:
    """A law of the form offset + sign * sum_k size_k exp(-exponent_k x_k).

    The sizes are positive; the offset is not transformed.
    """

    sizes: tuple[str, ...]
    exponents: tuple[str, ...]
    """One exponent for each size; two sizes may share one."""
    offset: str
    of: Callable[..., tuple[Number, ...]]
    """(*inputs) -> the x_k; for a power law these are logarithms of inputs."""
    sign: int = 1

    @property
    def names(self) -> tuple[str, ...]:
        """The linear parameters: the sizes, then the offset."""
        return *self.sizes, self.offset

    def columns(self, form: Form, *inputs: Number) -> tuple[Number, ...]:
        """The factors that multiply the sizes and the offset."""
        decays = zip(self.exponents, self.of(*inputs), strict=True)
        return *(self.sign * jnp.exp(-getattr(form, exponent) * x) for exponent, x in decays), 1.0


@dataclass(frozen=True, kw_only=True)
class ParametricLaw(Law, Generic[F]):
    """A formula that predicts one number per run, as the solver and the tables need it.

    Each formula keeps its shape under a change of units (with N in billions, A becomes
    A (1e9)^-alpha). The solver uses this to work in centred units, where the problem is
    well conditioned. Inputs for which that does not hold are `raw`.
    """

    form: type[F]
    """NamedTuple class of the parameters, in the order of `coordinates`."""
    predict: Callable[..., Array]
    """(form, *inputs) -> the predicted target; the inputs broadcast."""
    coordinates: tuple[Coordinate, ...]
    """One per parameter."""
    linear: Linear | Decays | None = None
    """The parameters that enter linearly; `Decays` when the law has no other terms."""
    grid: tuple[tuple[str, tuple[float, ...]], ...] = ()
    """Starting values of the other parameters; the solver starts from their product."""
    guess: Callable[..., F] | None = None
    """(form on the grid, typical target) -> form; for laws without linear terms."""
    axes: tuple[int, ...] = (0, 1)
    """Unit of each input: inputs with equal numbers, such as tokens and unique tokens,
    are rescaled together."""
    additive: bool = False
    """Whether inputs are centred by subtraction, as for a law that reads a loss, and
    not by division."""
    raw: tuple[str, ...] = ()
    """Inputs that keep the table's unit and are not centred: shares that may be 0, such
    as mixture proportions, and inputs whose unit changes the shape of the law."""
    shares: bool = False
    """Whether the inputs are shares of a whole, which add up to 1."""
    tied: tuple[tuple[str, str], ...] = ()
    """(parameter, other): the parameter is held equal to the other."""

    def __post_init__(self):
        if unknown := [name for name in self.raw if name not in self.inputs]:
            raise ValueError(
                f"raw inputs of the {self.name} law must be among its inputs "
                f"{', '.join(self.inputs)}; got {', '.join(unknown)}"
            )
        axes = list(zip(self.inputs, self.axes, strict=False))
        centred = {axis for name, axis in axes if name not in self.raw}
        raw = {axis for name, axis in axes if name in self.raw}
        units = {axis for c in self.coordinates for _, axis, _ in c.units}
        if raw & (centred | units):
            raise ValueError(
                f"the {self.name} law keeps the unit of {', '.join(self.raw)}: give each of them "
                "an axis without other inputs, and no parameter a unit in it"
            )

    @property
    def signed(self) -> tuple[str, ...]:
        """Inputs that may be zero or negative: no logarithm is taken of them."""
        linear = self.inputs if self.additive else self.raw
        return tuple(name for name in linear if name not in ALWAYS_POSITIVE)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the parameters: the fields of `form`."""
        return self.form._fields

    @property
    def formula(self) -> str:
        """The docstring of `form`."""
        return inspect.getdoc(self.form) or ""

    def allowed(self, name: str) -> Allowed:
        """The coordinate's bounds, or any positive value if it is a logarithm."""
        coordinate = self.coordinates[self.names.index(name)]
        if coordinate.log:
            return Allowed(0.0, np.inf, positive=True)
        return Allowed(coordinate.low, coordinate.high)

    @property
    def free(self) -> int:
        """Number of parameters that the data determine: neither held nor tied."""
        return len(self.names) - len({name for name, _ in (*self.fixed, *self.tied)})
