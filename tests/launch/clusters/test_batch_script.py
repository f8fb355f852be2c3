"""The batch script of an array (mirrors scalejax/launch/clusters/batch_script.py)."""

import shlex
import subprocess
from pathlib import Path

from scalejax.launch.clusters.batch_script import batch_script

COMMAND = ("/my env/python", "-m", "scalejax.cli", "work")


def test_the_script_is_bash_and_quotes_what_the_user_named(tmp_path):
    folder = Path("/shared/my results/it's 100%A@1")
    script = batch_script(folder, COMMAND, workers=3, cpus=2, options="--partition=gpu")
    (tmp_path / "slurm.sh").write_text(script)
    subprocess.run(["bash", "-n", tmp_path / "slurm.sh"], check=True)
    lines = script.splitlines()
    assert "#SBATCH --array=0-2" in lines and "#SBATCH --cpus-per-task=2" in lines
    # The last option wins.
    assert [line for line in lines if line.startswith("#SBATCH")][-1] == "#SBATCH --partition=gpu"
    # The folder is one argument of the command, and one value of the option.
    (command,) = (line for line in lines if line.endswith(" &"))
    assert shlex.split(command) == [*COMMAND, str(folder), "&"]
    (output,) = (line for line in lines if line.startswith("#SBATCH --output="))
    log = "/shared/my results/it's 100%%A@1/logs/slurm-%A_%a.log"
    assert shlex.split(output[1:])[1] == f"--output={log}"
