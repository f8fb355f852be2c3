"""Names and shapes of parameters in Hugging Face checkpoints of Llama-type models."""

import math
import re
from types import ModuleType
from typing import Any

import jax
import numpy as np

from scalejax.model.parameters import Params, Spec

# Name of each parameter in transformers. Keys are names in scalejax without the block;
# values are names in transformers without the layer.
HF_NAMES = {
    "embedding": "model.embed_tokens.weight",
    "norm.gain": "model.norm.weight",
    "head": "lm_head.weight",
    "attention_norm.gain": "input_layernorm.weight",
    "attention.query": "self_attn.q_proj.weight",
    "attention.key": "self_attn.k_proj.weight",
    "attention.value": "self_attn.v_proj.weight",
    "attention.output": "self_attn.o_proj.weight",
    "attention.query_norm.gain": "self_attn.q_norm.weight",
    "attention.key_norm.gain": "self_attn.k_norm.weight",
    "mlp_norm.gain": "post_attention_layernorm.weight",
    "mlp.gate": "mlp.gate_proj.weight",
    "mlp.up": "mlp.up_proj.weight",
    "mlp.down": "mlp.down_proj.weight",
}


def import_safetensors() -> ModuleType:
    """The module safetensors.numpy; raises ValueError if it is not installed."""
    try:
        import safetensors.numpy
    except ImportError as error:
        raise ValueError(
            "Hugging Face checkpoints are safetensors files, and the package safetensors is not "
            "installed; run pip install 'scalejax[hf]'"
        ) from error
    return safetensors.numpy


def named_leaves(tree: Params) -> dict[str, Any]:
    """The leaves of a tree of parameters by dotted name, such as `blocks.3.mlp.up`."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): leaf
        for path, leaf in jax.tree.leaves_with_path(tree)
    }


def without_block(name: str) -> str:
    """The name of a parameter without its block.

    >>> without_block("blocks.3.mlp.up"), without_block("embedding")
    ('mlp.up', 'embedding')
    """
    return re.sub(r"^blocks\.\d+\.", "", name)


def hf_name(name: str) -> str:
    """The name of a parameter in transformers.

    >>> hf_name("blocks.3.mlp.up"), hf_name("embedding")
    ('model.layers.3.mlp.up_proj.weight', 'model.embed_tokens.weight')
    """
    block = re.match(r"blocks\.(\d+)\.", name)
    layer = f"model.layers.{block[1]}." if block else ""
    return layer + HF_NAMES[without_block(name)]


def to_hf_shape(value: np.ndarray, spec: Spec) -> np.ndarray:
    """Reshape a kernel (in, out...) to a matrix [out, in].

    Other parameters keep their shape.
    """
    return value if _keeps_shape(spec) else value.reshape(spec.fan_in, -1).T


def from_hf_shape(array: np.ndarray, spec: Spec, label: str) -> np.ndarray:
    """The inverse of `to_hf_shape`; raises ValueError for another shape.

    The message calls the parameter `label`.
    """
    if _keeps_shape(spec):
        expected = spec.shape
    else:
        expected = (math.prod(spec.shape) // spec.fan_in, spec.fan_in)
    if array.shape != expected:
        raise ValueError(
            f"{label} has shape {array.shape}; expected {expected} according to its config.json"
        )
    return array if _keeps_shape(spec) else array.T.reshape(spec.shape)


def _keeps_shape(spec: Spec) -> bool:
    """Whether both sides store a parameter in the same shape.

    That is so for embeddings and gains.
    """
    return spec.role in ("embedding", "tied") or len(spec.shape) == 1
