"""Compares two checkouts bit for bit: run ids, trained losses, fits and forecasts.

A refactor must not change any of them. Both checkouts are driven through the command
line, with this interpreter, so one virtual environment serves both. Seconds, dates and
code versions are left out of the comparison. Published tables are read where
SCALEJAX_REFERENCE names them.
    python benchmarks/same_bits.py BEFORE AFTER [--train]

--train also trains the smoke study in both (about a minute each).
"""

import contextlib
import hashlib
import json
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

REFERENCE = Path(os.environ.get("SCALEJAX_REFERENCE", "../shared/reference"))

# Values that differ between two runs of the same code.
VOLATILE = {
    "seconds",
    "wall_seconds",
    "tokens_per_second",
    "allocator",
    "started",
    "finished",
    "code",
    # Of a fit with its seconds.
    "sha256",
}

# name -> table and options of `scalejax fit`.
FITS = {
    "chinchilla": """
        epoch_chinchilla/chinchilla_fig4.csv --law chinchilla --bootstrap 500
        --where "used_by_besiroglu == 1" """,
    "chinchilla, absolute errors": """
        epoch_chinchilla/chinchilla_fig4.csv --law chinchilla --loss lad
        --where "used_by_besiroglu == 1" """,
    "overtraining": """
        gadre2024/models.csv --law overtraining --loss mse
        --columns params=N,tokens=D,loss=loss_c4_val
        --where "train_set == 'c4' and in_loss_fit == 1" """,
    "downstream": """
        gadre2024/models.csv --law downstream --loss mse --bootstrap 100
        --columns loss=loss_c4_val,top1_error=err_avg46
        --where "train_set == 'c4' and in_err_fit == 1" """,
    "annealing": """
        lr_schedules/mpl_loss_curves.csv --law annealing --bootstrap 20
        --schedules lr_schedules/schedules_per_step.parquet --columns curve=schedule
        --where "model == '25M' and schedule in ('cosine_24000', 'wsdcon_9')" """,
    "multipower": """
        lr_schedules/mpl_loss_curves.csv --law multipower
        --schedules lr_schedules/schedules_per_step.parquet --columns curve=schedule
        --where "model == '25M' and schedule in ('cosine_24000', 'wsdcon_9')" """,
    "isoflop": """
        porian2024/isoflop_points.csv --law isoflop --protocol akima
        --columns params=N,tokens=D,flops=C --noise 0.002 --bootstrap 200
        --where "config == 'rw-tuned-short-const-standard'" """,
    "hyperparameters": """
        steplaw/dense.csv --law hyperparameters --bootstrap 50
        --columns params=params_nonembed,learning_rate=lr,batch_tokens=batch_seqs,loss=loss_smooth
        """,
}


def command(checkout: Path, *arguments: str) -> str:
    """The standard output of `scalejax ARGUMENTS`, run with the code of a checkout."""
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    line = [sys.executable, "-m", "scalejax.cli", *arguments]
    done = subprocess.run(line, cwd=REFERENCE, env=environment, capture_output=True, text=True)
    return done.stdout if done.returncode == 0 else f"exit {done.returncode}: {done.stderr}"


def stable(value: object) -> object:
    """The value without what differs between two runs of the same code."""
    if isinstance(value, dict):
        return {key: stable(x) for key, x in value.items() if key not in VOLATILE}
    return [stable(x) for x in value] if isinstance(value, list) else value


def digest(text: str) -> str:
    """Twelve hex digits of a text; of JSON, without its volatile values."""
    with contextlib.suppress(ValueError):
        text = json.dumps(stable(json.loads(text)))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def observations(checkout: Path, train: bool) -> dict[str, str]:
    """name -> digest of every observation of one checkout."""
    seen = {}
    for study in ("quickstart.py", "quickstart.py:smoke", "quickstart.py:paper", "mup.py"):
        plan = command(checkout, "plan", f"{checkout}/experiments/{study}", "--json")
        seen[f"plan {study}"] = digest(plan)
    for name, options in FITS.items():
        fit = command(checkout, "fit", *shlex.split(options), "--json")
        seen[f"fit {name}"] = digest(fit)
        if fit.startswith("exit"):
            print(f"{checkout}: fit {name}: {fit}", file=sys.stderr)
    if train:
        with tempfile.TemporaryDirectory() as folder:
            study = f"{checkout}/experiments/quickstart.py:smoke"
            command(checkout, "run", study, "--out", folder)
            for path in sorted(Path(folder).rglob("result.json")):
                seen[f"result {path.parent.name}"] = digest(path.read_text())
            for path in sorted(Path(folder).rglob("fits/*.json")):
                seen[f"study fit {path.stem}"] = digest(path.read_text())
    return seen


def main() -> int:
    """Print one line per observation; exit code 1 when any differs."""
    before, after = (Path(argument).absolute() for argument in sys.argv[1:3])
    train = "--train" in sys.argv
    first, second = observations(before, train), observations(after, train)
    for name in {**first, **second}:
        equal = first.get(name) == second.get(name)
        print(f"{'same     ' if equal else 'DIFFERENT'} {name}: {first.get(name)}")
    return int(first != second)


if __name__ == "__main__":
    sys.exit(main())
