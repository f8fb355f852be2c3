"""A study whose workers are killed again and again, against an undisturbed one.

    python benchmarks/soak.py [RUNS]

Two workers share a study of RUNS runs (200 by default), of which pairs share a trunk.
Every 10 to 30 seconds one of the workers is killed with SIGKILL, and another starts.
Then the same study is trained without kills. Prints what was killed and whether the
results are the same to the last bit.
"""

import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PAUSE_SECONDS = (10.0, 30.0)
COMMAND = [sys.executable, "-m", "scalejax.cli"]

STUDY = '''"""Do the results survive kills?"""
from scalejax import Data, Measure, Model, Optimizer, Placement, Run, Study, cooldowns, grid
from scalejax.optim.schedules import constant

base = Run(
    model=Model.sized(width=16, depth=1, head_size=8, vocabulary=32),
    data=Data(source="synthetic:32", tokenizer="own", sequence_length=16),
    optimizer=Optimizer(learning_rate=0.01),
    schedule=constant(warmup=640),
    tokens=64_000,
    batch_tokens=64,
)
trunks = grid(base, seed=range({trunks}))
study = Study(
    "soak@1",
    cooldowns(trunks, at=[32_000, 64_000], fraction=0.2),
    measure=Measure(tokens=1024, items=0),
    placement=Placement(checkpoint_seconds=0.5),
)
'''


def main() -> None:
    """Train both studies and print the comparison."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    with tempfile.TemporaryDirectory() as scratch:
        experiment = Path(scratch) / "soak.py"
        experiment.write_text(STUDY.format(trunks=runs // 2))
        began = time.monotonic()
        kills, lost = disturbed(experiment, Path(scratch) / "killed")
        minutes = (time.monotonic() - began) / 60
        subprocess.run(
            [*COMMAND, "run", experiment, "--out", Path(scratch) / "calm"],
            check=True,
            capture_output=True,
        )
        killed, calm = (Path(scratch) / name / "soak@1" for name in ("killed", "calm"))
        ours, theirs = numbers(killed), numbers(calm)
        same = sum(ours.get(run) == row for run, row in theirs.items())
        print(f"workers killed              {kills} in {minutes:.1f} minutes")
        print(f"  while they held a claim   {lost}")
        print(f"runs with a result          {len(ours)} of {len(theirs)}")
        print(f"results with equal bits     {same} of {len(theirs)}")
        print(f"claims left                 {len(list(killed.glob('claims/*.json')))}")
    if not len(ours) == same == len(theirs):
        sys.exit("the study that was disturbed differs from the one that was not")


def disturbed(experiment: Path, out: Path) -> tuple[int, int]:
    """Train a study under kills; return how many, and how many of them in a segment."""
    moments, kills, lost = random.Random(0), 0, 0
    launcher = subprocess.Popen(
        [*COMMAND, "run", experiment, "--out", out, "--devices", "0"], stderr=subprocess.DEVNULL
    )
    folder = out / "soak@1"
    while not (folder / "jobs.json").exists():
        time.sleep(0.1)
    workers = [start_worker(folder), start_worker(folder)]
    try:
        while launcher.poll() is None:
            wait(launcher, moments.uniform(*PAUSE_SECONDS))
            victim = workers.pop(moments.randrange(2))
            if victim.poll() is None and launcher.poll() is None:
                victim.kill()
                kills, lost = kills + 1, lost + holds_claim(folder, victim.pid)
            victim.wait()
            workers.append(start_worker(folder))
    finally:
        for process in [launcher, *workers]:
            process.kill()
            process.wait()
    if launcher.returncode != 0:
        sys.exit(f"the launcher ended with exit code {launcher.returncode}")
    return kills, lost


def start_worker(folder: Path) -> "subprocess.Popen[bytes]":
    """Start one worker on the study."""
    return subprocess.Popen([*COMMAND, "work", folder], stderr=subprocess.DEVNULL)


def wait(process: "subprocess.Popen[bytes]", seconds: float) -> None:
    """Wait until a process has ended, but not for longer than `seconds`."""
    deadline = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)


def holds_claim(folder: Path, process: int) -> bool:
    """Whether a process that was just killed had a claim."""
    claims = [path.read_text() for path in folder.glob("claims/*.json")]
    return any(f'"process": {process},' in claim for claim in claims)


def numbers(folder: Path) -> dict[str, dict[str, object]]:
    """Every number of every result but times, and its curve, by the run's id."""
    rows = {}
    for path in folder.glob("runs/*/result.json"):
        if (path.parent / "DONE").exists():
            row = json.loads(path.read_text())
            floats = {name: row[name] for name in row if isinstance(row[name], float)}
            times = ("wall_seconds", "tokens_per_second", "mfu")
            lines = (path.parent / "metrics.jsonl").read_text().splitlines()
            curve = [{**json.loads(line), "seconds": None} for line in lines]
            rows[row["run"]] = {"curve": curve, **floats, **dict.fromkeys(times)}
    return rows


if __name__ == "__main__":
    main()
