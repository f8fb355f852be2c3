"""Every optimizer against its formula, written out in numpy (mirrors scalejax/optim/optimizers.py)."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

from scalejax.config import Optimizer
from scalejax.config.optimizer import OPTIMIZER_FIELDS
from scalejax.model.parameters import Spec
from scalejax.model.parametrization import Scaling, mup
from scalejax.optim.optimizers import (
    MUON_RMS,
    Hyperparameters,
    beta2_from_half_life,
    evaluation_params,
    optimizer,
)

NUMBERS = dict(
    peak=0.1,
    beta1=0.8,
    beta2=0.9,
    epsilon=1e-2,
    momentum=0.95,
    weight_decay=0.3,
    clip=0.0,
    z_loss=0.0,
)
SCALINGS = {
    "w": Scaling(init_std=1.0, learning_rate=0.25, epsilon=0.5, weight_decay=4.0),
    "gain": Scaling(init_std=0.0, learning_rate=1.0, epsilon=0.5, weight_decay=0.0),
}
SPECS = {
    "w": Spec(shape=(2,), axes=("width",), role="output", fan_in=2),
    "gain": Spec(shape=(1,), axes=("width",), role="norm", fan_in=1),
}
START = {"w": np.asarray([1.0, -2.0]), "gain": np.asarray([3.0])}
RATES = (0.05, 0.1, 0.02)


def run_steps(name, decay, gradients, params, specs, scalings, **changes):
    """(params, state) after a step for each gradient."""
    numbers = Hyperparameters(
        **{key: jnp.float32(value) for key, value in (NUMBERS | changes).items()}
    )
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params)

    def with_rate(rate):
        return optimizer(
            name, numbers, jnp.float32(rate), specs=specs, scalings=scalings, decay=decay
        )

    state = with_rate(0).init(params)
    for rate, gradient in zip(RATES, gradients, strict=False):
        updates, state = with_rate(rate).update(gradient, state, params)
        params = optax.apply_updates(params, updates)
    return jax.device_get((params, state))


def trained(decay, gradients, name="adamw", **changes):
    return run_steps(name, decay, gradients, START, SPECS, SCALINGS, **changes)[0]


def shrink_of(decay, row):
    return {
        "independent": 0.3 / 0.1 * (row.weight_decay > 0),
        "standard": 0.3 * row.learning_rate * row.weight_decay,
    }[decay]


def adamw_by_formula(decay, gradients):
    found = {}
    for name, w in START.items():
        row, m, v = SCALINGS[name], 0.0, 0.0
        for step, (rate, gradient) in enumerate(zip(RATES, gradients, strict=True), 1):
            g = gradient[name].astype(float)
            m, v = 0.8 * m + 0.2 * g, 0.9 * v + 0.1 * g**2
            direction = (m / (1 - 0.8**step)) / (np.sqrt(v / (1 - 0.9**step)) + 1e-2 * row.epsilon)
            w = w - rate * row.learning_rate * direction - rate * shrink_of(decay, row) * w
        found[name] = w
    return found


def lion_by_formula(decay, gradients):
    """Chen et al. 2023, algorithm 2."""
    found = {}
    for name, w in START.items():
        row, m = SCALINGS[name], 0.0
        for rate, gradient in zip(RATES, gradients, strict=True):
            g = gradient[name].astype(float)
            w = (
                w
                - rate * row.learning_rate * np.sign(0.8 * m + 0.2 * g)
                - rate * shrink_of(decay, row) * w
            )
            m = 0.9 * m + 0.1 * g
        found[name] = w
    return found


def schedule_free_by_formula(decay, gradients):
    """Defazio et al. 2024, algorithm 1: {name: (y, x)}."""
    found = {}
    for name, w in START.items():
        row, v, x, y, z, total, largest = SCALINGS[name], 0.0, w, w, w, 0.0, 0.0
        for step, (rate, gradient) in enumerate(zip(RATES, gradients, strict=True), 1):
            g = gradient[name].astype(float)
            v, largest = 0.9 * v + 0.1 * g**2, max(largest, rate)
            direction = g / (np.sqrt(v / (1 - 0.9**step)) + 1e-2 * row.epsilon)
            z = z - rate * row.learning_rate * direction - rate * shrink_of(decay, row) * y
            total += largest**2
            x = x + largest**2 / total * (z - x)
            y = 0.8 * x + 0.2 * z
        found[name] = (y, x)
    return found


def gradients(scale: float = 1.0) -> list[dict[str, np.ndarray]]:
    generator = np.random.default_rng(0)
    draws = [scale * generator.normal(size=3).astype(np.float32) for _ in RATES]
    return [{"w": draw[:2], "gain": draw[2:]} for draw in draws]


@pytest.mark.parametrize("decay", ["independent", "standard"])
@pytest.mark.parametrize(
    ("name", "by_formula"), [("adamw", adamw_by_formula), ("lion", lion_by_formula)]
)
def test_three_steps_are_the_formula_with_every_multiplier(name, by_formula, decay):
    found, expected = trained(decay, gradients(), name), by_formula(decay, gradients())
    for tensor in expected:
        np.testing.assert_allclose(found[tensor], expected[tensor], rtol=2e-6)


@pytest.mark.parametrize("decay", ["independent", "standard"])
def test_schedule_free_is_evaluated_at_its_average_and_trained_beside_it(decay):
    params, state = run_steps("schedule-free-adamw", decay, gradients(), START, SPECS, SCALINGS)
    to_evaluate = evaluation_params("schedule-free-adamw", params, state)
    for tensor, (y, x) in schedule_free_by_formula(decay, gradients()).items():
        np.testing.assert_allclose(params[tensor], y, rtol=2e-6)
        np.testing.assert_allclose(to_evaluate[tensor], x, rtol=2e-6)
        assert np.all(np.abs(x - y) > 1e-4), "the two points are one: this test could not fail"
    assert evaluation_params("adamw", params, state) is params


def test_muon_makes_the_momentum_of_hidden_matrices_orthogonal_and_leaves_the_others_to_adamw():
    """By singular values: five times x -> 3.4445 x - 4.7750 x^3 + 2.0315 x^5 from those of M / |M| (Jordan 2024)."""
    generator = np.random.default_rng(1)
    specs = {
        "query": Spec(
            shape=(6, 2, 4), axes=("width", "heads", "head_size"), role="hidden", fan_in=6
        ),
        "output": Spec(
            shape=(2, 4, 6), axes=("heads", "head_size", "width"), role="hidden", fan_in=8
        ),
        "gain": SPECS["gain"],
    }
    one = Scaling(init_std=1.0, learning_rate=1.0, epsilon=1.0, weight_decay=0.0)
    scalings = dict.fromkeys(specs, one)
    params = {name: generator.normal(size=spec.shape) for name, spec in specs.items()}
    draws = [
        {name: generator.normal(size=spec.shape).astype(np.float32) for name, spec in specs.items()}
        for _ in RATES
    ]
    found, _ = run_steps("muon", "standard", draws, params, specs, scalings)
    for name, matrix in {"query": (6, 8), "output": (8, 6)}.items():
        w, mu = params[name].reshape(matrix), np.zeros(matrix)
        for step, (rate, draw) in enumerate(zip(RATES, draws, strict=True), 1):
            g = draw[name].reshape(matrix).astype(float)
            mu = 0.95 * mu + 0.05 * g
            nesterov = 0.95 * mu / (1 - 0.95 ** (step + 1)) + 0.05 * g / (1 - 0.95**step)
            u, s, v = np.linalg.svd(nesterov / np.linalg.norm(nesterov), full_matrices=False)
            for _ in range(5):
                s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
            assert np.all((s > 0.5) & (s < 1.5))
            w = w - rate * MUON_RMS * np.sqrt(8) * (u * s) @ v
        np.testing.assert_allclose(found[name].reshape(matrix), w, rtol=1e-4, atol=1e-5)
    alone, _ = run_steps(
        "adamw",
        "standard",
        [{"gain": draw["gain"]} for draw in draws],
        {"gain": params["gain"]},
        {"gain": specs["gain"]},
        {"gain": one},
    )
    np.testing.assert_array_equal(found["gain"], alone["gain"])


BY_OPTAX = {
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
def test_without_multipliers_every_step_is_optaxs_own(name):
    generator = np.random.default_rng(2)
    params = {"w": generator.normal(size=(4, 6)).astype(np.float32)}
    draws = [{"w": generator.normal(size=(4, 6)).astype(np.float32)} for _ in RATES]
    specs = {"w": Spec(shape=(4, 6), axes=("width", "mlp_width"), role="hidden", fan_in=4)}
    one = {"w": Scaling(init_std=1.0, learning_rate=1.0, epsilon=1.0, weight_decay=1.0)}
    theirs, state = params, BY_OPTAX[name](0.0).init(params)
    for taken, (rate, draw) in enumerate(zip(RATES, draws, strict=True), 1):
        updates, state = BY_OPTAX[name](rate).update(draw, state, theirs)
        theirs = optax.apply_updates(theirs, updates)
        ours, _ = run_steps(name, "standard", draws[:taken], params, specs, one)
        np.testing.assert_allclose(
            ours["w"], theirs["w"], rtol=1e-5, atol=1e-6, err_msg=f"step {taken}"
        )


def test_epsilon_and_its_multiplier_matter_for_small_gradients():
    small = gradients(scale=1e-2)
    found, expected = trained("standard", small), adamw_by_formula("standard", small)
    np.testing.assert_allclose(found["w"], expected["w"], rtol=2e-6)
    assert abs(found["gain"] - trained("standard", small, epsilon=1e-8)["gain"]) > 0.01


STILL = [{"w": np.zeros(2, np.float32), "gain": np.zeros(1, np.float32)}] * 3


@pytest.mark.parametrize("name", OPTIMIZER_FIELDS)
def test_norm_gains_are_not_decayed_in_either_mode(name):
    for decay in ("independent", "standard"):
        found = trained(decay, STILL, name)
        np.testing.assert_allclose(found["gain"], 3.0, rtol=1e-6)
        assert np.all(np.abs(found["w"]) < [1.0, 2.0])


def test_independent_decay_does_not_depend_on_the_peak_and_standard_does():
    shares = [rate / 0.1 for rate in RATES]
    np.testing.assert_allclose(
        trained("independent", STILL)["w"][0],
        np.prod([1 - 0.3 * share for share in shares]),
        rtol=1e-6,
    )
    np.testing.assert_allclose(
        trained("standard", STILL)["w"][0], np.prod([1 - 0.3 * rate for rate in RATES]), rtol=1e-6
    )


def test_clipping_bounds_the_whole_gradient_and_zero_leaves_it_alone():
    large = gradients(scale=100.0)
    norms = [np.sqrt(sum(np.sum(g**2) for g in step.values())) for step in large]
    clipped = [
        {name: g / norm for name, g in step.items()}
        for step, norm in zip(large, norms, strict=True)
    ]
    np.testing.assert_allclose(
        trained("standard", large, clip=1.0)["w"],
        adamw_by_formula("standard", clipped)["w"],
        rtol=1e-5,
    )
    np.testing.assert_allclose(
        trained("standard", large)["w"], adamw_by_formula("standard", large)["w"], rtol=1e-5
    )


def test_beta2_halves_the_weight_of_a_gradient_in_its_half_life_whatever_the_batch():
    for batch_tokens in (512, 4096):
        beta2 = beta2_from_half_life(half_life_tokens=40_960, batch_tokens=batch_tokens)
        assert beta2 ** (40_960 / batch_tokens) == pytest.approx(0.5, rel=1e-12)
    with pytest.raises(ValueError, match="positive number of tokens; got 0"):
        beta2_from_half_life(0, 512)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"name": "sgd"}, "name must be one of adamw, lion, muon, schedule-free-adamw; got 'sgd'"),
        ({"name": "lion", "epsilon": 1e-6}, "Optimizer.epsilon is not used by the lion optimizer"),
        ({"momentum": 0.9}, "Optimizer.momentum is not used by the adamw optimizer"),
        ({"name": "schedule-free-adamw", "beta1": 0.0}, r"beta1 must be in \(0, 1\)"),
    ],
)
def test_an_optimizer_that_says_nothing_sensible_is_refused(fields, said):
    with pytest.raises(ValueError, match=said):
        Optimizer(learning_rate=0.1, **fields)


def test_muon_is_refused_under_mup_with_the_reason_and_the_others_are_not(tiny_run):
    scaled = tiny_run.replace(parametrization=mup(base_width=16))
    for name in ("adamw", "lion", "schedule-free-adamw"):
        assert (
            scaled.replace(optimizer=Optimizer(name=name, learning_rate=0.01)).optimizer.name
            == name
        )
    muon = Optimizer(name="muon", learning_rate=0.01)
    assert tiny_run.replace(optimizer=muon).optimizer == dataclasses.replace(muon)
    with pytest.raises(
        ValueError, match=r"muon cannot be used with the mup .* by its shape; use standard\(\)"
    ):
        scaled.replace(optimizer=muon)
