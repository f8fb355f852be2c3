"""`scalejax plan`, `run`, `work`, `status` and `report`: studies."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tyro.conf import Positional

from scalejax.cli import compile_cache, exit_codes

if TYPE_CHECKING:
    from scalejax.launch.executor import Executor


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Show what a study trains, shares and costs, without training anything."""

    # Experiment file, as FILE.py for the study that it assigns to `study`, or as
    # FILE.py:NAME for another one. Example: experiments/quickstart.py:smoke.
    study: Positional[str]

    # Accelerators to compile the most expensive run for, as CHIP:SHAPE: v5e:16x16,
    # v5p:4x4x4, v6e:8x8 or h100:8. None of them need be at hand, but `make aot` must
    # have installed their compilers. This takes minutes.
    topology: str | None = None

    # Print one JSON object instead of text.
    json: bool = False

    def run(self) -> int:
        from scalejax.cli.text import as_json
        from scalejax.cli.text.study import plan_text
        from scalejax.cli.text.topology import topology_text
        from scalejax.study.experiment import load_study
        from scalejax.study.plan import plan
        from scalejax.study.topology.chips import parse_topology
        from scalejax.study.topology.report import topology_report

        topology = parse_topology(self.topology) if self.topology else None
        study, _ = load_study(self.study)
        planned = plan(study)
        report = topology_report(study, topology) if topology else None
        if self.json:
            extra = {"topology": report} if report else {}
            print(as_json({**planned.summary(), **extra}))
        else:
            print(plan_text(planned))
            if report:
                print(topology_text(report))
        return exit_codes.DONE


@dataclass(frozen=True, kw_only=True)
class Run:
    """Train or continue a study, fit its laws, score its forecasts, write a report."""

    # Experiment file, as FILE.py for the study that it assigns to `study`, or as
    # FILE.py:NAME for another one. Example: experiments/quickstart.py:smoke.
    study: Positional[str]

    # Folder of all studies. This study gets a folder of its own in it, named after the
    # study.
    out: Path = Path("results")

    # Who trains. local: workers on this machine. slurm: an array of workers, which is
    # submitted and followed; the same command follows an array that is still there.
    # ray: tasks on the cluster of RAY_ADDRESS, on a running one, or on a local one.
    executor: Literal["local", "slurm", "ray"] = "local"

    # Largest number of GPUs, TPU chips or, without any, CPU cores that `local` uses. By
    # default all are used. Each gets a worker process, or each group of as many as a
    # run needs. 0 trains nothing here: the study waits for `scalejax work` on its
    # folder, and concludes when everything is trained.
    devices: int | None = None

    # Number of workers of `slurm`: the tasks of the array.
    workers: int | None = None

    # Options of sbatch on one line, such as "--partition=gpu --gpus-per-task=1
    # --time=4:00:00".
    sbatch: str | None = None

    def run(self) -> int:
        compile_cache.enable()
        from scalejax.cli.text.study import stopped_text, study_text
        from scalejax.study.experiment import load_study
        from scalejax.study.run import run_study

        executor = self._executor()
        study, question = load_study(self.study)
        result = run_study(study, self.out, question, executor)
        if result.training.preempted:
            print(stopped_text(result), file=sys.stderr)
        else:
            print(study_text(result))
        return exit_codes.of_study(result)

    def _executor(self) -> "Executor":
        from scalejax.launch.clusters.ray_cluster import Ray
        from scalejax.launch.clusters.slurm import Slurm
        from scalejax.launch.executor import Local

        # A flag of another executor would have no effect.
        used = {"local": ("devices",), "slurm": ("workers", "sbatch"), "ray": ()}[self.executor]
        for flag in ("devices", "workers", "sbatch"):
            if getattr(self, flag) is not None and flag not in used:
                raise ValueError(f"--{flag} is not used by --executor {self.executor}; remove it")
        if self.executor == "local":
            return Local(self.devices)
        if self.executor == "ray":
            return Ray()
        if self.workers is None:
            raise ValueError("--executor slurm needs --workers N, the number of workers to submit")
        command = (sys.executable, "-m", __package__, "work")
        return Slurm(command, self.workers, self.sbatch or "")


@dataclass(frozen=True, kw_only=True)
class Work:
    """Train what is free in a study's folder, beside any number of other workers."""

    # The study's folder, OUT/<study>, in which `scalejax run` has been started. Workers
    # on any machines that see the folder share the work; each may die at any moment.
    folder: Positional[Path]

    def run(self) -> int:
        compile_cache.enable()
        from scalejax.launch import allocator
        from scalejax.launch.jobs import read_jobs
        from scalejax.launch.seats import take_seat
        from scalejax.launch.signals import stopping_on_signals
        from scalejax.launch.work import work

        # The allocator is chosen when a process starts, so this one starts once more.
        settings = allocator.settings()
        if not settings.items() <= os.environ.items() and "LD_PRELOAD" not in os.environ:
            command = [sys.executable, *sys.orig_argv[1:]]
            os.execve(sys.executable, command, settings | os.environ)
        jobs = read_jobs(self.folder).jobs
        if jobs:
            take_seat(jobs[0].placement)
        with stopping_on_signals() as stopping:
            result = work(self.folder, say=_say, stopping=stopping)
        if result.preempted:
            _say("stopped; the state is saved: the same command continues from there")
            return exit_codes.PREEMPTED
        return exit_codes.FAILED if result.failed else exit_codes.DONE


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@dataclass(frozen=True, kw_only=True)
class Status:
    """Show the state of every run of a study."""

    # Experiment file, as FILE.py or FILE.py:NAME, as for `scalejax run`.
    study: Positional[str]

    # Folder of all studies, as for `scalejax run`.
    out: Path = Path("results")

    # Print one JSON object instead of text.
    json: bool = False

    def run(self) -> int:
        from scalejax.cli.text import as_json
        from scalejax.cli.text.study import status_text
        from scalejax.study.experiment import load_study
        from scalejax.study.plan import plan
        from scalejax.study.status import study_status

        study, _ = load_study(self.study)
        status = study_status(plan(study), self.out / study.name)
        print(as_json(status) if self.json else status_text(status))
        return exit_codes.DONE


@dataclass(frozen=True, kw_only=True)
class Report:
    """Write the report page of a study again, from the files in its folder."""

    # The study's folder. Example: results/quickstart@1.
    folder: Positional[Path]

    def run(self) -> int:
        from scalejax.report.write import write_report

        print(write_report(self.folder))
        return exit_codes.DONE
