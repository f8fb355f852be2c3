"""Check that a Hugging Face checkpoint and a model give the same logits."""

import importlib
import importlib.util
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from flax import nnx

from scalejax.config import Model, Parametrization
from scalejax.model import hf_reference
from scalejax.model.parameters import Params
from scalejax.model.transformer import abstract

# Two readings of a checkpoint are the same float32 model if no logit differs by more.
TOLERANCE = 1e-4

# Rounding errors grow with the logits, and so does the tolerance from a largest logit
# of this size on. Of a model of width 256 and depth 6 whose logits have a standard
# deviation of 32, two sound readings differ by 9e-5.
LARGE_LOGIT = 10.0

# Size of the random batch that is compared: sequences, and at most this many tokens in
# each.
SEQUENCES, TOKENS = 2, 128


class Parity(NamedTuple):
    """Largest absolute difference between our logits and those of other readers."""

    numpy: float
    """The reader is hf_reference.py, in float64."""
    transformers: float | None
    """The reader is transformers, in float32; None if it or torch is missing."""
    tolerance: float
    """What both are below."""


def check_parity(
    folder: Path, model: Model, parametrization: Parametrization, params: Params, *, positions: int
) -> Parity:
    """Compare the logits of `params` with those of the checkpoint in `folder`.

    Both read the same random tokens: at most `positions` in each sequence.

    Raises ValueError when a difference is not below the tolerance.
    """
    shape = (SEQUENCES, min(TOKENS, positions))
    tokens_bt = np.random.default_rng(0).integers(0, model.vocabulary, shape, np.int32)
    graphdef, _ = abstract(model, parametrization)
    # The default precision may use bfloat16 or TF32 on accelerators, which is above
    # TOLERANCE.
    with jax.default_matmul_precision("highest"):
        logits = jax.jit(lambda params: nnx.merge(graphdef, params)(tokens_bt))(params)
    logits_btv = np.asarray(logits, np.float64)
    tolerance = TOLERANCE * max(1.0, float(np.abs(logits_btv).max()) / LARGE_LOGIT)

    def difference(theirs_btv: np.ndarray, reader: str) -> float:
        largest = float(np.abs(theirs_btv - logits_btv).max())
        # Written so that NaN fails the check too.
        if not largest < tolerance:
            raise ValueError(
                f"{folder} read by {reader} gives logits that differ by up to {largest:.3g} from "
                f"those of the scalejax model; expected less than {tolerance:g}, because both "
                "must be the same model in float32"
            )
        return largest

    by_numpy = difference(hf_reference.logits(folder, tokens_bt), "model/hf_reference.py")
    by_transformers = None
    if importlib.util.find_spec("torch") and importlib.util.find_spec("transformers"):
        by_transformers = difference(_transformers_logits(folder, tokens_bt), "transformers")
    return Parity(by_numpy, by_transformers, tolerance)


def _transformers_logits(folder: Path, tokens_bt: np.ndarray) -> np.ndarray:
    """Logits of transformers, float64 [b, t, v] but computed in float32."""
    torch, transformers = importlib.import_module("torch"), importlib.import_module("transformers")
    load = transformers.AutoModelForCausalLM.from_pretrained
    network = load(folder, attn_implementation="eager").float().eval()
    with torch.no_grad():
        return network(torch.tensor(tokens_bt, dtype=torch.long)).logits.double().numpy()
