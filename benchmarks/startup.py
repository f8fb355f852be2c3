"""How long a user waits before anything happens.

    python benchmarks/startup.py [--turns 5]

Wall seconds of whole processes, with programs that an earlier process compiled and
stored, and, where a row says so, without them:

- `scalejax --help`; the baseline is an empty Python program;
- the first training step of a model of four layers, counted from the end of `import
  jax, flax.nnx, optax`; the baseline is these imports themselves;
- `scalejax fit` of 240 rows with 4,000 bootstraps; the baseline is `import jax,
  pandas`.

Goals: 0.4 s for the help, 2.0 s to the first step, 1.5 s for the fit, and 3 s for the
fit where nothing is stored.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SCALEJAX = str(Path(sys.executable).with_name("scalejax"))

FIRST_STEP = """
import time
import jax, flax.nnx, optax
start = time.perf_counter()
import numpy as np
from scalejax import Data, Model, Optimizer, Placement, Run
from scalejax.optim.schedules import constant
from scalejax.training.sharding import make_mesh
from scalejax.training.step import init_state, make_train_step
run = Run(
    model=Model.sized(width=64, depth=4, head_size=32, vocabulary=2048),
    data=Data(sequence_length=256), optimizer=Optimizer(learning_rate=0.002),
    schedule=constant(warmup=0), tokens=2048, batch_tokens=2048,
)
mesh = make_mesh(Placement())
state, step = init_state(run, mesh), make_train_step(run, mesh)
jax.block_until_ready(step(state, np.zeros((8, 257), np.int32), np.float32(0.002)))
print(time.perf_counter() - start)
"""


def wall_seconds(command: list[str], cache: Path) -> float:
    """Return the wall seconds of a command, or what the command itself measured."""
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XDG_CACHE_HOME": str(cache),
        "JAX_COMPILATION_CACHE_DIR": str(cache / "scalejax" / "jax"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.01",
    }
    start = time.perf_counter()
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    seconds = time.perf_counter() - start
    return float(done.stdout) if command[-1] == FIRST_STEP else seconds


def write_table(path: Path) -> None:
    """Write 240 rows on Chinchilla's law with 0.7% noise."""
    import numpy as np

    rng = np.random.default_rng(0)
    params, tokens = 10 ** rng.uniform(7, 10, 240), 10 ** rng.uniform(9, 11.5, 240)
    law = 1.82 + 482 / params**0.348 + 2085 / tokens**0.366
    loss = law * np.exp(0.007 * rng.standard_normal(240))
    rows = "\n".join(
        f"{n:.6g},{d:.6g},{y:.6f}" for n, d, y in zip(params, tokens, loss, strict=True)
    )
    path.write_text("params,tokens,loss\n" + rows + "\n")


def main() -> None:
    """Print one row for each wait."""
    parser = argparse.ArgumentParser(description="Start-up times.")
    parser.add_argument("--turns", type=int, default=5)
    turns = parser.parse_args().turns
    print("| what | nothing stored, s | stored, s | baseline, s | ratio |")
    print("|---" * 5 + "|")
    with tempfile.TemporaryDirectory() as name:
        table = Path(name) / "points.csv"
        write_table(table)
        fit = [SCALEJAX, "fit", str(table), "--law", "chinchilla", "--bootstrap", "4000"]
        python = [sys.executable, "-c"]
        waits = {
            "`scalejax --help`": ([SCALEJAX, "--help"], [*python, ""]),
            "first step": ([*python, FIRST_STEP], [*python, "import jax, flax.nnx, optax"]),
            "fit, 240 rows, 4,000 bootstraps": (fit, [*python, "import jax, pandas"]),
        }
        for number, (what, (command, baseline)) in enumerate(waits.items()):
            cache = Path(name) / f"cache{number}"
            cache.mkdir()
            first = wall_seconds(command, cache)
            pairs = [
                (wall_seconds(command, cache), wall_seconds(baseline, cache)) for _ in range(turns)
            ]
            ours, theirs = (statistics.median(side) for side in zip(*pairs, strict=True))
            ratios = [a / b for a, b in pairs]
            row = [what, f"{first:.2f}", f"{ours:.2f}", f"{theirs:.2f}"]
            row.append(f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
            print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
