"""scalejax: from a grid of runs written as a Python dataclass to a scaling law with honest intervals, and a forecast.

The public names, resolved when they are first touched: `import scalejax` by itself loads not even jax.
"""

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from scalejax import laws as laws
    from scalejax.config import Data as Data
    from scalejax.config import Measure as Measure
    from scalejax.config import Model as Model
    from scalejax.config import Optimizer as Optimizer
    from scalejax.config import Placement as Placement
    from scalejax.config import Run as Run
    from scalejax.config import Schedule as Schedule
    from scalejax.fitting.fit import fit as fit
    from scalejax.fitting.fit import influence as influence
    from scalejax.fitting.fit import predict as predict
    from scalejax.grids import cooldowns as cooldowns
    from scalejax.grids import grid as grid
    from scalejax.model.budgets import per_param as per_param
    from scalejax.model.parametrization import completep as completep
    from scalejax.model.parametrization import mup as mup
    from scalejax.model.parametrization import standard as standard
    from scalejax.optim.schedules import cosine as cosine
    from scalejax.optim.schedules import wsd as wsd
    from scalejax.study.plan import plan as plan
    from scalejax.study.results import results as results
    from scalejax.study.study import Study as Study
    from scalejax.training.evaluate import evaluate as evaluate
    from scalejax.training.loop import train as train

_HOMES = {
    "laws": "scalejax.laws",
    **dict.fromkeys(
        ("Model", "Data", "Optimizer", "Schedule", "Run", "Measure", "Placement"), "scalejax.config"
    ),
    **dict.fromkeys(("grid", "cooldowns"), "scalejax.grids"),
    "per_param": "scalejax.model.budgets",
    **dict.fromkeys(("completep", "mup", "standard"), "scalejax.model.parametrization"),
    **dict.fromkeys(("cosine", "wsd"), "scalejax.optim.schedules"),
    "train": "scalejax.training.loop",
    "evaluate": "scalejax.training.evaluate",
    "Study": "scalejax.study.study",
    "plan": "scalejax.study.plan",
    "results": "scalejax.study.results",
    **dict.fromkeys(("fit", "influence", "predict"), "scalejax.fitting.fit"),
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"scalejax has no public name {name!r}; it has {', '.join(__all__)}")
    import importlib

    home = importlib.import_module(_HOMES[name])
    value = home if name == "laws" else getattr(home, name)
    globals()[name] = value  # a submodule of the same name must not take its place
    return value


def __dir__() -> list[str]:
    return __all__
