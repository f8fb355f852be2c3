"""A study whose workers are killed again and again, against an undisturbed one.

    python benchmarks/soak.py [RUNS [SHORTEST LONGEST]]

Two `scalejax work` processes share a study of RUNS tiny runs (200 by default, a
multiple of 8), of which four share a chain of trunks. After a random time of SHORTEST
to LONGEST seconds (10 to 30 by default), one of them, drawn at random, is killed with
SIGKILL, and another starts; and so on until the study is done. Then `scalejax run`
trains the same study without kills. Prints what was killed, and whether results,
curves and fits are the same to the last bit.
"""

import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

COMMAND = [sys.executable, "-m", "scalejax.cli"]

# Two sizes and four lengths.
RUNS_PER_SEED = 8

STUDY = '''"""Do the results survive kills?"""
from scalejax import Data, Measure, Model, Optimizer, Placement, Run, Study, cooldowns, grid, laws
from scalejax.optim.schedules import constant

sizes = [Model.sized(width=width, depth=1, head_size=8, vocabulary=32) for width in (8, 24)]
base = Run(
    model=sizes[0],
    data=Data(source="synthetic:32", tokenizer="own", sequence_length=16),
    optimizer=Optimizer(learning_rate=0.01),
    schedule=constant(warmup=640),
    tokens={tokens},
    batch_tokens=64,
)
study = Study(
    "soak@1",
    cooldowns(
        grid(base, model=sizes, seed=range({seeds})),
        at=[{tokens} // 8, {tokens} // 4, {tokens} // 2, {tokens}],
        fraction=0.2,
    ),
    laws=[laws.chinchilla()],
    measure=Measure(tokens=1024, items=0),
    bootstrap=50,
    placement=Placement(checkpoint_seconds=0.5),
)
'''


def main() -> None:
    """Train both studies and print the comparison."""
    # Killed from outside, this process must not leave its own behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    pauses = (float(sys.argv[2]), float(sys.argv[3])) if len(sys.argv) > 2 else (10.0, 30.0)
    with tempfile.TemporaryDirectory() as scratch:
        experiment = Path(scratch) / "soak.py"
        experiment.write_text(STUDY.format(seeds=runs // RUNS_PER_SEED, tokens=64_000))
        began = time.monotonic()
        kills, kills_in_training = train_with_kills(
            experiment, Path(scratch) / "killed", runs, pauses
        )
        minutes = (time.monotonic() - began) / 60
        subprocess.run(
            [*COMMAND, "run", experiment, "--out", Path(scratch) / "calm"],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        killed, calm = (Path(scratch) / name / "soak@1" for name in ("killed", "calm"))
        ours, theirs = results(killed), results(calm)
        same = sum(ours.get(run) == result for run, result in theirs.items())
        same_fits = fits(killed) == fits(calm)
        claims = len(list(killed.glob("claims/*.json")))
        orphans = processes_on(killed)
        print(f"workers killed              {kills} in {minutes:.1f} minutes")
        print(f"  while they held a claim   {kills_in_training}")
        print(f"runs with a result          {len(ours)} of {len(theirs)}")
        print(f"results with equal bits     {same} of {len(theirs)}")
        print(f"fits with equal bits        {'yes' if same_fits else 'NO'} ({len(fits(calm))})")
        print(f"claims left                 {claims}")
        print(f"processes left              {orphans}")
    if not len(ours) == same == len(theirs) == runs or not same_fits or claims or orphans:
        sys.exit("the study that was disturbed differs from the one that was not")


def train_with_kills(
    experiment: Path, out: Path, runs: int, pauses: tuple[float, float]
) -> tuple[int, int]:
    """Train a study under kills; return how many, and how many of them in a segment."""
    moments, kills, kills_in_training = random.Random(0), 0, 0
    launcher = subprocess.Popen(
        [*COMMAND, "run", experiment, "--out", out, "--devices", "0"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    folder = out / "soak@1"
    while not (folder / "jobs.json").exists():
        time.sleep(0.1)
    workers = [start_worker(folder), start_worker(folder)]
    try:
        while runs_left(folder, runs) and launcher.poll() is None:
            time.sleep(moments.uniform(*pauses))
            victim = workers.pop(moments.randrange(2))
            # A worker that found nothing left has ended by itself.
            if victim.poll() is None and runs_left(folder, runs):
                victim.kill()
                kills, kills_in_training = kills + 1, kills_in_training + has_claim(folder, victim)
            victim.wait()
            workers.append(start_worker(folder))
            left = runs_left(folder, runs)
            print(f"{runs - left} of {runs} runs done, {kills} kills", file=sys.stderr, flush=True)
        # The workers end when nothing is left, and the launcher when it has fitted.
        for process in [*workers, launcher]:
            process.wait()
    finally:
        for process in [launcher, *workers]:
            process.kill()
            process.wait()
    if launcher.returncode != 0:
        sys.exit(f"the launcher ended with exit code {launcher.returncode}")
    return kills, kills_in_training


def runs_left(folder: Path, runs: int) -> int:
    """The number of runs that are not done."""
    return runs - len(list(folder.glob("runs/*/DONE")))


def start_worker(folder: Path) -> "subprocess.Popen[bytes]":
    """Start one worker on the study."""
    return subprocess.Popen(
        [*COMMAND, "work", folder], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def has_claim(folder: Path, process: "subprocess.Popen[bytes]") -> bool:
    """Whether a process that was just killed had a claim."""
    claims = [path.read_text() for path in folder.glob("claims/*.json")]
    return any(f'"process": {process.pid},' in claim for claim in claims)


def results(folder: Path) -> dict[str, dict[str, Any]]:
    """Every number of every finished run but times, and its curve, by the run's id."""
    found = {}
    for path in folder.glob("runs/*/result.json"):
        if (path.parent / "DONE").exists():
            row = json.loads(path.read_text())
            times = ("wall_seconds", "tokens_per_second", "mfu")
            numbers = {name: row[name] for name in row if isinstance(row[name], (int, float))}
            lines = (path.parent / "metrics.jsonl").read_text().splitlines()
            curve = [{**json.loads(line), "seconds": None} for line in lines]
            found[row["run"]] = {**numbers, **dict.fromkeys(times), "curve": curve}
    return found


def fits(folder: Path) -> dict[str, dict[str, Any]]:
    """The fits of a study, without how long they took."""
    found = {path.name: json.loads(path.read_text()) for path in folder.glob("fits/*.json")}
    return {name: {**fit, "seconds": None, "sha256": None} for name, fit in found.items()}


def processes_on(folder: Path) -> int:
    """The number of processes that were started with the path of a study."""
    found = 0
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found += str(folder).encode() in path.read_bytes()
        except OSError:  # It has ended meanwhile.
            continue
    return found


if __name__ == "__main__":
    main()
