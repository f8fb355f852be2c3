"""A segment: consecutive steps of a run, trained in one folder. A trunk is a segment that several runs share."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scalejax.config import Measure, Placement, Run
from scalejax.files import read_json, write_json
from scalejax.grids import as_dict, from_dict, run_id
from scalejax.optim.schedules import learning_rates


@dataclass(frozen=True, kw_only=True)
class Segment:
    """Steps start..stop of `run`; a final one ends with the run, is measured, and has the run's id."""

    run: Run
    """For a trunk: any of the runs that share it."""
    start: int
    """First step, counted from 0."""
    stop: int
    """One past the last step."""
    parent: str = ""
    """Folder of the trunk that ends at `start`, relative to the study's; empty for step 0."""
    final: bool = True
    """Whether the run ends here."""

    @property
    def identity(self) -> dict[str, Any]:
        """What the weights at `stop` depend on: the run; for a trunk the run without its end, and the rates of every step."""
        if self.final:
            return as_dict(self.run)
        shared = {
            name: value
            for name, value in as_dict(self.run).items()
            if name not in ("schedule", "tokens")
        }
        return shared | {
            "steps": self.stop,
            "rates": hashlib.sha256(learning_rates(self.run)[: self.stop].tobytes()).hexdigest(),
        }

    @property
    def id(self) -> str:
        """The run's id, or the first 16 hex digits of the sha256 of a trunk's identity."""
        if self.final:
            return run_id(self.run)
        return hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()[:16]

    def tokens(self, start: int, stop: int) -> int:
        """Tokens that steps start..stop of the run read."""
        return self.run.batch_schedule.tokens_after(stop) - self.run.batch_schedule.tokens_after(start)

    @property
    def folder(self) -> str:
        """Where it is trained, relative to the study's folder."""
        return f"{'runs' if self.final else 'trunks'}/{self.id}"


@dataclass(frozen=True, kw_only=True)
class Job:
    """A segment with everything a worker needs: what, where, and what to measure. Kept as the folder's config.json."""

    segment: Segment
    study: str
    """`name@version`."""
    measure: Measure
    placement: Placement

    def write(self, folder: Path) -> None:
        """Writes folder/config.json. Raises ValueError when the folder belongs to another run (a forced collision of ids)."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "config.json"
        if path.exists() and (there := read_json(path)["identity"]) != self.segment.identity:
            differing = sorted(
                k
                for k in there | self.segment.identity
                if there.get(k) != self.segment.identity.get(k)
            )
            raise ValueError(
                f"{folder} holds another run: {', '.join(differing)} differ; train this one in another folder"
            )
        segment = {**asdict(self.segment), "run": as_dict(self.segment.run)}
        parts = {"measure": as_dict(self.measure), "placement": as_dict(self.placement)}
        identity = self.segment.identity
        write_json(
            path,
            {
                "id": self.segment.id,
                "study": self.study,
                "identity": identity,
                "segment": segment,
                **parts,
            },
        )

    @classmethod
    def read(cls, folder: Path) -> "Job":
        """The job that `write` left. Raises ValueError naming the file when it is not sound."""
        value = read_json(folder / "config.json")
        segment = Segment(**{**value["segment"], "run": from_dict(Run, value["segment"]["run"])})
        measure, placement = (
            from_dict(Measure, value["measure"]),
            from_dict(Placement, value["placement"]),
        )
        return cls(segment=segment, study=value["study"], measure=measure, placement=placement)
