"""`scalejax new`: a project with configs/ and one experiment that runs as it is."""

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from scalejax.cli import exit_codes


@dataclass(frozen=True, kw_only=True)
class New:
    """Start a project of your own, with one experiment that runs as it is."""

    # A new folder, or an empty one.
    folder: Positional[Path]

    def run(self) -> int:
        print("\n".join(str(path) for path in new_project(self.folder)))
        return exit_codes.DONE


def new_project(folder: Path) -> list[Path]:
    """Write the files of a new project and return their paths.

    Raises ValueError if the folder is not empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} exists and is not empty; give a new folder")
    paths = [folder / name for name in FILES]
    for path, text in zip(paths, FILES.values(), strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return paths


MODELS = '''"""Ladders of model sizes."""

from scalejax import Model

LADDER = [Model.sized(width=width, depth=2, head_size=16, vocabulary=512) for width in (32, 48, 64)]
'''

EXPERIMENT = '''"""How does the loss fall with model size and tokens?

Scientific: model size, tokens.  Fixed: data, tokenizer, peak learning rate, batch size.
"""

from configs import models
from scalejax import Data, Measure, Optimizer, Run, Study, cooldowns, grid, laws, mup
from scalejax.optim.schedules import constant

base = Run(
    model=models.LADDER[0],
    data=Data(source="english", tokenizer="bpe:512", sequence_length=128),
    parametrization=mup(base_width=32),
    optimizer=Optimizer(learning_rate=0.008, beta2=0.98),
    schedule=constant(warmup=20_000),
    tokens=0.4e6,
    batch_tokens=512,
)
budgets = [0.1e6, 0.2e6, 0.4e6]
trunks = grid(base, model=models.LADDER)
study = Study(
    "first@1",
    cooldowns(trunks, at=budgets, fraction=0.2),
    laws=[laws.chinchilla()],
    measure=Measure(every=50_000),
)
'''

README = """# A scalejax project

    scalejax plan experiments/first.py
    scalejax run experiments/first.py

`configs/` holds values that experiments share. Every file in `experiments/` asks one question.
Results go to `results/`.
"""

# Content by path, relative to the project's folder.
FILES = {
    "configs/models.py": MODELS,
    "experiments/first.py": EXPERIMENT,
    "README.md": README,
    ".gitignore": "results/\n",
}
