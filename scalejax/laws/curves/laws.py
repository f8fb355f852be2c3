"""The whole-curve laws as values, for fits to tables and for files."""

import inspect
from dataclasses import dataclass

from scalejax.laws.curves.separable import SEPARABLE_LAWS, SeparableLaw
from scalejax.laws.law import Allowed, Law


@dataclass(frozen=True, kw_only=True)
class CurveLaw(Law):
    """A law of the whole loss curve, given the learning rate of every step.

    Its parameters have the papers' names (lambda, not momentum).
    """

    @property
    def form(self) -> SeparableLaw:
        """The law as its solver needs it."""
        return SEPARABLE_LAWS[self.name]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the parameters."""
        return tuple(self.form.coordinates)

    @property
    def formula(self) -> str:
        """The docstring of the law's NamedTuple."""
        return inspect.getdoc(self.form.formula) or ""

    def allowed(self, name: str) -> Allowed:
        """The solver's bounds, in the parameter's own units."""
        coordinate = self.form.coordinates[name]
        low, high = sorted(map(coordinate.decode, (coordinate.low, coordinate.high)))
        return Allowed(low, high)


def annealing(**fixed: float) -> CurveLaw:
    """The annealing law (Tissue et al. 2024) of one model size.

    fixed: values of parameters to hold. Python reserves the name lambda:
    `annealing(**{"lambda": 0.999})`.
    """
    return _law("annealing", **fixed)


def annealing_size(**fixed: float) -> CurveLaw:
    """The annealing law (Tissue et al. 2024) of several model sizes.

    fixed: values of parameters to hold, as for `annealing`.
    """
    return _law("annealing-size", **fixed)


def multipower(**fixed: float) -> CurveLaw:
    """The multi-power law (Luo et al. 2025) of one model size.

    fixed: values of parameters to hold.
    """
    return _law("multipower", **fixed)


def _law(name: str, **fixed: float) -> CurveLaw:
    return CurveLaw(name=name, inputs=SEPARABLE_LAWS[name].inputs).hold(**fixed)
