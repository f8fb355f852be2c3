"""Ray as executor: every segment is a task that waits for the task of its trunk.

Ray decides what is trained where, and starts a task again when its machine is lost.
Only paths travel; claims keep other engines away from the same segment.
"""

import importlib.util
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scalejax.config import Placement
from scalejax.launch.attempt import failure, forget_failure, record_failure
from scalejax.launch.clusters import ray_task
from scalejax.launch.executor import Observer
from scalejax.launch.jobs import in_order
from scalejax.launch.pool import Pool, PoolResult
from scalejax.training.result import is_finished
from scalejax.training.segment import TrainingJob

# How often Ray starts a task again. Preemptible machines are lost many times, but a
# segment that needs more memory than a machine has must not be tried for ever.
MAX_RETRIES = 20

# How long the tasks get to save their states when the user stops the study.
SAVE_SECONDS = 60.0


@dataclass(frozen=True)
class Ray:
    """Tasks on a Ray cluster: the one of RAY_ADDRESS, a running one, or a local one."""

    def check(self, placement: Placement) -> None:
        """Raise ValueError when Ray is not installed."""
        if importlib.util.find_spec("ray") is None:
            raise ValueError(
                "--executor ray needs the package ray, which is not installed here; install it "
                "on every machine of the cluster: pip install 'scalejax[ray]'"
            )

    def start(
        self,
        folder: Path,
        *,
        placement: Placement,
        lock: int,
        priority: Mapping[str, float],
        observer: Observer,
    ) -> "RayTasks":
        """Connect to the cluster."""
        import ray  # pyright: ignore[reportMissingImports]

        # Without RAY_ADDRESS and a running cluster, this starts one on this machine.
        ray.init(log_to_driver=False)
        tasks = RayTasks(folder.absolute(), lock, priority, observer)
        on_cpu = os.environ.get("JAX_PLATFORMS", "").startswith("cpu")
        tasks.resources = resources(placement, {} if on_cpu else ray.cluster_resources())
        return tasks


class RayTasks:
    """The tasks of one study."""

    resources: dict[str, Any]
    """What a task needs, as options of `ray.remote`."""

    def __init__(self, folder: Path, lock: int, priority: Mapping[str, float], observer: Observer):
        """Make no task yet; `train` does. The arguments are those of `Pool`."""
        self._folder, self._priority = folder, priority
        self._refs: dict[str, Any] = {}
        """The result of every task that has not ended, by the segment's folder."""
        # It has no workers and follows what the tasks write.
        self._pool = Pool(
            folder,
            seats=[],
            lock=lock,
            priority=priority,
            on_step=observer.step,
            on_done=observer.done,
            watch=self._watch,
        )

    def train(self, jobs: Iterable[TrainingJob]) -> PoolResult:
        """Train jobs as tasks of Ray; see `Pool.train`.

        When a signal arrives, the tasks save their states and end.
        """
        import ray  # pyright: ignore[reportMissingImports]

        task = ray.remote(ray_task.train).options(
            max_retries=MAX_RETRIES, retry_exceptions=[ray_task.Stopped], **self.resources
        )
        jobs = in_order(jobs, self._priority)
        for job in jobs:
            segment, folder = job.segment, self._folder / job.segment.folder
            if is_finished(job, folder):
                continue
            job.write(folder)
            forget_failure(folder)
            # A trunk has a higher priority than its branches, so its task exists.
            trunk = self._refs.get(segment.parent, "")
            self._refs[segment.folder] = task.options(name=f"scalejax {segment.id}").remote(
                str(folder), trunk
            )
        result = self._pool.train(jobs, retry=False)
        if result.preempted:
            self._stop()
        return result

    def close(self) -> None:
        """Leave the cluster; a local one ends."""
        import ray  # pyright: ignore[reportMissingImports]

        self._pool.close()
        ray.shutdown()

    def _watch(self) -> str:
        """Record failures of tasks that have ended; return "" while there were any.

        A task can end without a word in the files, for example when it was killed
        MAX_RETRIES times, or does not see the study's folder.
        """
        import ray  # pyright: ignore[reportMissingImports]

        # One look later than the last task, because a network drive may be slow.
        if not self._refs:
            return (
                f"every Ray task has ended, but {self._folder} does not show what they trained; "
                "every machine of the cluster must see this folder under this path"
            )
        ended, _ = ray.wait(list(self._refs.values()), num_returns=len(self._refs), timeout=0)
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
        ray.wait(refs, num_returns=len(refs), timeout=SAVE_SECONDS)


def resources(placement: Placement, cluster: Mapping[str, float]) -> dict[str, Any]:
    """Return what a task needs, as options of `ray.remote`.

    cluster: the resources of all machines together, from `ray.cluster_resources`.

    >>> resources(Placement(fsdp=4), {"CPU": 64.0, "GPU": 8.0})
    {'num_cpus': 1, 'num_gpus': 4}
    >>> resources(Placement(), {"CPU": 64.0})
    {'num_cpus': 1}
    """
    size = placement.data * placement.fsdp * placement.tensor
    if cluster.get("GPU"):
        return {"num_cpus": 1, "num_gpus": size}
    if cluster.get("TPU"):
        return {"num_cpus": 1, "resources": {"TPU": size}}
    return {"num_cpus": size}
