"""scalejax: from a grid of language-model runs to a scaling law and a forecast.

This module is the public API. Each name is imported when it is first used, so that
`import scalejax` alone is fast and does not even load jax.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

# Type checkers and editors read these imports; Python itself reads _HOMES below.
# tests/test_house.py checks that the two agree.
if TYPE_CHECKING:
    from scalejax import laws as laws
    from scalejax.config import Data as Data
    from scalejax.config import Measure as Measure
    from scalejax.config import Model as Model
    from scalejax.config import Optimizer as Optimizer
    from scalejax.config import Placement as Placement
    from scalejax.config import Run as Run
    from scalejax.config import Schedule as Schedule
    from scalejax.fitting.comparison.compare import compare as compare
    from scalejax.fitting.fit import fit as fit
    from scalejax.fitting.fit import influence as influence
    from scalejax.fitting.fit import predict as predict
    from scalejax.grids import cooldowns as cooldowns
    from scalejax.grids import grid as grid
    from scalejax.model.flops import per_param as per_param
    from scalejax.model.parametrization import completep as completep
    from scalejax.model.parametrization import mup as mup
    from scalejax.model.parametrization import standard as standard
    from scalejax.optim.schedules import cosine as cosine
    from scalejax.optim.schedules import wsd as wsd
    from scalejax.report.analysis import Analysis as Analysis
    from scalejax.report.analysis import Conclusion as Conclusion
    from scalejax.study.plan import plan as plan
    from scalejax.study.results import results as results
    from scalejax.study.study import Study as Study
    from scalejax.training.evaluate import evaluate as evaluate
    from scalejax.training.loop import train as train

# The module that defines each public name.
_HOMES = {
    "laws": "scalejax",
    "Data": "scalejax.config",
    "Measure": "scalejax.config",
    "Model": "scalejax.config",
    "Optimizer": "scalejax.config",
    "Placement": "scalejax.config",
    "Run": "scalejax.config",
    "Schedule": "scalejax.config",
    "compare": "scalejax.fitting.comparison.compare",
    "fit": "scalejax.fitting.fit",
    "influence": "scalejax.fitting.fit",
    "predict": "scalejax.fitting.fit",
    "cooldowns": "scalejax.grids",
    "grid": "scalejax.grids",
    "per_param": "scalejax.model.flops",
    "completep": "scalejax.model.parametrization",
    "mup": "scalejax.model.parametrization",
    "standard": "scalejax.model.parametrization",
    "cosine": "scalejax.optim.schedules",
    "wsd": "scalejax.optim.schedules",
    "Analysis": "scalejax.report.analysis",
    "Conclusion": "scalejax.report.analysis",
    "Study": "scalejax.study.study",
    "plan": "scalejax.study.plan",
    "results": "scalejax.study.results",
    "evaluate": "scalejax.training.evaluate",
    "train": "scalejax.training.loop",
}

__all__ = sorted(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(
            f"scalejax has no public name {name!r}; its names are {', '.join(__all__)}"
        )
    home = _HOMES[name]
    value = (
        import_module(f"scalejax.{name}")
        if home == "scalejax"
        else getattr(import_module(home), name)
    )
    # Importing a submodule binds its name in this package. Storing the value here keeps
    # a module of the same name from replacing the function or class.
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
