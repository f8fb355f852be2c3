"""How long training waits for a checkpoint, per gigabyte of state.

    python benchmarks/checkpoint_saves.py

Prints the CPU seconds (of all threads) and the wall seconds of a save that training
waits for, of the part that it waits for when the save is in the background, and of all
of the latter. CPU seconds also mean something on a machine that is busy.
"""

import tempfile
import time
from pathlib import Path

import jax
import orbax.checkpoint  # noqa: F401  # Takes seconds, which belong to no save.

from scalejax.training import checkpoint

ORIGIN = checkpoint.Origin(segment="a" * 16, data_hash="d" * 16)
SHAPE = (64, 1024, 1024)


def main() -> None:
    """Save a quarter of a gigabyte twice in each way; print the second time."""
    state = {"weights": jax.random.normal(jax.random.key(0), SHAPE)}
    gigabytes = state["weights"].nbytes / 1e9
    waited = blocked = everything = ""
    with tempfile.TemporaryDirectory() as scratch, checkpoint.Saver() as saver:
        folder = Path(scratch)
        for step in range(2):
            began = clocks()
            checkpoint.save(folder / "waiting", step, state, ORIGIN, {})
            waited = since(began, gigabytes)

            began = clocks()
            saver.start(folder / "background", step, state, ORIGIN, {})
            blocked = since(began, gigabytes)
            saver.completed(wait_for_it=True)
            everything = since(began, gigabytes)
    print(f"save while training waits: {waited}")
    print(f"save in the background:    {blocked} until training goes on, {everything} in all")


def clocks() -> tuple[float, float]:
    """Return the CPU seconds of this process, and the time."""
    return time.process_time(), time.monotonic()


def since(began: tuple[float, float], gigabytes: float) -> str:
    """Return the seconds per gigabyte since `began` as text."""
    cpu, wall = (now - then for now, then in zip(clocks(), began, strict=True))
    return f"{cpu / gigabytes:.1f} CPU s/GB ({wall / gigabytes:.1f} s of wall time)"


if __name__ == "__main__":
    main()
