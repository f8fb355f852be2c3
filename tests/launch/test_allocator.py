"""Workers keep freed memory (mirrors scalejax/launch/allocator.py)."""

import os
import platform
import subprocess
import sys

import pytest

from scalejax.launch import allocator

# Frees and allocates 64 MiB fifty times, as the steps of a run do, and counts the pages
# that the kernel had to map.
SCRIPT = """
import resource
import numpy as np
from scalejax.training.result import allocator

np.ones(2**23)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(50):
    np.ones(2**23)
print(allocator(), resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""

# The package is a dependency on these machines.
HAS_PACKAGE = sys.platform == "linux" and platform.machine() in ("x86_64", "aarch64")


def run_script(settings: dict[str, str]) -> tuple[str, int]:
    """The name of the allocator, and the number of page faults."""
    environment = {key: value for key, value in os.environ.items() if key != "LD_PRELOAD"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env=environment | settings,
        capture_output=True,
        text=True,
        check=True,
    )
    name, faults = done.stdout.split()
    return name, int(faults)


@pytest.mark.skipif(not HAS_PACKAGE, reason="mimalloc has no wheel for this machine")
def test_a_worker_maps_its_memory_once():
    settings = allocator.settings()
    assert settings["LD_PRELOAD"] == str(allocator.find_library())
    name, faults = run_script(settings)
    default_name, default_faults = run_script({})
    assert (name, default_name) == ("mimalloc", "system")
    assert faults < default_faults / 20


def test_without_the_package_glibc_is_told_to_keep_memory(monkeypatch):
    monkeypatch.setattr(allocator, "PACKAGE", "a-package-that-is-not-installed")
    allocator.find_library.cache_clear()
    assert "MALLOC_TRIM_THRESHOLD_" in allocator.settings()
    allocator.find_library.cache_clear()
