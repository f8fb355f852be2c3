"""Scaling laws on arrays: formulas, the solver, uncertainty and compute-optimal runs.

This room knows nothing of models, training or tables.
"""

from collections.abc import Callable
from typing import Any

from scalejax.laws.broken_power import broken_power as broken_power
from scalejax.laws.curves.forms import Annealing as Annealing
from scalejax.laws.curves.forms import AnnealingSize as AnnealingSize
from scalejax.laws.curves.forms import MultiPower as MultiPower
from scalejax.laws.curves.forms import predict_curve as predict_curve
from scalejax.laws.curves.laws import CurveLaw as CurveLaw
from scalejax.laws.curves.laws import annealing as annealing
from scalejax.laws.curves.laws import annealing_size as annealing_size
from scalejax.laws.curves.laws import multipower as multipower
from scalejax.laws.curves.schedule import best_schedule as best_schedule
from scalejax.laws.curves.solver import fit_curves as fit_curves
from scalejax.laws.curves.uncertainty import profile_curves as profile_curves
from scalejax.laws.forms import chinchilla as chinchilla
from scalejax.laws.forms import data_constrained as data_constrained
from scalejax.laws.forms import downstream as downstream
from scalejax.laws.forms import kaplan as kaplan
from scalejax.laws.forms import overtraining as overtraining
from scalejax.laws.forms import power as power
from scalejax.laws.forms import sigmoid as sigmoid
from scalejax.laws.hyperparameter_lines import best_batch as best_batch
from scalejax.laws.hyperparameter_lines import critical_batch as critical_batch
from scalejax.laws.hyperparameter_lines import timescale as timescale
from scalejax.laws.hyperparameters import HyperparameterLaw as HyperparameterLaw
from scalejax.laws.hyperparameters import Hyperparameters as Hyperparameters
from scalejax.laws.hyperparameters import Sweep as Sweep
from scalejax.laws.hyperparameters import fit_hyperparameters as fit_hyperparameters
from scalejax.laws.hyperparameters import hyperparameter_law as hyperparameter_law
from scalejax.laws.inference.profile import profile as profile
from scalejax.laws.interactions import farseer as farseer
from scalejax.laws.interactions import interaction as interaction
from scalejax.laws.isoflop import IsoFLOP as IsoFLOP
from scalejax.laws.isoflop import Noise as Noise
from scalejax.laws.isoflop import envelope as envelope
from scalejax.laws.isoflop import fit_isoflop as fit_isoflop
from scalejax.laws.isoflop import isoflop_law as isoflop_law
from scalejax.laws.law import Law as Law
from scalejax.laws.law import ParametricLaw as ParametricLaw
from scalejax.laws.log_sum_exp import log_sum_exp as log_sum_exp
from scalejax.laws.log_sum_exp import width_depth as width_depth
from scalejax.laws.loss_to_loss import loss_to_loss as loss_to_loss
from scalejax.laws.mixtures import PREFIX as _MIXTURE
from scalejax.laws.mixtures import mixture as mixture
from scalejax.laws.optimal import compute_optimal as compute_optimal
from scalejax.laws.optimal import compute_optimal_bands as compute_optimal_bands
from scalejax.laws.optimal import inference_optimal as inference_optimal
from scalejax.laws.optimal import overtraining_penalty as overtraining_penalty
from scalejax.laws.optimal import params_exponent as params_exponent
from scalejax.laws.routed import routed as routed
from scalejax.laws.solver.solve import Solution as Solution
from scalejax.laws.solver.solve import solve as solve

__all__ = [
    "NAMES",
    "Annealing",
    "AnnealingSize",
    "CurveLaw",
    "HyperparameterLaw",
    "Hyperparameters",
    "IsoFLOP",
    "Law",
    "MultiPower",
    "Noise",
    "ParametricLaw",
    "Solution",
    "Sweep",
    "annealing",
    "annealing_size",
    "best_batch",
    "best_schedule",
    "broken_power",
    "chinchilla",
    "compute_optimal",
    "compute_optimal_bands",
    "critical_batch",
    "data_constrained",
    "downstream",
    "envelope",
    "farseer",
    "fit_curves",
    "fit_hyperparameters",
    "fit_isoflop",
    "hyperparameter_law",
    "inference_optimal",
    "interaction",
    "isoflop_law",
    "kaplan",
    "log_sum_exp",
    "loss_to_loss",
    "mixture",
    "multipower",
    "named",
    "overtraining",
    "overtraining_penalty",
    "params_exponent",
    "power",
    "predict_curve",
    "profile",
    "profile_curves",
    "routed",
    "sigmoid",
    "solve",
    "timescale",
    "width_depth",
]

# The factory of each law, by the law's name on the command line and in fit.json.
_FACTORIES: dict[str, Callable[..., Law]] = {
    "chinchilla": chinchilla,
    "kaplan": kaplan,
    "overtraining": overtraining,
    "interaction": interaction,
    "farseer": farseer,
    "power": power,
    "broken-power": broken_power,
    "data-constrained": data_constrained,
    "downstream": downstream,
    "sigmoid": sigmoid,
    "loss-to-loss": loss_to_loss,
    "routed": routed,
    "timescale": timescale,
    "best-batch": best_batch,
    "critical-batch": critical_batch,
    "width-depth": width_depth,
    "annealing": annealing,
    "annealing-size": annealing_size,
    "multipower": multipower,
    "isoflop": isoflop_law,
    "hyperparameters": hyperparameter_law,
}

NAMES = tuple(_FACTORIES)


def named(name: str, **options: Any) -> Law:
    """Return the law of a name such as "chinchilla"; options go to its factory.

    >>> named("power", x="flops").inputs
    ('flops',)

    The name of a mixture law holds its domains, as in "mixture:web,code,books".

    Raises ValueError, with the list of names, for any other name.
    """
    if name.startswith(_MIXTURE):
        return mixture(name.removeprefix(_MIXTURE).split(","), **options)
    if name not in _FACTORIES:
        names = (*sorted(_FACTORIES), f"{_MIXTURE}DOMAIN,DOMAIN")
        raise ValueError(f"law {name!r} is not one of {', '.join(names)}")
    return _FACTORIES[name](**options)


def __dir__() -> list[str]:
    return __all__
