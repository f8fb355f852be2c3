"""How fast batches are read: scalejax.data.batches.Batches over a memory-mapped shard, against two ways to read without it.

    python benchmarks/batches.py

`table` slices the memory map row by row in the order of a precomputed permutation, which costs 8 bytes per window and epoch;
it must give the very same batches before anything is timed. `contiguous` reads rows of the same size one after the other, the
most that memory and the cast to int32 allow. `Batches` computes the permutation instead of storing it, a thousand rows at once.
Time is the CPU time of this process, held to one core, in turns of all three over a shard in the page cache; a ratio is the
median over turns, in tokens/s, and above 1 is faster. Good: at 512 x 1024 at least 0.8 of the table; at 4 x 128
30 M tokens/s, below a hundredth of the time of the smallest model's step.
"""

import os
import tempfile
import time
from pathlib import Path

import numpy as np

from scalejax.data.batches import Batches
from scalejax.data.packing import TokenArray

TOKENS, VOCABULARY, SEED = 2**26, 50_304, 0
SHAPES = ((4, 128), (512, 1024))  # sequences x tokens: the quickstart's batch, and a large run's
TURNS, CPU_SECONDS = 11, 0.15  # CPU_SECONDS of batches in every turn


def readers(tokens: np.ndarray, sequences: int, length: int):
    """{name: function of the step -> int32 [sequences, length + 1]}; Batches first."""
    batches = Batches(TokenArray(tokens), sequence_length=length, sequences=sequences, seed=SEED)
    # Windows of one token that hold their own number: the permutation of the epoch, as a table.
    numbers = TokenArray(np.arange(batches.windows + 1))
    table = Batches(numbers, sequence_length=1, sequences=1, seed=SEED).rows(0, batches.windows)[
        :, 0
    ]
    flat = np.asarray(tokens)  # slices of a memmap object cost microseconds more

    def from_table(step):
        rows = np.empty((sequences, length + 1), np.int32)
        for row, window in zip(
            rows, table[step * sequences : (step + 1) * sequences].tolist(), strict=True
        ):
            row[:] = flat[window * length : (window + 1) * length + 1]
        return rows

    def contiguous(step):
        size = sequences * (length + 1)
        return flat[step * size : (step + 1) * size].reshape(sequences, length + 1).astype(np.int32)

    return {"Batches": batches.batch_at, "table": from_table, "contiguous": contiguous}


def compare(tokens: np.ndarray, sequences: int, length: int) -> np.ndarray:
    """CPU seconds per batch [turns, readers]."""
    reads = readers(tokens, sequences, length)
    steps = len(tokens) // (sequences * (length + 1))
    for step in np.random.default_rng(0).integers(0, steps, 20).tolist():
        ours, theirs, other = (read(step) for read in reads.values())
        assert ours.dtype == theirs.dtype == other.dtype and np.array_equal(ours, theirs), (
            f"step {step}: not the same batch"
        )
    count = max(4, round(CPU_SECONDS / _seconds(reads["table"], range(4))))
    times = np.empty((TURNS, len(reads)))
    for turn in range(TURNS):
        taken = [(turn * count + i) % steps for i in range(count)]
        for i, read in list(enumerate(reads.values()))[:: 1 if turn % 2 else -1]:
            times[turn, i] = _seconds(read, taken)
    return times


def _seconds(read, steps) -> float:
    start = time.process_time()
    for step in steps:
        read(step)
    return (time.process_time() - start) / len(steps)


def main():
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    print(
        f"{'M tokens/s':>14} {'Batches':>9} {'table':>9} {'contiguous':>11}   {'Batches, us per batch':>22}"
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "train.bin")
        np.random.default_rng(SEED).integers(0, VOCABULARY, TOKENS).astype(np.uint16).tofile(path)
        tokens = np.memmap(path, np.uint16, "r")
        ratios = []
        for sequences, length in SHAPES:
            times = compare(tokens, sequences, length)
            speed = sequences * length / times.min(0) / 1e6
            to_table, to_contiguous = np.median(times[:, 1:] / times[:, :1], 0)
            ratios.append(f"{to_table:.2f} and {to_contiguous:.2f} at {sequences} x {length}")
            shape = f"{sequences} x {length}"
            print(
                f"{shape:>14} {speed[0]:9.1f} {speed[1]:9.1f} {speed[2]:11.1f}   {times[:, 0].min() * 1e6:22.0f}"
            )
    print("tokens/s, Batches / table and Batches / contiguous: " + ", ".join(ratios))


if __name__ == "__main__":
    main()
