"""Helpers of tests that train one run with several processes of this machine."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scalejax.training.distributed import ADDRESS, PROCESS, PROCESSES

COMMAND = [sys.executable, "-m", "scalejax.launch.hosts"]


def start_processes(
    folder: Path, count: int, *, devices_each: int = 1
) -> list[subprocess.Popen[str]]:
    """Start processes that train the segment in `folder` together, over gloo."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    flag = f"--xla_force_host_platform_device_count={devices_each}"
    shared = {ADDRESS: address, PROCESSES: str(count), "XLA_FLAGS": flag}
    shared["JAX_CPU_COLLECTIVES_IMPLEMENTATION"] = "gloo"
    return [
        subprocess.Popen(
            [*COMMAND, str(folder)],
            env=os.environ | shared | {PROCESS: str(number)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for number in range(count)
    ]


def finish(processes: list[subprocess.Popen[str]], timeout: float = 300) -> list[str]:
    """Wait for the processes; return what each printed."""
    outputs = []
    try:
        outputs = [process.communicate(timeout=timeout)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return outputs


def wait_for_a_checkpoint(folder: Path, processes: list[subprocess.Popen[str]]) -> None:
    """Return when a run has its first checkpoint; fail when a process ends before."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        status = folder / "status.json"
        if status.exists() and json.loads(status.read_text())["saved"]:
            return
        assert all(process.poll() is None for process in processes), finish(processes)
        time.sleep(0.1)
    pytest.fail("no checkpoint in time")
