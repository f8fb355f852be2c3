"""Hugging Face checkpoints are read as they are, or refused (mirrors
scalejax/model/hf_import.py).

Tests marked `hf` need torch and transformers and are skipped where these are not
installed; `make test-hf` runs them in an environment of their own.
"""

import dataclasses
import json

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from scalejax.model import hf_reference
from scalejax.model.hf_export import export_hf
from scalejax.model.hf_import import import_hf
from scalejax.model.parametrization import standard
from tests.model.hf_models import (
    MODELS,
    NEEDS_TRANSFORMERS,
    PLAIN,
    edit_config,
    every_model,
    logits,
    random_tokens,
    random_weights,
)


@pytest.fixture
def exported(tmp_path):
    export_hf(PLAIN, standard(), random_weights(PLAIN), tmp_path / "out", positions=32)
    return tmp_path / "out"


@every_model
def test_an_exported_model_is_imported_bit_for_bit(model, tmp_path):
    params = random_weights(model)
    export_hf(model, standard(), params, tmp_path / "out", positions=32)
    imported_model, imported = import_hf(tmp_path / "out")
    assert imported_model == model
    assert jax.tree.structure(imported) == jax.tree.structure(params)
    pairs = zip(jax.tree.leaves(imported), jax.tree.leaves(params), strict=True)
    assert all(np.array_equal(a, b) for a, b in pairs)


@every_model
def test_a_checkpoint_with_another_norm_epsilon_keeps_its_logits(model, tmp_path):
    params = random_weights(model)
    export_hf(model, standard(), params, tmp_path / "out", positions=32)
    edit_config(tmp_path / "out", rms_norm_eps=0.1)
    tokens = random_tokens(model)
    theirs = hf_reference.logits(tmp_path / "out", tokens)
    with_our_epsilon = logits(model, standard(), params, tokens)
    assert np.abs(theirs - with_our_epsilon).max() > 0.01, "the epsilon makes no difference"
    _, imported = import_hf(tmp_path / "out")
    assert np.abs(theirs - logits(model, standard(), imported, tokens)).max() < 1e-4


def test_null_kv_heads_are_as_many_as_heads(tmp_path):
    model = MODELS["qk_norm"]
    export_hf(model, standard(), random_weights(model), tmp_path / "out", positions=32)
    edit_config(tmp_path / "out", num_key_value_heads=None)
    assert import_hf(tmp_path / "out")[0] == model


def test_shards_and_bfloat16_are_read(exported):
    tensors = load_file(exported / "model.safetensors")
    (exported / "model.safetensors").unlink()
    tensors = {name: array.astype(ml_dtypes.bfloat16) for name, array in tensors.items()}
    names = sorted(tensors)
    for shard in (0, 1):
        part = {name: tensors[name] for name in names[shard::2]}
        save_file(part, exported / f"part-{shard}.safetensors", metadata={"format": "pt"})
    weight_map = {name: f"part-{i % 2}.safetensors" for i, name in enumerate(names)}
    index = json.dumps({"metadata": {}, "weight_map": weight_map})
    (exported / "model.safetensors.index.json").write_text(index)
    _, imported = import_hf(exported)
    assert imported["embedding"].dtype == jnp.float32
    expected = tensors["model.embed_tokens.weight"].astype(np.float32)
    assert np.array_equal(imported["embedding"], expected)


@pytest.mark.parametrize(
    "changes",
    [{"rope_theta": 500.0}, {"rope_theta": None, "rope_parameters": {"rope_theta": 500.0}}],
)
def test_the_base_of_rope_is_read_where_transformers_4_or_5_writes_it(changes, exported):
    assert import_hf(exported)[0] == PLAIN
    edit_config(exported, **changes)
    model, params = import_hf(exported)
    assert model == dataclasses.replace(PLAIN, rope_theta=500.0)
    tokens = random_tokens(PLAIN)
    far = logits(model, standard(), params, tokens) - logits(PLAIN, standard(), params, tokens)
    assert np.abs(far).max() > 1e-3


# Changes of config.json, and what the message says.
UNSUPPORTED = [
    ({"model_type": "gpt2"}, "model_type 'gpt2'"),
    ({"hidden_act": "gelu"}, "hidden_act 'gelu'"),
    ({"attention_bias": True}, "attention_bias True"),
    ({"use_sliding_window": True}, "use_sliding_window True"),
    ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "RoPE type 'llama3'"),
    ({"quantization_config": {"bits": 4}}, "quantization_config"),
    ({"rms_norm_eps": 0.0}, "must be positive"),
    (
        {"num_hidden_layers": 3},
        r"lacks the tensor model\.layers\.2\.input_layernorm\.weight \(9 missing in all\)",
    ),
    ({"num_hidden_layers": 1}, r"has the tensor model\.layers\.1\.input_layernorm\.weight"),
    (
        {"intermediate_size": 41},
        r"shape \(24, 40\); expected \(24, 41\) according to its config\.json",
    ),
    (
        {"tie_word_embeddings": True, "model_type": "qwen3"},
        r"lacks the tensor model\.layers\.0\.self_attn\.k_norm",
    ),
]


@pytest.mark.parametrize(("changes", "message"), UNSUPPORTED)
def test_a_checkpoint_that_cannot_be_represented_is_refused(changes, message, exported):
    import_hf(exported)
    edit_config(exported, **changes)
    with pytest.raises(ValueError, match=message):
        import_hf(exported)


def test_a_folder_that_is_not_a_valid_checkpoint_is_refused(exported, tmp_path):
    with pytest.raises(ValueError, match=r"nowhere has no config\.json"):
        import_hf(tmp_path / "nowhere")
    content = (exported / "model.safetensors").read_bytes()
    (exported / "model.safetensors").write_bytes(content[:-100])
    with pytest.raises(ValueError, match=r"model\.safetensors is not a valid safetensors file"):
        import_hf(exported)
    (exported / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"has no model\.safetensors"):
        import_hf(exported)


class TestTransformers:
    pytestmark = NEEDS_TRANSFORMERS

    @pytest.mark.parametrize("tied", [False, True])
    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    @pytest.mark.parametrize("kind", ["Llama", "Qwen3"])
    def test_a_checkpoint_written_by_transformers_is_imported_with_the_same_logits(
        self, kind, dtype, tied, tmp_path
    ):
        import torch  # pyright: ignore[reportMissingImports]
        import transformers  # pyright: ignore[reportMissingImports]

        torch.manual_seed(0)
        config = getattr(transformers, f"{kind}Config")(
            hidden_size=24,
            intermediate_size=40,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            vocab_size=60,
            rms_norm_eps=1e-5,
            tie_word_embeddings=tied,
            initializer_range=0.2,
        )
        network = getattr(transformers, f"{kind}ForCausalLM")(config).to(getattr(torch, dtype))
        network.save_pretrained(tmp_path / "in")
        # Loaded anew, because .float() would leave RoPE in bfloat16.
        network = type(network).from_pretrained(tmp_path / "in", dtype=torch.float32)
        model, imported = import_hf(tmp_path / "in")
        assert model == dataclasses.replace(PLAIN, tied=tied, qk_norm=kind == "Qwen3")
        tokens = random_tokens(model)
        with torch.no_grad():
            theirs = network(torch.tensor(tokens)).logits.numpy()
        assert np.abs(theirs).max() > 0.5
        assert np.abs(theirs - logits(model, standard(), imported, tokens)).max() < 1e-4
