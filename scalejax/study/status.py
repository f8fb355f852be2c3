"""How far a study is: the state of every run, read from the study's folder."""

from collections import Counter
from pathlib import Path
from typing import Literal, TypedDict

from scalejax.study.plan import Plan
from scalejax.study.results import read_curve
from scalejax.training.result import Result


class RunStatus(TypedDict):
    """The state of one run."""

    status: Literal["waiting", "started", "done", "diverged"]
    """A run is `waiting` until its own segment starts, even while its trunk is
    training. A `started` run is training, or was stopped and can be resumed."""
    step: int
    """The last step with metrics; 0 before the first."""
    loss: float | None
    """Nats per token: the held-out loss of a run that is done, else the last training
    loss. None if there is none yet, and for a run that diverged."""


class StudyStatus(TypedDict):
    """What `scalejax status --json` prints."""

    study: str
    folder: str
    totals: dict[str, int]
    """How many runs are in each state; states without runs are left out."""
    runs: dict[str, RunStatus]
    """Status by run id."""


def study_status(plan: Plan, folder: Path) -> StudyStatus:
    """The state of every run of a plan, from the study's folder."""
    runs = {
        segment.id: run_status(folder / segment.folder)
        for segment in plan.segments
        if segment.final
    }
    totals = Counter(run["status"] for run in runs.values())
    return {"study": plan.study.name, "folder": str(folder), "totals": dict(totals), "runs": runs}


def run_status(run: Path) -> RunStatus:
    """The state of the run in a folder, which need not exist yet."""
    if (run / "DONE").exists():
        row = Result.load(run).row
        loss = row["loss"] if row["status"] == "done" else None
        return {"status": row["status"], "step": row["step"], "loss": loss}
    rows = read_curve(run)
    return {
        "status": "started" if (run / "status.json").exists() else "waiting",
        "step": rows[-1]["step"] if rows else 0,
        "loss": rows[-1].get("train_loss") if rows else None,
    }
