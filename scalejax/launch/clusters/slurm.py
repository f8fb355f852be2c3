"""SLURM as executor: an array of workers that is submitted once and followed.

The array's id is kept in the study's folder. The launcher may end at any moment, and
the next one follows the same array.
"""

import contextlib
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from scalejax.config import Placement
from scalejax.files import make_folder, read_json, replace_link, write_json, write_text
from scalejax.launch.attempt import forget_failure
from scalejax.launch.clusters.batch_script import batch_script, log_file
from scalejax.launch.executor import Observer, observed_pool
from scalejax.launch.pool import PoolResult, WorkersGone
from scalejax.training.result import is_finished
from scalejax.training.segment import TrainingJob

SCRIPT, RECORD = "slurm.sh", "slurm.json"

# SLURM's controller serves the whole cluster: it is not asked more often than this.
ASK_SECONDS = 10.0

# States of a task that has ended. In any other state it is waiting or at work.
ENDED = {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL"}
ENDED |= {"OUT_OF_MEMORY", "PREEMPTED", "REVOKED", "TIMEOUT"}
# States of tasks that somebody ended from outside. The study is then preempted; after
# any other end it has failed.
STOPPED = {"CANCELLED", "COMPLETED", "NODE_FAIL", "PREEMPTED", "REVOKED", "TIMEOUT"}


class Task(NamedTuple):
    """A task of an array, as squeue shows it."""

    id: str
    """ARRAY_TASK, such as 123_0."""
    state: str
    reason: str
    """Why it waits or has ended; `None` when there is nothing to say."""
    script: str
    """Path of the script that was submitted."""


@dataclass(frozen=True)
class Slurm:
    """Workers as tasks of one SLURM array."""

    command: tuple[str, ...]
    """What starts a worker when the study's folder follows."""
    workers: int
    options: str = ""
    """Options of sbatch, such as `--partition=gpu --gpus-per-task=1`."""

    def check(self, placement: Placement) -> None:
        """Raise ValueError when there is no SLURM here, or a flag cannot be used."""
        if self.workers < 1:
            raise ValueError(f"--workers {self.workers}: give the number of tasks, 1 or more")
        batch_script(Path(), self.command, workers=self.workers, cpus=1, options=self.options)
        if missing := [name for name in ("sbatch", "squeue") if shutil.which(name) is None]:
            raise ValueError(
                f"--executor slurm needs {' and '.join(missing)}, not found on PATH; run this "
                "command on a login node of the cluster, or use `--executor local`"
            )

    def start(
        self,
        folder: Path,
        *,
        placement: Placement,
        lock: int,
        priority: Mapping[str, float],
        observer: Observer,
    ) -> "SlurmArray":
        """Return the array of a study, which is submitted when there is work for it."""
        cpus = placement.devices
        folder = folder.absolute()
        script = batch_script(
            folder, self.command, workers=self.workers, cpus=cpus, options=self.options
        )
        return SlurmArray(folder, script, lock, priority, observer)


class SlurmArray:
    """The array of workers of one study."""

    def __init__(
        self,
        folder: Path,
        script: str,
        lock: int,
        priority: Mapping[str, float],
        observer: Observer,
    ):
        """Take over the array of an earlier launcher, if there is one.

        script: the batch script of a new array. The other arguments are those of
        `Executor.start`.
        """
        self._folder, self._script, self._say = folder, script, observer.say
        # Without workers of its own, it follows what those of the array write.
        self._pool = observed_pool(
            folder, [], lock=lock, priority=priority, observer=observer, watch=self._watch
        )
        self._asked_at = time.monotonic()
        self._array = ""
        self._summary = ""
        self._ended = False
        """Whether all tasks had ended when SLURM was asked last."""
        self._was_stopped = False
        """Whether they were ended from outside."""
        self._followed = ""
        """The array that the user has been told of."""
        with contextlib.suppress(FileNotFoundError):
            self._array = str(read_json(folder / RECORD).get("array", ""))

    def train(self, jobs: Iterable[TrainingJob]) -> PoolResult:
        """Train jobs on the array; see `Pool.train`.

        Ctrl-C stops following. The array goes on.
        """
        jobs = list(jobs)
        left = [job for job in jobs if not is_finished(job, self._folder / job.segment.folder)]
        if left and not self._follow():
            # Before the workers start: they never try a failed segment again.
            for job in left:
                forget_failure(self._folder / job.segment.folder)
            self._submit()
        try:
            result = self._pool.train(jobs, retry=False)
        except WorkersGone as gone:
            if not self._was_stopped:
                raise
            self._say(str(gone))
            self._pool.result.preempted = True
            return self._pool.result
        if result.preempted:
            self._say(
                f"SLURM array {self._array} goes on. The same command follows it again; "
                f"`scancel {self._array}` ends it"
            )
        return result

    def close(self) -> None:
        """Leave the array alone: it needs no launcher."""
        self._pool.close()

    def _follow(self) -> bool:
        """Follow the remembered array, if there is one that is waiting or at work."""
        tasks = self._tasks() if self._array else []
        if tasks is None or any(task.state not in ENDED for task in tasks):
            if self._array != self._followed:
                self._say(f"following SLURM array {self._array}, which was submitted before")
            self._followed = self._array
            return True
        return False

    def _submit(self) -> None:
        path = self._folder / SCRIPT
        write_text(path, self._script)
        # SLURM does not create the folder of the log files.
        logs = self._folder / "logs"
        make_folder(logs)
        # SLURM appends to them, whatever they name.
        for log in logs.iterdir():
            replace_link(log)
        done = _call("sbatch", "--parsable", str(path))
        if done.returncode != 0:
            raise ValueError(
                f"sbatch refused {path}: {done.stderr.strip()}; change the options in --sbatch"
            )
        # With several clusters, sbatch prints ARRAY;CLUSTER.
        self._array = self._followed = done.stdout.strip().partition(";")[0]
        write_json(self._folder / RECORD, {"array": self._array})
        self._ended, self._asked_at = False, time.monotonic()
        self._say(
            f"submitted SLURM array {self._array} ({path}); its logs are "
            f"{log_file(self._folder, f'{self._array}_*')}"
        )

    def _watch(self) -> str:
        """Return why no task of the array is left, or "" while one is."""
        if time.monotonic() - self._asked_at < ASK_SECONDS:
            return ""
        self._asked_at = time.monotonic()
        tasks = self._tasks()
        if tasks is None:
            return ""
        self._tell(tasks)
        if any(task.state not in ENDED for task in tasks):
            self._ended = False
            return ""
        # A network drive may show the files of the last task late: ask once more.
        if not self._ended:
            self._ended = True
            return ""
        self._was_stopped = bool(tasks) and {task.state for task in tasks} <= STOPPED
        return self._reason(tasks)

    def _tasks(self) -> list[Task] | None:
        """Return the tasks of the study's array; see `tasks_of`."""
        tasks, script = tasks_of(self._array), (self._folder / SCRIPT).resolve()
        # On another cluster, or a new one, the number may be that of another array.
        return tasks and [task for task in tasks if Path(task.script).resolve() == script]

    def _tell(self, tasks: list[Task]) -> None:
        """Say how many tasks are in which state, when that has changed."""
        counts = Counter(
            task.state.lower() + ("" if task.reason == "None" else f" ({task.reason})")
            for task in tasks
        )
        summary = ", ".join(f"{number} {state}" for state, number in sorted(counts.items()))
        if summary and summary != self._summary:
            self._say(f"SLURM array {self._array}: {summary}")
        self._summary = summary

    def _reason(self, tasks: list[Task]) -> str:
        states = ", ".join(sorted({task.state for task in tasks})) or "unknown, too long ago"
        logs = [log_file(self._folder, task.id) for task in tasks]
        log = next((path for path in logs if path.exists()), logs[0] if logs else None)
        return (
            f"no task of SLURM array {self._array} is left, and the study is not done; their "
            f"states: {states}. See {log or self._folder / 'logs'}. The same command submits "
            "a new array, which continues from the last checkpoints"
        )


def tasks_of(array: str) -> list[Task] | None:
    """Return the tasks of an array; none when SLURM has forgotten it.

    None when SLURM does not answer.
    """
    done = _call(
        "squeue",
        "--noheader",
        "--array",
        "--states=all",
        f"--jobs={array}",
        "--format=%i|%T|%r|%o",
    )
    if done.returncode != 0:
        return [] if "Invalid job id" in done.stderr else None
    lines = [line.strip().split("|", 3) for line in done.stdout.splitlines()]
    return [Task(*line) for line in lines if len(line) == 4]


def _call(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)
