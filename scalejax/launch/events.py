"""What a worker reports to its launcher, as lines of JSON on standard output."""

import json
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Event:
    """One report about the segment that a worker trains."""

    kind: Literal["step", "done", "failed", "preempted", "claimed", "died"]
    """`step`: a row of metrics was written. `done`: the segment is finished. `failed`:
    it raised an exception. `preempted`: the worker was asked to stop and saved its
    state. `claimed`: another process trains the segment, or has just finished it.
    `died`: the process ended without a report; only the launcher creates this event."""
    step: int = 0
    """Number of steps trained so far, for `step`."""
    loss: float = float("nan")
    """Training loss in nats per token, for `step`."""
    error: str = ""
    """What went wrong, for `failed` and `died`."""
    others: list[str] = field(default_factory=list)
    """Folders, relative to the study's, of segments that were trained in one population
    with it and are finished too, for `done`."""

    def to_line(self) -> str:
        """The event as one line of JSON."""
        return json.dumps(vars(self))

    @classmethod
    def from_line(cls, line: str) -> "Event":
        """The event that `to_line` wrote.

        >>> Event.from_line(Event(kind="step", step=20, loss=4.25).to_line()).loss
        4.25
        """
        return cls(**json.loads(line))
