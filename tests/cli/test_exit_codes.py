"""The exit code of each result of a study (mirrors scalejax/cli/exit_codes.py)."""

from pathlib import Path

import pandas as pd
import pytest

from scalejax.cli import exit_codes
from scalejax.launch.pool import PoolResult
from scalejax.study.plan import plan
from scalejax.study.run import StudyResult
from scalejax.study.study import Study

FAILURE = {"runs/abc": "ValueError: no data"}


@pytest.mark.parametrize(
    ("training", "states", "code"),
    [
        (PoolResult(), ["done", "diverged"], 0),
        (PoolResult(failed=FAILURE), ["done"], 1),
        (PoolResult(failed=FAILURE), ["diverged"], 1),
        (PoolResult(), ["diverged", "diverged"], 3),
        (PoolResult(), [], 0),
        (PoolResult(preempted=True, failed=FAILURE), ["diverged"], 75),
    ],
)
def test_a_stopped_study_is_75_a_failed_run_1_and_only_diverged_runs_3(
    training, states, code, tiny_run
):
    result = StudyResult(
        folder=Path("study"),
        plan=plan(Study("s@1", [tiny_run])),
        training=training,
        table=pd.DataFrame({"status": states}),
    )
    assert exit_codes.of_study(result) == code
