"""Small models, their weights and their logits, for the tests of Hugging Face
checkpoints.
"""

import importlib.util
import itertools
import json
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

from scalejax.config import Model, Parametrization
from scalejax.model.parameters import Params
from scalejax.model.parametrization import completep, mup, standard
from scalejax.model.transformer import abstract, initialize

MISSING = [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]
NEEDS_TRANSFORMERS = [
    pytest.mark.hf,
    pytest.mark.skipif(
        bool(MISSING), reason=f"{', '.join(MISSING)} not installed: pip install 'scalejax[hf]'"
    ),
    # Torch and transformers raise warnings that are not ours.
    pytest.mark.filterwarnings("default"),
]

# Its heads together are wider than the residual stream.
PLAIN = Model(width=24, depth=2, heads=4, kv_heads=2, head_size=8, mlp_width=40, vocabulary=60)
MODELS = {
    "plain": PLAIN,
    "tied": replace(PLAIN, tied=True),
    # Another base of RoPE, too.
    "qk_norm": replace(PLAIN, qk_norm=True, kv_heads=4, rope_theta=500.0),
}
PARAMETRIZATIONS = {
    "standard": standard(),
    "mup": mup(base_width=6),
    # Every multiplier differs from 1.
    "completep": completep(base_width=6, base_depth=1, base_head_size=2),
}

every_model = pytest.mark.parametrize("model", list(MODELS.values()), ids=list(MODELS))
every_model_and_parametrization = pytest.mark.parametrize(
    ("model", "parametrization"),
    list(itertools.product(MODELS.values(), PARAMETRIZATIONS.values())),
    ids=["-".join(names) for names in itertools.product(MODELS, PARAMETRIZATIONS)],
)


def random_weights(
    model: Model, parametrization: Parametrization | None = None, seed: int = 0
) -> Params:
    """Initial values plus noise, so that gains and multipliers matter.

    Logits are a few units large, so that float32 holds them to 1e-4.
    """
    params = initialize(model, parametrization or standard(), jax.random.key(seed))
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(seed + 1), len(leaves))
    noisy = [x + 0.2 * jax.random.normal(key, x.shape) for x, key in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(structure, noisy)


def random_tokens(model: Model) -> np.ndarray:
    return np.random.default_rng(1).integers(0, model.vocabulary, (2, 20))


def logits(
    model: Model, parametrization: Parametrization, params: Params, tokens: np.ndarray
) -> np.ndarray:
    graphdef, _ = abstract(model, parametrization)
    return np.asarray(nnx.merge(graphdef, params)(tokens))


def edit_config(folder: Path, **changes: object) -> None:
    """Change values of the config.json in a folder."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))
