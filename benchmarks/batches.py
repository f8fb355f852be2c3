"""How fast batches are read from a memory-mapped shard, against two simpler readers.

    python benchmarks/batches.py

- `Batches` is scalejax.data.batches.Batches. It computes the permutation of the
  windows instead of storing it, a thousand rows at once.
- `table` slices the memory map row by row in the order of a stored permutation, which
  costs 8 bytes per window and epoch. It must give the same batches before anything is
  timed.
- `contiguous` reads rows of the same size one after the other: the most that memory and
  the cast to int32 allow.

Time is the CPU time of this process, pinned to one core, with the shard in the page
cache. The three readers take turns; a ratio is the median over turns, in tokens per
second, and above 1 `Batches` is faster.

Goals: at 512 x 1024 at least 0.8 of the speed of the table; at 4 x 128 at least 30 M
tokens per second, which is below a hundredth of the time of the smallest model's step.
"""

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from scalejax.data.batches import Batches
from scalejax.data.packing import TokenArray

TOKENS, VOCABULARY, SEED = 2**26, 50_304, 0

# Sequences x tokens: the batch of the quickstart, and that of a large run.
SHAPES = ((4, 128), (512, 1024))

# Every turn reads batches for this long.
TURNS, CPU_SECONDS = 11, 0.15

# Maps a step to a batch, int32 [sequences, length + 1].
Reader = Callable[[int], np.ndarray]


def make_readers(tokens: np.ndarray, sequences: int, length: int) -> dict[str, Reader]:
    """Return the three readers by name, `Batches` first."""
    batches = Batches(TokenArray(tokens), sequence_length=length, sequences=sequences, seed=SEED)
    # Windows of one token that hold their own number show the permutation of the epoch.
    numbers = Batches(
        TokenArray(np.arange(batches.windows + 1)), sequence_length=1, sequences=1, seed=SEED
    )
    table = numbers.rows(0, batches.windows)[:, 0]
    # Slices of a memmap object take microseconds longer than those of a plain array.
    flat = np.asarray(tokens)

    def from_table(step: int) -> np.ndarray:
        rows = np.empty((sequences, length + 1), np.int32)
        windows = table[step * sequences : (step + 1) * sequences].tolist()
        for row, window in zip(rows, windows, strict=True):
            row[:] = flat[window * length : (window + 1) * length + 1]
        return rows

    def contiguous(step: int) -> np.ndarray:
        size = sequences * (length + 1)
        return flat[step * size : (step + 1) * size].reshape(sequences, length + 1).astype(np.int32)

    return {"Batches": batches.batch_at, "table": from_table, "contiguous": contiguous}


def compare(tokens: np.ndarray, sequences: int, length: int) -> np.ndarray:
    """Return CPU seconds per batch, [turns, readers]."""
    readers = make_readers(tokens, sequences, length)
    steps = len(tokens) // (sequences * (length + 1))
    for step in np.random.default_rng(0).integers(0, steps, 20).tolist():
        ours, from_table, contiguous = (read(step) for read in readers.values())
        assert ours.dtype == from_table.dtype == contiguous.dtype
        assert np.array_equal(ours, from_table), f"step {step}: not the same batch"
    count = max(4, round(CPU_SECONDS / seconds_per_batch(readers["table"], range(4))))
    times = np.empty((TURNS, len(readers)))
    for turn in range(TURNS):
        steps_of_turn = [(turn * count + i) % steps for i in range(count)]
        # The order alternates, so that a drift of the machine's speed cancels.
        for i, read in list(enumerate(readers.values()))[:: 1 if turn % 2 else -1]:
            times[turn, i] = seconds_per_batch(read, steps_of_turn)
    return times


def seconds_per_batch(read: Reader, steps: Sequence[int]) -> float:
    start = time.process_time()
    for step in steps:
        read(step)
    return (time.process_time() - start) / len(steps)


def main():
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    columns = f"{'Batches':>9} {'table':>9} {'contiguous':>11}   {'Batches, us per batch':>22}"
    print(f"{'M tokens/s':>14} {columns}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "train.bin")
        np.random.default_rng(SEED).integers(0, VOCABULARY, TOKENS).astype(np.uint16).tofile(path)
        tokens = np.memmap(path, np.uint16, "r")
        ratios = []
        for sequences, length in SHAPES:
            times = compare(tokens, sequences, length)
            ours, table, contiguous = sequences * length / times.min(0) / 1e6
            to_table, to_contiguous = np.median(times[:, 1:] / times[:, :1], 0)
            shape = f"{sequences} x {length}"
            ratios.append(f"{to_table:.2f} and {to_contiguous:.2f} at {shape}")
            microseconds = times[:, 0].min() * 1e6
            print(f"{shape:>14} {ours:9.1f} {table:9.1f} {contiguous:11.1f}   {microseconds:22.0f}")
    print("tokens/s, Batches / table and Batches / contiguous: " + ", ".join(ratios))


if __name__ == "__main__":
    main()
