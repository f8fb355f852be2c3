"""A run handed to the tools of others: as a folder of Hugging Face transformers, or as a model of lm-eval."""

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from scalejax.data.preparation import prepare
from scalejax.data.shards import Shards
from scalejax.data.tokenizer_json import tokenizer_files
from scalejax.grids import run_id
from scalejax.model import hf
from scalejax.training.evaluate import last_weights
from scalejax.training.loop import subject

if TYPE_CHECKING:
    from scalejax.evaluation.lm_eval import LanguageModel


class Exported(NamedTuple):
    """What `export_hf` wrote."""

    run: str
    """Id of the run."""
    step: int
    """Of its checkpoint."""
    parity: hf.Parity
    """How far the logits of the files are from the run's."""
    no_tokenizer: str
    """Why there is no tokenizer beside the weights; empty when there is one."""


def export_hf(run_folder: Path, out: Path) -> Exported:
    """The last checkpoint of a run as a new folder that `transformers` loads: model, and tokenizer where it has an equal.

    Raises ValueError when the folder is no run's, when `out` exists, or when the network is no Llama-type model.
    """
    if out.exists():
        raise ValueError(f"{out} exists: name a new folder")
    weights = last_weights(run_folder)
    run = weights.run
    files, reason, end = _tokenizer(prepare(run.data))
    length = run.data.sequence_length
    parity = hf.export_hf(
        run.model, run.parametrization, weights.params, out, positions=length, end=end, files=files
    )
    return Exported(run_id(run), weights.step, parity, reason)


def lm_eval_model(run_folder: Path, *, window: int | None = None) -> "LanguageModel":
    """The last checkpoint of a run as a model of lm-eval; `window` tokens of prompt and answer, the run's length when not given.

    Raises ValueError when the folder is no run's, when its data has no tokenizer, and when lm-eval is not installed.
    """
    if importlib.util.find_spec("lm_eval") is None:
        raise ValueError("lm-eval is not installed: pip install 'scalejax[eval]'")
    from scalejax.evaluation.lm_eval import LanguageModel  # 20 s to import

    weights = last_weights(run_folder)
    shards = prepare(weights.run.data)
    asked = subject(
        run_folder, weights.step, weights.run, weights.mesh, shards, lambda: weights.params, window
    )
    return LanguageModel(
        asked.span_scores(), shards.tokenizer(), window=asked.window, multiple=asked.multiple
    )


def text(exported: Exported, out: Path) -> str:
    """The export in three lines."""
    numpy, transformers = exported.parity
    by = (
        f"{transformers:.1e} by transformers"
        if transformers is not None
        else "transformers and torch are not installed"
    )
    return (
        f"run {exported.run} at step {exported.step} in {out}\n"
        f"largest difference of a logit, of at most {hf.TOLERANCE:g}: {numpy:.1e} by numpy; {by}\n"
        f"{'without a tokenizer: ' + exported.no_tokenizer if exported.no_tokenizer else 'with its tokenizer'}"
    )


def _tokenizer(shards: Shards) -> tuple[dict[str, bytes], str, int | None]:
    """(files, why there are none, the id that ends a document)"""
    end = shards.manifest["tokenizer"]["end"]
    try:
        return tokenizer_files(shards.tokenizer()), "", end
    except ValueError as reason:
        return {}, str(reason), end
