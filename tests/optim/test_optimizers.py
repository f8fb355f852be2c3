"""AdamW against its formula, written out in numpy (mirrors scalejax/optim/optimizers.py)."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from scalejax.model.parametrization import Scaling
from scalejax.optim.optimizers import Hyperparameters, adamw

NUMBERS = dict(peak=0.1, beta1=0.8, beta2=0.9, epsilon=1e-2, weight_decay=0.3, clip=0.0, z_loss=0.0)
SCALINGS = {"w": Scaling(init_std=1.0, learning_rate=0.25, epsilon=0.5, weight_decay=4.0),
            "gain": Scaling(init_std=0.0, learning_rate=1.0, epsilon=0.5, weight_decay=0.0)}  # fmt: skip
RATES = (0.05, 0.1, 0.02)


def trained(decay: str, gradients: list[dict[str, np.ndarray]], **changes: float) -> dict[str, np.ndarray]:
    numbers = Hyperparameters(**{name: jnp.float32(value) for name, value in (NUMBERS | changes).items()})
    params = {"w": jnp.asarray([1.0, -2.0]), "gain": jnp.asarray([3.0])}
    state = adamw(numbers, jnp.float32(0), scalings=SCALINGS, decay=decay).init(params)
    for rate, gradient in zip(RATES, gradients, strict=True):
        updates, state = adamw(numbers, jnp.float32(rate), scalings=SCALINGS, decay=decay).update(gradient, state, params)
        params = optax.apply_updates(params, updates)
    return jax.device_get(params)


def by_formula(decay: str, gradients: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    found = {}
    for name, w in {"w": np.asarray([1.0, -2.0]), "gain": np.asarray([3.0])}.items():
        row, m, v = SCALINGS[name], 0.0, 0.0
        for step, (rate, gradient) in enumerate(zip(RATES, gradients, strict=True), 1):
            g = gradient[name].astype(float)
            m, v = 0.8 * m + 0.2 * g, 0.9 * v + 0.1 * g**2
            direction = (m / (1 - 0.8**step)) / (np.sqrt(v / (1 - 0.9**step)) + 1e-2 * row.epsilon)
            shrink = {"independent": 0.3 / 0.1 * (row.weight_decay > 0), "standard": 0.3 * row.learning_rate * row.weight_decay}
            w = w - rate * row.learning_rate * direction - rate * shrink[decay] * w
        found[name] = w
    return found


def gradients(scale: float = 1.0) -> list[dict[str, np.ndarray]]:
    generator = np.random.default_rng(0)
    draws = [scale * generator.normal(size=3).astype(np.float32) for _ in RATES]
    return [{"w": draw[:2], "gain": draw[2:]} for draw in draws]


@pytest.mark.parametrize("decay", ["independent", "standard"])
def test_three_steps_are_the_formula_with_every_multiplier(decay):
    found, expected = trained(decay, gradients()), by_formula(decay, gradients())
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=2e-6)


def test_epsilon_and_its_multiplier_matter_for_small_gradients():
    small = gradients(scale=1e-2)
    found, expected = trained("standard", small), by_formula("standard", small)
    np.testing.assert_allclose(found["w"], expected["w"], rtol=2e-6)
    assert abs(found["gain"] - trained("standard", small, epsilon=1e-8)["gain"]) > 0.01


def test_norm_gains_are_not_decayed_in_either_mode():
    still = [{"w": np.zeros(2, np.float32), "gain": np.zeros(1, np.float32)}] * 3
    for decay in ("independent", "standard"):
        assert trained(decay, still)["gain"] == 3.0
        assert np.all(np.abs(trained(decay, still)["w"]) < [1.0, 2.0])


def test_independent_decay_does_not_depend_on_the_peak_and_standard_does():
    still = [{"w": np.zeros(2, np.float32), "gain": np.zeros(1, np.float32)}] * 3
    shares = [rate / 0.1 for rate in RATES]
    np.testing.assert_allclose(trained("independent", still)["w"][0], np.prod([1 - 0.3 * share for share in shares]), rtol=1e-6)
    np.testing.assert_allclose(trained("standard", still)["w"][0], np.prod([1 - 0.3 * rate for rate in RATES]), rtol=1e-6)


def test_clipping_bounds_the_whole_gradient_and_zero_leaves_it_alone():
    large = gradients(scale=100.0)
    norms = [np.sqrt(sum(np.sum(g**2) for g in step.values())) for step in large]
    clipped = [{name: g / norm for name, g in step.items()} for step, norm in zip(large, norms, strict=True)]
    np.testing.assert_allclose(trained("standard", large, clip=1.0)["w"], by_formula("standard", clipped)["w"], rtol=1e-5)
    np.testing.assert_allclose(trained("standard", large)["w"], by_formula("standard", large)["w"], rtol=1e-5)
