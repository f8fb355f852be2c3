"""Approach 2 as a law that a table can be fitted with."""

import inspect
from dataclasses import dataclass

from scalejax.laws.isoflop.power_laws import PowerLaws
from scalejax.laws.law import Allowed, Law


@dataclass(frozen=True, kw_only=True)
class IsoFLOP(Law):
    """Approach 2: the compute-optimal size of each budget by its isoFLOP curve."""

    name: str = "isoflop"
    inputs: tuple[str, ...] = ("flops",)
    target: str = "params"

    @property
    def names(self) -> tuple[str, ...]:
        """Exponent and coefficient of N*(C), then of D*(C)."""
        return PowerLaws._fields

    @property
    def formula(self) -> str:
        """The docstring of `PowerLaws`."""
        return inspect.getdoc(PowerLaws) or ""

    def allowed(self, name: str) -> Allowed:
        """An exponent is between 0 and 1; raises ValueError for a coefficient."""
        if not name.endswith("exponent"):
            raise ValueError(
                f"{name} of the isoflop law cannot be held: it follows from the optimum of each "
                "budget. Hold an exponent, such as params_exponent=0.5"
            )
        return Allowed(0.0, 1.0)


def isoflop_law() -> IsoFLOP:
    """The law of the compute-optimal size by isoFLOP curves."""
    return IsoFLOP()
