"""Run a study: train, fit, forecast, train what was forecast, score and report.

Every step can be interrupted at any moment. The same call then continues where it
stopped.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from scalejax.config import Measure, Run
from scalejax.data.batches import batches
from scalejax.data.preparation import prepare
from scalejax.evaluation import run_metrics
from scalejax.files import check_can_be_folder, read_json, write_json
from scalejax.fitting.result import Fit
from scalejax.grids import run_id
from scalejax.launch.executor import Engine, Executor
from scalejax.launch.jobs import in_order, write_jobs
from scalejax.launch.lock import locked
from scalejax.launch.pool import PoolResult
from scalejax.report import analysis as analyses
from scalejax.report.analysis import Analysis
from scalejax.report.write import write_report
from scalejax.study import ledger
from scalejax.study.cost import longest_chain_flops
from scalejax.study.fits import fit_laws, register_forecasts, rows_to_fit
from scalejax.study.plan import Plan, PlanSummary, plan
from scalejax.study.progress import Progress
from scalejax.study.results import write_tables
from scalejax.study.study import Study
from scalejax.training.loop import check_vocabulary
from scalejax.training.result import Result
from scalejax.training.start import check_path, check_tokenizers, check_tokens_of
from scalejax.training.status import check_data, read_status

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True)
class StudyResult:
    """The result of one `run_study` call."""

    folder: Path
    """The study's folder."""
    plan: Plan
    training: PoolResult
    """Which segments failed, and whether training was stopped. If it was stopped, the
    fields below are empty or None."""
    table: "pd.DataFrame | None" = None
    """The content of results.parquet."""
    fits: dict[str, Fit] = field(default_factory=dict)
    """Fits by the name of their law."""
    unfitted: dict[str, str] = field(default_factory=dict)
    """Why a law could not be fitted, by the name of the law."""
    forecasts: list[ledger.ScoredForecast] = field(default_factory=list)
    """All forecasts in the ledger, with their scores."""
    analysis: Analysis | None = None
    """What the study concludes; None if it has no analysis or it could not be made."""
    no_analysis: str = ""
    """Why the study's analysis could not be made."""
    report: Path | None = None
    """The report page; None if no run has finished."""

    @property
    def all_diverged(self) -> bool:
        """Whether there are finished runs and all of them diverged."""
        if self.table is None or not len(self.table):
            return False
        return bool((self.table["status"] == "diverged").all())


class StudyRecord(TypedDict):
    """The content of study.json before the laws are fitted."""

    name: str
    question: str
    runs: list[str]
    """Ids of the fitted runs."""
    forecast: list[str]
    """Ids of the runs to forecast."""
    trunks: dict[str, str]
    """The trunk of each run, by the run's id; see `Plan.trunk_of`."""
    plan: PlanSummary


def run_study(study: Study, out: Path, question: str, executor: Executor) -> StudyResult:
    """Train what is missing of `study` in `out`/<name>, then fit, forecast and report.

    question: what the study asks; the docstring of its experiment file.
    executor: the machines that train.

    Raises ValueError, before anything is written, if `out` cannot be written, if the
    data cannot be read or does not fit a model, if the executor cannot train here, or
    if the ledger of forecasts was changed by hand.
    """
    planned = plan(study)
    executor.check(study.placement)
    folder = out / study.name
    check_can_be_folder(folder)
    ledger.check_ledger(folder)
    _check_data(planned, folder)
    with locked(folder) as lock, Progress(planned) as progress:
        record = study_record(planned, question)
        write_json(folder / "study.json", dict(record))
        if dropped := dropped_runs(folder, record):
            progress.say(
                f"{len(dropped)} finished run(s) in {folder} are not in this study, and its tables "
                f"and laws leave them out: {', '.join(dropped[:3])}; if another study is to keep "
                "them, give this one another name or version"
            )
        engine = executor.start(
            folder,
            placement=study.placement,
            lock=lock,
            priority=longest_chain_flops(planned.segments),
            observer=progress,
        )
        with contextlib.closing(engine):
            return _train_and_conclude(planned, folder, engine, progress)


def _check_data(planned: Plan, folder: Path) -> None:
    """Prepare the data of all runs and check that they can begin, and be measured.

    Raises ValueError as well when a finished run was trained on other data, or scored
    on other tasks, than those at hand: both kinds of rows would share one law.
    """
    study = planned.study
    runs = [*study.runs, *study.forecast]
    # Runs of a grid mostly share their data: prepare and check it once, with any run.
    run_of = {run.data: run for run in runs}
    shards = {data: prepare(data) for data in run_of}
    for data, run in run_of.items():
        # This refuses too little text, and mixtures and packing that it cannot have.
        batches(shards[data], run)
        run_metrics.check_measure(shards[data], run, study.measure)
    for run in runs:
        check_vocabulary(run, shards[run.data])
    by_id = {run_id(run): run for run in runs}
    # A published tokenizer takes a second to read: a grid that begins from it reads it
    # once for each kind of data.
    for run in {(run.start, run.data): run for run in runs if run.start}.values():
        # The plan has checked that ids are those of runs of this study.
        if run.start in by_id:
            check_tokenizers(run, shards[run.data], shards[by_id[run.start].data])
        else:
            path = Path(run.start).expanduser()
            check_path(run.start, path)
            check_tokens_of(path, run, shards[run.data])
    tasks = run_metrics.tasks_hash(study.measure)
    for segment in planned.segments:
        path = folder / segment.folder
        # Workers compare those that are not finished.
        if (path / "DONE").exists():
            check_data(path, read_status(path), shards[segment.run.data].hash)
            if segment.final and tasks and (path / "result.json").exists():
                _check_tasks(path, study.measure, tasks)


def _check_tasks(path: Path, measure: Measure, tasks: str) -> None:
    """Raise ValueError when a finished run was scored on other versions of its tasks.

    `tasks` is the hash of those at hand. Under another Measure it is scored anew.
    """
    result = Result.load(path)
    scored = result.row.get("tasks_hash", tasks)
    if result.measure == measure and scored != tasks:
        raise ValueError(
            f"{path} was scored on task files with the hash {scored}, but those at hand have "
            f"{tasks}: restore the earlier files, or delete the files "
            f"{path.parent / '*/result.json'} to score the runs anew"
        )


def _train_and_conclude(
    planned: Plan, folder: Path, engine: Engine, progress: Progress
) -> StudyResult:
    study, priority = planned.study, longest_chain_flops(planned.segments)

    # Train the runs that the laws are fitted to.
    jobs = planned.jobs(study.runs)
    later = in_order(planned.jobs(study.forecast), priority)
    write_jobs(folder, in_order(jobs, priority), later)
    training = engine.train(jobs)
    if training.preempted:
        return StudyResult(folder=folder, plan=planned, training=training)

    # Fit the laws. A run that failed is missing from the rows, and the study goes on.
    if study.laws:
        progress.say("fitting the laws")
    rows = rows_to_fit(write_tables(folder), study)
    fits, unfitted = fit_laws(study, rows, folder)
    record = read_json(folder / "study.json")
    write_json(folder / "study.json", record | {"unfitted": unfitted})

    # Register the forecasts first: only then may the runs that they are about start.
    if study.forecast:
        for reason in register_forecasts(study, fits, rows, folder):
            progress.say(reason)
        jobs = planned.jobs([*study.runs, *study.forecast])
        write_jobs(folder, in_order(jobs, priority))
        engine.train(planned.jobs(study.forecast))
        if training.preempted:
            return StudyResult(folder=folder, plan=planned, training=training)

    # Score the forecasts and write the report.
    table = write_tables(folder)
    analysis, no_analysis = _analyse(study, folder)
    return StudyResult(
        folder=folder,
        plan=planned,
        training=training,
        table=table,
        fits=fits,
        unfitted=unfitted,
        forecasts=ledger.score(folder, table),
        analysis=analysis,
        no_analysis=no_analysis,
        report=write_report(folder) if len(table) else None,
    )


def _analyse(study: Study, folder: Path) -> tuple[Analysis | None, str]:
    """The analysis of a study, and why there is none although the study has one.

    A mistake in it must not hide what was trained and fitted.
    """
    # An earlier call may have drawn its conclusions from other runs.
    (folder / analyses.FILE_NAME).unlink(missing_ok=True)
    if study.analysis is None:
        return None, ""
    try:
        analysis = study.analysis(folder)
        analyses.write_analysis(folder, analysis)
    except Exception as error:
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        return None, f"{kind}{error}"
    return analysis, ""


def study_record(planned: Plan, question: str) -> StudyRecord:
    """The content of study.json; runs that are listed twice appear once."""
    study = planned.study
    return {
        "name": study.name,
        "question": question,
        "runs": _unique_ids(study.runs),
        "forecast": _unique_ids(study.forecast),
        "trunks": {run_id(run): planned.trunk_of(run) for run in [*study.runs, *study.forecast]},
        "plan": planned.summary(),
    }


def dropped_runs(folder: Path, record: StudyRecord) -> list[str]:
    """Ids of the finished runs in a study's folder that are not runs of the study.

    They were trained before the experiment file changed, or by another file whose study
    has the same name.
    """
    own = {*record["runs"], *record["forecast"]}
    finished = (path.parent.name for path in folder.glob("runs/*/DONE"))
    return sorted(name for name in finished if name not in own)


def _unique_ids(runs: Sequence[Run]) -> list[str]:
    return list(dict.fromkeys(run_id(run) for run in runs))
