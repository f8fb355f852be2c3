"""Write a model as a Hugging Face checkpoint that `transformers` loads."""

import json
import math
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np

from scalejax.config import Model, Parametrization
from scalejax.model.hf_layout import (
    hf_name,
    import_safetensors,
    named_leaves,
    to_hf_shape,
    without_block,
)
from scalejax.model.hf_parity import Parity, check_parity
from scalejax.model.parameters import Params
from scalejax.model.transformer import NORM_EPSILON, Transformer, abstract


def export_hf(
    model: Model,
    parametrization: Parametrization,
    params: Params,
    folder: Path,
    *,
    positions: int,
    end: int | None = None,
    files: Mapping[str, bytes] | None = None,
) -> Parity:
    """Write a folder that `transformers.AutoModelForCausalLM.from_pretrained` loads.

    The folder contains config.json and model.safetensors in float32, for
    LlamaForCausalLM or, for a model with qk_norm, Qwen3ForCausalLM. These classes have
    no multipliers of parametrizations, so multipliers are folded into the weights. A
    tied model whose logits have a multiplier becomes untied: the head takes the
    multiplier, the embedding must not.

    The folder appears only once it is complete and, read back, gives the logits of
    `params`.

    Args:
        model: the network.
        parametrization: its parametrization, which defines the multipliers.
        params: the weights.
        folder: a new folder.
        positions: sequence length that the model was trained on.
        end: id of the token that ends and precedes every document.
        files: other files for the folder, such as those of a tokenizer.

    Returns:
        How far the logits of the written files are from those of `params`.

    Raises:
        ValueError: if the folder exists, or if the logits differ.
    """
    if folder.exists():
        raise ValueError(f"{folder} exists already; give the name of a new folder")
    safetensors = import_safetensors()
    params = jax.device_get(params)
    tensors = _fold_multipliers(model, parametrization, params)
    config = _config(model, tied="lm_head.weight" not in tensors, positions=positions, end=end)
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}.tmp-", dir=folder.parent))
    try:
        weights_file = scratch / "model.safetensors"
        _save_weights(safetensors, tensors, weights_file, folder)
        (scratch / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        for name, content in (files or {}).items():
            (scratch / name).write_bytes(content)
        parity = check_parity(scratch, model, parametrization, params, positions=positions)
        # mkdtemp makes folders that only their owner can read.
        scratch.chmod(0o755)
        scratch.rename(folder)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    return parity


def _save_weights(
    safetensors: ModuleType, tensors: dict[str, np.ndarray], path: Path, folder: Path
) -> None:
    """Write model.safetensors at `path`, which will be in `folder`."""
    try:
        safetensors.save_file(tensors, path, metadata={"format": "pt"})
    # The package raises an Exception of its own, for a full disk as well.
    except Exception as error:
        raise OSError(f"{folder} cannot be written: {error}") from error


def _fold_multipliers(
    model: Model, parametrization: Parametrization, params: Params
) -> dict[str, np.ndarray]:
    """The tensors of the checkpoint, with all multipliers folded into them.

    In transformers, attention scores are divided by sqrt(head_size), and nothing else
    has a multiplier.
    """
    network = Transformer(model, parametrization)
    specs = named_leaves(abstract(model, parametrization)[1])
    block = network.blocks[0]
    # RMS norm removes any factor of the query projection, so with qk_norm the factor
    # goes into the gain that follows the norm.
    scaled_query = "attention.query_norm.gain" if model.qk_norm else "attention.query"
    factors = {
        scaled_query: block.attention.scale * math.sqrt(model.head_size),
        "attention.output": block.branch_multiplier,
        "mlp.down": block.branch_multiplier,
        "head": network.output_multiplier,
    }
    tensors = {}
    for name, value in named_leaves(params).items():
        array = to_hf_shape(np.asarray(value, np.float32), specs[name])
        factor = np.float32(factors.get(without_block(name), 1.0))
        tensors[hf_name(name)] = np.ascontiguousarray(array * factor)
    if model.tied and network.output_multiplier != 1:
        embedding = tensors["model.embed_tokens.weight"]
        tensors["lm_head.weight"] = embedding * np.float32(network.output_multiplier)
    return tensors


def _config(model: Model, *, tied: bool, positions: int, end: int | None) -> dict[str, Any]:
    """The content of config.json.

    `rope_theta` is where transformers 4 expects it, and transformers 5 reads it there
    too.
    """
    return {
        "architectures": ["Qwen3ForCausalLM" if model.qk_norm else "LlamaForCausalLM"],
        "model_type": "qwen3" if model.qk_norm else "llama",
        "vocab_size": model.vocabulary,
        "hidden_size": model.width,
        "intermediate_size": model.mlp_width,
        "num_hidden_layers": model.depth,
        "num_attention_heads": model.heads,
        "num_key_value_heads": model.kv_heads,
        "head_dim": model.head_size,
        "max_position_embeddings": positions,
        "rms_norm_eps": NORM_EPSILON,
        "rope_theta": model.rope_theta,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": tied,
        "bos_token_id": end,
        "eos_token_id": end,
        "torch_dtype": "float32",
    }
