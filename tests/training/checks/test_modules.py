"""The coordinate check of any module (mirrors scalejax/training/checks/modules.py)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from scalejax.training.checks.modules import check_modules

INPUTS = np.asarray([[1.0, 2.0], [0.5, -1.0]], np.float32)


class Twice(nnx.Module):
    """A layer that is called twice, a norm, and a value that the model stores."""

    def __init__(self, width: int, rngs: nnx.Rngs):
        self.linear = nnx.Linear(2, 2, use_bias=False, rngs=rngs)
        self.norm = nnx.RMSNorm(2, rngs=rngs)
        self.blocks = nnx.List([nnx.Linear(2, 2, rngs=rngs) for _ in range(width // 16)])

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.linear(self.linear(x))
        self.sow(nnx.Intermediate, "doubled", 2 * x)
        return self.norm(self.blocks[0](x))


def mean_square(model, batch):
    return jnp.mean(model(batch) ** 2)


def test_sizes_and_changes_are_those_of_gradient_descent_by_hand():
    def build(width, rngs):
        return nnx.Linear(2, width, use_bias=False, rngs=rngs), optax.sgd(0.1)

    check = check_modules(build, mean_square, INPUTS, sizes=(3, 4, 6), steps=2, seeds=2)
    assert set(check.values) == {"output", "change of output"}
    assert check.sizes == (3, 4, 6) and check.over == "width"
    for m, width in enumerate(check.sizes):
        for seed in range(2):
            kernel = np.asarray(build(width, nnx.Rngs(seed))[0].kernel[...], float)
            start = INPUTS @ kernel
            for step in range(3):
                y = INPUTS @ kernel
                value, change = (check.values[name][m, seed, step] for name in check.values)
                assert value == pytest.approx(np.abs(y).mean(), rel=1e-5)
                if step:
                    assert change == pytest.approx(np.sqrt(((y - start) ** 2).mean()), rel=1e-4)
                else:
                    assert np.isnan(change)
                kernel = kernel - 0.1 * INPUTS.T @ (2 * y / y.size)


def test_outputs_of_methods_stored_values_and_gains_are_recorded_by_their_path():
    def build(width, rngs):
        return Twice(width, rngs), optax.adam(0.01)

    check = check_modules(
        build, mean_square, INPUTS, sizes=(16, 32, 48), over="depth", steps=2, seeds=1
    )
    names = {name for name in check.values if not name.startswith("change of ")}
    # Other blocks are not in every model.
    assert names == {
        "linear 1",
        "linear 2",
        "doubled",
        "blocks/0",
        "blocks/0/bias",
        "norm",
        "norm/scale",
        "output",
    }
    twice = 2 * check.values["linear 2"]
    np.testing.assert_allclose(check.values["doubled"], twice, rtol=1e-5)
    np.testing.assert_allclose(check.values["norm/scale"][:, :, 0], 1.0)
    # Adam's first step has the size of the learning rate.
    np.testing.assert_allclose(check.values["change of norm/scale"][:, :, 1], 0.01, rtol=1e-3)
    assert "over depth" in str(check)


def test_a_width_that_changes_what_a_module_learns_is_seen():
    def build(width, rngs, exponent=0.0):
        rate = 0.01 * (width / 16) ** exponent
        return nnx.Linear(2, width, rngs=rngs), optax.adam(rate)

    sizes = (16, 64, 256)
    right = check_modules(build, mean_square, INPUTS, sizes=sizes, seeds=1)
    wrong = check_modules(
        functools.partial(build, exponent=-0.5), mean_square, INPUTS, sizes=sizes, seeds=1
    )
    assert abs(right.slopes["change of bias"][2]) < 0.05
    assert wrong.slopes["change of bias"][2] == pytest.approx(-0.5, abs=0.05)
    assert not wrong.passed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sizes": (16, 32)}, r"three or more ascending sizes, .* got \(16, 32\)"),
        ({"sizes": (64, 32, 16)}, "three or more ascending sizes"),
        ({"sizes": (16, 32, 64), "steps": 1}, "at least 2 steps and one seed; got steps=1"),
        ({"sizes": (16, 32, 64), "seeds": 0}, "seeds=0"),
    ],
)
def test_too_few_sizes_steps_or_seeds_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        check_modules(lambda *_: pytest.fail("built"), mean_square, INPUTS, **options)
