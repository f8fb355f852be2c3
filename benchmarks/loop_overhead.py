"""What the training loop costs beyond the training step.

    python benchmarks/loop_overhead.py [--turns 5]

The loop of `scalejax run` (data, metrics, checkpoints by the clock) is timed against
the bare compiled step on one batch that stays in memory. Both run in one process on one
pinned core, in turns. The first metrics window of each, which compiles, is left out.
The parts that the loop adds are also timed one by one, each after the device has
finished what it was given, so that no part is charged for a step that it waits for.
Goal: at most 1.03.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

# Before jax starts its threads.
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})

import jax
import numpy as np

from scalejax import Data, Measure, Model, Optimizer, Placement, Run
from scalejax.optim.schedules import constant
from scalejax.training import loop
from scalejax.training.loops.step_loop import LOG_EVERY
from scalejax.training.segment import Segment, TrainingJob
from scalejax.training.sharding import make_mesh
from scalejax.training.step import init_state, make_train_step

# Width, depth, vocabulary, sequences, length, and the steps that are timed.
SIZES = {"width 32": (32, 2, 512, 4, 128, 400), "width 64": (64, 4, 2048, 8, 256, 60)}

# The methods of loop.Trainer that the loop calls besides the step.
PARTS = {"data": "read_batch", "metrics": "log_losses", "checkpoint": "start_save"}


def make_run(size: tuple[int, ...]) -> Run:
    """Return the run whose loop is timed."""
    width, depth, vocabulary, sequences, length, steps = size
    return Run(
        model=Model.sized(width=width, depth=depth, head_size=32, vocabulary=vocabulary),
        data=Data(source="synthetic:64", tokenizer="own", sequence_length=length),
        optimizer=Optimizer(learning_rate=0.002, beta2=0.98),
        schedule=constant(warmup=0),
        tokens=(steps + LOG_EVERY) * sequences * length,
        batch_tokens=sequences * length,
    )


def bare_seconds(run: Run) -> float:
    """Return the seconds of the run's steps, of which the first window is left out."""
    mesh = make_mesh(Placement())
    state, train_step = init_state(run, mesh), make_train_step(run, mesh)
    shape = (run.batch_tokens // run.data.sequence_length, run.data.sequence_length + 1)
    rows = np.random.default_rng(0).integers(0, 64, shape, np.int32)
    start = 0.0
    for step in range(run.steps):
        if step == LOG_EVERY:
            jax.block_until_ready(state)
            start = time.perf_counter()
        state, _ = train_step(state, rows, np.float32(0.002))
    jax.block_until_ready(state)
    return time.perf_counter() - start


def loop_seconds(run: Run) -> tuple[float, dict[str, float]]:
    """Return the same of the training loop, and the seconds of each of its parts."""
    job = TrainingJob(
        segment=Segment(run=run, start=0, stop=run.steps),
        study="",
        measure=Measure(tokens=1024, items=0, suites=()),
        placement=Placement(),
    )
    reports = []
    parts = dict.fromkeys(PARTS, 0.0)

    def timed(name, method):
        def call(self, *arguments):
            jax.block_until_ready((self.progress.state, self.progress.losses))
            start = time.perf_counter()
            result = method(self, *arguments)
            parts[name] += time.perf_counter() - start
            return result

        return call

    def train(folder: Path) -> None:
        job.write(folder)
        report = lambda step, loss: reports.append(time.perf_counter())  # noqa: E731
        loop.train_segment(job, folder, None, report=report)

    with tempfile.TemporaryDirectory() as name:
        train(Path(name))
    seconds = reports[-1] - reports[0]
    # Once more with the parts timed, which makes the loop itself slower.
    originals = {name: getattr(loop.Trainer, method) for name, method in PARTS.items()}
    for name, method in PARTS.items():
        setattr(loop.Trainer, method, timed(name, originals[name]))
    with tempfile.TemporaryDirectory() as name:
        train(Path(name))
    for name, method in PARTS.items():
        setattr(loop.Trainer, method, originals[name])
    return seconds, parts


def main() -> None:
    """Print one row for each size."""
    parser = argparse.ArgumentParser(description="Overhead of the training loop.")
    parser.add_argument("--turns", type=int, default=5)
    turns = parser.parse_args().turns
    print("| shape | bare step ms | loop ms | ratio | data ms | metrics ms | one checkpoint ms |")
    print("|---" * 7 + "|")
    for name, size in SIZES.items():
        run, steps = make_run(size), size[-1]
        bare, whole, parts = [], [], []
        for _ in range(turns):
            bare.append(bare_seconds(run) / steps * 1e3)
            seconds, of_parts = loop_seconds(run)
            whole.append(seconds / steps * 1e3)
            parts.append(of_parts)
        ratios = [ours / theirs for ours, theirs in zip(whole, bare, strict=True)]
        cells = [f"{statistics.median(bare):.2f}", f"{statistics.median(whole):.2f}"]
        cells.append(f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")
        for part in PARTS:
            # Data and metrics are per step; the checkpoint is the one at the end.
            count = 1 if part == "checkpoint" else steps + LOG_EVERY
            cells.append(f"{statistics.median(p[part] for p in parts) / count * 1e3:.3f}")
        print("| " + " | ".join([name, *cells]) + " |", flush=True)


if __name__ == "__main__":
    main()
