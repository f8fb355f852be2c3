"""Train several segments as one program, in one folder for each.

Every member of a population has the folder, the files and the checkpoints that it would
have if it were trained alone, so that it can also be continued alone, or in another
population. Only its last bits differ.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jax.typing import ArrayLike

from scalejax.model.flops import training_flops
from scalejax.training.loop import Preempted, Trainer, opened
from scalejax.training.loops.stacked_step import (
    make_population_step,
    population_mesh,
    stack_states,
    state_of,
)
from scalejax.training.loops.step_loop import StepLoop
from scalejax.training.resume import Progress
from scalejax.training.segment import Segment, TrainingJob
from scalejax.training.sharding import replicated
from scalejax.training.step import Metrics, Step, TrainState

# FLOPs of a training step that keep an accelerator busy: at 400 TFLOP/s, 2.5 ms, which
# is about the time to launch the step's kernels. Estimated, not measured.
BUSY_FLOPS = 1e12
# More runs than this are not chosen without being asked for.
MOST_MEMBERS = 8


class Task(NamedTuple):
    """A segment to train."""

    job: TrainingJob
    folder: Path
    parent: Path | None
    """Folder of its trunk."""


def program_key(job: TrainingJob) -> tuple[object, ...]:
    """Return what the segments of a population must have in common.

    They may differ in the numbers of the optimizer, in schedule and in seed. Segments
    of one key begin and end at the same steps.
    """
    segment, run = job.segment, job.segment.run
    return (
        (run.model, run.parametrization, run.compute_dtype, run.data),
        (run.optimizer.name, run.optimizer.decay, run.batch_tokens, run.batch_doublings),
        (segment.start, segment.stop, segment.final, job.measure, job.placement),
    )


def largest_population(job: TrainingJob) -> int:
    """Return with how many segments, itself included, one should be trained here.

    See `Placement.population`.
    """
    placement, run = job.placement, job.segment.run
    # Only one profile can be taken at a time.
    if placement.devices > 1 or job.measure.profile_steps or jax.process_count() > 1:
        return 1
    if placement.population:
        return placement.population
    # On CPU, separate runs are faster: their arrays fit the caches.
    if jax.default_backend() == "cpu":
        return 1
    flops = training_flops(run.model, run.data.sequence_length, run.batch_tokens)
    return int(min(max(BUSY_FLOPS // flops, 1), MOST_MEMBERS))


def train_population(
    tasks: Sequence[Task],
    *,
    report: Callable[[Segment, int, float], None] = lambda segment, step, loss: None,
    stopping: Callable[[], bool] = lambda: False,
) -> None:
    """Train segments of one `program_key` together; see `train_segment`.

    Members that are behind, because they were trained alone before or were killed
    between two saves, catch up first. A member that diverges ends, and the others go
    on.

    Raises ValueError as `train_segment` does, for the first member with which something
    is wrong, and when the segments cannot share a program. Raises Preempted when
    `stopping()` has returned True; all members are saved then.
    """
    _check(tasks)
    with contextlib.ExitStack() as stack:
        members: list[Trainer] = []
        for job, folder, parent in tasks:

            def report_member(step: int, loss: float, segment: Segment = job.segment) -> None:
                report(segment, step, loss)

            trainer = stack.enter_context(
                opened(job, folder, parent, report_member, population=len(tasks))
            )
            if trainer is not None:
                members.append(trainer)

        left = _conclude_complete(members, stopping)
        while left:
            # The members that are furthest behind train up to the next one.
            step = min(member.progress.step for member in left)
            group = [member for member in left if member.progress.step == step]
            ahead = [member.progress.step for member in left if member.progress.step > step]
            stop = min([*ahead, group[0].job.segment.stop])
            population = Population.of(group, stop)
            population.run_steps(stopping)
            if not population.is_complete:
                raise Preempted(
                    f"stopped at step {population.progress.step} of {stop}; the states are saved"
                )
            population.dissolve()
            left = _conclude_complete(left, stopping)


@dataclass(frozen=True)
class Population(StepLoop):
    """Segments that take their steps together.

    `job` is that of the first member, except that it ends where the population does;
    the states in `progress` are stacked. The states of the members are abstract
    meanwhile: shapes without values.
    """

    members: Sequence[Trainer]
    mesh: jax.sharding.Mesh
    """The mesh with the axis `run`."""

    @classmethod
    def of(cls, members: Sequence[Trainer], stop: int) -> "Population":
        """Return a population that trains members, all at one step, to `stop`."""
        mesh, first = population_mesh(len(members)), members[0]
        # The copies on the device are given up before the stacked states are put there.
        states = []
        for member in members:
            states.append(jax.device_get(member.progress.state))
            member.progress.state = _abstract(member.progress.state)
        progress = Progress(stack_states(states, mesh), step=first.progress.step)
        job = replace(first.job, segment=replace(first.job.segment, stop=stop))
        return cls(job, progress, members, mesh)

    def unstacked(self) -> Iterator[Trainer]:
        """Yield each member, with its own state as long as the caller uses it."""
        for index, member in enumerate(self.members):
            abstract = member.progress.state
            member.progress.state = state_of(self.progress.state, index)
            yield member
            member.progress.state = abstract

    def dissolve(self) -> None:
        """Give the members their own progress back, with the states on the host."""
        self._hand_out_progress()
        for index, member in enumerate(self.members):
            member.progress.state = jax.device_get(state_of(self.progress.state, index))

    def training_step(self) -> Step:
        """The compiled step of all members."""
        runs = [member.job.segment.run for member in self.members]
        placement, averages = self.job.placement, self.job.measure.averages
        return make_population_step(runs, self.mesh, placement, averages)

    def rates(self) -> np.ndarray:
        """The learning rates of every step up to the end, float32 [steps, r]."""
        # The runs of trunks that end at one step may go on to different ones.
        stop = self.job.segment.stop
        return np.stack([member.rates()[:stop] for member in self.members], axis=1)

    def read_batch(self, before: int, after: int) -> ArrayLike:
        """The rows of a step: [r, b, t+1], or [b, t+1] when all read the same."""
        first, *others = self.members
        if all(member.job.segment.run.seed == first.job.segment.run.seed for member in others):
            return first.read_batch(before, after)
        return np.stack([np.asarray(member.read_batch(before, after)) for member in self.members])

    def log_losses(self, rate: np.ndarray, metrics: Metrics) -> None:
        """Write and report a metrics row of every member."""
        self._hand_out_progress()
        values = jax.device_get(metrics)
        for index, member in enumerate(self.members):
            own = {name: value[index] for name, value in values.items()}
            member.log_losses(rate[index], own)
        self.progress.diverged = any(member.progress.diverged for member in self.members)

    def evaluate_loss(self) -> None:
        """Evaluate every member, one after the other."""
        self._hand_out_progress()
        for member in self.unstacked():
            member.evaluate_loss()

    @property
    def is_saving(self) -> bool:
        """Whether a save of any member is in flight."""
        return any(member.is_saving for member in self.members)

    def start_save(self) -> None:
        """Begin to save every member."""
        self._hand_out_progress()
        for member in self.unstacked():
            member.start_save()

    def finish_save(self, *, wait: bool) -> None:
        """Record the saves that have ended.

        When the weights of any member were not finite, the population ends.
        """
        for member in self.members:
            member.finish_save(wait=wait)
        self.progress.diverged |= any(member.progress.diverged for member in self.members)

    def _hand_out_progress(self) -> None:
        """Tell the members how far they have come, and their losses since they knew."""
        progress = self.progress
        losses = [np.asarray(values) for values in jax.device_get(progress.losses)]
        # A member's share of the time is what it would have taken alone at this speed,
        # on one of the devices: throughput and utilization are then those of a run.
        seconds = progress.seconds * self.mesh.size / len(self.members)
        for index, member in enumerate(self.members):
            member.progress.step = progress.step
            member.progress.seconds += seconds
            member.progress.losses += [float(values[index]) for values in losses]
        progress.losses, progress.seconds = [], 0.0


def _conclude_complete(members: Sequence[Trainer], stopping: Callable[[], bool]) -> list[Trainer]:
    """Conclude the members that need no training any more; return the others."""
    for member in members:
        if member.is_complete:
            member.progress.state = jax.device_put(member.progress.state, replicated(member.mesh))
            member.conclude(stopping)
    return [member for member in members if not member.is_complete]


def _check(tasks: Sequence[Task]) -> None:
    """Raise ValueError when tasks cannot be a population here."""
    if jax.process_count() > 1:
        raise ValueError(
            "a population is trained by one process; train its runs one by one, or start one "
            "process for each population"
        )
    if len({program_key(job) for job, _, _ in tasks}) > 1:
        raise ValueError(
            "the runs of a population may differ in seed, schedule and the numbers of the "
            "optimizer only; train the others by themselves"
        )


def _abstract(state: TrainState) -> TrainState:
    return jax.tree.map(lambda array: jax.ShapeDtypeStruct(array.shape, array.dtype), state)
