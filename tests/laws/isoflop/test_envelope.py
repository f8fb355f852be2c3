"""Approach 1 (mirrors scalejax/laws/isoflop/envelope.py)."""

import jax.numpy as jnp
import numpy as np
import pytest

from scalejax.laws.forms import Chinchilla
from scalejax.laws.isoflop.envelope import envelope


def test_the_envelope_of_training_curves_gives_the_exponents_of_the_law():
    law = Chinchilla(A=400.0, B=2000.0, E=1.7, alpha=0.34, beta=0.28)
    sizes = np.geomspace(1e7, 1e10, 40)
    D = np.geomspace(1e8, 1e12, 300)
    N, D = np.repeat(sizes, len(D)), np.tile(D, len(sizes))
    loss = np.asarray(law.loss(jnp.asarray(N), jnp.asarray(D)))
    fit = envelope(run=N, params=N, tokens=D, flops=6 * N * D, loss=loss)
    assert fit.law.params_exponent == pytest.approx(0.28 / 0.62, abs=0.01)
    assert fit.law.tokens_exponent == pytest.approx(0.34 / 0.62, abs=0.01)
    assert any("no winner between" in reason for reason in fit.reasons)
