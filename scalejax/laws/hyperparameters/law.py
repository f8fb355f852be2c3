"""The laws of the best hyperparameters as one law that a table can be fitted with."""

import inspect
from dataclasses import dataclass

from scalejax.laws.hyperparameters.forms import NAMES, Hyperparameters
from scalejax.laws.law import Allowed, Law


@dataclass(frozen=True, kw_only=True)
class HyperparameterLaw(Law):
    """The best learning rate and batch size, from sweeps at several (N, D)."""

    name: str = "hyperparameters"
    inputs: tuple[str, ...] = ("params", "tokens")
    target: str = "learning_rate"

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the parameters; a fit to several beta2 also has `BETA2_NAMES`."""
        return NAMES

    @property
    def formula(self) -> str:
        """The docstring of `Hyperparameters`."""
        return inspect.getdoc(Hyperparameters) or ""

    def allowed(self, name: str) -> Allowed:
        """Raise ValueError: the laws are regressions that hold no parameter."""
        raise ValueError(
            f"{name} of the hyperparameters law cannot be held: coefficients and exponents "
            "follow from the optimum of each cell"
        )


def hyperparameter_law() -> HyperparameterLaw:
    """The law of the best learning rate and batch size."""
    return HyperparameterLaw()
