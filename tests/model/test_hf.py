"""Checkpoints of transformers, out and in (mirrors scalejax/model/hf.py, hf_reference.py).

Tests marked `hf` need torch and transformers and are skipped where they are not installed; `make test-hf` runs them in an
environment of their own.
"""

import dataclasses
import importlib.util
import json

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file

from scalejax.config import Model, Parametrization
from scalejax.model import hf_reference
from scalejax.model.hf import export_hf, import_hf, parity
from scalejax.model.parametrization import completep, mup, standard
from scalejax.model.transformer import abstract, initialize

MISSING = [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]
needs_transformers = [
    pytest.mark.hf,
    pytest.mark.skipif(
        bool(MISSING), reason=f"{', '.join(MISSING)} not installed: pip install 'scalejax[hf]'"
    ),
    pytest.mark.filterwarnings("default"),  # their own
]

PLAIN = Model(
    width=24, depth=2, heads=4, kv_heads=2, head_size=8, mlp_width=40, vocabulary=60
)  # heads are wider than width
MODELS = {
    "plain": PLAIN,
    "tied": dataclasses.replace(PLAIN, tied=True),
    "qk_norm": dataclasses.replace(PLAIN, qk_norm=True, kv_heads=4),
}
PARAMETRIZATIONS = {
    "standard": standard(),
    "mup": mup(base_width=6),
    "completep": completep(
        base_width=6, base_depth=1, base_head_size=2
    ),  # every multiplier is another number than 1
}
both = pytest.mark.parametrize(
    ("model", "parametrization"),
    [
        (model, parametrization)
        for model in MODELS.values()
        for parametrization in PARAMETRIZATIONS.values()
    ],
    ids=[f"{model}-{parametrization}" for model in MODELS for parametrization in PARAMETRIZATIONS],
)


def weights(model, parametrization=None, seed=0):
    """Initial values and as much noise, so that gains and multipliers matter, and logits are a few units: float32 holds 1e-4."""
    params = initialize(model, parametrization or standard(), jax.random.key(seed))
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(seed + 1), len(leaves))
    noisy = [x + 0.2 * jax.random.normal(key, x.shape) for x, key in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(structure, noisy)


def logits(model, parametrization, params, tokens):
    graphdef, _ = abstract(model, parametrization)
    return np.asarray(nnx.merge(graphdef, params)(tokens))


def edit(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


@pytest.fixture
def exported(tmp_path):
    params = weights(PLAIN)
    export_hf(PLAIN, standard(), params, tmp_path / "out", positions=32)
    return tmp_path / "out"


@both
def test_an_export_read_back_by_numpy_has_the_same_logits(model, parametrization, tmp_path):
    params = weights(model, parametrization)
    found = export_hf(model, parametrization, params, tmp_path / "out", positions=32, end=1)
    tokens = np.random.default_rng(1).integers(0, model.vocabulary, (2, 20))
    expected = logits(model, parametrization, params, tokens)
    assert found.numpy < 1e-5 and np.abs(expected).max() > 0.1
    assert np.abs(hf_reference.logits(tmp_path / "out", tokens) - expected).max() < 1e-4


def test_the_head_of_a_tied_model_is_written_only_when_it_has_a_multiplier(tmp_path):
    for name, parametrization in PARAMETRIZATIONS.items():
        export_hf(
            MODELS["tied"], parametrization, weights(MODELS["tied"]), tmp_path / name, positions=32
        )
        tied = json.loads((tmp_path / name / "config.json").read_text())["tie_word_embeddings"]
        assert (
            tied
            == (name == "standard")
            == ("lm_head.weight" not in load_file(tmp_path / name / "model.safetensors"))
        )


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_what_was_exported_comes_back_to_the_bit(model, tmp_path):
    params = weights(model)
    export_hf(model, standard(), params, tmp_path / "out", positions=32)
    again, values = import_hf(tmp_path / "out")
    assert again == model and jax.tree.structure(values) == jax.tree.structure(params)
    assert all(
        np.array_equal(a, b)
        for a, b in zip(jax.tree.leaves(values), jax.tree.leaves(params), strict=True)
    )


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_a_checkpoint_with_another_norm_epsilon_keeps_its_function(model, tmp_path):
    params = weights(model)
    export_hf(model, standard(), params, tmp_path / "out", positions=32)
    edit(tmp_path / "out", rms_norm_eps=0.1)
    tokens = np.random.default_rng(1).integers(0, model.vocabulary, (2, 20))
    theirs = hf_reference.logits(tmp_path / "out", tokens)
    assert np.abs(theirs - logits(model, standard(), params, tokens)).max() > 0.01, (
        "the epsilon makes no difference here"
    )
    _, values = import_hf(tmp_path / "out")
    assert np.abs(theirs - logits(model, standard(), values, tokens)).max() < 1e-4


def test_shards_and_bfloat16_are_read(exported):
    tensors = load_file(exported / "model.safetensors")
    (exported / "model.safetensors").unlink()
    tensors = {name: array.astype(ml_dtypes.bfloat16) for name, array in tensors.items()}
    names = sorted(tensors)
    for shard in (0, 1):
        part = {name: tensors[name] for name in names[shard::2]}
        save_file(part, exported / f"part-{shard}.safetensors", metadata={"format": "pt"})
    index = {name: f"part-{i % 2}.safetensors" for i, name in enumerate(names)}
    (exported / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": index})
    )
    _, values = import_hf(exported)
    assert values["embedding"].dtype == jnp.float32
    assert np.array_equal(
        values["embedding"], tensors["model.embed_tokens.weight"].astype(np.float32)
    )


def test_weights_that_are_not_those_of_the_files_are_found_out(exported):
    params = weights(PLAIN)
    parity(exported, PLAIN, standard(), params, positions=32)
    params["blocks"][1]["attention"]["key"] *= 1.01
    with pytest.raises(ValueError, match="must agree within"):
        parity(exported, PLAIN, standard(), params, positions=32)


def test_an_export_that_fails_its_check_leaves_nothing(tmp_path):
    params = weights(PLAIN)
    params["head"] = params["head"].at[0, 0].set(jnp.nan)
    with pytest.raises(ValueError, match="must agree"):
        export_hf(PLAIN, standard(), params, tmp_path / "out", positions=32)
    assert not list(tmp_path.iterdir())


def test_an_export_never_writes_into_a_folder_that_exists(exported):
    before = (exported / "config.json").read_text()
    with pytest.raises(ValueError, match="name a new folder"):
        export_hf(PLAIN, standard(), weights(PLAIN, seed=5), exported, positions=32)
    assert (exported / "config.json").read_text() == before


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_type": "gpt2"}, "model_type 'gpt2'"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu'"),
        ({"attention_bias": True}, "attention_bias True"),
        ({"use_sliding_window": True}, "use_sliding_window True"),
        ({"rope_theta": 500_000.0}, r"rope_theta 500000\.0; scalejax models know 10000\.0 alone"),
        ({"rope_parameters": {"rope_theta": 1e6}, "rope_theta": None}, r"rope_theta 1000000\.0"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "RoPE type 'llama3'"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"rms_norm_eps": 0.0}, "must be positive"),
        (
            {"num_hidden_layers": 3},
            r"lacks model\.layers\.2\.input_layernorm\.weight \(9 missing in all\)",
        ),
        ({"num_hidden_layers": 1}, r"holds model\.layers\.1\.input_layernorm\.weight"),
        ({"intermediate_size": 41}, r"shape \(24, 40\); its config\.json asks for \(24, 41\)"),
        (
            {"tie_word_embeddings": True, "model_type": "qwen3"},
            "lacks model.layers.0.self_attn.k_norm",
        ),
    ],
)
def test_what_cannot_be_represented_is_refused_with_the_reason(changes, said, exported):
    import_hf(exported)
    edit(exported, **changes)
    with pytest.raises(ValueError, match=said):
        import_hf(exported)


def test_folders_that_are_no_sound_checkpoint_are_named(exported, tmp_path):
    with pytest.raises(ValueError, match=r"nowhere has no config\.json"):
        import_hf(tmp_path / "nowhere")
    content = (exported / "model.safetensors").read_bytes()
    (exported / "model.safetensors").write_bytes(content[:-100])
    with pytest.raises(ValueError, match=r"model\.safetensors is not a sound safetensors file"):
        import_hf(exported)
    (exported / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"has no model\.safetensors"):
        import_hf(exported)


class TestTransformers:
    pytestmark = needs_transformers

    @both
    def test_transformers_loads_an_export_with_the_same_logits(
        self, model, parametrization, tmp_path
    ):
        import torch
        from transformers import AutoModelForCausalLM

        params = weights(model, parametrization)
        found = export_hf(model, parametrization, params, tmp_path / "out", positions=32, end=1)
        assert found.transformers is not None and found.transformers < 1e-4
        network, seen = AutoModelForCausalLM.from_pretrained(
            tmp_path / "out", output_loading_info=True
        )
        assert not seen["missing_keys"] and not seen["unexpected_keys"]
        assert type(network).__name__ == (
            "Qwen3ForCausalLM" if model.qk_norm else "LlamaForCausalLM"
        )
        tokens = np.random.default_rng(1).integers(0, model.vocabulary, (2, 20))
        with torch.no_grad():
            theirs = network(torch.tensor(tokens)).logits.numpy()
        assert np.abs(theirs - logits(model, parametrization, params, tokens)).max() < 1e-4
        assert network.config.eos_token_id == 1

    @pytest.mark.parametrize("tied", [False, True])
    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    @pytest.mark.parametrize("kind", ["Llama", "Qwen3"])
    def test_a_checkpoint_that_transformers_wrote_comes_in_with_the_same_logits(
        self, kind, dtype, tied, tmp_path
    ):
        import torch
        import transformers

        torch.manual_seed(0)
        sizes = dict(
            hidden_size=24,
            intermediate_size=40,
            num_hidden_layers=2,
            num_attention_heads=4,
            vocab_size=60,
        )
        config = getattr(transformers, f"{kind}Config")(
            **sizes,
            num_key_value_heads=2,
            head_dim=8,
            rms_norm_eps=1e-5,
            tie_word_embeddings=tied,
            initializer_range=0.2,
        )
        network = getattr(transformers, f"{kind}ForCausalLM")(config).to(getattr(torch, dtype))
        network.save_pretrained(tmp_path / "in")
        network = type(network).from_pretrained(
            tmp_path / "in", dtype=torch.float32
        )  # .float() would keep RoPE in bfloat16
        model, values = import_hf(tmp_path / "in")
        assert model == dataclasses.replace(PLAIN, tied=tied, qk_norm=kind == "Qwen3")
        tokens = np.random.default_rng(1).integers(0, 60, (2, 20))
        with torch.no_grad():
            theirs = network(torch.tensor(tokens)).logits.numpy()
        assert np.abs(theirs).max() > 0.5
        assert np.abs(theirs - logits(model, Parametrization(), values, tokens)).max() < 1e-4
