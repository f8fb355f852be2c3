"""Hugging Face checkpoints: Llama-type models out and in, none without a check that the logits stayed what they were.

`transformers` knows no parametrization: its multipliers are folded into the weights. A checkpoint that comes in is read under
`standard`. A network that the other side has no words for is refused, with the reason.
"""

import importlib
import importlib.util
import json
import math
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from scalejax.config import Model, Parametrization
from scalejax.model import hf_reference
from scalejax.model.parameters import Params, Spec
from scalejax.model.transformer import NORM_EPSILON, ROPE_THETA, Transformer, abstract

TOLERANCE = 1e-4
"""Largest difference of two logits, in float32, at which two readings of a checkpoint are the same model."""
CHECKED = (2, 128)
"""Sequences and, at most, tokens of a sequence that the check reads."""
NAMES = {  # of a parameter here, without its block -> of the same one there
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
ONLY = {  # what a config.json may say, where it says anything
    "model_type": ("llama", "qwen3"),
    "hidden_act": ("silu", "swish"),
    "attention_bias": (False,),
    "mlp_bias": (False,),
    "use_sliding_window": (False,),
    "partial_rotary_factor": (1.0,),
    "quantization_config": (None,),
}


class Parity(NamedTuple):
    """Largest absolute difference between the logits here and those of another reader of the same files."""

    numpy: float
    """model/hf_reference.py, in float64."""
    transformers: float | None
    """The package transformers, in float32; None where it or torch is not installed."""


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
    """Writes a new folder that `transformers.AutoModelForCausalLM.from_pretrained` reads: config.json and model.safetensors.

    LlamaForCausalLM, or Qwen3ForCausalLM for a model with qk_norm; float32. `positions` is the length that was trained on, `end`
    the id that ends and precedes every document, `files` what else belongs in the folder (a tokenizer). A tied model whose logits
    have a multiplier becomes an untied one: the head takes the multiplier, the embedding must not.

    The folder appears whole, and only when the files, read back by `parity`, give the logits of `params`. Raises ValueError when
    they do not, and when the folder exists.
    """
    if folder.exists():
        raise ValueError(f"{folder} exists: name a new folder")
    params = jax.device_get(params)
    tensors = _folded(model, parametrization, params)
    config = _config(model, tied="lm_head.weight" not in tensors, positions=positions, end=end)
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}.tmp-", dir=folder.parent))
    try:
        _safetensors().save_file(tensors, scratch / "model.safetensors", metadata={"format": "pt"})
        (scratch / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        for name, content in (files or {}).items():
            (scratch / name).write_bytes(content)
        found = parity(scratch, model, parametrization, params, positions=positions)
        scratch.chmod(0o755)  # mkdtemp's folders are private
        scratch.rename(folder)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    return found


def import_hf(folder: Path) -> tuple[Model, Params]:
    """The model and the float32 parameters, under `standard()`, of a Llama-type checkpoint (Llama or Qwen3, safetensors).

    A checkpoint whose norms have another epsilon than NORM_EPSILON keeps its function: with the residual stream times
    c = sqrt(NORM_EPSILON / epsilon) a norm gives c x / sqrt(c^2 x^2 + NORM_EPSILON) = x / sqrt(x^2 + epsilon), and what writes
    into the stream takes the factor.

    Raises ValueError for a folder without config.json and safetensors, for what cannot be represented here (biases, scaled RoPE,
    sliding windows, another RoPE base, ..), and when the logits are not those of the files read by `parity`.
    """
    config = _read_config(folder)
    tensors = _read_tensors(folder)
    model = _model(config, tensors, folder)
    if model.tied:
        tensors.pop("lm_head.weight", None)
    _, specs = abstract(model, Parametrization())
    _check_names({_theirs(name) for name in _flat(specs)}, set(tensors), folder)
    factors = _stream_factors(model, config.get("rms_norm_eps", 1e-6))
    values = []
    for name, spec in _flat(specs).items():
        array = _from_matrix(
            tensors[_theirs(name)].astype(np.float32), spec, f"{_theirs(name)} in {folder}"
        )
        values.append(jnp.asarray(array * np.float32(factors.get(_kind(name), 1.0))))
    params = jax.tree.unflatten(jax.tree.structure(specs), values)
    parity(
        folder,
        model,
        Parametrization(),
        params,
        positions=int(config.get("max_position_embeddings", 2048)),
    )
    return model, params


def parity(
    folder: Path, model: Model, parametrization: Parametrization, params: Params, *, positions: int
) -> Parity:
    """How far the logits of `params` are from those of the files in `folder`, on random tokens.

    Raises ValueError when a difference is not below TOLERANCE.
    """
    sequences, length = CHECKED
    tokens = np.random.default_rng(0).integers(
        0, model.vocabulary, (sequences, min(length, positions)), np.int32
    )
    graphdef, _ = abstract(model, parametrization)
    with jax.default_matmul_precision("highest"):
        ours = jax.jit(lambda params: nnx.merge(graphdef, params)(tokens))(params)
    ours = np.asarray(ours, np.float64)
    found = {
        "model/hf_reference.py": float(np.abs(hf_reference.logits(folder, tokens) - ours).max())
    }
    if importlib.util.find_spec("torch") and importlib.util.find_spec("transformers"):
        found["transformers"] = float(np.abs(_transformers_logits(folder, tokens) - ours).max())
    for reader, difference in found.items():
        if not difference < TOLERANCE:
            raise ValueError(
                f"{folder} read by {reader} gives logits {difference:.3g} away from those of the model here; "
                f"they must agree within {TOLERANCE:g} to be one model in float32"
            )
    return Parity(found["model/hf_reference.py"], found.get("transformers"))


def _safetensors():
    try:
        import safetensors.numpy
    except ImportError as error:
        raise ValueError(
            "Hugging Face checkpoints are safetensors files: pip install 'scalejax[hf]'"
        ) from error
    return safetensors.numpy


def _folded(
    model: Model, parametrization: Parametrization, params: Params
) -> dict[str, np.ndarray]:
    """The tensors of the checkpoint: transformers' names and shapes, and all multipliers in the weights.

    There, queries and keys are multiplied and divided by sqrt(head_size), and nothing else has a multiplier.
    """
    network, specs = Transformer(model, parametrization), _flat(abstract(model, parametrization)[1])
    block = network.blocks[0]
    factors = {
        "attention.query_norm.gain" if model.qk_norm else "attention.query": block.attention.scale
        * math.sqrt(model.head_size),
        "attention.output": block.branch_multiplier,
        "mlp.down": block.branch_multiplier,
        "head": network.output_multiplier,
    }
    tensors = {}
    for name, value in _flat(params).items():
        matrix = _as_matrix(np.asarray(value, np.float32), specs[name])
        tensors[_theirs(name)] = np.ascontiguousarray(
            matrix * np.float32(factors.get(_kind(name), 1.0))
        )
    if model.tied and network.output_multiplier != 1:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] * np.float32(
            network.output_multiplier
        )
    return tensors


def _stream_factors(model: Model, epsilon: float) -> dict[str, float]:
    """What `import_hf` multiplies parameters by, so that norms of another epsilon give what they gave."""
    c = math.sqrt(NORM_EPSILON / epsilon)
    factors = {"embedding": c, "attention.output": c, "mlp.down": c}
    if model.qk_norm:
        factors |= {"attention.query": c, "attention.key": c}
    return (
        factors | {"norm.gain": 1 / c} if model.tied else factors
    )  # the embedding is the head too


def _config(model: Model, *, tied: bool, positions: int, end: int | None) -> dict[str, Any]:
    """The config.json of a model; `rope_theta` in the words of transformers 4, which 5 reads too."""
    architecture, model_type = (
        ("Qwen3ForCausalLM", "qwen3") if model.qk_norm else ("LlamaForCausalLM", "llama")
    )
    return {
        "architectures": [architecture],
        "model_type": model_type,
        "vocab_size": model.vocabulary,
        "hidden_size": model.width,
        "intermediate_size": model.mlp_width,
        "num_hidden_layers": model.depth,
        "num_attention_heads": model.heads,
        "num_key_value_heads": model.kv_heads,
        "head_dim": model.head_size,
        "max_position_embeddings": positions,
        "rms_norm_eps": NORM_EPSILON,
        "rope_theta": ROPE_THETA,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": tied,
        "bos_token_id": end,
        "eos_token_id": end,
        "torch_dtype": "float32",
    }


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.is_file():
        raise ValueError(
            f"{folder} has no config.json: name the folder of a Hugging Face checkpoint"
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON ({error})") from error
    said = {name: config[name] for name in ONLY if name in config}
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    said |= {"RoPE type": rope.get("rope_type", rope.get("type", "default"))}
    said |= {"rope_theta": config.get("rope_theta") or rope.get("rope_theta", ROPE_THETA)}
    for name, value in said.items():
        known = {**ONLY, "RoPE type": ("default",), "rope_theta": (ROPE_THETA,)}[name]
        if value not in known:
            raise ValueError(
                f"{path} says {name} {value!r}; scalejax models know {' or '.join(map(repr, known))} alone: "
                "this checkpoint cannot be represented"
            )
    needed = (
        "model_type",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "vocab_size",
    )
    if missing := [name for name in needed if name not in config]:
        raise ValueError(f"{path} lacks {', '.join(missing)}")
    if not config.get("rms_norm_eps", 1e-6) > 0:
        raise ValueError(
            f"{path} says rms_norm_eps {config['rms_norm_eps']!r}; it must be positive"
        )
    return config


def _read_tensors(folder: Path) -> dict[str, np.ndarray]:
    index = folder / "model.safetensors.index.json"
    names = (
        sorted(set(json.loads(index.read_text())["weight_map"].values()))
        if index.is_file()
        else ["model.safetensors"]
    )
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise ValueError(
            f"{folder} has no {missing[0]}: weights are read from safetensors files alone"
        )
    tensors = {}
    for name in names:
        try:
            tensors |= _safetensors().load_file(folder / name)
        except Exception as error:  # the package raises its own
            raise ValueError(f"{folder / name} is not a sound safetensors file: {error}") from error
    return {
        name: array for name, array in tensors.items() if not name.endswith("rotary_emb.inv_freq")
    }


def _model(config: dict[str, Any], tensors: dict[str, np.ndarray], folder: Path) -> Model:
    heads, query = config["num_attention_heads"], "model.layers.0.self_attn.q_proj.weight"
    if query not in tensors:
        raise ValueError(f"{folder} holds no {query}: this is not a Llama-type checkpoint")
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
    )


def _check_names(wanted: set[str], found: set[str], folder: Path) -> None:
    if missing := sorted(wanted - found):
        raise ValueError(f"{folder} lacks {missing[0]} ({len(missing)} missing in all)")
    if strange := sorted(found - wanted):
        raise ValueError(
            f"{folder} holds {strange[0]}, which scalejax models have no place for ({len(strange)} in all)"
        )


def _as_matrix(value: np.ndarray, spec: Spec) -> np.ndarray:
    """Kernels (in.., out..) become matrices [out, in]; the embedding and gains are as they are."""
    return value if _stays(spec) else value.reshape(spec.fan_in, -1).T


def _from_matrix(array: np.ndarray, spec: Spec, name: str) -> np.ndarray:
    """The inverse of `_as_matrix`. Raises ValueError when the shape is another."""
    expected = spec.shape if _stays(spec) else (math.prod(spec.shape) // spec.fan_in, spec.fan_in)
    if array.shape != expected:
        raise ValueError(f"{name} has shape {array.shape}; its config.json asks for {expected}")
    return array if _stays(spec) else array.T.reshape(spec.shape)


def _stays(spec: Spec) -> bool:
    return spec.role in ("embedding", "tied") or len(spec.shape) == 1


def _flat(tree: Params) -> dict[str, Any]:
    """{`blocks.3.mlp.up`: leaf}"""
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): leaf
        for path, leaf in jax.tree.leaves_with_path(tree)
    }


def _kind(name: str) -> str:
    """The name without its block: `blocks.3.mlp.up` is a `mlp.up`."""
    return re.sub(r"^blocks\.\d+\.", "", name)


def _theirs(name: str) -> str:
    """transformers' name of a parameter."""
    block = re.match(r"blocks\.(\d+)\.", name)
    return (f"model.layers.{block[1]}." if block else "") + NAMES[_kind(name)]


def _transformers_logits(folder: Path, tokens_bt: np.ndarray) -> np.ndarray:
    """float64 [b, t, v], computed in float32 by the model that transformers makes of the folder."""
    torch, transformers = importlib.import_module("torch"), importlib.import_module("transformers")
    network = (
        transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
        .float()
        .eval()
    )
    with torch.no_grad():
        return network(torch.tensor(tokens_bt, dtype=torch.long)).logits.double().numpy()
