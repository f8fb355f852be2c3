"""Every optimizer, compared with its formula in numpy and with optax.

Mirrors scalejax/optim/optimizers.py.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

from scalejax.config import Model, Optimizer, Parametrization
from scalejax.config.optimizer import OPTIMIZER_FIELDS
from scalejax.model.parameters import Params, Scalings, Spec, Specs, scalings
from scalejax.model.parametrization import Scaling, mup, standard
from scalejax.model.transformer import abstract, initialize
from scalejax.optim.optimizers import (
    MUON_RMS,
    Hyperparameters,
    beta2_from_half_life,
    evaluation_params,
    optimizer,
)

# A matrix and a gain, with multipliers that differ from 1 and from each other.
SCALINGS = {
    "w": Scaling(init_std=1.0, learning_rate=0.25, epsilon=0.5, weight_decay=4.0),
    "gain": Scaling(init_std=0.0, learning_rate=1.0, epsilon=0.5, weight_decay=0.0),
}
SPECS = {
    "w": Spec(shape=(2,), axes=("width",), role="output", fan_in=2),
    "gain": Spec(shape=(1,), axes=("width",), role="norm", fan_in=1),
}
START = {"w": np.asarray([1.0, -2.0]), "gain": np.asarray([3.0])}

# The learning rate of each step. The peak is 0.1.
RATES = (0.05, 0.1, 0.02)
HYPERPARAMETERS = {
    "peak": 0.1,
    "beta1": 0.8,
    "beta2": 0.9,
    "epsilon": 1e-2,
    "momentum": 0.95,
    "weight_decay": 0.3,
    "clip": 0.0,
    "z_loss": 0.0,
}

Gradient = dict[str, np.ndarray]


def run_steps(
    name: str,
    decay: str,
    gradients: Sequence[Gradient],
    params: Params,
    specs: Specs,
    scalings: Scalings,
    **changes: float,
) -> tuple[Params, optax.OptState]:
    """The parameters and the optimizer state after one step per gradient."""
    values = {key: jnp.float32(value) for key, value in (HYPERPARAMETERS | changes).items()}
    numbers = Hyperparameters(**values)
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params)

    def at_rate(rate: float) -> optax.GradientTransformation:
        return optimizer(
            name, numbers, jnp.float32(rate), specs=specs, scalings=scalings, decay=decay
        )

    state = at_rate(0).init(params)
    for rate, gradient in zip(RATES, gradients, strict=False):
        updates, state = at_rate(rate).update(gradient, state, params)
        params = jax.tree.map(jnp.add, params, updates)
    return jax.device_get((params, state))


def trained(
    decay: str, gradients: Sequence[Gradient], name: str = "adamw", **changes: float
) -> Params:
    return run_steps(name, decay, gradients, START, SPECS, SCALINGS, **changes)[0]


def normal_gradients(scale: float = 1.0) -> list[Gradient]:
    generator = np.random.default_rng(0)
    draws = [scale * generator.normal(size=3).astype(np.float32) for _ in RATES]
    return [{"w": draw[:2], "gain": draw[2:]} for draw in draws]


ZERO_GRADIENTS = [{"w": np.zeros(2, np.float32), "gain": np.zeros(1, np.float32)}] * 3


def decay_factor(decay: str, scaling: Scaling) -> float:
    """The factor of -rate x w in a step."""
    if decay == "independent":
        return 0.3 / 0.1 * (scaling.weight_decay > 0)
    return 0.3 * scaling.learning_rate * scaling.weight_decay


def adamw_by_formula(decay: str, gradients: Sequence[Gradient]) -> Params:
    """Loshchilov & Hutter 2019."""
    params = {}
    for name, w in START.items():
        scaling, m, v = SCALINGS[name], 0.0, 0.0
        for step, (rate, gradient) in enumerate(zip(RATES, gradients, strict=True), 1):
            g = gradient[name].astype(float)
            m = 0.8 * m + 0.2 * g
            v = 0.9 * v + 0.1 * g**2
            m_hat, v_hat = m / (1 - 0.8**step), v / (1 - 0.9**step)
            direction = m_hat / (np.sqrt(v_hat) + 1e-2 * scaling.epsilon)
            shrink = decay_factor(decay, scaling) * w
            w = w - rate * scaling.learning_rate * direction - rate * shrink
        params[name] = w
    return params


def lion_by_formula(decay: str, gradients: Sequence[Gradient]) -> Params:
    """Chen et al. 2023, algorithm 2."""
    params = {}
    for name, w in START.items():
        scaling, m = SCALINGS[name], 0.0
        for rate, gradient in zip(RATES, gradients, strict=True):
            g = gradient[name].astype(float)
            direction = np.sign(0.8 * m + 0.2 * g)
            shrink = decay_factor(decay, scaling) * w
            w = w - rate * scaling.learning_rate * direction - rate * shrink
            m = 0.9 * m + 0.1 * g
        params[name] = w
    return params


def schedule_free_by_formula(
    decay: str, gradients: Sequence[Gradient]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Defazio et al. 2024, algorithm 1: the points y and x of every tensor."""
    points = {}
    for name, w in START.items():
        scaling, v, x, y, z = SCALINGS[name], 0.0, w, w, w
        total, largest = 0.0, 0.0
        for step, (rate, gradient) in enumerate(zip(RATES, gradients, strict=True), 1):
            g = gradient[name].astype(float)
            v = 0.9 * v + 0.1 * g**2
            direction = g / (np.sqrt(v / (1 - 0.9**step)) + 1e-2 * scaling.epsilon)
            shrink = decay_factor(decay, scaling) * y
            z = z - rate * scaling.learning_rate * direction - rate * shrink
            largest = max(largest, rate)
            total += largest**2
            x = x + largest**2 / total * (z - x)
            y = 0.8 * x + 0.2 * z
        points[name] = (y, x)
    return points


@pytest.mark.parametrize("decay", ["independent", "standard"])
@pytest.mark.parametrize(
    ("name", "by_formula"), [("adamw", adamw_by_formula), ("lion", lion_by_formula)]
)
def test_three_steps_follow_the_formula_with_every_multiplier(name, by_formula, decay):
    params = trained(decay, normal_gradients(), name)
    expected = by_formula(decay, normal_gradients())
    for tensor in expected:
        np.testing.assert_allclose(params[tensor], expected[tensor], rtol=2e-6)


@pytest.mark.parametrize("decay", ["independent", "standard"])
def test_schedule_free_trains_at_one_point_and_is_evaluated_at_its_average(decay):
    name, draws = "schedule-free-adamw", normal_gradients()
    params, state = run_steps(name, decay, draws, START, SPECS, SCALINGS)
    to_evaluate = evaluation_params(name, params, state)
    for tensor, (y, x) in schedule_free_by_formula(decay, draws).items():
        np.testing.assert_allclose(params[tensor], y, rtol=2e-6)
        np.testing.assert_allclose(to_evaluate[tensor], x, rtol=2e-6)
        assert np.all(np.abs(x - y) > 1e-4), "the points are equal: this test could not fail"
    assert evaluation_params("adamw", params, state) is params


def orthogonalized(matrix: np.ndarray) -> np.ndarray:
    """Five Newton-Schulz steps of Jordan 2024, applied to the singular values.

    A step maps them by x -> 3.4445 x - 4.7750 x^3 + 2.0315 x^5, from those of M / |M|.
    """
    u, s, v = np.linalg.svd(matrix / np.linalg.norm(matrix), full_matrices=False)
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    assert np.all((s > 0.5) & (s < 1.5))
    return (u * s) @ v


def test_muon_makes_the_momentum_of_hidden_matrices_orthogonal_and_uses_adamw_for_the_others():
    generator = np.random.default_rng(1)
    query_axes, output_axes = ("width", "heads", "head_size"), ("heads", "head_size", "width")
    specs = {
        "query": Spec(shape=(6, 2, 4), axes=query_axes, role="hidden", fan_in=6),
        "output": Spec(shape=(2, 4, 6), axes=output_axes, role="hidden", fan_in=8),
        "gain": SPECS["gain"],
    }
    one = Scaling(init_std=1.0, learning_rate=1.0, epsilon=1.0, weight_decay=0.0)
    params = {name: generator.normal(size=spec.shape) for name, spec in specs.items()}
    draws = [
        {name: generator.normal(size=spec.shape).astype(np.float32) for name, spec in specs.items()}
        for _ in RATES
    ]
    by_muon, _ = run_steps("muon", "standard", draws, params, specs, dict.fromkeys(specs, one))

    for name, shape in {"query": (6, 8), "output": (8, 6)}.items():
        w, momentum = params[name].reshape(shape), np.zeros(shape)
        for step, (rate, draw) in enumerate(zip(RATES, draws, strict=True), 1):
            g = draw[name].reshape(shape).astype(float)
            momentum = 0.95 * momentum + 0.05 * g
            nesterov = 0.95 * momentum / (1 - 0.95 ** (step + 1)) + 0.05 * g / (1 - 0.95**step)
            w = w - rate * MUON_RMS * np.sqrt(8) * orthogonalized(nesterov)
        np.testing.assert_allclose(by_muon[name].reshape(shape), w, rtol=1e-4, atol=1e-5)

    gain_draws = [{"gain": draw["gain"]} for draw in draws]
    by_adamw, _ = run_steps(
        "adamw",
        "standard",
        gain_draws,
        {"gain": params["gain"]},
        {"gain": specs["gain"]},
        {"gain": one},
    )
    np.testing.assert_array_equal(by_muon["gain"], by_adamw["gain"])


# The same optimizers as optax composes them.
BY_OPTAX: dict[str, Callable[[float], optax.GradientTransformation]] = {
    "adamw": lambda rate: optax.adamw(rate, b1=0.8, b2=0.9, eps=1e-2, weight_decay=0.3),
    "lion": lambda rate: optax.lion(rate, b1=0.8, b2=0.9, weight_decay=0.3),
    "muon": lambda rate: optax.contrib.muon(
        rate, beta=0.95, weight_decay=0.3, consistent_rms=MUON_RMS
    ),
    "schedule-free-adamw": lambda rate: optax.contrib.schedule_free_adamw(
        rate, b1=0.8, b2=0.9, eps=1e-2, weight_decay=0.3
    ),
}


@pytest.mark.parametrize("name", OPTIMIZER_FIELDS)
def test_without_multipliers_every_step_is_that_of_optax(name):
    generator = np.random.default_rng(2)
    params: Params = {"w": generator.normal(size=(4, 6)).astype(np.float32)}
    draws = [{"w": generator.normal(size=(4, 6)).astype(np.float32)} for _ in RATES]
    specs = {"w": Spec(shape=(4, 6), axes=("width", "mlp_width"), role="hidden", fan_in=4)}
    one = {"w": Scaling(init_std=1.0, learning_rate=1.0, epsilon=1.0, weight_decay=1.0)}
    expected, state = params, BY_OPTAX[name](0.0).init(params)
    for step, (rate, draw) in enumerate(zip(RATES, draws, strict=True), 1):
        updates, state = BY_OPTAX[name](rate).update(draw, state, expected)
        expected = jax.tree.map(jnp.add, expected, updates)
        ours, _ = run_steps(name, "standard", draws[:step], params, specs, one)
        np.testing.assert_allclose(
            ours["w"], expected["w"], rtol=1e-5, atol=1e-6, err_msg=f"step {step}"
        )


def test_epsilon_and_its_multiplier_matter_for_small_gradients():
    small = normal_gradients(scale=1e-2)
    params, expected = trained("standard", small), adamw_by_formula("standard", small)
    np.testing.assert_allclose(params["w"], expected["w"], rtol=2e-6)
    assert abs(params["gain"] - trained("standard", small, epsilon=1e-8)["gain"]) > 0.01


@pytest.mark.parametrize("name", OPTIMIZER_FIELDS)
def test_gains_of_norms_are_not_decayed_in_either_mode(name):
    for decay in ("independent", "standard"):
        params = trained(decay, ZERO_GRADIENTS, name)
        np.testing.assert_allclose(params["gain"], 3.0, rtol=1e-6)
        assert np.all(np.abs(params["w"]) < [1.0, 2.0])


def test_independent_decay_depends_on_the_rate_relative_to_its_peak_and_standard_on_the_rate():
    independent = np.prod([1 - 0.3 * rate / 0.1 for rate in RATES])
    standard = np.prod([1 - 0.3 * rate for rate in RATES])
    params = {mode: trained(mode, ZERO_GRADIENTS) for mode in ("independent", "standard")}
    np.testing.assert_allclose(params["independent"]["w"][0], independent, rtol=1e-6)
    np.testing.assert_allclose(params["standard"]["w"][0], standard, rtol=1e-6)


def test_clipping_bounds_the_norm_of_all_gradients_together_and_zero_disables_it():
    large = normal_gradients(scale=100.0)
    clipped = []
    for gradient in large:
        norm = np.sqrt(sum(np.sum(g**2) for g in gradient.values()))
        clipped.append({name: g / norm for name, g in gradient.items()})
    for gradients, clip in ((clipped, 1.0), (large, 0.0)):
        params = trained("standard", large, clip=clip)
        expected = adamw_by_formula("standard", gradients)
        np.testing.assert_allclose(params["w"], expected["w"], rtol=1e-5)


def test_a_gradient_loses_half_its_weight_in_its_half_life_at_any_batch_size():
    for batch_tokens in (512, 4096):
        beta2 = beta2_from_half_life(half_life_tokens=40_960, batch_tokens=batch_tokens)
        assert beta2 ** (40_960 / batch_tokens) == pytest.approx(0.5, rel=1e-12)
    with pytest.raises(ValueError, match="positive number of tokens; got 0"):
        beta2_from_half_life(0, 512)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "sgd"}, "name must be one of adamw, lion, muon, schedule-free-adamw; got 'sgd'"),
        ({"name": "lion", "epsilon": 1e-6}, "Optimizer.epsilon is not used by the lion optimizer"),
        ({"momentum": 0.9}, "Optimizer.momentum is not used by the adamw optimizer"),
        ({"name": "schedule-free-adamw", "beta1": 0.0}, r"beta1 must be in \(0, 1\)"),
    ],
)
def test_an_invalid_optimizer_is_refused(fields, message):
    defaults: dict[str, Any] = {"learning_rate": 0.1}
    with pytest.raises(ValueError, match=message):
        Optimizer(**(defaults | fields))


def muon_update(parametrization: Parametrization, model: Model) -> Any:
    """The first update of every tensor under Muon at rate 1, from random gradients."""
    _, specs = abstract(model, parametrization)
    params = initialize(model, parametrization, jax.random.key(0))
    generator = np.random.default_rng(0)
    gradients = jax.tree.map(lambda w: generator.normal(size=w.shape).astype(np.float32), params)
    rule = optimizer(
        "muon",
        Hyperparameters(*(jnp.float32(x) for x in (1.0, 0.9, 0.98, 1e-8, 0.95, 0.0, 0.0, 0.0))),
        jnp.float32(1.0),
        specs=specs,
        scalings=scalings(specs, parametrization, model),
        decay="independent",
    )
    return rule.update(gradients, rule.init(params), params)[0]


def test_under_mup_the_norm_of_muons_updates_follows_the_shape_of_the_matrix():
    """The spectral norm is that of the base x sqrt(growth of outputs / of inputs)."""
    base, wide = (
        Model(width=w, depth=1, heads=2, kv_heads=2, head_size=w // 2, mlp_width=f, vocabulary=32)
        for w, f in ((16, 32), (64, 512))
    )
    parametrization = mup(base_width=16, base_mlp_width=32)
    blocks = [muon_update(parametrization, model)["blocks"][0] for model in (base, wide)]
    at_base = muon_update(standard(), base)["blocks"][0]
    jax.tree.map(np.testing.assert_array_equal, blocks[0], at_base)
    # The width grows 4 times, the width of the MLP 16 times.
    growths = {"query": 1.0, "gate": 4**0.5, "up": 4**0.5, "down": 4**-0.5}
    norms = [
        {
            name: np.median(np.linalg.svd(np.reshape(x, (len(x), -1)), compute_uv=False))
            for name, x in (block["attention"] | block["mlp"]).items()
        }
        for block in blocks
    ]
    for name, growth in growths.items():
        # Five steps of Newton-Schulz leave singular values between 0.7 and 1.2.
        assert norms[1][name] / norms[0][name] == pytest.approx(growth, rel=0.3), name
    # Adam's direction of the gains has entries of 1 at any width.
    for block in blocks:
        gain = block["mlp_norm"]["gain"]
        np.testing.assert_allclose(np.abs(gain), 1.0, rtol=1e-3)


def test_muons_part_for_adam_is_that_of_adamw():
    """Embedding, head and gains have the update that AdamW gives them."""
    gradients = normal_gradients(scale=1e-2)
    by_muon, _ = run_steps("muon", "standard", gradients, START, SPECS, SCALINGS)
    by_adamw, _ = run_steps("adamw", "standard", gradients, START, SPECS, SCALINGS)
    jax.tree.map(np.testing.assert_array_equal, by_muon, by_adamw)
