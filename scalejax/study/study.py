"""A study: one question, asked of a set of runs."""

import importlib.util
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from scalejax.config import Measure, Placement, Run
from scalejax.config.checks import check_text, require, set_integer, set_tuple
from scalejax.config.placement import check_placement
from scalejax.grids import run_id

if TYPE_CHECKING:
    from scalejax.laws.law import Law
    from scalejax.report.analysis import Analysis


@dataclass(frozen=True)
class Study:
    """The runs to train, the laws to fit to them, and the runs to forecast.

    Raises ValueError if a field has the wrong type, if the name is not `name@version`,
    if there are no runs, if two laws have one name, if the placement does not divide a
    model or a batch, or if a run is both fitted and forecast.
    """

    name: str
    """`name@version`, such as `quickstart@1`. Every version has its own folder."""
    runs: Sequence[Run]
    """Runs that are trained first and that the laws are fitted to. A run that is listed
    twice is trained once."""
    forecast: Sequence[Run] = ()
    """Runs that every law of the loss predicts before they are trained. Their forecasts
    are scored afterwards; no law is fitted to them."""
    laws: "Sequence[Law]" = ()
    """Laws to fit, such as `laws.chinchilla()`. Whole-curve laws, such as
    `laws.annealing()`, are fitted to the losses that `measure` takes on the way."""
    measure: Measure = field(default_factory=Measure)
    """What is measured of every run, and when."""
    placement: Placement = field(default_factory=Placement)
    """Where every run is trained: its mesh, micro-batches and checkpoints."""
    bootstrap: int = 1000
    """Number of bootstrap resamples behind every confidence interval."""
    analysis: "Callable[[Path], Analysis] | None" = None
    """Concludes what the study asks from the results in its folder, once all runs are
    done. A ValueError says why the results do not suffice."""

    def __post_init__(self) -> None:
        # Whatever is wrong is found here: laws are read after hours of training.
        check_text(self, "name")
        if not re.fullmatch(r"[A-Za-z0-9_.-]+@[0-9]+", self.name):
            raise ValueError(
                f"Study.name must be `name@version`, such as `quickstart@1`; got {self.name!r}"
            )
        # Tuples, because a generator would be empty when it is read again.
        for name, items in (("runs", "runs"), ("forecast", "runs"), ("laws", "laws")):
            set_tuple(self, name, items)
        self._check_runs()
        self._check_laws()
        for name, kind in (("measure", Measure), ("placement", Placement)):
            value = getattr(self, name)
            require(
                isinstance(value, kind),
                f"Study.{name} must be a {kind.__name__}; got {value!r}",
            )
        set_integer(self, "bootstrap", 0)
        require(
            self.analysis is None or callable(self.analysis),
            f"Study.analysis must be a function of the study's folder; got {self.analysis!r}",
        )
        self._check_placement()

    def _check_runs(self) -> None:
        if not self.runs:
            raise ValueError(f"study {self.name} has no runs; list at least one in Study.runs")
        for group, runs in (("runs", self.runs), ("forecast", self.forecast)):
            for run in runs:
                if not isinstance(run, Run):
                    raise ValueError(
                        f"study {self.name}: Study.{group} must hold Run values; got {run!r}"
                    )
        in_both = {run_id(run) for run in self.runs} & {run_id(run) for run in self.forecast}
        if in_both:
            raise ValueError(
                f"study {self.name}: run {min(in_both)} is in both Study.runs and "
                "Study.forecast; a forecast of a run that the laws are fitted to is no "
                "forecast, so remove it from one of them"
            )

    def _check_laws(self) -> None:
        if not self.laws:
            return
        # Not at the top: it imports jax, which a study without laws does not need.
        from scalejax.laws.law import Law

        for law in self.laws:
            require(
                isinstance(law, Law),
                f"study {self.name}: Study.laws must hold laws, such as `laws.chinchilla()`; "
                f"got {law!r}",
            )
        names = [law.name for law in self.laws]
        for name in names:
            require(
                names.count(name) == 1,
                f"study {self.name}: Study.laws has {names.count(name)} laws named {name}, and a "
                "study keeps one fit for each name; list one of them, and fit the others to its "
                "results.parquet with `scalejax fit`",
            )

    def _check_placement(self) -> None:
        for run in [*self.runs, *self.forecast]:
            try:
                check_placement(run, self.placement)
            except ValueError as error:
                raise ValueError(f"study {self.name}, run {run_id(run)}: {error}") from None


def tracked(study: Study, dashboard: str) -> Study:
    """Return the study with its curves copied to a dashboard.

    dashboard: `tensorboard` or `wandb`. Raises ValueError when its package is missing.
    """
    package = {"tensorboard": "tensorboardX", "wandb": "wandb"}[dashboard]
    if importlib.util.find_spec(package) is None:
        raise ValueError(
            f"--track {dashboard} needs the package {package}, which is not installed; install it "
            "with: pip install 'scalejax[track]'"
        )
    return replace(study, placement=replace(study.placement, track=dashboard))
