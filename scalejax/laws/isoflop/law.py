"""Approach 2 as a law that a table can be fitted with."""

import inspect
from dataclasses import dataclass

import numpy as np

from scalejax.laws.isoflop.frontier import Frontier
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
        """Exponent and coefficient of N*(C) and D*(C), then E, K and g of L*(C)."""
        return PowerLaws._fields + Frontier._fields

    @property
    def formula(self) -> str:
        """The docstrings of `PowerLaws` and `Frontier`."""
        return "\n\n".join(inspect.getdoc(form) or "" for form in (PowerLaws, Frontier))

    def allowed(self, name: str) -> Allowed:
        """An exponent is between 0 and 1, and E and K are not negative.

        Raises ValueError for a coefficient of N* or D*.
        """
        if name in ("E", "K"):
            return Allowed(0.0, np.inf, positive=name == "K")
        if name != "g" and not name.endswith("exponent"):
            raise ValueError(
                f"{name} of the isoflop law cannot be held: it follows from the optimum of each "
                "budget. Hold an exponent, such as params_exponent=0.5, or E, K or g of L*(C)"
            )
        return Allowed(0.0, 1.0)


def isoflop_law() -> IsoFLOP:
    """The law of the compute-optimal size by isoFLOP curves."""
    return IsoFLOP()
