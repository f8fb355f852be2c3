"""How far a study is: the state of every run, from the files in the study's folder.

Nothing here asks a launcher. A run counts as running only while its claim is that of a
living process (see `scalejax.launch.claims.Owners`), so the runs of a launcher that was
killed, or of a machine that is gone, never read `running`.
"""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypedDict

from scalejax.files import read_json
from scalejax.launch import claims
from scalejax.launch.attempt import failure
from scalejax.launch.claims import Owners
from scalejax.launch.jobs import read_plan
from scalejax.study.cost import segment_flops
from scalejax.study.settings import settings_of
from scalejax.training.metrics import last_rows
from scalejax.training.result import Result
from scalejax.training.segment import Segment

State = Literal["waiting", "waiting-for-trunk", "running", "stopped", "done", "diverged", "failed"]
# The states that training does not change any more.
FINAL_STATES = ("done", "diverged", "failed")

POLL_SECONDS = 0.5


class RunStatus(TypedDict):
    """The state of one run."""

    settings: dict[str, Any]
    """Its size, its tokens, and the settings in which the runs of the study differ."""
    state: State
    """A run that was started and is not trained now is `stopped`: it continues when
    somebody trains it. A run that is `waiting-for-trunk` begins where its trunk
    ends."""
    worker: str
    """`host:process` that trains it, for a running run; else empty."""
    error: str
    """Why it failed; else empty."""
    step: int
    """The last step with metrics; 0 before the first."""
    steps: int
    loss: float | None
    """Nats per token: the held-out loss of a run that is done, else the last training
    loss. None if there is none yet, and for a run that diverged."""
    tokens_per_second: float | None
    """Of the last rows of metrics; None for a run that is not running."""
    seconds_left: float | None
    """At this speed; None for a run that is not running."""


class StudyStatus(TypedDict):
    """What `scalejax status --json` prints."""

    study: str
    folder: str
    totals: dict[str, int]
    """How many runs are in each state; states without runs are left out."""
    flops_done: float
    """Fraction of the study's training FLOPs."""
    seconds_left: float | None
    """At the present speed of all workers; None when nobody trains."""
    silent: dict[str, str]
    """`host:process` of other machines that hold a claim and have shown no sign of
    life, by the id of the run or trunk."""
    shared: dict[str, Any]
    """Settings that all runs have in common."""
    runs: dict[str, RunStatus]
    """Status by run id."""


class _Training(NamedTuple):
    """How far one segment is."""

    state: State
    step: int
    loss: float | None = None
    worker: str = ""
    error: str = ""
    speed: float | None = None
    """Tokens per second."""


class StatusReader:
    """Reads the status of one study, again and again."""

    def __init__(self, name: str, folder: Path, segments: Sequence[Segment]):
        self.name, self.folder, self.segments = name, folder, segments
        self.settings = settings_of([segment.run for segment in segments if segment.final])
        self._owners = Owners(folder)

    @classmethod
    def of_folder(cls, folder: Path) -> "StatusReader":
        """Read a study that `scalejax run` has planned, without its experiment file."""
        segments = [job.segment for job in read_plan(folder)]
        # Trunks come first: the state of a run may be that of its trunk.
        segments.sort(key=lambda segment: segment.stop)
        return cls(folder.absolute().name, folder, segments)

    def read(self) -> StudyStatus:
        """Look once. A claim of another machine needs a second look; see `settle`."""
        owners, states = self._owners.alive(), {}
        for segment in self.segments:
            trunk = states.get(segment.parent)
            worker = owners.get(segment.id, "")
            states[segment.folder] = _training(self.folder / segment.folder, worker, trunk)
        final = [segment for segment in self.segments if segment.final]
        runs = {
            segment.id: _run_status(segment, states[segment.folder], own)
            for segment, own in zip(final, self.settings.own, strict=True)
        }
        done, left = self._work(states)
        return {
            "study": self.name,
            "folder": str(self.folder),
            "totals": dict(Counter(run["state"] for run in runs.values())),
            "flops_done": done,
            "seconds_left": left,
            "silent": self._owners.silent,
            "shared": self.settings.shared,
            "runs": runs,
        }

    def settle(self) -> StudyStatus:
        """Read until every claim has shown whether its owner is alive.

        This takes a moment for claims of this machine, and up to two heartbeats for
        those of other machines.
        """
        status, end = self.read(), time.monotonic() + 2.2 * claims.HEARTBEAT_SECONDS
        while status["silent"] and time.monotonic() < end:
            time.sleep(POLL_SECONDS)
            status = self.read()
        return status

    def _work(self, states: Mapping[str, _Training]) -> tuple[float, float | None]:
        """Return the fraction of the FLOPs that is done, and the seconds left."""
        total = done = speed = 0.0
        for segment in self.segments:
            state = states[segment.folder]
            flops, tokens = segment_flops(segment), segment.tokens(segment.start, segment.stop)
            total += flops
            if state.state in FINAL_STATES:
                # What has failed or diverged is not trained any further.
                done += flops
            elif state.step > segment.start:
                done += flops * segment.tokens(segment.start, state.step) / tokens
            speed += (state.speed or 0.0) * flops / tokens
        return done / total, (total - done) / speed if speed else None


def is_over(status: StudyStatus) -> bool:
    """Whether no run of the study will be trained any further."""
    return set(status["totals"]) <= set(FINAL_STATES)


def _run_status(segment: Segment, training: _Training, own: dict[str, Any]) -> RunStatus:
    left, speed = None, training.speed
    if training.state == "running" and speed:
        left = segment.tokens(min(training.step, segment.stop), segment.stop) / speed
    return {
        "settings": own,
        "state": training.state,
        "worker": training.worker,
        "error": training.error,
        "step": training.step,
        "steps": segment.stop,
        "loss": training.loss,
        "tokens_per_second": speed,
        "seconds_left": left,
    }


def _training(folder: Path, worker: str, trunk: _Training | None) -> _Training:
    """Return how far the segment in a folder is, which need not exist yet.

    worker: the living process that trains it; empty if there is none.
    trunk: how far its trunk is; None for a segment that begins at step 0.
    """
    if (folder / "DONE").exists() and not worker:
        # Only runs have a result. A trunk's own status says whether it diverged.
        if (folder / "result.json").exists():
            row = Result.load(folder).row
            loss = row["loss"] if row["status"] == "done" else None
            return _Training(row["status"], row["step"], loss)
        if folder.parent.name == "trunks":
            end = read_json(folder / "status.json")
            return _Training("diverged" if end.get("status") == "diverged" else "done", 0)
    rows = last_rows(folder)
    step, loss = (rows[-1]["step"], rows[-1]["train_loss"]) if rows else (0, None)
    if worker:
        return _Training("running", step, loss, worker, speed=_speed(rows))
    if error := failure(folder):
        return _Training("failed", step, loss, error=error)
    if trunk is not None and trunk.state == "failed":
        return _Training("failed", step, loss, error=f"its trunk failed: {trunk.error}")
    if (folder / "status.json").exists():
        return _Training("stopped", step, loss)
    if trunk is not None and trunk.state not in FINAL_STATES:
        return _Training("waiting-for-trunk", trunk.step)
    return _Training("waiting", 0)


def _speed(rows: Sequence[Mapping[str, Any]]) -> float | None:
    """Return the tokens per second between the first and the last of some rows."""
    if len(rows) < 2:
        return None
    tokens, seconds = (rows[-1][name] - rows[0][name] for name in ("tokens", "seconds"))
    return tokens / seconds if tokens > 0 and seconds > 0 else None
