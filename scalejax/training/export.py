"""Export a run to other tools: Hugging Face transformers and lm-eval."""

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from scalejax.data.shards import Shards
from scalejax.data.tokenizer_json import tokenizer_files
from scalejax.grids import run_id
from scalejax.model import hf_export, hf_parity
from scalejax.training.evaluate import last_weights, scored_model, trained_on

if TYPE_CHECKING:
    from scalejax.evaluation.lm_eval import LanguageModel


class Exported(NamedTuple):
    """The result of `export_hf`."""

    run: str
    """Id of the run."""
    step: int
    """Step of the exported checkpoint."""
    parity: hf_parity.Parity
    """How far the logits of the written files are from the run's."""
    no_tokenizer: str
    """Why the folder has no tokenizer; empty if it has one."""


def export_hf(run_folder: Path, out: Path) -> Exported:
    """Write the last checkpoint of a run as a new folder that `transformers` loads.

    The folder also gets the run's tokenizer, if transformers has an equivalent one.

    Raises ValueError if `run_folder` is not the folder of a run, if its data were
    changed since, if `out` exists, or if the network is not a Llama-type model.
    """
    # Checked here too, before the weights are loaded.
    if out.exists():
        raise ValueError(f"{out} exists already; give the name of a new folder")
    weights = last_weights(run_folder)
    run = weights.run
    tokenizer = _hf_tokenizer(trained_on(run_folder, run))
    parity = hf_export.export_hf(
        run.model,
        run.parametrization,
        weights.params,
        out,
        positions=run.data.sequence_length,
        end=tokenizer.end,
        files=tokenizer.files,
    )
    return Exported(
        run=run_id(run),
        step=weights.step,
        parity=parity,
        no_tokenizer=tokenizer.no_files,
    )


def lm_eval_model(run_folder: Path, *, window: int | None = None) -> "LanguageModel":
    """The last checkpoint of a run as a model of lm-eval.

    Args:
        run_folder: the run's folder.
        window: maximum number of tokens of context and answer together, by default the
            run's sequence length.

    Raises:
        ValueError: if `run_folder` is not the folder of a run, if its data has no
            tokenizer, or if lm-eval is not installed.
    """
    if importlib.util.find_spec("lm_eval") is None:
        raise ValueError("lm-eval is not installed; run pip install 'scalejax[eval]'")
    # Imported here because lm-eval takes 20 s to import.
    from scalejax.evaluation.lm_eval import LanguageModel

    weights = last_weights(run_folder)
    shards = trained_on(run_folder, weights.run)
    model = scored_model(
        run_folder, weights.step, weights.run, weights.mesh, shards, lambda: weights.params, window
    )
    return LanguageModel(
        model.load(),
        shards.tokenizer(),
        window=model.window,
        batch_multiple=model.batch_multiple,
    )


class _HFTokenizer(NamedTuple):
    """The tokenizer of a corpus as transformers reads it."""

    files: dict[str, bytes]
    """Content of each file by name; empty if transformers has no equivalent
    tokenizer.
    """
    no_files: str
    """Why there are no files; empty if there are."""
    end: int | None
    """Id of the end-of-document token."""


def _hf_tokenizer(shards: Shards) -> _HFTokenizer:
    end = shards.manifest["tokenizer"]["end"]
    try:
        return _HFTokenizer(tokenizer_files(shards.tokenizer()), "", end)
    except ValueError as reason:
        return _HFTokenizer({}, str(reason), end)
