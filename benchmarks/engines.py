"""One study through four engines, three of them disturbed: the same bits?

    make .venv-ray/.ready && .venv-ray/bin/python benchmarks/engines.py [ENGINE ...]

A study of 24 tiny runs, of which four share a chain of trunks, is trained by

    local   `scalejax run`, undisturbed; always, because the others are compared with it
    work    two `scalejax work` processes, of which one, drawn at random, is killed with
            SIGKILL every 5 to 20 s
    slurm   a SLURM array on two nodes: one task is told by --signal that its time ends,
            one is requeued by hand, and one loses its node, which comes back
    ray     a Ray cluster of two nodes, of which one is killed

Results, curves and fits are compared to the last bit. How often each segment was
finished is counted from outside, by watching the files DONE. What is left of claims and
processes is counted after the cluster has ended. Engines that cannot run here are
named. Without arguments, all of them run.
"""

import contextlib
import importlib.util
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import soak

# tests/ is not installed. It has the clusters.
sys.path.append(str(Path(__file__).parents[1]))
from tests.launch.clusters.launchers import PATIENCE_SECONDS, end, wait_until
from tests.launch.clusters.ray_machines import machine_of, owners, ray_settings, two_machines
from tests.launch.slurm_cluster import (
    array_of,
    nodes_at_work,
    start_again,
    two_nodes,
    why_no_slurm,
)

RUNS, TOKENS = 24, 320_000
# Seconds between two kills of workers, drawn at random from this range.
PAUSES = (5.0, 20.0)
# How long processes that were told to end may take.
ENDING_SECONDS = 60.0
# Every process that an engine starts has this variable in its environment.
MARK = "SCALEJAX_ENGINES_BENCHMARK"


class Outcome(NamedTuple):
    """What is left when an engine has trained the study."""

    disturbed: str
    minutes: float
    study: Path
    finished: dict[str, int]
    """How often each segment was finished, by its folder."""
    processes: int
    """Number of processes that the engine has left behind."""


def main() -> None:
    """Train the study with every engine and print the table."""
    # Killed from outside, this process must not leave its own behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    chosen = sys.argv[1:] or list(ENGINES)
    if unknown := set(chosen) - set(ENGINES):
        sys.exit(f"no engine {', '.join(sorted(unknown))}; the engines are {', '.join(ENGINES)}")
    with tempfile.TemporaryDirectory() as scratch:
        experiment = Path(scratch) / "engines.py"
        experiment.write_text(soak.STUDY.format(seeds=RUNS // soak.RUNS_PER_SEED, tokens=TOKENS))
        print(
            "| engine | disturbed by | minutes | results | equal bits | segments finished once |",
            end="",
        )
        print(" claims, processes left |")
        print("| --- | --- | --- | --- | --- | --- | --- |", flush=True)
        reference, failed = None, []
        for name, train in ENGINES.items():
            if name not in ("local", *chosen):
                continue
            if reason := why_not(name):
                print(f"| {name} | not run: {reason} | | | | | |", flush=True)
                continue
            outcome = measure(train, experiment, Path(scratch) / name)
            reference = reference or outcome
            if not print_row(name, outcome, reference):
                failed.append(name)
    if failed:
        sys.exit(f"not as it must be: {', '.join(failed)}")


def why_not(engine: str) -> str:
    """Why an engine cannot run here, or ""."""
    if engine == "slurm":
        return why_no_slurm()
    if engine == "ray" and importlib.util.find_spec("ray") is None:
        return "no ray in this environment; use that of `make .venv-ray/.ready`"
    return ""


def measure(train: Callable[[Path, Path], str], experiment: Path, out: Path) -> Outcome:
    """Train the study with one engine."""
    mark = uuid.uuid4().hex
    study, began = out / "soak@1", time.monotonic()
    with watched(study) as finished, pytest.MonkeyPatch.context() as environment:
        environment.setenv(MARK, mark)
        disturbed = train(experiment, out)
    minutes = (time.monotonic() - began) / 60
    deadline = time.monotonic() + ENDING_SECONDS
    while (left := processes_with(mark)) and time.monotonic() < deadline:
        time.sleep(1)
    counts = {folder: len(times) for folder, times in finished.items()}
    return Outcome(disturbed, minutes, study, counts, left)


@contextlib.contextmanager
def watched(study: Path) -> Iterator[dict[str, set[tuple[int, int]]]]:
    """Watch a study during the block: which files DONE there were, by their segment.

    A segment that is finished a second time has another file with another time.
    """
    seen: dict[str, set[tuple[int, int]]] = {}
    ended = threading.Event()

    def look() -> None:
        for done in study.glob("*/*/DONE"):
            # It can vanish at any moment.
            with contextlib.suppress(FileNotFoundError):
                facts = done.stat()
                times = seen.setdefault(str(done.parent.relative_to(study)), set())
                times.add((facts.st_ino, facts.st_mtime_ns))

    def keep_looking() -> None:
        while not ended.wait(0.1):
            look()

    thread = threading.Thread(target=keep_looking, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()
        look()


def processes_with(mark: str) -> int:
    """The number of processes whose environment had the mark when they started."""
    found = 0
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            found += f"{MARK}={mark}".encode() in path.read_bytes().split(b"\0")
    return found


def print_row(name: str, outcome: Outcome, reference: Outcome) -> bool:
    """Print a line of the table; return whether everything is as it must be."""
    ours, theirs = soak.results(outcome.study), soak.results(reference.study)
    same = sum(ours.get(run) == result for run, result in theirs.items())
    fits = soak.fits(outcome.study)
    same_fits = bool(fits) and fits == soak.fits(reference.study)
    once = sum(times == 1 for times in outcome.finished.values())
    claims = len(list(outcome.study.glob("claims/*")))
    print(
        f"| {name} | {outcome.disturbed} | {outcome.minutes:.1f} | {len(ours)} of {RUNS} "
        f"| {same} of {RUNS}, {'and the fit' if same_fits else 'NOT the fit'} "
        f"| {once} of {len(reference.finished)} | {claims}, {outcome.processes} |",
        flush=True,
    )
    segments_once = outcome.finished == dict.fromkeys(reference.finished, 1)
    nothing_left = not claims and not outcome.processes
    return same == len(ours) == RUNS and same_fits and segments_once and nothing_left


@contextlib.contextmanager
def launched(experiment: Path, out: Path, *options: str) -> "Iterator[subprocess.Popen[str]]":
    """Run `scalejax run`, and wait at the end of the block until it has ended."""
    run = subprocess.Popen(
        [*soak.COMMAND, "run", experiment, "--out", out, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield run
        output = run.communicate(timeout=PATIENCE_SECONDS)[0]
        if run.returncode != 0:
            sys.exit(f"scalejax run ended with exit code {run.returncode}:\n{output}")
    finally:
        end(run)


def local(experiment: Path, out: Path) -> str:
    """Train with the workers of one `scalejax run`."""
    with launched(experiment, out):
        pass
    return "nothing"


def work(experiment: Path, out: Path) -> str:
    """Train with two workers that are killed."""
    kills, kills_in_training = soak.train_with_kills(experiment, out, RUNS, PAUSES)
    return f"{kills} kills of a worker, {kills_in_training} of them while it held a claim"


def slurm(experiment: Path, out: Path) -> str:
    """Train on two nodes, and disturb three times."""
    study = out / "soak@1"
    with (
        # A controller that was told to end may still write its state.
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        two_nodes(Path(folder)) as cluster,
        launched(experiment, out, "--executor", "slurm", "--workers", "2") as run,
    ):

        def node_of(number: int) -> str:
            """Wait until a task trains; return its node."""
            return wait_until(lambda: nodes_at_work(study).get(f"{array_of(study)}_{number}"), run)

        # Both are at work before the first is disturbed.
        wait_until(lambda: len(nodes_at_work(study)) == 2, run)
        first, second = (f"{array_of(study)}_{number}" for number in (0, 1))
        # What SLURM sends a minute before the end of a task's time.
        subprocess.run(["scancel", "--batch", "--signal=USR1", first], check=True)
        start_again(first)
        node_of(1)
        subprocess.run(["scontrol", "requeue", second], check=True)
        start_again(second)
        node = node_of(0)
        cluster("kill-node", node)
        cluster("start-node", node)
        start_again(first)
    return "a task warned by `--signal`, one requeued by hand, a node killed and brought back"


def ray(experiment: Path, out: Path) -> str:
    """Train on two nodes, and kill one of them in the middle of the study."""
    study = out / "soak@1"
    with pytest.MonkeyPatch.context() as environment:
        ray_settings(environment)
        with (
            two_machines(environment) as cluster,
            launched(experiment, out, "--executor", "ray") as run,
        ):
            wait_until(lambda: len(list(study.glob("runs/*/DONE"))) > RUNS // 4, run)
            wait_until(lambda: len(owners(study)) == 2, run)
            process = next(iter(owners(study).values()))
            cluster.remove_node(machine_of(process, cluster), allow_graceful=False)
    return "one of two nodes killed while it trained"


ENGINES = {"local": local, "work": work, "slurm": slurm, "ray": ray}


if __name__ == "__main__":
    main()
