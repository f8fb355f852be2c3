"""Environment and fixtures for all tests: shared caches, one tiny run."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
CACHE = ROOT / ".pytest_cache" / "scalejax"

# These variables must be set before jax is imported. Eight virtual devices serve the
# mesh tests, and the compilation cache is shared by all workers and later sessions.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = (
    f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8".strip()
)
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(CACHE / "programs")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"
os.environ["SCALEJAX_CACHE"] = str(CACHE / "data")

# configs/ and experiments/ are not installed. Tests import them from the checkout.
sys.path.insert(0, str(ROOT))

# XLA's bits depend on the thread count, so each pytest-xdist worker is pinned to one
# core.
if (worker := os.environ.get("PYTEST_XDIST_WORKER", "")).startswith("gw") and hasattr(
    os, "sched_setaffinity"
):
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[int(worker[2:]) % len(cores)]})

from tests import typechecking

# This must come before the first import of a module that is to be checked.
typechecking.install()

import jax
import pytest
from hypothesis import HealthCheck, settings

from scalejax import cli
from scalejax.config import Data, Measure, Model, Optimizer, Run
from scalejax.optim.schedules import wsd

# Hypothesis measures wall-clock time, which says nothing about the code on a busy
# machine.
settings.register_profile("scalejax", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("scalejax")


# Rooms whose tests compile whole training steps, which takes most of their time.
MODEL_ROOMS = {"data", "evaluation", "model", "optim", "training"}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item):
    """Compile the tiny models of MODEL_ROOMS without LLVM's optimizations.

    That takes half the time, and the few steps of a test do not win it back. Other
    rooms, slow tests, and the processes that tests start compile as the product does.
    """
    room = item.path.relative_to(ROOT).parts[1]
    quick = room in MODEL_ROOMS and item.get_closest_marker("slow") is None
    if jax.config.read("jax_disable_most_optimizations") != quick:
        jax.config.update("jax_disable_most_optimizations", quick)
        # Programs of the two kinds differ in the last bits, which some tests compare.
        jax.clear_caches()
    return (yield)


@pytest.fixture(scope="session")
def tiny_run() -> Run:
    """A run of 60 steps and 8 k parameters on synthetic text; it trains in seconds."""
    return Run(
        model=Model.sized(width=16, depth=1, head_size=8, vocabulary=32),
        data=Data(source="synthetic:32", tokenizer="own", sequence_length=16),
        optimizer=Optimizer(learning_rate=0.01),
        schedule=wsd(warmup=640, cooldown=0.25),
        tokens=60 * 64,
        batch_tokens=64,
    )


@pytest.fixture(scope="session")
def tiny_measure() -> Measure:
    """Evaluations that are small enough for tests, without the continuation task."""
    return Measure(every=1280, tokens=1024, items=0)


@pytest.fixture
def call(monkeypatch, capsys):
    """Run the command line in this process and return (exit code, stdout, stderr)."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["scalejax", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_info:
            cli.main()
        out, err = capsys.readouterr()
        return exit_info.value.code, out, err

    return run
