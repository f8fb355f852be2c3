"""Exported checkpoints give the logits of the model.

Mirrors scalejax/model/hf_export.py, hf_parity.py and hf_reference.py. Tests marked `hf`
need torch and transformers and are skipped where these are not installed; `make
test-hf` runs them in an environment of their own.
"""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from scalejax.model import hf_reference
from scalejax.model.hf_export import export_hf
from scalejax.model.hf_parity import TOLERANCE, check_parity
from scalejax.model.parametrization import standard
from tests.model.hf_models import (
    MODELS,
    NEEDS_TRANSFORMERS,
    PARAMETRIZATIONS,
    PLAIN,
    every_model_and_parametrization,
    logits,
    random_tokens,
    random_weights,
)


@pytest.fixture
def exported(tmp_path):
    export_hf(PLAIN, standard(), random_weights(PLAIN), tmp_path / "out", positions=32)
    return tmp_path / "out"


@every_model_and_parametrization
def test_an_export_read_by_numpy_has_the_same_logits(model, parametrization, tmp_path):
    params = random_weights(model, parametrization)
    parity = export_hf(model, parametrization, params, tmp_path / "out", positions=32, end=1)
    tokens = random_tokens(model)
    expected = logits(model, parametrization, params, tokens)
    assert parity.numpy < 1e-5
    assert np.abs(expected).max() > 0.1, "all logits are small: this test could not fail"
    assert np.abs(hf_reference.logits(tmp_path / "out", tokens) - expected).max() < 1e-4


@pytest.mark.parametrize("name", PARAMETRIZATIONS)
def test_a_tied_model_becomes_untied_only_if_its_head_has_a_multiplier(name, tmp_path):
    model, folder = MODELS["tied"], tmp_path / "out"
    export_hf(model, PARAMETRIZATIONS[name], random_weights(model), folder, positions=32)
    config = json.loads((folder / "config.json").read_text())
    is_tied = name == "standard"
    assert config["tie_word_embeddings"] == is_tied
    assert ("lm_head.weight" not in load_file(folder / "model.safetensors")) == is_tied


def test_weights_that_differ_from_the_files_are_detected(exported):
    params = random_weights(PLAIN)
    check_parity(exported, PLAIN, standard(), params, positions=32)
    params["blocks"][1]["attention"]["key"] *= 1.01
    with pytest.raises(ValueError, match="must be the same model"):
        check_parity(exported, PLAIN, standard(), params, positions=32)


def test_large_logits_are_compared_relative_to_their_size(tmp_path):
    """Their rounding errors are above what small ones may differ by."""
    params = random_weights(PLAIN)
    params["head"] *= 1e4
    parity = export_hf(PLAIN, standard(), params, tmp_path / "out", positions=32)
    assert TOLERANCE < parity.numpy < parity.tolerance
    params["blocks"][1]["attention"]["key"] *= 1.01
    with pytest.raises(ValueError, match="must be the same model"):
        check_parity(tmp_path / "out", PLAIN, standard(), params, positions=32)


def test_an_export_that_fails_its_check_leaves_nothing(tmp_path):
    params = random_weights(PLAIN)
    params["head"] = params["head"].at[0, 0].set(jnp.nan)
    with pytest.raises(ValueError, match="must be the same model"):
        export_hf(PLAIN, standard(), params, tmp_path / "out", positions=32)
    assert not list(tmp_path.iterdir())


def test_an_export_never_writes_into_a_folder_that_exists(exported):
    before = (exported / "config.json").read_text()
    with pytest.raises(ValueError, match="exists already; give the name of a new folder"):
        export_hf(PLAIN, standard(), random_weights(PLAIN, seed=5), exported, positions=32)
    assert (exported / "config.json").read_text() == before


class TestTransformers:
    pytestmark = NEEDS_TRANSFORMERS

    @every_model_and_parametrization
    def test_transformers_loads_an_export_with_the_same_logits(
        self, model, parametrization, tmp_path
    ):
        import torch  # pyright: ignore[reportMissingImports]
        from transformers import AutoModelForCausalLM  # pyright: ignore[reportMissingImports]

        params = random_weights(model, parametrization)
        parity = export_hf(model, parametrization, params, tmp_path / "out", positions=32, end=1)
        assert parity.transformers is not None and parity.transformers < 1e-4
        network, loading = AutoModelForCausalLM.from_pretrained(
            tmp_path / "out", output_loading_info=True
        )
        assert not loading["missing_keys"] and not loading["unexpected_keys"]
        expected_class = "Qwen3ForCausalLM" if model.qk_norm else "LlamaForCausalLM"
        assert type(network).__name__ == expected_class
        assert network.config.eos_token_id == 1
        tokens = random_tokens(model)
        with torch.no_grad():
            theirs = network(torch.tensor(tokens)).logits.numpy()
        assert np.abs(theirs - logits(model, parametrization, params, tokens)).max() < 1e-4
