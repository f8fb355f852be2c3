"""The wall time of a whole sweep, against the same sweep in compiled PyTorch.

    make .venv-bench/.ready
    python benchmarks/sweep_speed.py [--turns 3] [--steps 400]

The sweep is a grid of four learning rates and four values of beta2, 16 runs of width
64, 4 layers, 8 x 256 tokens a step, vocabulary 2,048. Both sides read the same token
files, use both cores with one process each, and end with the held-out loss of every
run. scalejax is timed as its users run it: `scalejax run FILE` in a new folder, with
data, checkpoints, metrics, evaluation and the report. The baseline is what one would
write by hand on top of benchmarks/gpt_torch.py: two processes that train eight runs
each and write one line of JSON for each run; it keeps no checkpoints. Both sides keep
the programs that they compiled on the disk, so the first turn, which is printed apart,
compiles, and the others do not.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
TORCH_PYTHON = HERE.parent / ".venv-bench" / "bin" / "python"

VOCABULARY, SEQUENCES, LENGTH, HELD_OUT = 2048, 8, 256, 32
RATES, BETA2 = (0.001, 0.002, 0.004, 0.008), (0.9, 0.95, 0.98, 0.99)

EXPERIMENT = """
from scalejax import Data, Measure, Model, Optimizer, Run, Study, cosine, grid

base = Run(
    model=Model(
        width=64, depth=4, heads=2, kv_heads=2, head_size=32, mlp_width=176, vocabulary={vocabulary}
    ),
    data=Data(source="{folder}", tokenizer="ids:{vocabulary}", sequence_length={length}),
    optimizer=Optimizer(learning_rate=0.002, weight_decay=0.1, decay="standard"),
    schedule=cosine(warmup={warmup}, final=0.1),
    tokens={tokens},
    batch_tokens={batch},
)
study = Study(
    "sweep@1",
    grid(base, learning_rate={rates}, beta2={beta2}),
    measure=Measure(tokens={held_out}, items=0, suites=()),
)
"""


def write_tokens(folder: Path, steps: int) -> None:
    """Write train.bin and val.bin: tokens in which the next depends on the last.

    Each token is followed by one of eight, so that there is something to learn.
    """
    import numpy as np

    rng = np.random.default_rng(0)
    successors = rng.integers(0, VOCABULARY, (VOCABULARY, 8))
    for name, rows in {"train": steps * SEQUENCES, "val": 4 * HELD_OUT}.items():
        # Many chains at once; laid end to end, they are one long text.
        state = rng.integers(0, VOCABULARY, rows)
        text = np.empty((rows, LENGTH + 1), np.uint16)
        for position in range(LENGTH + 1):
            text[:, position] = state
            state = successors[state, rng.integers(0, 8, rows)]
        text.tofile(folder / f"{name}.bin")


def run_scalejax(folder: Path, steps: int) -> dict[str, float]:
    """Run the sweep with scalejax; return the held-out loss by name of the run."""
    batch = SEQUENCES * LENGTH
    (folder / "sweep.py").write_text(
        EXPERIMENT.format(
            folder=folder,
            vocabulary=VOCABULARY,
            length=LENGTH,
            warmup=batch * steps // 20,
            tokens=batch * steps,
            batch=batch,
            rates=list(RATES),
            beta2=list(BETA2),
            held_out=HELD_OUT * LENGTH,
        )
    )
    with tempfile.TemporaryDirectory() as out:
        command = [str(Path(sys.executable).with_name("scalejax")), "run"]
        command += [str(folder / "sweep.py"), "--out", out]
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        results = [json.loads(p.read_text()) for p in Path(out).glob("*/runs/*/result.json")]
    return {f"{i}": result["loss"] for i, result in enumerate(results)}


def run_torch(folder: Path, steps: int) -> dict[str, float]:
    """Run the sweep with two processes of the baseline, one for each core."""
    from scalejax.launch.allocator import settings

    environment = dict(os.environ, OMP_NUM_THREADS="1") | settings()
    command = [str(TORCH_PYTHON), __file__, "--folder", str(folder), "--steps", str(steps)]
    workers = [
        subprocess.Popen([*command, "--child", f"{i}"], env=environment, stdout=subprocess.PIPE)
        for i in range(2)
    ]
    lines = [line for worker in workers for line in worker.communicate()[0].splitlines()]
    if any(worker.returncode for worker in workers):
        sys.exit("a process of the baseline failed; its message is above")
    return dict(json.loads(line) for line in lines)


def train_share(folder: Path, steps: int, child: int) -> None:
    """Train every second run of the sweep in this process, with PyTorch."""
    import math

    import gpt_torch
    import numpy as np
    import torch

    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[child]})
    torch.set_num_threads(1)
    shape = gpt_torch.Shape(64, 4, 32, 176, VOCABULARY, SEQUENCES, LENGTH)
    train, held_out = (
        torch.from_numpy(np.fromfile(folder / f"{name}.bin", np.uint16).astype(np.int64))
        for name in ("train", "val")
    )
    batches = train.view(steps, SEQUENCES, LENGTH + 1)
    held_out = held_out.view(-1, SEQUENCES, LENGTH + 1)[: HELD_OUT // SEQUENCES]
    trainer = gpt_torch.Trainer(shape, learning_rate=0.002, beta2=0.98)
    for rate, beta2 in [(rate, beta2) for rate in RATES for beta2 in BETA2][child::2]:
        # The same compiled model for every run, with new weights and optimizer state.
        trainer.restart(learning_rate=rate, beta2=beta2)
        warmup = max(1, steps // 20)
        for step, rows in enumerate(batches):
            done = max(0.0, (step - warmup) / (steps - warmup))
            factor = min(1, (step + 1) / warmup) * (0.55 + 0.45 * math.cos(math.pi * done))
            trainer.set_rate(rate * factor)
            trainer.step(rows)
        with torch.no_grad():
            losses = [float(trainer.loss(rows[:, :-1], rows[:, 1:])) for rows in held_out]
        print(json.dumps([f"{rate}/{beta2}", statistics.mean(losses)]), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="A sweep against compiled PyTorch.")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child is not None:
        train_share(arguments.folder, arguments.steps, arguments.child)
        return
    if not TORCH_PYTHON.exists():
        sys.exit(f"{TORCH_PYTHON} does not exist; run `make .venv-bench/.ready` first")
    print("| turn | scalejax s | mean loss | PyTorch s | mean loss | ratio |")
    print("|---" * 6 + "|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_tokens(folder, arguments.steps)
        for turn in range(arguments.turns + 1):
            row, seconds = ["compiles" if turn == 0 else f"{turn}"], []
            for side in (run_scalejax, run_torch):
                start = time.perf_counter()
                losses = side(folder, arguments.steps)
                seconds.append(time.perf_counter() - start)
                if len(losses) != len(RATES) * len(BETA2):
                    sys.exit(f"{side.__name__} ended with {len(losses)} runs of 16")
                row += [f"{seconds[-1]:.1f}", f"{statistics.mean(losses.values()):.3f}"]
            print("| " + " | ".join([*row, f"{seconds[0] / seconds[1]:.2f}"]) + " |", flush=True)


if __name__ == "__main__":
    main()
