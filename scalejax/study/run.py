"""Run a study: train, fit, forecast, train what was forecast, score, report. Every step may be cut off and done again."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scalejax.data.preparation import prepare
from scalejax.evaluation import run_metrics
from scalejax.files import read_json, write_json
from scalejax.fitting import chain
from scalejax.fitting.fit import Fit, fit
from scalejax.grids import run_id
from scalejax.launch.local import Outcome, Pool, locked
from scalejax.model.transformer import counts
from scalejax.report.write import write_report
from scalejax.study import ledger as forecasts
from scalejax.study.plan import Plan, Study, plan
from scalejax.study.progress import Progress
from scalejax.study.results import write_tables
from scalejax.training.loop import check_vocabulary

if TYPE_CHECKING:
    import pandas as pd


@dataclass
class Conclusion:
    """What a call of `run_study` came to."""

    folder: Path
    plan: Plan
    outcome: Outcome
    table: "pd.DataFrame | None" = None
    """results.parquet."""
    fits: dict[str, Fit] = field(default_factory=dict)
    forecasts: list[dict[str, Any]] = field(default_factory=list)
    """Forecasts with their scores."""
    unfitted: dict[str, str] = field(default_factory=dict)
    """Laws that could not be fitted, and why."""
    report: Path | None = None

    @property
    def exit_code(self) -> int:
        """0 done, 1 a run failed, 3 every run diverged, 75 preempted."""
        if self.outcome.preempted:
            return 75
        if self.outcome.failed:
            return 1
        diverged = (
            self.table is not None
            and len(self.table) > 0
            and bool((self.table["status"] == "diverged").all())
        )
        return 3 if diverged else 0


def run_study(study: Study, out: Path, question: str, devices: int | None) -> Conclusion:
    """Trains what is missing of `study` in out/<name> and concludes it, with up to `devices` workers (None: all there are).

    Raises ValueError, before anything is written, when the data cannot be read or does not fit a model.
    """
    planned = plan(study)
    for run in {run.data: run for run in [*study.runs, *study.forecast]}.values():
        shards = prepare(run.data)
        check_vocabulary(run, shards)
        run_metrics.check(shards, run, study.measure)
    folder = out / study.name
    with locked(folder) as lock, Progress(planned) as progress:
        write_json(folder / "study.json", describe(planned, question))
        pool = Pool(
            planned, folder, lock, cores(devices, study), on_step=progress.step, on_end=progress.end
        )
        try:
            return _conduct(planned, folder, pool, progress)
        finally:
            pool.close()


def _conduct(planned: Plan, folder: Path, pool: Pool, progress: Progress) -> Conclusion:
    study = planned.study
    conclusion = Conclusion(
        folder=folder, plan=planned, outcome=pool.train(planned.needed(study.runs))
    )
    if conclusion.outcome.preempted:
        return conclusion
    progress.say("fitting the laws")
    rows = fitted_rows(write_tables(folder), study)
    _fit_laws(conclusion, rows)
    write_json(
        folder / "study.json", read_json(folder / "study.json") | {"unfitted": conclusion.unfitted}
    )
    if study.forecast:
        _register(conclusion, rows)
        pool.train(planned.needed(study.forecast))
        if conclusion.outcome.preempted:
            return conclusion
    conclusion.table = write_tables(folder)
    conclusion.forecasts = forecasts.score(folder, conclusion.table)
    if len(conclusion.table):
        conclusion.report = write_report(folder)
    return conclusion


def _fit_laws(conclusion: Conclusion, rows: "pd.DataFrame") -> None:
    """Fits every law of the study to `rows` and saves the fits."""
    study = conclusion.plan.study
    saved = conclusion.folder / "fits"
    saved.mkdir(exist_ok=True)
    for old in saved.glob("*.json"):  # of an earlier call, with other laws or fewer runs
        old.unlink()
    for law in study.laws:
        try:
            made = fit(rows, law, bootstrap=study.bootstrap)
        except ValueError as error:  # too few rows after failures, say: the study still ends with its table and report
            conclusion.unfitted[law.name] = str(error)
            continue
        if made.verdict == "not-converged":
            conclusion.unfitted[law.name] = "; ".join(made.reasons)
            continue
        made.save(saved / f"{law.name}.json")
        conclusion.fits[law.name] = made


def _register(conclusion: Conclusion, rows: "pd.DataFrame") -> None:
    """Puts on record, before any forecast run starts, what every law of the loss and every chain to an error law predicts."""
    study, fits, folder = conclusion.plan.study, conclusion.fits, conclusion.folder
    laws = [
        name
        for name, made in fits.items()
        if set(made.law.inputs) <= {"params", "tokens"} and made.law.target == "loss"
    ]
    errors = [
        name
        for name, made in fits.items()
        if made.law.inputs == ("loss",) and made.law.target == "top1_error"
    ]
    for run in study.forecast:
        counted = {"params": counts(run.model).params_with_head, "tokens": run.tokens_read}
        for name in laws:
            inputs = {x: counted[x] for x in fits[name].law.inputs}
            made = {(name,): ("loss", fits[name].predict(**inputs))}
            made |= {
                (name, error): ("top1_error", chain.predict(fits[name], fits[error], **inputs))
                for error in errors
            }
            for used, (metric, estimate) in made.items():
                forecasts.register(
                    folder,
                    run=f"{study.name}/{run_id(run)}",
                    law="+".join(used),
                    metric=metric,
                    estimate=estimate,
                    fits=[folder / "fits" / f"{one}.json" for one in used],
                    rows=rows,
                )


def fitted_rows(table: "pd.DataFrame", study: Study) -> "pd.DataFrame":
    """The rows of the runs that laws are fitted to: finished, not diverged, not among the forecasts."""
    wanted = [run_id(run) for run in study.runs]
    return (
        table.loc[table["run"].isin(wanted) & (table["status"] == "done"), :]
        if len(table)
        else table
    )


def describe(planned: Plan, question: str) -> dict[str, Any]:
    """The content of study.json."""
    study = planned.study
    runs, ahead = (
        [run_id(run) for run in {run_id(run): run for run in group}.values()]
        for group in (study.runs, study.forecast)
    )
    return {
        "name": study.name,
        "question": question,
        "runs": runs,
        "forecast": ahead,
        "plan": planned.summary(),
    }


def cores(devices: int | None, study: Study) -> list[int]:
    """One entry per worker: the core it is pinned to, or -1 for a worker that has the accelerators to itself.

    Raises ValueError when more devices are asked for than there are.
    """
    placement = study.placement
    if accelerators() or placement.data * placement.fsdp * placement.tensor > 1:
        return [-1]
    free = (
        sorted(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else list(range(os.cpu_count() or 1))
    )
    if devices is not None and not 1 <= devices <= len(free):
        raise ValueError(f"--devices {devices}: this process may use {len(free)} cores")
    return free[:devices]


def accelerators() -> bool:
    """Whether jax would run on something else than the CPU here; without importing it, the launcher must not hold the device."""
    if os.environ.get("JAX_PLATFORMS", "").startswith("cpu"):
        return False
    return any(
        Path(path).exists() for path in ("/dev/nvidia0", "/dev/accel0", "/dev/vfio/0", "/dev/kfd")
    )
