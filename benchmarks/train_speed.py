"""Tokens per second of scalejax's training step against compiled PyTorch.

    make .venv-bench/.ready
    python benchmarks/train_speed.py [--turns 3] [--shapes A,B] [--allocators mimalloc]

Both sides train the same architecture in float32 on one pinned core: forward pass,
backward pass, clipping and AdamW. The baseline is benchmarks/gpt_torch.py. Each runs in
a process of its own, with mimalloc and with the default allocator; the processes take
turns. Time is CPU time, so that other work on the machine matters less. A ratio is the
median over turns, with its range.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
TORCH_PYTHON = HERE.parent / ".venv-bench" / "bin" / "python"

# Width, depth, head size, MLP width, vocabulary, sequences, length.
SHAPES = {
    "width32": (32, 2, 16, 96, 512, 4, 128),
    "width112": (112, 2, 16, 304, 512, 4, 128),
    "width64": (64, 4, 32, 176, 2048, 8, 256),
    "width128": (128, 4, 32, 352, 2048, 8, 256),
    "width256": (256, 4, 64, 688, 2048, 8, 256),
}

# Both sides train for this long in each turn, after the steps that compile.
SECONDS, WARMUP_STEPS, STEPS_PER_READING = 5.0, 3, 3


def measure(step, wait, tokens: int) -> dict[str, float]:
    """Return tokens per CPU second, page faults per step, and peak memory in MiB.

    The speed is that of the fastest reading: other work only ever slows a step down.
    """
    for _ in range(WARMUP_STEPS):
        step()
    wait()
    faults, steps, best = _faults(), 0, float("inf")
    end = time.process_time() + SECONDS
    while time.process_time() < end:
        start = time.process_time()
        for _ in range(STEPS_PER_READING):
            loss = step()
        wait()
        best = min(best, (time.process_time() - start) / STEPS_PER_READING)
        steps += STEPS_PER_READING
    return {
        "tokens_per_second": tokens / best,
        "faults": (_faults() - faults) / steps,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "loss": float(loss),
    }


def _faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def measure_scalejax(shape: tuple[int, ...]) -> dict[str, float]:
    """Measure the step that `scalejax run` trains with."""
    step, wait, _ = make_scalejax_step(shape)
    return measure(step, wait, shape[5] * shape[6])


def make_scalejax_step(
    shape: tuple[int, ...],
) -> tuple[Callable[[], Any], Callable[[], object], Callable[[], str]]:
    """Return a function that takes a step and returns its loss, and two more.

    The second waits for the steps, the third returns the text of their program.
    """
    import jax
    import numpy as np

    from scalejax import Data, Model, Optimizer, Placement, Run
    from scalejax.optim.schedules import constant
    from scalejax.training.sharding import make_mesh
    from scalejax.training.step import init_state, make_train_step

    width, depth, head_size, mlp_width, vocabulary, sequences, length = shape
    tokens = sequences * length
    run = Run(
        model=Model(
            width=width,
            depth=depth,
            heads=width // head_size,
            kv_heads=width // head_size,
            head_size=head_size,
            mlp_width=mlp_width,
            vocabulary=vocabulary,
        ),
        data=Data(sequence_length=length),
        optimizer=Optimizer(learning_rate=0.002, beta2=0.98),
        schedule=constant(warmup=0),
        tokens=tokens,
        batch_tokens=tokens,
    )
    mesh = make_mesh(Placement())
    state, train_step = init_state(run, mesh), make_train_step(run, mesh)
    rows = np.random.default_rng(0).integers(0, vocabulary, (sequences, length + 1), np.int32)
    rate = np.float32(0.002)

    def step():
        nonlocal state
        state, metrics = train_step(state, rows, rate)
        return metrics["loss"]

    def program() -> str:
        return jax.jit(train_step).lower(state, rows, rate).compile().as_text()

    return step, lambda: jax.block_until_ready(state), program


def measure_torch(shape: tuple[int, ...]) -> dict[str, float]:
    """Measure the baseline."""
    import gpt_torch
    import torch

    torch.set_num_threads(1)
    sizes = gpt_torch.Shape(*shape)
    trainer = gpt_torch.Trainer(sizes, learning_rate=0.002, beta2=0.98)
    generator = torch.Generator().manual_seed(0)
    size = (sizes.sequences, sizes.length + 1)
    rows = torch.randint(sizes.vocabulary, size, generator=generator)
    tokens = sizes.sequences * sizes.length
    return measure(lambda: trainer.step(rows), lambda: None, tokens)


def run_child(side: str, shape: str, allocator: str) -> dict[str, float]:
    """Measure one side in a process of its own."""
    # Imported here, because PyTorch's environment has no scalejax.
    from scalejax.launch.allocator import settings

    environment = dict(os.environ, JAX_PLATFORMS="cpu")
    if allocator == "mimalloc":
        environment |= settings()
    python = sys.executable if side == "scalejax" else str(TORCH_PYTHON)
    command = [python, __file__, "--child", side, "--shapes", shape]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def compare(shape: str, allocators: list[str], turns: int) -> None:
    """Print one row for each allocator: both sides, and the ratio."""
    for allocator in allocators:
        readings = {"scalejax": [], "torch": []}
        for turn in range(turns):
            # The order alternates, so that a drift of the machine's speed cancels.
            for side in list(readings)[:: 1 if turn % 2 else -1]:
                readings[side].append(run_child(side, shape, allocator))
        speeds = [[r["tokens_per_second"] for r in side] for side in readings.values()]
        ratios = [ours / theirs for ours, theirs in zip(*speeds, strict=True)]
        cells = [shape, allocator]
        for side in readings.values():
            cells += [
                f"{statistics.median(r['tokens_per_second'] for r in side):,.0f}",
                f"{statistics.median(r['faults'] for r in side):,.0f}",
                f"{max(r['peak_mib'] for r in side):,.0f}",
            ]
        cells.append(f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
        print("| " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Training speed against compiled PyTorch.")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--shapes", default=",".join(SHAPES))
    parser.add_argument("--allocators", default="mimalloc,default")
    parser.add_argument("--child", choices=["scalejax", "torch"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    shapes = arguments.shapes.split(",")
    if arguments.child:
        # Before the libraries start their threads.
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        measured = measure_scalejax if arguments.child == "scalejax" else measure_torch
        print(json.dumps(measured(SHAPES[shapes[0]])))
        return
    if not TORCH_PYTHON.exists():
        sys.exit(f"{TORCH_PYTHON} does not exist; run `make .venv-bench/.ready` first")
    print("| shape | allocator | scalejax tokens/s | faults/step | peak MiB |", end="")
    print(" PyTorch tokens/s | faults/step | peak MiB | ratio |")
    print("|---" * 9 + "|")
    for shape in shapes:
        compare(shape, arguments.allocators.split(","), arguments.turns)


if __name__ == "__main__":
    main()
