"""Where the time of a training step goes: per part of the model, matmuls and the rest.

    python benchmarks/step_profile.py [--shape width64]

The step of `scalejax run` is profiled on one pinned core, operator by operator. FLOPs
and bytes are read from the compiled program: those of its matmuls, and the arrays that
each operator reads and writes. They are set against the peak of this core, which a
matmul of 1024 x 1024 matrices in the same process shows, and against the time of the
whole step. The rows are the named scopes of the model.
"""

import argparse
import math
import os
import re
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

# Before jax starts its threads.
if __name__ == "__main__" and hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})

import jax
import jax.numpy as jnp
from train_speed import SHAPES, make_scalejax_step

STEPS = 20

SCOPES = ("embedding", "attention", "mlp", "norm", "loss", "update")


class Operator(NamedTuple):
    """What the program says of one instruction."""

    scope: str
    flops: float
    """Of its matmuls, in one execution."""
    bytes: float
    """Of the arrays that it reads and writes, in one execution."""


class Spent(NamedTuple):
    """Sums over the operators of a part, per step."""

    seconds: float = 0.0
    flops: float = 0.0
    bytes: float = 0.0


def operators(program: str) -> dict[str, Operator]:
    """Read the instructions of a compiled program, by name."""
    shapes: dict[str, list[tuple[int, ...]]] = {}
    lines: dict[str, str] = {}
    computations: dict[str, list[str]] = defaultdict(list)
    computation = ""
    for line in program.splitlines():
        if start := re.match(r"(?:ENTRY )?%?([\w.\-]+) \(.*\{$", line):
            computation = start.group(1)
        elif found := re.match(r"\s*(?:ROOT )?%?([\w.\-]+) = (\([^=]*?\)|\S+) ", line):
            name = found.group(1)
            dimensions = re.findall(r"\w+\[([\d,]*)\]", found.group(2))
            shapes[name] = [tuple(int(d) for d in dims.split(",") if d) for dims in dimensions]
            lines[name] = line
            computations[computation].append(name)

    def operands(name: str) -> list[str]:
        inside = re.search(r" [\w\-]+\((.*?)\)(?:,|$)", lines[name])
        return re.findall(r"%([\w.\-]+)", inside.group(1)) if inside else []

    def flops(name: str) -> float:
        line = lines[name]
        if called := re.search(r" fusion\(.*calls=%?([\w.\-]+)", line):
            return sum(flops(inner) for inner in computations[called.group(1)])
        if " dot(" not in line:
            return 0.0
        contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", line)
        left = shapes[operands(name)[0]][0]
        sums = [left[int(axis)] for axis in contracted.group(1).split(",")] if contracted else []
        return 2.0 * math.prod(shapes[name][0]) * math.prod(sums)

    def size(name: str) -> float:
        return sum(4.0 * math.prod(shape) for shape in shapes.get(name, []))

    def scope(name: str) -> str:
        path = re.search(r'op_name="([^"]*)"', lines[name])
        words = re.findall(r"\w+", path.group(1)) if path else []
        # A norm inside another scope counts as a norm: the innermost scope wins.
        return next((word for word in reversed(words) if word in SCOPES), "other")

    return {
        name: Operator(scope(name), flops(name), size(name) + sum(map(size, operands(name))))
        for name in lines
    }


def profile(shape: str) -> tuple[dict[tuple[str, str], Spent], float]:
    """Profile STEPS steps; return what each part spent, and the seconds of a step."""
    step, wait, program = make_scalejax_step(SHAPES[shape])
    known = operators(program())
    for _ in range(3):
        step()
    wait()
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(STEPS):
                step()
            wait()
        trace = next(Path(folder).rglob("*.xplane.pb"))
        planes = list(jax.profiler.ProfileData.from_file(str(trace)).planes)
        spent: dict[tuple[str, str], Spent] = defaultdict(Spent)
        for event in (e for plane in planes for line in plane.lines for e in line.events):
            name = dict(event.stats).get("hlo_op")
            # A loop's own event contains those of its body.
            if name not in known or str(name).startswith(("while", "call", "conditional")):
                continue
            if event.name != name:
                continue
            operator = known[str(name)]
            part = (operator.scope, "matmul" if operator.flops else "other")
            new = (event.duration_ns * 1e-9, operator.flops, operator.bytes)
            sums = zip(spent[part], new, strict=True)
            spent[part] = Spent(*(old + more / STEPS for old, more in sums))
    start = time.perf_counter()
    for _ in range(STEPS):
        step()
    wait()
    return dict(spent), (time.perf_counter() - start) / STEPS


def peak_flops() -> float:
    """Return the FLOP/s of a float32 matmul of 1024 x 1024 matrices: the best."""
    a = jax.random.normal(jax.random.key(0), (1024, 1024))
    multiply = jax.jit(jnp.dot)
    jax.block_until_ready(multiply(a, a))
    best = math.inf
    for _ in range(10):
        start = time.perf_counter()
        jax.block_until_ready(multiply(a, a))
        best = min(best, time.perf_counter() - start)
    return 2 * 1024**3 / best


def main() -> None:
    """Print one row for each part."""
    parser = argparse.ArgumentParser(description="Where the time of a step goes.")
    parser.add_argument("--shape", default="width64", choices=SHAPES)
    shape = parser.parse_args().shape
    peak = peak_flops()
    spent, seconds = profile(shape)
    traced = sum(part.seconds for part in spent.values())
    print(
        f"{shape}: {seconds * 1e3:.1f} ms a step, {traced * 1e3:.1f} ms in its operators;", end=""
    )
    print(f" peak of a matmul {peak / 1e9:.0f} GFLOP/s")
    print("| part | operators | ms | share | MFLOP | of the matmul peak | MB | GB/s |")
    print("|---" * 8 + "|")
    for (scope, kind), part in sorted(spent.items(), key=lambda item: -item[1].seconds):
        of_peak = f"{part.flops / part.seconds / peak:.2f}" if part.flops else ""
        cells = [scope, kind, f"{part.seconds * 1e3:.2f}", f"{part.seconds / traced:.2f}"]
        cells += [f"{part.flops / 1e6:,.0f}" if part.flops else "", of_peak]
        cells += [f"{part.bytes / 1e6:.1f}", f"{part.bytes / part.seconds / 1e9:.1f}"]
        print("| " + " | ".join(cells) + " |")
    matmuls = sum(part.flops for part in spent.values())
    print(f"All matmuls at the peak would take {matmuls / peak * 1e3:.1f} ms.")


if __name__ == "__main__":
    main()
