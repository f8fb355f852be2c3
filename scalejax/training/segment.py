"""Segments: consecutive steps of a run that are trained in one folder.

Runs that share their first steps share a trunk: a segment that is trained once, and
from whose end each of these runs continues with a segment of its own.
"""

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from scalejax.config import Measure, Placement, Run
from scalejax.files import read_json, write_json, wrong_field
from scalejax.grids import as_dict, from_dict, run_id
from scalejax.optim.schedules import learning_rates

# How the id of a run looks. Any other text in `Run.start` is a path.
RUN_ID = re.compile(r"[0-9a-f]{16}")

# A trunk of the same study, whose checkpoints the segment begins with, or nothing.
PARENT = re.compile(rf"(trunks/{RUN_ID.pattern})?")

# The types of the fields of a job, and of a segment, in JSON.
JOB_FIELDS = {"study": str, "segment": dict, "measure": dict, "placement": dict}
SEGMENT_FIELDS = {"run": dict, "start": int, "stop": int, "parent": str, "final": bool}


@dataclass(frozen=True, kw_only=True)
class Segment:
    """The steps from `start` up to, not including, `stop` of a run.

    A final segment ends with the run: it is evaluated, and its id is the run's. Any
    other segment is a trunk.
    """

    run: Run
    """For a trunk, any of the runs that share it."""
    start: int
    """First step, counted from 0."""
    stop: int
    """One past the last step."""
    parent: str = ""
    """Folder of the trunk that ends at `start`, relative to the study's, or empty."""
    final: bool = True
    """Whether the run ends here."""

    def check(self) -> None:
        """Raise ValueError for steps or a parent that no plan has."""
        if not 0 <= self.start <= self.stop <= self.run.steps:
            raise ValueError(
                f"steps {self.start} to {self.stop} of a run of {self.run.steps} steps"
            )
        if not PARENT.fullmatch(self.parent):
            raise ValueError(f"its trunk is {self.parent!r}; expected trunks/ID or nothing")

    @property
    def needs(self) -> str:
        """Folder of the segment that must be finished before this one, or empty.

        That is its trunk, or the run of the study from whose weights it begins.
        """
        from_run = not self.parent and RUN_ID.fullmatch(self.run.start)
        return f"runs/{self.run.start}" if from_run else self.parent

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that the weights at `stop` depend on, as JSON values.

        For a final segment, this is the run's configuration. Runs that share a trunk
        differ in schedule and tokens but not in the learning rates of the trunk's
        steps: these rates replace both in a trunk's identity.
        """
        if self.final:
            return as_dict(self.run)
        shared = {
            name: value
            for name, value in as_dict(self.run).items()
            if name not in ("schedule", "tokens")
        }
        # Hashed, because there may be millions of them.
        rates = learning_rates(self.run)[: self.stop]
        return shared | {
            "steps": self.stop,
            "rates": hashlib.sha256(rates.tobytes()).hexdigest(),
        }

    @cached_property
    def id(self) -> str:
        """The run's id; for a trunk, 16 hex digits of the sha256 of its identity."""
        if self.final:
            return run_id(self.run)
        return hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()[:16]

    @cached_property
    def folder(self) -> str:
        """Where the segment is trained, relative to the study's folder."""
        return f"{'runs' if self.final else 'trunks'}/{self.id}"

    def tokens(self, start: int, stop: int) -> int:
        """Tokens that the run reads in the steps from `start` up to `stop`."""
        return self.run.batch_schedule.tokens_after(stop) - self.run.batch_schedule.tokens_after(
            start
        )


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """A segment and everything else that a worker needs to train it: config.json."""

    segment: Segment
    study: str
    """`name@version`; empty outside a study."""
    measure: Measure
    placement: Placement

    def check(self, folder: Path) -> None:
        """Raise ValueError when the folder belongs to another run."""
        path, identity = folder / "config.json", self.segment.identity
        if not path.exists():
            return
        # The folder's name is a hash. Comparing the identities themselves makes sure
        # that a collision, or a folder named by the user, never mixes two runs.
        other = read_json(path).get("identity")
        if not isinstance(other, dict):
            raise ValueError(f"{path} is damaged: it has no identity; delete it and run again")
        differing = sorted(
            name for name in other | identity if other.get(name) != identity.get(name)
        )
        if differing:
            raise ValueError(
                f"{folder} holds another run: {', '.join(differing)} differ; train this one "
                "in another folder, or delete that one to train it anew"
            )

    def write(self, folder: Path) -> None:
        """Write folder/config.json.

        Raises ValueError when the folder belongs to another run.
        """
        self.check(folder)
        folder.mkdir(parents=True, exist_ok=True)
        content = {"id": self.segment.id, "identity": self.segment.identity, **self.record()}
        write_json(folder / "config.json", content)

    def record(self) -> dict[str, Any]:
        """The job as JSON values, from which `from_record` makes it again."""
        return {
            "study": self.study,
            "segment": {**asdict(self.segment), "run": as_dict(self.segment.run)},
            "measure": as_dict(self.measure),
            "placement": as_dict(self.placement),
        }

    @classmethod
    def from_record(cls, content: dict[str, Any], source: Path) -> "TrainingJob":
        """The job of a record, checked as when a user writes its configuration.

        source: the file with the record, for messages. Raises ValueError when the
        record is damaged.
        """
        try:
            wrong = wrong_field(content, JOB_FIELDS)
            if wrong := wrong or wrong_field(content["segment"], SEGMENT_FIELDS):
                raise ValueError(f"its field {wrong} is missing or has the wrong type")
            segment = {**content["segment"], "run": from_dict(Run, content["segment"]["run"])}
            job = cls(
                segment=Segment(**segment),
                study=content["study"],
                measure=from_dict(Measure, content["measure"]),
                placement=from_dict(Placement, content["placement"]),
            )
            job.segment.check()
        except (ValueError, TypeError, AttributeError, OverflowError) as error:
            raise ValueError(
                f"{source} holds no training job ({error}); restore it, or delete it and run again"
            ) from error
        return job

    @classmethod
    def read(cls, folder: Path) -> "TrainingJob":
        """Read folder/config.json.

        Raises ValueError, naming the file, when it is damaged.
        """
        path = folder / "config.json"
        return cls.from_record(read_json(path), path)
