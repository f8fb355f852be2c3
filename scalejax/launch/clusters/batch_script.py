"""The batch script of a study under SLURM: an array of `scalejax work`."""

import shlex
from collections.abc import Sequence
from pathlib import Path

# Seconds before a task's time limit at which SLURM tells it to save its state.
WARNING_SECONDS = 60

SCRIPT = """\
#!/bin/bash
# Workers of the study in {folder}.
# Written by `scalejax run --executor slurm`, which submits it with sbatch.
#SBATCH --job-name={name}
#SBATCH --array=0-{last}
#SBATCH --output={log}
#SBATCH --open-mode=append
#SBATCH --cpus-per-task={cpus}
# A task whose node is lost, or that is preempted, starts again elsewhere.
#SBATCH --requeue
# A task that reaches its time limit is warned, saves its state and queues again.
#SBATCH --signal=B:USR1@{warning}
{options}
trap 'warned=1; kill -TERM $worker' USR1
trap 'kill -TERM $worker' TERM

{command} &
worker=$!
# A signal ends `wait`, but not the worker, which saves its state first.
until wait $worker; code=$?; ! kill -0 $worker 2>/dev/null; do :; done

[ "$warned" ] && [ $code = 75 ] && scontrol requeue "$SLURM_JOB_ID"
exit $code
"""


def batch_script(
    study: Path, command: Sequence[str], *, workers: int, cpus: int, options: str
) -> str:
    """Return a script that starts `workers` workers on the study in a folder.

    command: what starts a worker when the study's folder follows.
    cpus: cores per worker. options: options of sbatch, such as `--time=4:00:00`. They
    come last, so that they win over those of the script.

    Raises ValueError when the options are more than one line.
    """
    if len(options.splitlines()) > 1:
        raise ValueError(
            f"--sbatch takes options of sbatch on one line, as in '--partition=a --time=4:00:00'; "
            f"got {options!r}"
        )
    # In a path, sbatch replaces %A and the like; two percent signs stand for one.
    log = log_file(Path(str(study).replace("%", "%%")), "%A_%a")
    return SCRIPT.format(
        folder=study,
        name=shlex.quote(study.name),
        last=workers - 1,
        log=shlex.quote(str(log)),
        cpus=cpus,
        warning=WARNING_SECONDS,
        options=f"# The options that the user gave.\n#SBATCH {options}\n" if options else "",
        command=shlex.join([*command, str(study)]),
    )


def log_file(study: Path, task: str) -> Path:
    """Return the log of an array's task, given as ARRAY_TASK."""
    return study / "logs" / f"slurm-{task}.log"
