"""Which runs to train next, for the sake of a study's forecasts.

Candidates are on the study's own grid: the sizes of its runs and of its forecasts, its
token budgets and a few beyond them, its seeds and one more. Their costs count only what
is not trained yet, so that a branch of a finished trunk is cheap. Its error agrees with
those of the other branches, so that it also says less.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import t as students_t

from scalejax.config import Run
from scalejax.fitting.fit import fit
from scalejax.fitting.parametric.result import ParametricFit
from scalejax.grids import run_id
from scalejax.laws.inference.bootstrap import linearized_errors, repeats
from scalejax.laws.inference.optimal_design import (
    Candidate,
    Information,
    choose_runs,
    residual_slopes,
)
from scalejax.laws.inference.trunks import trunk_errors
from scalejax.laws.law import ParametricLaw
from scalejax.model.transformer import counts
from scalejax.study.cost import segment_flops
from scalejax.study.fits import rows_to_fit, run_inputs
from scalejax.study.plan import plan
from scalejax.study.results import results
from scalejax.study.study import Study

if TYPE_CHECKING:
    import pandas as pd

# The ladder of token budgets goes on by this many steps, up and down.
FURTHER_BUDGETS = 2

# Coverage of the intervals whose widths are compared.
LEVEL = 0.95


@dataclass(frozen=True, kw_only=True)
class ForecastWidth:
    """The width of one forecast's 95% interval, before and after the proposed runs."""

    run: str
    value: float
    """The predicted loss, nats per token."""
    before: float
    """Width in nats, by the linearized law; the noise of the run itself is in it."""
    after: float


@dataclass(frozen=True, kw_only=True)
class NextRuns:
    """Runs that are worth training next."""

    law: str
    runs: list[Run]
    """In the order of the choice."""
    flops: list[float]
    """What each costs beyond the finished runs and the runs before it."""
    budget: float
    forecasts: list[ForecastWidth]
    correlation: float
    """Of the errors of branches of one trunk, as the fit assumes it."""
    reasons: list[str]
    """What to know of the finished runs and of the law's fit to them."""

    def summary(self) -> dict[str, Any]:
        """What `scalejax plan --next --json` prints under `next`."""
        return {
            "law": self.law,
            "budget": self.budget,
            "flops": sum(self.flops),
            "correlation": self.correlation,
            "runs": [
                {
                    "run": run_id(run),
                    "width": run.model.width,
                    "depth": run.model.depth,
                    "params_with_head": counts(run.model).params_with_head,
                    "tokens": run.tokens,
                    "seed": run.seed,
                    "flops": flops,
                }
                for run, flops in zip(self.runs, self.flops, strict=True)
            ],
            "forecasts": [vars(forecast) for forecast in self.forecasts],
            "reasons": self.reasons,
        }


def next_runs(study: Study, folder: Path, *, count: int, budget: float) -> NextRuns:
    """Propose runs that reduce the variance of the study's forecasts most.

    folder: of the study, with finished runs.  count: largest number of runs.  budget:
    FLOPs that they may cost together. The law is the study's first one that predicts
    the loss from params and tokens.

    Raises FileNotFoundError without a study's folder, and ValueError if no run is
    finished, if there is nothing to forecast or no law to do it, if the finished runs
    leave the law undetermined, and if no candidate is affordable.
    """
    law = _law_of_loss(study)
    if not study.forecast:
        raise ValueError(
            f"study {study.name} forecasts no run, so no runs are best for it; name the run that "
            "you care for in Study.forecast"
        )
    if count < 1 or not budget > 0:
        raise ValueError(
            f"--next takes a number of runs and --budget takes FLOPs, both positive; got {count} "
            f"and {budget:g}"
        )
    table = results(folder)
    rows = rows_to_fit(table, study)
    if not len(rows):
        raise ValueError(
            f"no run of {study.name} in {folder} is finished, so there is no fit to improve; "
            "train some with `scalejax run` first"
        )
    fitted = fit(rows, law, bootstrap=0)
    assert isinstance(fitted, ParametricFit), "the law is one of params and tokens"
    if fitted.verdict in ("unidentified", "not-converged") or fitted.n_rows <= law.free:
        raise ValueError(
            f"{fitted.n_rows} finished runs leave the {law.name} law undetermined, so that no "
            f"design can be judged by it: {'; '.join(fitted.reasons) or fitted.verdict}. Train "
            "runs of more sizes and budgets first"
        )
    return _Proposal(study, folder, table, fitted).choose(count, budget)


def _law_of_loss(study: Study) -> ParametricLaw[Any]:
    for law in study.laws:
        if not isinstance(law, ParametricLaw) or law.target != "loss":
            continue
        if {*law.inputs} == {"params", "tokens"}:
            return law
    raise ValueError(
        f"study {study.name} has no law of the loss on params and tokens, which --next needs; add "
        "one to Study.laws, such as laws.chinchilla()"
    )


class _Proposal:
    """The finished runs of a study, and what can be added to them."""

    def __init__(
        self, study: Study, folder: Path, table: "pd.DataFrame", fitted: ParametricFit[Any]
    ):
        self.study, self.folder, self.fitted = study, folder, fitted
        rows = rows_to_fit(table, study)
        assert fitted.optimum is not None, "a fit that `fit` returned has its optimum"
        self.optimum = fitted.optimum
        trunks = rows["trunk"].astype(str)
        self.trunks = dict(zip(rows["run"], trunks, strict=True))
        errors, labels = linearized_errors(fitted.law, self.optimum), trunks.factorize()[0]
        self.information = Information(
            np.zeros((len(self.optimum.theta),) * 2),
            trunk_errors(*errors, labels, repeats(self.optimum, labels)).correlation,
        )
        for slope, trunk in zip(errors.jacobian, trunks, strict=True):
            self.information = self.information.with_run(slope, trunk)
        self.families: dict[tuple[object, ...], list[Run]] = defaultdict(list)
        for run in [*study.runs, *study.forecast]:
            if run not in self.families[_family(run)]:
                self.families[_family(run)].append(run)
        # A configuration that diverged once is not proposed again.
        self.diverged = {*table.loc[table["status"] == "diverged", "run"]}
        self.unfinished = {run_id(run) for run in study.runs} - {*table["run"]}
        self.costs: dict[tuple[str, frozenset[str]], tuple[float, str]] = {}

    def choose(self, count: int, budget: float) -> NextRuns:
        """Return the best runs with the widths of forecasts before and after them."""
        slopes = self._slopes(list(self.study.forecast))
        design = choose_runs(
            self.information,
            slopes,
            self._candidates,
            count=count,
            budget=budget,
        )
        if not design.chosen:
            costs = [candidate.cost for candidate in self._candidates([])]
            cheapest = f"the cheapest costs {min(costs):.3g}" if costs else "there is none"
            raise ValueError(
                f"no candidate of {budget:.3g} FLOPs narrows the forecasts of {self.study.name}: "
                f"{cheapest}; give a larger --budget"
            )
        before, after = (
            self._widths(information.variances(slopes), added)
            for information, added in (
                (self.information, 0),
                (design.information, len(design.chosen)),
            )
        )
        forecasts = []
        for run, one, other in zip(self.study.forecast, before, after, strict=True):
            value = self.fitted.forecast(**run_inputs(run, self.fitted)).estimate.value
            scale = value if self.optimum.loss.residual == "log" else 1.0
            forecasts.append(
                ForecastWidth(run=run_id(run), value=value, before=scale * one, after=scale * other)
            )
        return NextRuns(
            law=self.fitted.law.name,
            runs=[candidate.run for candidate in design.chosen],
            flops=[candidate.cost for candidate in design.chosen],
            budget=budget,
            forecasts=forecasts,
            correlation=self.information.correlation,
            reasons=[*self._unfinished_reasons(), *self.fitted.reasons],
        )

    def _unfinished_reasons(self) -> list[str]:
        count = len({run_id(run) for run in self.study.runs})
        if not self.unfinished:
            return []
        return [
            f"{len(self.unfinished)} of {count} runs of the study are not finished, and the "
            "proposal counts on none of them; train them first with `scalejax run`"
        ]

    def _widths(self, variances: np.ndarray, added: int) -> list[float]:
        """Widths on the scale of the residuals; `added` runs give as many degrees."""
        degrees = self.fitted.n_rows - self.fitted.law.free + added
        quantile = float(students_t.ppf((1 + LEVEL) / 2, degrees))
        spread = self.fitted.quality.residual_spread
        return (2 * quantile * spread * np.sqrt(1 + variances)).tolist()

    def _slopes(self, runs: list[Run]) -> np.ndarray:
        inputs = [run_inputs(run, self.fitted) for run in runs]
        columns = [np.array([one[name] for one in inputs]) for name in self.fitted.law.inputs]
        return residual_slopes(self.fitted.law, self.optimum, columns)

    def _candidates(self, chosen: list[Run]) -> Iterator[Candidate[Run]]:
        runs = list(self._grid(chosen))
        if not runs:
            return
        for run, slope in zip(runs, self._slopes(runs), strict=True):
            cost, trunk = self._cost_and_trunk(run, chosen)
            if cost > 0:
                yield Candidate(run, slope, trunk, cost)

    def _grid(self, chosen: list[Run]) -> Iterator[Run]:
        """Runs of every size at every budget, with the seeds so far and one more."""
        taken = {run_id(run) for run in [*self.study.runs, *self.study.forecast, *chosen]}
        budgets = _ladder([run.tokens for run in [*self.study.runs, *self.study.forecast]])
        for family, members in self.families.items():
            if self.diverged & {run_id(run) for run in members}:
                continue
            seeds = {run.seed for run in [*members, *chosen] if _family(run) == family}
            for seed in sorted({*seeds, max(seeds) + 1}):
                for tokens in budgets:
                    try:
                        run = members[-1].replace(seed=seed, tokens=tokens)
                        run_id(run)
                    # A run cannot be shorter than one batch, or than its warmup.
                    except ValueError:
                        continue
                    if run_id(run) not in taken:
                        yield run

    def _cost_and_trunk(self, run: Run, chosen: list[Run]) -> tuple[float, str]:
        """FLOPs that a run adds, and the name of the trunk whose error it shares."""
        family = _family(run)
        relatives = [one for one in chosen if _family(one) == family and one.seed == run.seed]
        key = run_id(run), frozenset(map(run_id, relatives))
        if key not in self.costs:
            known = [one for one in self.families[family] if one.seed == run.seed] + relatives
            planned = plan(replace(self.study, runs=[*known, run], forecast=()))
            costs = []
            for wanted in (relatives, [*relatives, run]):
                needed = planned.needed(wanted)
                missing = [one for one in needed if not self._is_done(one.folder)]
                costs.append(sum(segment_flops(one) for one in missing))
            own = planned.trunk_of(run)
            siblings = [run_id(one) for one in known if planned.trunk_of(one) == own]
            names = [self.trunks[one] for one in siblings if one in self.trunks]
            # Chosen runs have no row yet; the first of them names their trunk.
            name = names[0] if names else next(iter(siblings), run_id(run))
            self.costs[key] = float(costs[1] - costs[0]), name
        return self.costs[key]

    def _is_done(self, folder: str) -> bool:
        return (self.folder / folder / "DONE").exists()


def _family(run: Run) -> tuple[object, ...]:
    """What runs have in common that differ in budget and seed only."""
    names = (field.name for field in fields(Run) if field.name not in ("tokens", "seed"))
    return tuple(getattr(run, name) for name in names)


def _ladder(budgets: list[float]) -> list[float]:
    """Token budgets with a few more steps of their own ratio at both ends.

    >>> _ladder([1e6, 2e6, 4e6])
    [250000.0, 500000.0, 1000000.0, 2000000.0, 4000000.0, 8000000.0, 16000000.0]
    """
    distinct = np.array(sorted(set(budgets)))
    ratio = float(np.median(distinct[1:] / distinct[:-1])) if len(distinct) > 1 else 2.0
    steps = ratio ** np.arange(1, FURTHER_BUDGETS + 1)
    further = [distinct[0] / steps[::-1], distinct, distinct[-1] * steps]
    return np.concatenate(further).tolist()
