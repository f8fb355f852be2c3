"""What must hold on a GPU, checked on one, in a few minutes.

    make gpu
    python benchmarks/gpu.py --platform cpu     # the same code, tiny sizes, on a CPU

Each check prints a line of the table: what was measured, the limit, and whether it
holds. The exit code is 1 when a check fails and 2 when there is no GPU.

Losses are compared under the matmul precision `highest`: by default XLA rounds the
factors of float32 products on a GPU to TF32, which has 10 bits.
"""

import argparse
import dataclasses
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

# Several processes share the GPU: none may take all of its memory.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import numpy as np

# Largest relative difference of losses from those of a CPU, and of a population from
# those of separate runs.
LOSS_TOLERANCE = 1e-4
# Largest error of bfloat16 attention relative to the largest value: a few of its
# rounding errors of 2^-9.
ATTENTION_TOLERANCE = 2e-2


class Row(NamedTuple):
    """One line of the table."""

    check: str
    figure: str
    limit: str
    holds: bool


class Sizes(NamedTuple):
    """How large the checks are."""

    speed_model: dict
    speed_batch: tuple[int, int]
    """Sequences, and their length."""
    speed_steps: int
    population_model: dict
    population_steps: int
    attention: tuple[int, int, int, int, int]
    """Sequences, positions, query heads, kv heads, head size."""


FULL = Sizes(
    # 152M parameters.
    speed_model=dict(width=768, depth=16, head_size=64, vocabulary=50_304, tied=True),
    speed_batch=(16, 1024),
    speed_steps=20,
    population_model=dict(width=128, depth=4, head_size=32, vocabulary=2_048),
    population_steps=200,
    attention=(4, 1024, 12, 4, 64),
)
TINY = Sizes(
    speed_model=dict(width=32, depth=2, head_size=16, vocabulary=128, tied=True),
    speed_batch=(4, 64),
    speed_steps=3,
    population_model=dict(width=16, depth=1, head_size=8, vocabulary=64),
    population_steps=5,
    attention=(2, 128, 4, 2, 16),
)

TINY_MODEL = dict(width=64, depth=2, head_size=16, vocabulary=256)


def make_run(model: dict, sequences: int, length: int, **changes):
    """Return a run of one batch size, whose rows are random token ids."""
    from scalejax import Data, Model, Optimizer, Run
    from scalejax.optim.schedules import constant

    run = Run(
        model=Model.sized(**model),
        data=Data(
            source=f"synthetic:{model['vocabulary']}", tokenizer="own", sequence_length=length
        ),
        optimizer=Optimizer(learning_rate=0.003, weight_decay=0.1),
        schedule=constant(warmup=0),
        tokens=sequences * length,
        batch_tokens=sequences * length,
    )
    return run.replace(**changes)


def rows_of(run, step: int) -> np.ndarray:
    """Return random rows [b, t+1], the same on every machine."""
    shape = (run.batch_sequences, run.data.sequence_length + 1)
    rows = np.random.default_rng((run.seed, step)).integers(0, run.model.vocabulary, shape)
    return rows.astype(np.int32)


def take_steps(run, steps: int):
    """Train a run alone; return its state, losses, and seconds after the first step."""
    import jax

    from scalejax import Placement
    from scalejax.training.sharding import make_mesh
    from scalejax.training.step import init_state, make_train_step

    mesh = make_mesh(Placement())
    state, step = init_state(run, mesh), make_train_step(run, mesh)
    rate, losses, start = np.float32(run.optimizer.learning_rate), [], 0.0
    for number in range(steps):
        state, metrics = step(state, rows_of(run, number), rate)
        losses.append(metrics["loss"])
        if number == 0:
            # The first step compiles.
            jax.block_until_ready(state)
            start = time.perf_counter()
    jax.block_until_ready(state)
    return state, np.array(jax.device_get(losses)), time.perf_counter() - start


def difference(one: np.ndarray, other: np.ndarray) -> float:
    """Return the largest relative difference."""
    return float(np.max(np.abs(one - other) / np.abs(other)))


# ---- The checks ----------------------------------------------------------------


def check_losses(platform: str, sizes: Sizes) -> Iterator[Row]:
    """Compare losses of a tiny model with a CPU, and carry a checkpoint there."""
    import jax

    from scalejax.training import checkpoint

    run, steps = make_run(TINY_MODEL, 8, 64), 20
    with tempfile.TemporaryDirectory() as name, jax.default_matmul_precision("highest"):
        folder = Path(name)
        state, losses, _ = take_steps(run, steps)
        checkpoint.save(folder / "checkpoints", steps, state, checkpoint.Origin("gpu", "none"), {})
        environment = os.environ | {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}
        on_cpu = run_child("carry", str(folder), environment=environment)
    error = difference(losses, np.array(on_cpu["losses"]))
    yield Row(
        f"loss of {steps} float32 steps against a CPU",
        f"{error:.1e} (loss {losses[0]:.3f} to {losses[-1]:.3f})",
        f"{LOSS_TOLERANCE:g}",
        error <= LOSS_TOLERANCE,
    )
    equal = on_cpu["digest"] == digest(state)
    arrays = len(jax.tree.leaves(state))
    yield Row(
        "checkpoint restored on a CPU",
        f"{arrays} arrays {'equal' if equal else 'differ'}",
        "bit-equal",
        equal,
    )


def carry(folder: Path) -> dict:
    """In a child on a CPU: train the tiny run, and restore the GPU's checkpoint."""
    from scalejax import Placement
    from scalejax.training import checkpoint
    from scalejax.training.sharding import make_mesh
    from scalejax.training.step import init_state

    run = make_run(TINY_MODEL, 8, 64)
    _, losses, _ = take_steps(run, 20)
    like = checkpoint.abstract(init_state(run, make_mesh(Placement())))
    restored = checkpoint.restore(folder / "checkpoints", like, "gpu")
    assert restored is not None
    return {"losses": losses.tolist(), "digest": digest(restored.state)}


def digest(state) -> str:
    """Return a hash of all bits of a state."""
    import jax

    total = hashlib.sha256()
    for path, array in jax.tree.leaves_with_path(jax.device_get(state)):
        total.update(jax.tree_util.keystr(path).encode() + np.ascontiguousarray(array).tobytes())
    return total.hexdigest()


def check_attention(platform: str, sizes: Sizes) -> Iterator[Row]:
    """Compare fused attention in bfloat16 with the blocks in float32."""
    import jax
    import jax.numpy as jnp

    from scalejax.model.attention import causal_attention
    from scalejax.model.fused_attention import attend, kernel_for

    b, t, n, g, h = sizes.attention
    keys = jax.random.split(jax.random.key(0), 4)
    shapes = ((b, t, n, h), (b, t, g, h), (b, t, g, h), (b, t, n, h))
    q, k, v, dy = (
        jax.random.normal(key, shape, jnp.bfloat16) for key, shape in zip(keys, shapes, strict=True)
    )
    # Three segments of different lengths, as in packed documents.
    segments = np.repeat(np.searchsorted([t // 5, t // 2], np.arange(t), "right")[None], b, axis=0)
    kernel = kernel_for(platform, q)
    for name, ids in (("causal", None), ("with segments", jnp.asarray(segments))):

        def fused(q, k, v, ids=ids):
            return attend(q, k, v, scale=h**-0.5, segments_bt=ids, platform=platform)

        def reference(q, k, v, ids=ids):
            return causal_attention(q, k, v, scale=h**-0.5, segments_bt=ids)

        values, gradients = values_and_gradients(fused, q, k, v, dy)
        floats = [array.astype(jnp.float32) for array in (q, k, v, dy)]
        with jax.default_matmul_precision("highest"):
            expected, expected_gradients = values_and_gradients(reference, *floats)
        errors = [
            float(np.max(np.abs(a - e)) / np.max(np.abs(e)))
            for a, e in zip([values, *gradients], [expected, *expected_gradients], strict=True)
        ]
        yield Row(
            f"attention by {kernel}, bfloat16, {name}",
            f"values {errors[0]:.1e}, gradients {max(errors[1:]):.1e}",
            f"{ATTENTION_TOLERANCE:g}" + (", cudnn" if platform == "gpu" else ""),
            max(errors) <= ATTENTION_TOLERANCE and (platform == "cpu" or kernel == "cudnn"),
        )


def values_and_gradients(function: Callable, q, k, v, dy) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return function(q, k, v) and its gradients under the cotangent dy, in float32."""
    import jax

    values, pullback = jax.jit(lambda *arrays: jax.vjp(function, *arrays))(q, k, v)
    as_numpy = lambda array: np.asarray(array.astype("float32"))  # noqa: E731
    return as_numpy(values), [as_numpy(array) for array in jax.jit(pullback)(dy)]


def check_speed(platform: str, sizes: Sizes) -> Iterator[Row]:
    """Measure tokens per second and MFU of a model of 152M parameters in bfloat16."""
    import jax

    from scalejax.model.flops import PEAK_FLOPS, mfu
    from scalejax.model.transformer import counts

    sequences, length = sizes.speed_batch
    run = make_run(sizes.speed_model, sequences, length, compute_dtype="bfloat16")
    _, losses, seconds = take_steps(run, sizes.speed_steps + 1)
    speed = run.batch_tokens * sizes.speed_steps / seconds
    kind = jax.devices()[0].device_kind
    utilization = "no published peak of this device"
    if peak := PEAK_FLOPS.get(kind):
        utilization = f"MFU {mfu(run.model, length, speed, peak_flops=peak):.1%}"
    yield Row(
        f"{counts(run.model).params / 1e6:.3g}M parameters, bfloat16, {sequences} x {length}",
        f"{speed:,.0f} tokens/s, {utilization}",
        "finite losses",
        bool(np.all(np.isfinite(losses))),
    )


def check_population(platform: str, sizes: Sizes) -> Iterator[Row]:
    """Train eight runs together and one after the other."""
    import jax

    from scalejax import Placement
    from scalejax.training.loops.stacked_step import (
        make_population_step,
        population_mesh,
        stack_states,
    )
    from scalejax.training.sharding import make_mesh
    from scalejax.training.step import init_state

    base = make_run(sizes.population_model, 4, 128)
    runs = [
        base.replace(
            seed=seed,
            optimizer=dataclasses.replace(base.optimizer, learning_rate=0.001 * (1 + seed)),
        )
        for seed in range(8)
    ]
    steps = sizes.population_steps
    with jax.default_matmul_precision("highest"):
        alone = [take_steps(run, steps) for run in runs]
        mesh, one = population_mesh(len(runs)), make_mesh(Placement())
        states = stack_states([init_state(run, one) for run in runs], mesh)
        step = make_population_step(runs, mesh)
        rates = np.array([run.optimizer.learning_rate for run in runs], np.float32)
        losses, start = [], 0.0
        for number in range(steps):
            rows = np.stack([rows_of(run, number) for run in runs])
            states, metrics = step(states, rows, rates)
            losses.append(metrics["loss"])
            if number == 0:
                jax.block_until_ready(states)
                start = time.perf_counter()
        jax.block_until_ready(states)
        together = time.perf_counter() - start
    separate = sum(seconds for _, _, seconds in alone)
    # Rounding grows with the steps; the first ones show whether training is the same.
    compared = min(steps, 20)
    expected = np.stack([losses for _, losses, _ in alone], axis=1)[:compared]
    error = difference(np.stack(jax.device_get(losses))[:compared], expected)
    yield Row(
        f"a population of {len(runs)}, {compared} steps, against separate runs",
        f"{error:.1e}; {steps} steps in {together:.2f} s, separately {separate:.2f} s "
        f"({separate / together:.2f}x)",
        f"{LOSS_TOLERANCE:g}",
        error <= LOSS_TOLERANCE,
    )


def check_seats(platform: str, sizes: Sizes) -> Iterator[Row]:
    """Start one process per device, as workers are, and see that each has its own."""
    from scalejax import Placement
    from scalejax.launch.seats import worker_seats

    seats = worker_seats(None, Placement())
    start = [
        start_child("seat", str(seat.core), environment=os.environ | dict(seat.environment))
        for seat in seats
    ]
    reports = [finish_child(process) for process in start]
    losses = {report["loss"] for report in reports}
    alone = all(report["devices"] == 1 for report in reports)
    places = {report["place"] for report in reports}
    yield Row(
        f"one process on each of {len(seats)} devices",
        f"{len(places)} devices used, {len(losses)} different losses",
        f"{len(seats)} devices, one loss",
        alone and len(places) == len(seats) and len(losses) == 1,
    )


def seat(core: str) -> dict:
    """In a child with a seat: train the tiny run on the device that it sees."""
    from scalejax.launch.seats import pin, usable_cores

    pin(int(core))
    import jax

    _, losses, _ = take_steps(make_run(TINY_MODEL, 8, 64), 5)
    place = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, usable_cores()))
    return {"devices": len(jax.devices()), "place": place, "loss": float(losses[-1])}


# ---- Processes -----------------------------------------------------------------


def start_child(task: str, argument: str, *, environment: dict) -> subprocess.Popen[str]:
    command = [sys.executable, __file__, "--child", task, argument]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def finish_child(process: subprocess.Popen[str]) -> dict:
    output, _ = process.communicate(timeout=300)
    if process.returncode:
        raise RuntimeError(f"a process ended with exit code {process.returncode}; see above")
    return json.loads(output.splitlines()[-1])


def run_child(task: str, argument: str, *, environment: dict) -> dict:
    return finish_child(start_child(task, argument, environment=environment))


CHECKS = (check_losses, check_attention, check_speed, check_population, check_seats)


def main() -> None:
    parser = argparse.ArgumentParser(description="Checks on a GPU.")
    parser.add_argument("--platform", choices=["gpu", "cpu"], default="gpu")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        task, argument = arguments.child
        print(json.dumps(carry(Path(argument)) if task == "carry" else seat(argument)))
        return
    sys.exit(run_checks(arguments.platform))


def run_checks(platform: str) -> int:
    """Print the table, and return the exit code."""
    if platform == "cpu":
        os.environ["JAX_PLATFORMS"] = "cpu"
    import jax

    start = time.perf_counter()
    if jax.default_backend() != platform:
        print(
            f"no GPU: JAX sees {jax.devices()[0].platform} only; run this on a machine with an "
            "NVIDIA GPU and its driver, or with --platform cpu",
            file=sys.stderr,
        )
        return 2
    sizes = FULL if platform == "gpu" else TINY
    print(f"{len(jax.devices())} x {jax.devices()[0].device_kind}, jax {jax.__version__}")
    print("| check | figure | limit | holds |\n|---|---|---|---|")
    all_hold = True
    for check in CHECKS:
        for row in completed(check, platform, sizes):
            holds = "yes" if row.holds else "NO"
            print(f"| {row.check} | {row.figure} | {row.limit} | {holds} |", flush=True)
            all_hold &= row.holds
    print(f"{time.perf_counter() - start:.0f} s")
    return 0 if all_hold else 1


def completed(check: Callable, platform: str, sizes: Sizes) -> Iterator[Row]:
    """Yield the rows of a check; an error becomes a row that does not hold."""
    try:
        yield from check(platform, sizes)
    # The other checks are worth their figures, whatever goes wrong in this one.
    except Exception as error:
        traceback.print_exc()
        yield Row(check.__name__, f"{type(error).__name__}: see above", "no error", False)


if __name__ == "__main__":
    main()
