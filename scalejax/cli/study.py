"""`scalejax plan`, `run`, `work` and `report`: studies."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tyro.conf import Positional

from scalejax.cli import compile_cache, exit_codes
from scalejax.cli.numbers import Number

if TYPE_CHECKING:
    from scalejax.launch.executor import Executor


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Show what a study trains, shares and costs, without training anything."""

    # Experiment file, as FILE.py for the study that it assigns to `study`, or as
    # FILE.py:NAME for another one. Example: experiments/quickstart.py:smoke.
    study: Positional[str]

    # Folder of all studies. What finished runs in it measured on this kind of machine
    # says how long the plan takes, and --next reads their losses.
    out: Path = Path("results")

    # Dollars per hour of one device, which on a CPU is one core. Shows what the plan
    # costs. Example: 1.20.
    price: Number = None

    # Accelerators to compile the most expensive run for, as CHIP:SHAPE: v5e:16x16,
    # v5p:4x4x4, v6e:8x8 or h100:8. None of them need be at hand, but `make aot` must
    # have installed their compilers. This takes minutes.
    topology: str | None = None

    # Number of further runs to propose: those that narrow the forecasts of a study with
    # finished runs most. Needs --budget.
    next: int | None = None

    # Training FLOPs that the proposed runs may cost together. Example: 1e19.
    budget: Number = None

    # Print one JSON object instead of text.
    json: bool = False

    def run(self) -> int:
        from scalejax.cli.text import as_json
        from scalejax.cli.text.next_runs import next_runs_text
        from scalejax.cli.text.study import plan_text, resources_text
        from scalejax.cli.text.topology import topology_text
        from scalejax.study.experiment import load_study
        from scalejax.study.next_runs import next_runs
        from scalejax.study.plan import plan
        from scalejax.study.resources import resources
        from scalejax.study.topology.chips import parse_topology
        from scalejax.study.topology.report import topology_report

        if (self.next is None) != (self.budget is None):
            raise ValueError("--next K and --budget FLOPS belong together; give both or neither")
        topology = parse_topology(self.topology) if self.topology else None
        study, _ = load_study(self.study)
        if self.price is not None and not self.price >= 0:
            raise ValueError(f"--price must be 0 or more dollars per device-hour; got {self.price}")
        planned = plan(study)
        kind = topology.chip.device_kind if topology else None
        needs = resources(planned, self.out, device_kind=kind, price=self.price)
        report = topology_report(study, topology) if topology else None
        proposal = None
        if self.next is not None and self.budget is not None:
            folder = self.out / study.name
            proposal = next_runs(study, folder, count=self.next, budget=self.budget)
        if self.json:
            extra: dict[str, object] = {"topology": report} if report else {}
            extra |= {"next": proposal.summary()} if proposal else {}
            print(as_json({**planned.summary(), "resources": needs, **extra}))
        else:
            print(plan_text(planned))
            print(resources_text(needs, compiled=report is not None))
            if report:
                print(topology_text(report))
            if proposal:
                print(next_runs_text(proposal))
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

    # Dashboard that the curves are copied to while runs train; needs the extra `track`.
    # metrics.jsonl in the folder of each run holds them in any case.
    track: Literal["tensorboard", "wandb"] | None = None
    # Number of workers of `slurm`: the tasks of the array.
    workers: int | None = None

    # Options of sbatch on one line, such as "--partition=long --time=4:00:00".
    sbatch: str | None = None

    def run(self) -> int:
        with exit_codes.raising_on_sigterm():
            return self._run()

    def _run(self) -> int:
        compile_cache.enable()
        from scalejax.cli.text.study import stopped_text, study_text
        from scalejax.study.experiment import load_study
        from scalejax.study.run import run_study
        from scalejax.study.study import tracked

        executor = self._executor()
        study, question = load_study(self.study)
        if self.track:
            study = tracked(study, self.track)
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
        # `python -m scalejax.cli work`, wherever the script of that name is.
        command = (sys.executable, "-m", __name__.rpartition(".")[0], "work")
        return Slurm(command, self.workers, self.sbatch or "")


@dataclass(frozen=True, kw_only=True)
class Work:
    """Train what is free in a study's folder, beside any number of other workers."""

    # The study's folder, OUT/<study>, in which `scalejax run` has been started. Workers
    # on any machines that see the folder share the work; each may die at any moment.
    folder: Positional[Path]

    def run(self) -> int:
        with exit_codes.raising_on_sigterm():
            return self._run()

    def _run(self) -> int:
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
class Report:
    """Write the report page of a study again, or one on all studies' forecasts."""

    # The study's folder, such as results/quickstart@1. Or the folder of all studies,
    # such as results: then the page says how many of all registered forecasts contained
    # what was measured later, by how far they extrapolated.
    folder: Positional[Path]

    def run(self) -> int:
        from scalejax.report import calibration
        from scalejax.report.write import write_report

        if any(self.folder.glob("*/forecasts.jsonl")):
            forecasts = calibration.read_calibration(self.folder)
            print(calibration.calibration_text(forecasts))
            print(calibration.write_calibration(forecasts))
        else:
            print(write_report(self.folder))
        return exit_codes.DONE
