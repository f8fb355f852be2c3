"""A tiny study with two chains of trunks, and what is compared of its results."""

import json
from pathlib import Path

EXPERIMENT = '''"""Does a tiny study hold together?"""
from scalejax import Data, Measure, Model, Optimizer, Placement, Run, Study, cooldowns
from scalejax.optim.schedules import constant

base = Run(
    model=Model.sized(width=8, depth=1, head_size=8, vocabulary=32),
    data=Data(source="synthetic:32", tokenizer="own", sequence_length=16),
    optimizer=Optimizer(learning_rate=0.01),
    schedule=constant(warmup=640),
    tokens=1_200_000,
    batch_tokens=64,
)
bases = [base, base.replace(seed=1)]
study = Study(
    "tiny@1",
    cooldowns(bases, at=[400_000, 800_000, 1_200_000], fraction=0.2),
    measure=Measure(tokens=1024, items=0),
    placement=Placement(checkpoint_seconds=0.5),
)
'''
RUNS = 6


def losses(study: Path) -> dict[str, dict[str, float]]:
    """Every number of every result that does not depend on the time it took."""
    rows = [json.loads(path.read_text()) for path in sorted(study.glob("runs/*/result.json"))]
    return {
        row["run"]: {
            name: value
            for name, value in row.items()
            if isinstance(value, float) and "second" not in name
        }
        for row in rows
    }


def curves(study: Path) -> dict[str, list[dict[str, float]]]:
    """Every row of every run's metrics, without the time it took."""
    return {
        path.parent.name: [
            {name: value for name, value in json.loads(line).items() if name != "seconds"}
            for line in path.read_text().splitlines()
        ]
        for path in sorted(study.glob("runs/*/metrics.jsonl"))
    }
