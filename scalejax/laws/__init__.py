"""Scaling laws on arrays: forms, the solver, uncertainty, optima. Knows nothing of models, training or tables."""

from importlib import import_module

_HOME = {
    **dict.fromkeys(
        (
            "chinchilla",
            "power",
            "kaplan",
            "overtraining",
            "data_constrained",
            "downstream",
            "sigmoid",
            "Law",
        ),
        "forms",
    ),
    **dict.fromkeys(("width_depth", "log_sum_exp"), "log_sum_exp"),
    **dict.fromkeys(("solve", "Solution"), "solver.solve"),
    **dict.fromkeys(
        (
            "compute_optimal",
            "compute_optimal_bands",
            "params_exponent",
            "overtraining_penalty",
            "inference_optimal",
        ),
        "optimal",
    ),
    "profile": "inference.profile",
    **dict.fromkeys(("annealing", "annealing_size", "multipower"), "curves.laws"),
    **dict.fromkeys(("fit_curves", "profile_curves"), "curves.solver"),
    **dict.fromkeys(
        ("Annealing", "AnnealingSize", "MultiPower", "predict_curve", "best_schedule"),
        "curves.forms",
    ),
    **dict.fromkeys(("isoflop_law", "fit_isoflop", "envelope", "Noise"), "isoflop"),
    **dict.fromkeys(
        ("hyperparameter_law", "fit_hyperparameters", "Hyperparameters", "Sweep"), "hyperparameters"
    ),
}
_LAWS = {
    "chinchilla": "chinchilla",
    "kaplan": "kaplan",
    "overtraining": "overtraining",
    "power": "power",
    "data-constrained": "data_constrained",
    "downstream": "downstream",
    "sigmoid": "sigmoid",
    "width-depth": "width_depth",
    "annealing": "annealing",
    "annealing-size": "annealing_size",
    "multipower": "multipower",
    "isoflop": "isoflop_law",
    "hyperparameters": "hyperparameter_law",
}
"""A law's name on the command line and in fit.json -> its factory here."""

NAMES = tuple(_LAWS)

__all__ = ["named", *_HOME]


def named(name: str, **options):
    """The law of that name; raises ValueError that lists the names."""
    if name not in _LAWS:
        raise ValueError(f"law {name!r} is not one of {', '.join(sorted(_LAWS))}")
    return __getattr__(_LAWS[name])(**options)


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
