"""Read Hugging Face checkpoints of Llama-type models."""

import json
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from scalejax.config import Model, Parametrization
from scalejax.model.hf_layout import (
    from_hf_shape,
    hf_name,
    import_safetensors,
    named_leaves,
    without_block,
)
from scalejax.model.hf_parity import check_parity
from scalejax.model.parameters import Params
from scalejax.model.transformer import NORM_EPSILON, abstract

# Values of config.json that a scalejax model can represent. Other values, if the file
# has them, make the checkpoint unusable.
SUPPORTED: dict[str, tuple[object, ...]] = {
    "model_type": ("llama", "qwen3"),
    "hidden_act": ("silu", "swish"),
    "attention_bias": (False,),
    "mlp_bias": (False,),
    "use_sliding_window": (False,),
    "partial_rotary_factor": (1.0,),
    "quantization_config": (None,),
    "RoPE type": ("default",),
}

# Keys that config.json must have.
REQUIRED = (
    "model_type",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "vocab_size",
)

# Value of rms_norm_eps in transformers when config.json has none.
DEFAULT_NORM_EPSILON = 1e-6

# Base of RoPE in transformers when config.json has none.
DEFAULT_ROPE_THETA = 10_000.0


def import_hf(folder: Path) -> tuple[Model, Params]:
    """Read a Llama or Qwen3 checkpoint in safetensors files.

    Returns the model and its float32 parameters under the standard parametrization. A
    checkpoint whose norms have another epsilon than NORM_EPSILON keeps its function;
    see `_residual_stream_factors`.

    Raises ValueError if the folder has no config.json or no safetensors files, if the
    network cannot be represented in scalejax (biases, scaled RoPE, sliding windows), or
    if the logits differ from those of the files.
    """
    config = _read_config(folder)
    tensors = _read_tensors(folder)
    model = _model(config, tensors, folder)
    if model.tied:
        tensors.pop("lm_head.weight", None)
    _, specs = abstract(model, Parametrization())
    named_specs = named_leaves(specs)
    _check_names({hf_name(name) for name in named_specs}, set(tensors), folder)
    factors = _residual_stream_factors(model, config.get("rms_norm_eps", DEFAULT_NORM_EPSILON))
    values = []
    for name, spec in named_specs.items():
        tensor = tensors[hf_name(name)].astype(np.float32)
        array = from_hf_shape(tensor, spec, f"{hf_name(name)} in {folder}")
        values.append(jnp.asarray(array * np.float32(factors.get(without_block(name), 1.0))))
    params = jax.tree.unflatten(jax.tree.structure(specs), values)
    positions = int(config.get("max_position_embeddings", 2048))
    check_parity(folder, model, Parametrization(), params, positions=positions)
    return model, params


def _residual_stream_factors(model: Model, epsilon: float) -> dict[str, float]:
    """Factors of parameters that turn norms of `epsilon` into norms of NORM_EPSILON.

    If the residual stream is scaled by c = sqrt(NORM_EPSILON / epsilon), a norm gives c
    x / sqrt(c^2 x^2 + NORM_EPSILON) = x / sqrt(x^2 + epsilon), which is what it gave
    before. So everything that writes into the stream is multiplied by c.
    """
    c = math.sqrt(NORM_EPSILON / epsilon)
    factors = {"embedding": c, "attention.output": c, "mlp.down": c}
    if model.qk_norm:
        # Queries and keys have norms of their own.
        factors |= {"attention.query": c, "attention.key": c}
    if model.tied:
        # The embedding is the head too; the gain before the head takes the factor back.
        factors["norm.gain"] = 1 / c
    return factors


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.is_file():
        raise ValueError(
            f"{folder} has no config.json; give the folder of a Hugging Face checkpoint"
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON ({error})") from error
    rope = _rope_settings(config)
    settings = {name: config[name] for name in SUPPORTED if name in config}
    settings["RoPE type"] = rope.get("rope_type", rope.get("type", "default"))
    for name, value in settings.items():
        if value not in SUPPORTED[name]:
            raise ValueError(
                f"{path} has {name} {value!r}; scalejax models support only "
                f"{' or '.join(map(repr, SUPPORTED[name]))}, so this checkpoint cannot be "
                "represented"
            )
    if missing := [name for name in REQUIRED if name not in config]:
        raise ValueError(f"{path} lacks {', '.join(missing)}")
    if not config.get("rms_norm_eps", DEFAULT_NORM_EPSILON) > 0:
        raise ValueError(f"{path} has rms_norm_eps {config['rms_norm_eps']!r}; it must be positive")
    return config


def _rope_settings(config: dict[str, Any]) -> dict[str, Any]:
    """RoPE's settings, which transformers 4 and 5 write in different places."""
    return config.get("rope_parameters") or config.get("rope_scaling") or {}


def _read_tensors(folder: Path) -> dict[str, np.ndarray]:
    """The tensors of all safetensors files by name."""
    safetensors = import_safetensors()
    index = folder / "model.safetensors.index.json"
    names = ["model.safetensors"]
    if index.is_file():
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise ValueError(f"{folder} has no {missing[0]}; only safetensors files can be read")
    tensors = {}
    for name in names:
        try:
            tensors |= safetensors.load_file(folder / name)
        # The package raises exceptions of its own, and KeyError for dtypes it does not
        # know.
        except Exception as error:
            raise ValueError(f"{folder / name} is not a valid safetensors file: {error}") from error
    # Old checkpoints store the RoPE frequencies, which are not weights.
    return {
        name: array for name, array in tensors.items() if not name.endswith("rotary_emb.inv_freq")
    }


def _model(config: dict[str, Any], tensors: dict[str, np.ndarray], folder: Path) -> Model:
    query = "model.layers.0.self_attn.q_proj.weight"
    if query not in tensors:
        raise ValueError(f"{folder} has no tensor {query}; this is not a Llama-type checkpoint")
    heads = config["num_attention_heads"]
    return Model(
        width=config["hidden_size"],
        depth=config["num_hidden_layers"],
        heads=heads,
        kv_heads=config.get("num_key_value_heads") or heads,
        head_size=tensors[query].shape[0] // heads,
        mlp_width=config["intermediate_size"],
        vocabulary=config["vocab_size"],
        tied=config.get("tie_word_embeddings", False),
        qk_norm=config["model_type"] == "qwen3",
        rope_theta=config.get("rope_theta")
        or _rope_settings(config).get("rope_theta", DEFAULT_ROPE_THETA),
    )


def _check_names(expected: set[str], names: set[str], folder: Path) -> None:
    """Raise ValueError if tensors are missing or have no place in the model."""
    if missing := sorted(expected - names):
        raise ValueError(f"{folder} lacks the tensor {missing[0]} ({len(missing)} missing in all)")
    if unknown := sorted(names - expected):
        raise ValueError(
            f"{folder} has the tensor {unknown[0]}, which scalejax models have no place for "
            f"({len(unknown)} such tensors in all)"
        )
