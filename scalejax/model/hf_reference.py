"""Llama in numpy and float64, from the files of a Hugging Face folder: what exports and imports are checked against.

It shares no code with transformer.py, and reads the bytes of the files itself, so that an error has to be made twice to pass.

Axes: b sequences, t query positions, s key positions, d width, n query heads, g kv heads, h head size, v vocabulary.
"""

import json
from pathlib import Path

import ml_dtypes
import numpy as np

DTYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}


def logits(folder: Path, tokens_bt: np.ndarray) -> np.ndarray:
    """Logits of the model in `folder` (config.json and safetensors), float64 [b, t, v]."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    weights = {
        name: array
        for path in sorted(folder.glob("*.safetensors"))
        for name, array in _tensors(path).items()
    }
    epsilon, heads = config.get("rms_norm_eps", 1e-6), config["num_attention_heads"]
    kv_heads = config.get("num_key_value_heads", heads)
    theta = config.get("rope_theta") or (config.get("rope_parameters") or {}).get(
        "rope_theta", 10_000.0
    )

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        return (
            x
            / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + epsilon)
            * weights[f"{name}.weight"].astype(np.float64)
        )

    def project(x: np.ndarray, name: str) -> np.ndarray:
        return x @ weights[f"{name}.weight"].astype(np.float64).T

    def attend(x_btd: np.ndarray, name: str) -> np.ndarray:
        b, t, _ = x_btd.shape
        q_btnh = project(x_btd, f"{name}.q_proj").reshape(b, t, heads, -1)
        k_btgh = project(x_btd, f"{name}.k_proj").reshape(b, t, kv_heads, -1)
        v_btgh = project(x_btd, f"{name}.v_proj").reshape(b, t, kv_heads, -1)
        if f"{name}.q_norm.weight" in weights:
            q_btnh, k_btgh = norm(q_btnh, f"{name}.q_norm"), norm(k_btgh, f"{name}.k_norm")
        q_btnh, k_btgh = _turned(q_btnh, theta), _turned(k_btgh, theta)
        k_bsnh, v_bsnh = (np.repeat(x, heads // kv_heads, axis=2) for x in (k_btgh, v_btgh))
        scores_bnts = np.einsum("btnh,bsnh->bnts", q_btnh, k_bsnh) / np.sqrt(q_btnh.shape[-1])
        scores_bnts[..., np.triu(np.ones((t, t), bool), k=1)] = -np.inf
        shares_bnts = np.exp(scores_bnts - scores_bnts.max(axis=-1, keepdims=True))
        shares_bnts /= shares_bnts.sum(axis=-1, keepdims=True)
        return project(
            np.einsum("bnts,bsnh->btnh", shares_bnts, v_bsnh).reshape(b, t, -1), f"{name}.o_proj"
        )

    x_btd = weights["model.embed_tokens.weight"][tokens_bt].astype(np.float64)
    for block in (f"model.layers.{i}" for i in range(config["num_hidden_layers"])):
        x_btd = x_btd + attend(norm(x_btd, f"{block}.input_layernorm"), f"{block}.self_attn")
        y_btd = norm(x_btd, f"{block}.post_attention_layernorm")
        gate_btf = project(y_btd, f"{block}.mlp.gate_proj")
        silu_btf = gate_btf * np.exp(-np.logaddexp(0, -gate_btf))
        x_btd = x_btd + project(
            silu_btf * project(y_btd, f"{block}.mlp.up_proj"), f"{block}.mlp.down_proj"
        )
    head = "model.embed_tokens" if config.get("tie_word_embeddings", False) else "lm_head"
    return project(norm(x_btd, "model.norm"), head)


def _turned(x_btnh: np.ndarray, theta: float) -> np.ndarray:
    """Features i and i + h/2 as one complex number, turned by t theta^(-2i/h)."""
    t, half = x_btnh.shape[1], x_btnh.shape[-1] // 2
    turn_th = np.exp(1j * np.arange(t)[:, None] * theta ** (-np.arange(half) / half))
    turned_btnh = (x_btnh[..., :half] + 1j * x_btnh[..., half:]) * turn_th[:, None, :]
    return np.concatenate([turned_btnh.real, turned_btnh.imag], axis=-1)


def _tensors(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file, memory-mapped: 8 bytes of header length, a JSON header, the bytes of every tensor."""
    content = np.memmap(path, np.uint8, "r")
    start = 8 + int.from_bytes(content[:8].tobytes(), "little")
    header = json.loads(content[8:start].tobytes())
    header.pop("__metadata__", None)
    return {
        name: content[start + entry["data_offsets"][0] : start + entry["data_offsets"][1]]
        .view(DTYPES[entry["dtype"]])
        .reshape(entry["shape"])
        for name, entry in header.items()
    }
