"""Ray as executor: every segment is a task that waits for the task of its trunk.

Ray decides what is trained where, and starts a task again when its machine is lost.
Only paths travel. Claims keep other engines away from the same segment.
"""

import importlib.util
import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scalejax.config import Placement
from scalejax.launch.attempt import failure, forget_failure, record_failure
from scalejax.launch.clusters import ray_task
from scalejax.launch.executor import Observer, observed_pool
from scalejax.launch.jobs import in_order
from scalejax.launch.pool import PoolResult
from scalejax.model.memory import device_bytes, state_bytes
from scalejax.training.result import is_finished
from scalejax.training.segment import TrainingJob

# How often Ray starts a task again. Preemptible machines are lost many times, but a
# segment that ends its process every time must not be tried for ever.
MAX_RETRIES = 20

# How long the tasks get to save their states when the user stops the study.
SAVE_SECONDS = 60.0

# Memory of a process beside the arrays: Python, jax and compiled programs.
PROCESS_BYTES = 2**30


@dataclass(frozen=True)
class Ray:
    """Tasks on a Ray cluster: that of RAY_ADDRESS, a running one, or a local one."""

    def check(self, placement: Placement) -> None:
        """Connect to the cluster. Raise ValueError when that cannot be done."""
        if importlib.util.find_spec("ray") is None:
            raise ValueError(
                "--executor ray needs the package ray, which is not installed here; install it "
                "on every machine of the cluster: pip install 'scalejax[ray]'"
            )
        import ray  # pyright: ignore[reportMissingImports]

        if ray.is_initialized():
            return
        try:
            # With neither RAY_ADDRESS nor a running cluster, this starts a local one.
            ray.init(log_to_driver=False, logging_level=logging.ERROR)
        except Exception as error:
            given = os.environ.get("RAY_ADDRESS")
            raise ValueError(
                f"--executor ray cannot connect to {f'RAY_ADDRESS={given}' if given else 'Ray'} "
                f"({error}); start a cluster with `ray start --head`, set RAY_ADDRESS to its "
                "HOST:PORT, or unset it to use this machine"
            ) from error

    def start(
        self,
        folder: Path,
        *,
        placement: Placement,
        lock: int,
        priority: Mapping[str, float],
        observer: Observer,
    ) -> "RayTasks":
        """Return the tasks of a study, which are made when there is work for them."""
        return RayTasks(folder.absolute(), lock, priority, observer)


class RayTasks:
    """The tasks of one study."""

    def __init__(self, folder: Path, lock: int, priority: Mapping[str, float], observer: Observer):
        """Make no task yet. The arguments are those of `Executor.start`."""
        self._folder, self._priority, self._say = folder, priority, observer.say
        self._refs: dict[str, Any] = {}
        """The result of every task that has not ended, by the segment's folder."""
        self._told: set[str] = set()
        # It has no workers of its own, and follows what the tasks write.
        self._pool = observed_pool(
            folder, [], lock=lock, priority=priority, observer=observer, watch=self._watch
        )

    def train(self, jobs: Iterable[TrainingJob]) -> PoolResult:
        """Train jobs as tasks of Ray; see `Pool.train`.

        When a signal arrives, the tasks save their states and end.
        """
        import ray  # pyright: ignore[reportMissingImports]

        task = ray.remote(ray_task.train)
        jobs, kinds = in_order(jobs, self._priority), ray.cluster_resources()
        for job in jobs:
            segment, folder = job.segment, self._folder / job.segment.folder
            if is_finished(job, folder):
                continue
            job.write(folder)
            forget_failure(folder)
            needs = resources(job, kinds)
            self._tell_when_too_large(needs)
            # A trunk has a higher priority than its branches, so that its task exists
            # by now, or it is done.
            trunk = self._refs.get(segment.needs, "")
            options = task.options(
                name=f"scalejax {segment.folder}",
                max_retries=MAX_RETRIES,
                retry_exceptions=[ray_task.Stopped],
                **needs,
            )
            self._refs[segment.folder] = options.remote(str(folder), trunk)
        result = self._pool.train(jobs, retry=False)
        if result.preempted:
            self._stop()
        return result

    def close(self) -> None:
        """Leave the cluster; a local one ends."""
        import ray  # pyright: ignore[reportMissingImports]

        self._pool.close()
        ray.shutdown()

    def _tell_when_too_large(self, needs: Mapping[str, Any]) -> None:
        """Say once when no machine of the cluster has what a task needs."""
        import ray  # pyright: ignore[reportMissingImports]

        amounts = as_amounts(needs)
        text = ", ".join(f"{name} {amount:g}" for name, amount in amounts.items())
        machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if text not in self._told and not any(
            all(machine.get(name, 0) >= amount for name, amount in amounts.items())
            for machine in machines
        ):
            self._say(f"no machine of the Ray cluster has {text}; waiting until one joins")
        self._told.add(text)

    def _watch(self) -> str:
        """Record the errors of tasks that have ended; return "" while there are tasks.

        A task can end without a word in the files, for example when its process was
        killed too often, or when its machine does not see the study's folder.
        """
        import ray  # pyright: ignore[reportMissingImports]

        # One look later than the last task, because a network drive may be slow.
        if not self._refs:
            return (
                f"every Ray task has ended, but {self._folder} does not show what they trained; "
                "every machine of the cluster must see this folder under this path"
            )
        refs = list(self._refs.values())
        ended = set(ray.wait(refs, num_returns=len(refs), timeout=0)[0])
        for folder, ref in list(self._refs.items()):
            if ref not in ended:
                continue
            del self._refs[folder]
            try:
                error = ray.get(ref)
            except ray.exceptions.RayError as lost:
                error = f"its Ray task failed: {str(lost).strip().splitlines()[-1]}"
            if error and failure(self._folder / folder) is None:
                record_failure(self._folder / folder, error)
        return ""

    def _stop(self) -> None:
        """Ask all tasks to save and end, and wait for them."""
        import ray  # pyright: ignore[reportMissingImports]

        refs = list(self._refs.values())
        for ref in refs:
            ray.cancel(ref)
        if refs:
            ray.wait(refs, num_returns=len(refs), timeout=SAVE_SECONDS)


def resources(job: TrainingJob, cluster: Mapping[str, float]) -> dict[str, Any]:
    """Return what the task of a job needs, as options of `ray.remote`.

    cluster: the resources of all machines together, from `ray.cluster_resources`. A
    task takes GPUs or TPU chips where there are any.
    """
    run, placement, averages = job.segment.run, job.placement, len(job.measure.averages)
    devices = placement.devices
    # A checkpoint is written from a copy of the state in the memory of the host.
    memory = PROCESS_BYTES + state_bytes(run, averages)
    if cluster.get("GPU"):
        return {"num_cpus": 1, "num_gpus": devices, "memory": memory}
    if cluster.get("TPU"):
        return {"num_cpus": 1, "resources": {"TPU": devices}, "memory": memory}
    memory += devices * device_bytes(run, placement, averages)
    return {"num_cpus": devices, "memory": memory}


def as_amounts(options: Mapping[str, Any]) -> dict[str, float]:
    """Return options of `ray.remote` by the names that machines have for them.

    >>> as_amounts({"num_cpus": 1, "resources": {"TPU": 4}, "memory": 1e9})
    {'CPU': 1, 'memory': 1000000000.0, 'TPU': 4}
    """
    names = {"num_cpus": "CPU", "num_gpus": "GPU", "memory": "memory"}
    amounts = {names[key]: value for key, value in options.items() if key in names}
    return amounts | options.get("resources", {})
