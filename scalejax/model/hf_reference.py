"""A Llama model in NumPy and float64, read from the files of a Hugging Face folder.

Exports and imports are checked against it. It shares no code with transformer.py and
reads the bytes of the files itself, so an error must be made twice to go unnoticed.

Axes: b sequences, t query positions, s key positions, d width, n query heads, g kv
heads, h head size, f MLP width, v vocabulary.
"""

import json
from pathlib import Path

import ml_dtypes
import numpy as np

# NumPy type of each dtype name in a safetensors header.
DTYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}


def logits(folder: Path, tokens_bt: np.ndarray) -> np.ndarray:
    """Logits of the checkpoint in `folder`, float64 [b, t, v]."""
    return _Llama(folder).logits(tokens_bt)


class _Llama:
    """The forward pass of a Llama or Qwen3 checkpoint."""

    def __init__(self, folder: Path):
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        rope = config.get("rope_parameters") or {}
        self.layers: int = config["num_hidden_layers"]
        self.heads: int = config["num_attention_heads"]
        self.kv_heads: int = config.get("num_key_value_heads") or self.heads
        self.epsilon: float = config.get("rms_norm_eps", 1e-6)
        self.theta: float = config.get("rope_theta") or rope.get("rope_theta", 10_000.0)
        self.is_tied: bool = config.get("tie_word_embeddings", False)
        self.weights: dict[str, np.ndarray] = {}
        for path in sorted(folder.glob("*.safetensors")):
            self.weights |= _read_safetensors(path)

    def logits(self, tokens_bt: np.ndarray) -> np.ndarray:
        x_btd = self.weights["model.embed_tokens.weight"][tokens_bt].astype(np.float64)
        for i in range(self.layers):
            layer = f"model.layers.{i}"
            attention_input_btd = self.norm(x_btd, f"{layer}.input_layernorm")
            x_btd = x_btd + self.attention(attention_input_btd, f"{layer}.self_attn")
            mlp_input_btd = self.norm(x_btd, f"{layer}.post_attention_layernorm")
            x_btd = x_btd + self.mlp(mlp_input_btd, f"{layer}.mlp")
        head = "model.embed_tokens" if self.is_tied else "lm_head"
        return self.linear(self.norm(x_btd, "model.norm"), head)

    def attention(self, x_btd: np.ndarray, name: str) -> np.ndarray:
        b, t, _ = x_btd.shape
        q_btnh = self.linear(x_btd, f"{name}.q_proj").reshape(b, t, self.heads, -1)
        k_btgh = self.linear(x_btd, f"{name}.k_proj").reshape(b, t, self.kv_heads, -1)
        v_btgh = self.linear(x_btd, f"{name}.v_proj").reshape(b, t, self.kv_heads, -1)
        if f"{name}.q_norm.weight" in self.weights:
            q_btnh = self.norm(q_btnh, f"{name}.q_norm")
            k_btgh = self.norm(k_btgh, f"{name}.k_norm")
        q_btnh, k_btgh = _rotate(q_btnh, self.theta), _rotate(k_btgh, self.theta)
        # Each kv head serves heads / kv_heads consecutive query heads.
        group = self.heads // self.kv_heads
        k_bsnh, v_bsnh = np.repeat(k_btgh, group, axis=2), np.repeat(v_btgh, group, axis=2)
        scores_bnts = np.einsum("btnh,bsnh->bnts", q_btnh, k_bsnh) / np.sqrt(q_btnh.shape[-1])
        scores_bnts[..., np.triu(np.ones((t, t), bool), k=1)] = -np.inf
        weights_bnts = np.exp(scores_bnts - scores_bnts.max(axis=-1, keepdims=True))
        weights_bnts /= weights_bnts.sum(axis=-1, keepdims=True)
        output_btnh = np.einsum("bnts,bsnh->btnh", weights_bnts, v_bsnh)
        return self.linear(output_btnh.reshape(b, t, -1), f"{name}.o_proj")

    def mlp(self, x_btd: np.ndarray, name: str) -> np.ndarray:
        gate_btf = self.linear(x_btd, f"{name}.gate_proj")
        # SiLU: x times the sigmoid of x, which is exp(-log(1 + exp(-x))).
        silu_btf = gate_btf * np.exp(-np.logaddexp(0, -gate_btf))
        return self.linear(silu_btf * self.linear(x_btd, f"{name}.up_proj"), f"{name}.down_proj")

    def norm(self, x: np.ndarray, name: str) -> np.ndarray:
        root_mean_square = np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + self.epsilon)
        return x / root_mean_square * self.weights[f"{name}.weight"].astype(np.float64)

    def linear(self, x: np.ndarray, name: str) -> np.ndarray:
        return x @ self.weights[f"{name}.weight"].astype(np.float64).T


def _rotate(x_btnh: np.ndarray, theta: float) -> np.ndarray:
    """Rotary position embedding.

    Features i and i + h/2 are one complex number, rotated at position t by the angle
    t theta^(-2i/h).
    """
    t, half = x_btnh.shape[1], x_btnh.shape[-1] // 2
    rotation_th = np.exp(1j * np.arange(t)[:, None] * theta ** (-np.arange(half) / half))
    rotated_btnh = (x_btnh[..., :half] + 1j * x_btnh[..., half:]) * rotation_th[:, None, :]
    return np.concatenate([rotated_btnh.real, rotated_btnh.imag], axis=-1)


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file, memory-mapped.

    The file has 8 bytes with the length of the header, the header in JSON, and then the
    bytes of every tensor.
    """
    content = np.memmap(path, np.uint8, "r")
    start = 8 + int.from_bytes(content[:8].tobytes(), "little")
    header = json.loads(content[8:start].tobytes())
    header.pop("__metadata__", None)
    arrays = {}
    for name, entry in header.items():
        first, last = entry["data_offsets"]
        values = content[start + first : start + last].view(DTYPES[entry["dtype"]])
        arrays[name] = values.reshape(entry["shape"])
    return arrays
