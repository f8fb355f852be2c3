"""The coordinate check, and that no multiplier can be left out (mirrors scalejax/training/coordinates.py)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from scalejax.config import Data, Model, Optimizer, Parametrization, Run
from scalejax.model import transformer
from scalejax.model.parameters import scalings
from scalejax.model.parametrization import Scaling, completep, mup, standard
from scalejax.model.transformer import abstract, initialize
from scalejax.optim.schedules import constant
from scalejax.training import coordinates
from scalejax.training.coordinates import TOLERANCE, Coordinates, activations, coordinate_check

MATRICES = {  # name -> the activation that grows with width when its init or its rate does not shrink
    "query": "attention logits",
    "key": "attention logits",
    "value": "attention output",
    "attention/output": "attention output",
    "gate": "MLP output",
    "up": "MLP output",
    "down": "MLP output",
}
ACTIVATIONS = (
    "embedding",
    "attention logits",
    "attention output",
    "MLP output",
    "last hidden",
    "logits",
)


def sized(width: int, depth: int = 2) -> Model:
    return Model.sized(width=width, depth=depth, vocabulary=64, head_size=16)


WIDTHS = [sized(width) for width in (32, 64, 128, 256, 512)]  # four doublings
DEPTHS = [sized(32, depth) for depth in (1, 2, 4, 8)]


def run(parametrization: Parametrization) -> Run:
    return Run(
        model=WIDTHS[0],
        data=Data(sequence_length=32),
        tokens=1280,
        batch_tokens=128,
        optimizer=Optimizer(learning_rate=0.01, clip=0.0),
        schedule=constant(warmup=0),
        parametrization=parametrization,
    )


def without(matrix: str, field: str):
    """The table with one entry of one matrix as it is at the base width."""

    def table(specs, parametrization, model):
        def entry(path, row, at_base):
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            return (
                row._replace(**{field: getattr(at_base, field)}) if name.endswith(matrix) else row
            )

        _, base_specs = abstract(WIDTHS[0], parametrization)
        tables = (
            scalings(specs, parametrization, model),
            scalings(base_specs, parametrization, WIDTHS[0]),
        )
        return jax.tree_util.tree_map_with_path(
            entry, *tables, is_leaf=lambda node: isinstance(node, Scaling)
        )

    return table


@pytest.fixture
def forgetful(monkeypatch):
    """Replaces a forward multiplier of the network by 1; programs compiled with it are dropped before and after."""

    def forget():
        transformer.abstract.cache_clear()
        coordinates._train.cache_clear()

    def leave_out(multiplier: str):
        monkeypatch.setattr(transformer, multiplier, lambda *_: 1.0)
        forget()

    yield leave_out
    monkeypatch.undo()
    forget()


@pytest.mark.slow
def test_activations_keep_their_size_in_width_and_no_matrix_can_do_without_its_multipliers():
    parametrization = mup(base_width=32)
    found = coordinate_check(run(parametrization), WIDTHS)
    assert found.passed, str(found)
    for field in ("init_std", "learning_rate"):
        for matrix, activation in MATRICES.items():
            changed = coordinate_check(run(parametrization), WIDTHS, table=without(matrix, field))
            assert changed.worst[0] == activation and changed.worst[1] > 2 * TOLERANCE, (
                f"no {field} of {matrix}:\n{changed}"
            )


@pytest.mark.slow
def test_logits_do_not_keep_their_size_without_the_output_multiplier(forgetful):
    forgetful("output_multiplier")
    found = coordinate_check(run(mup(base_width=32)), WIDTHS)
    assert not found.passed, str(found)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lion", "schedule-free-adamw"])
def test_every_optimizer_that_mup_accepts_keeps_activations(name):
    given = run(mup(base_width=32))
    found = coordinate_check(
        given.replace(optimizer=Optimizer(name=name, learning_rate=0.01, clip=0.0)), WIDTHS
    )
    assert found.passed, str(found)


@pytest.mark.slow
def test_a_tied_head_grouped_queries_and_normed_ones_keep_activations():
    models = [
        Model(
            width=w,
            depth=2,
            heads=w // 16,
            kv_heads=w // 32,
            head_size=16,
            mlp_width=3 * w,
            vocabulary=64,
            tied=True,
            qk_norm=True,
        )
        for w in (32, 64, 128, 256, 512)
    ]
    found = coordinate_check(run(completep(base_width=32, base_depth=2)), models)
    assert found.passed, str(found)


@pytest.mark.slow
def test_activations_do_not_keep_their_size_under_standard():
    found = coordinate_check(run(standard()), WIDTHS)
    assert not found.passed, str(found)


@pytest.mark.slow
def test_completep_keeps_activations_in_depth_and_not_without_its_branch_multiplier(forgetful):
    parametrization = completep(base_width=32, base_depth=1)
    found = coordinate_check(run(parametrization), DEPTHS, steps=3)
    assert found.passed, str(found)
    forgetful("branch_multiplier")
    changed = coordinate_check(run(parametrization), DEPTHS, steps=3)
    assert not changed.passed, str(changed)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("parametrization", "models"),
    [(mup(base_width=32), WIDTHS[::2]), (completep(base_width=32, base_depth=2), DEPTHS[1:])],
)
def test_every_epsilon_shrinks_as_the_gradients_it_is_added_to(parametrization, models):
    rows = np.random.default_rng(0).integers(0, 64, (4, 33)).astype(np.int32)
    over = "width" if models[0].width != models[-1].width else "depth"

    def ratios(model):
        graphdef, specs = abstract(model, parametrization)
        params = initialize(model, parametrization, jax.random.key(0))

        @jax.jit
        def gradient(params):
            return jax.grad(
                lambda p: jnp.mean(coordinates.cross_entropy(nnx.merge(graphdef, p), rows)[0])
            )(params)

        table = scalings(specs, parametrization, model)
        found = jax.tree.map(
            lambda row, g: (float(jnp.sqrt(jnp.mean(g**2))), row.epsilon),
            table,
            gradient(params),
            is_leaf=lambda node: isinstance(node, Scaling),
        )
        tensors = {
            **found["blocks"][0]["attention"],
            **found["blocks"][0]["mlp"],
            "embedding": found["embedding"],
            "head": found["head"],
            "final norm": found["norm"]["gain"],
            "block norm": found["blocks"][0]["mlp_norm"]["gain"],
        }
        return {name: np.log(pair) for name, pair in tensors.items()}

    sizes = np.log([getattr(model, over) for model in models])
    of_models = [ratios(model) for model in models]
    for name in of_models[0]:
        (gradient, epsilon), _ = np.polyfit(
            sizes, np.asarray([found[name] for found in of_models]), 1
        )
        assert abs(gradient - epsilon) < 0.25, (
            f"{name}: gradients go as {over}^{gradient:.2f}, epsilon as {over}^{epsilon:.2f}"
        )


def synthetic(slope: float, over: str = "width") -> Coordinates:
    sizes = (32, 64, 128, 256, 512)
    values = np.ones((5, 2, 4)) * np.asarray([1.0, 2.0])[None, :, None]
    moving = values * (np.asarray(sizes, float) ** slope)[:, None, None] ** (np.arange(4) / 3)
    return Coordinates(
        over=over,
        sizes=sizes,
        values={name: (moving if name == "logits" else values).copy() for name in ACTIVATIONS},
    )


def test_the_verdict_is_the_worst_slope_after_two_steps():
    still, moving = synthetic(0.1), synthetic(-0.3)
    assert still.passed and not moving.passed
    np.testing.assert_allclose(moving.slopes["logits"], [0, -0.1, -0.2, -0.3], atol=1e-12)
    assert moving.worst == ("logits", pytest.approx(-0.3))
    assert "FAILED" in str(moving)
    moving.values["logits"] = moving.values["logits"][
        :, :, [0, 0, 3, 0]
    ]  # moves after step 2, and back
    assert moving.worst == ("logits", pytest.approx(-0.3)) and not moving.passed


def test_a_diverged_activation_does_not_pass():
    found = synthetic(0.0)
    found.values["MLP output"][-1, 0, -1] = np.nan
    assert not found.passed and found.worst[0] == "MLP output"


def test_what_is_measured_is_the_network_that_is_called():
    model = Model(
        width=32,
        depth=2,
        heads=4,
        kv_heads=2,
        head_size=8,
        mlp_width=64,
        vocabulary=64,
        qk_norm=True,
        tied=True,
    )
    parametrization = completep(base_width=16, base_depth=1)
    graphdef, _ = abstract(model, parametrization)
    network = nnx.merge(graphdef, initialize(model, parametrization, jax.random.key(0)))
    tokens = jnp.arange(8)[None] * 5 % 64
    seen = activations(network, tokens)
    assert tuple(seen) == ACTIVATIONS
    np.testing.assert_allclose(seen["logits"], np.abs(network(tokens)).mean(), rtol=1e-5)
    assert np.isfinite(list(seen.values())).all()


@pytest.mark.parametrize(
    "models",
    [WIDTHS[:2], WIDTHS[::-1], [sized(32, 1), sized(64, 2), sized(128, 4)], [WIDTHS[0]] * 3],
)
def test_models_that_do_not_grow_in_one_way_are_refused(models):
    with pytest.raises(ValueError, match="grow in width or in depth; got width x depth"):
        coordinate_check(run(standard()), models)


def test_the_figure_has_a_panel_for_every_activation(tmp_path):
    synthetic(0.1).plot(tmp_path / "coordinates.png")
    assert (tmp_path / "coordinates.png").stat().st_size > 10_000
