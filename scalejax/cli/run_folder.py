"""`scalejax eval` and `scalejax export`: the last checkpoint of a finished run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from scalejax.cli import compile_cache, exit_codes


@dataclass(frozen=True, kw_only=True)
class Eval:
    """Measure a run's last checkpoint: its loss, or its error on a suite of tasks."""

    # The run's folder: OUT/<study>/runs/<id>, or the `out` of scalejax.train.
    run_folder: Positional[Path]

    # Suite to score: continuation, foundry-17 or foundry-46 (add :FOLDER to say where
    # the task files are), foundry-17-available for those of the 17 tasks that have a
    # file, or local:PATH for your own files. By default everything is measured that the
    # run itself measured.
    suite: str | None = None

    # Folder for the scores, <suite>.json and <suite>/<task>.parquet. By default the
    # folder `evaluations` in the run's folder.
    out: Path | None = None

    # Largest number of tokens of a prompt together with its answer, at least 2. By
    # default the sequence length of the run.
    window: int | None = None

    # Print one JSON object instead of text.
    json: bool = False

    def run(self) -> int:
        compile_cache.enable()
        from scalejax.cli.text import as_json
        from scalejax.cli.text import run_folder as text
        from scalejax.training import evaluate

        if self.suite is None:
            if self.out or self.window:
                raise ValueError(
                    "--out and --window only apply to a suite; add --suite, or remove them"
                )
            row = evaluate.evaluate(self.run_folder)
            print(as_json(row) if self.json else text.metrics_text(row))
            return exit_codes.DONE
        if self.window is not None and self.window < 2:
            raise ValueError(
                f"--window {self.window} is too short; expected at least 2 tokens, one of context "
                "and one of answer"
            )
        result = evaluate.evaluate_suite(
            self.run_folder,
            self.suite,
            folder=self.out,
            window=self.window,
            progress=text.print_task_progress,
        )
        print(as_json(result) if self.json else text.suite_text(result))
        return exit_codes.DONE


@dataclass(frozen=True, kw_only=True)
class Export:
    """Write a run's last checkpoint for another library, and check its logits."""

    # The run's folder: OUT/<study>/runs/<id>, or the `out` of scalejax.train.
    run_folder: Positional[Path]

    # A new folder for the model.
    out: Path

    # hf: Hugging Face transformers, with config.json, weights as safetensors, and the
    # tokenizer.
    format: Literal["hf"] = "hf"

    def run(self) -> int:
        compile_cache.enable()
        from scalejax.cli.text import run_folder as text
        from scalejax.training import export

        print(text.export_text(export.export_hf(self.run_folder, self.out), self.out))
        return exit_codes.DONE
