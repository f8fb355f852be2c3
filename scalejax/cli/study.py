"""`scalejax plan`, `run`, `work`, `status` and `report`: studies."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from scalejax.cli import compile_cache, exit_codes


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

    # Number of further runs to propose: those that narrow the forecasts of a study with
    # finished runs most. Needs --budget.
    next: int | None = None

    # Training FLOPs that the proposed runs may cost together. Example: 1e19.
    budget: float | None = None

    # Folder of all studies, as for `scalejax run`; read by --next.
    out: Path = Path("results")

    # Print one JSON object instead of text.
    json: bool = False

    def run(self) -> int:
        from scalejax.cli.text import as_json
        from scalejax.cli.text.next_runs import next_runs_text
        from scalejax.cli.text.study import plan_text
        from scalejax.cli.text.topology import topology_text
        from scalejax.study.experiment import load_study
        from scalejax.study.next_runs import next_runs
        from scalejax.study.plan import plan
        from scalejax.study.topology.chips import parse_topology
        from scalejax.study.topology.report import topology_report

        if (self.next is None) != (self.budget is None):
            raise ValueError("--next K and --budget FLOPS belong together; give both or neither")
        topology = parse_topology(self.topology) if self.topology else None
        study, _ = load_study(self.study)
        planned = plan(study)
        report = topology_report(study, topology) if topology else None
        proposal = None
        if self.next is not None and self.budget is not None:
            folder = self.out / study.name
            proposal = next_runs(study, folder, count=self.next, budget=self.budget)
        if self.json:
            extra: dict[str, object] = {"topology": report} if report else {}
            extra |= {"next": proposal.summary()} if proposal else {}
            print(as_json({**planned.summary(), **extra}))
        else:
            print(plan_text(planned))
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

    # Largest number of worker processes, each on one CPU core. By default every core
    # that this process may use gets one. 0 trains nothing here: the study waits for
    # `scalejax work` on its folder, and concludes when everything is trained.
    devices: int | None = None

    def run(self) -> int:
        compile_cache.enable()
        from scalejax.cli.text.study import stopped_text, study_text
        from scalejax.study.experiment import load_study
        from scalejax.study.run import run_study

        study, question = load_study(self.study)
        result = run_study(study, self.out, question, self.devices)
        if result.training.preempted:
            print(stopped_text(result), file=sys.stderr)
        else:
            print(study_text(result))
        return exit_codes.of_study(result)


@dataclass(frozen=True, kw_only=True)
class Work:
    """Train what is free in a study's folder, beside any number of other workers."""

    # The study's folder, OUT/<study>, in which `scalejax run` has been started. Workers
    # on any machines that see the folder share the work; each may die at any moment.
    folder: Positional[Path]

    def run(self) -> int:
        compile_cache.enable()
        from scalejax.launch import allocator
        from scalejax.launch.cores import NOT_PINNED, take_core, worker_cores
        from scalejax.launch.jobs import read_jobs
        from scalejax.launch.signals import stopping_on_signals
        from scalejax.launch.work import work

        # The allocator is chosen when a process starts, so this one starts once more.
        settings = allocator.settings()
        if not settings.items() <= os.environ.items() and "LD_PRELOAD" not in os.environ:
            command = [sys.executable, *sys.orig_argv[1:]]
            os.execve(sys.executable, command, settings | os.environ)
        jobs = read_jobs(self.folder).jobs
        # Pinned before jax starts its threads: the bits depend on their number.
        if jobs and worker_cores(None, jobs[0].placement) != [NOT_PINNED]:
            take_core()
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
