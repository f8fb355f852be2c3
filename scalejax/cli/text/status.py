"""What `status` prints."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from scalejax.fitting.charts.chart import compact_number

if TYPE_CHECKING:
    from scalejax.study.status import RunStatus, StudyStatus

# What a person who watches wants to see first.
URGENCY = ("running", "failed", "stopped", "diverged", "waiting-for-trunk", "waiting", "done")
# Settings that are counted, and so are written with a unit.
COUNTED = ("params", "tokens", "batch_tokens", "warmup")
# What fills the columns of a run that has no such number.
NOTHING = "-"


def status_text(status: "StudyStatus", *, urgent_first: bool = False) -> str:
    """Return the state of a study: totals, shared settings, and a line per run."""
    runs = list(status["runs"].items())
    if urgent_first:
        runs.sort(key=lambda item: URGENCY.index(item[1]["state"]))
    lines = [totals_text(status)]
    if status["shared"]:
        lines.append(f"all runs: {settings_text(status['shared'])}")
    head = ["run", *(_words(name) for name in runs[0][1]["settings"])]
    head += ["state", "step", "loss", "tokens/s", "left"]
    rows = [head, *([name, *_cells(run)] for name, run in runs)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines += [
        "  "
        + "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    lines += [f"failed: {name}: {run['error']}" for name, run in runs if run["error"]]
    lines += [
        f"{owner} holds the claim of {name}, but has shown no sign of life"
        for name, owner in status["silent"].items()
    ]
    return "\n".join(lines)


def totals_text(status: "StudyStatus") -> str:
    """Return one line: how many runs are in each state, and how much work is left."""
    ordered = [state for state in reversed(URGENCY) if state in status["totals"]]
    totals = ", ".join(f"{status['totals'][state]} {_words(state)}" for state in ordered)
    left = status["seconds_left"]
    rest = "" if left is None else f", about {duration(left)} left"
    # Not rounded up: 100% must mean that nothing is left.
    percent = int(100 * status["flops_done"])
    return f"{status['study']} in {status['folder']}: {totals}; {percent}% of the FLOPs{rest}"


def changes_text(before: "StudyStatus", after: "StudyStatus") -> str:
    """Return a line for each run whose state has changed, and the totals.

    Empty when no state has changed.
    """
    changed = [
        f"{name} ({settings_text(run['settings'])}): {state_text(run)}"
        + ("" if run["loss"] is None else f", loss {run['loss']:.4f}")
        for name, run in after["runs"].items()
        if run["state"] != before["runs"][name]["state"]
    ]
    return "\n".join([*changed, totals_text(after)]) if changed else ""


def state_text(run: "RunStatus") -> str:
    """Return the state of a run in words.

    >>> state_text({"state": "running", "worker": "node1:4711"})
    'running on node1:4711'
    """
    return f"running on {run['worker']}" if run["state"] == "running" else _words(run["state"])


def settings_text(settings: Mapping[str, Any]) -> str:
    """Return settings in words.

    >>> settings_text({"params": 8400, "learning_rate": 0.01, "seed": 0})
    '8.4k params, learning rate 0.01, seed 0'
    """
    return ", ".join(
        f"{_value(name, value)} {_words(name)}"
        if name in ("params", "tokens")
        else f"{_words(name)} {_value(name, value)}"
        for name, value in settings.items()
    )


def duration(seconds: float) -> str:
    """Return a time in the two largest units that matter.

    >>> duration(5), duration(63), duration(7_300)
    ('5 s', '1 min 03 s', '2 h 01 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60:02d} min"


def _cells(run: "RunStatus") -> Sequence[str]:
    speed, left = run["tokens_per_second"], run["seconds_left"]
    return [
        *(_value(name, value) for name, value in run["settings"].items()),
        state_text(run),
        f"{run['step']}/{run['steps']}",
        NOTHING if run["loss"] is None else f"{run['loss']:.4f}",
        NOTHING if speed is None else f"{speed:,.0f}",
        NOTHING if left is None else duration(left),
    ]


def _value(name: str, value: Any) -> str:
    if name in COUNTED:
        return compact_number(value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _words(name: str) -> str:
    """Return the name of a setting or a state in words; `shape` is the schedule's.

    >>> _words("learning_rate"), _words("waiting-for-trunk"), _words("shape")
    ('learning rate', 'waiting for its trunk', 'schedule')
    """
    special = {"waiting-for-trunk": "waiting for its trunk", "shape": "schedule"}
    return special.get(name, name.replace("_", " "))
