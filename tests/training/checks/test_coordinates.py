"""The coordinate check (mirrors scalejax/training/checks/coordinates.py).

The slow tests show that no multiplier of a parametrization can be left out.
"""

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
from scalejax.training.checks import coordinates
from scalejax.training.checks.coordinates import (
    TOLERANCE,
    CoordinateCheck,
    activations,
    coordinate_check,
    measures,
)

# Matrix -> the activation that grows with width when its init or learning rate does not
# shrink.
MATRICES = {
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
    "block norm gain",
    "attention logits",
    "attention output",
    "MLP output",
    "last hidden",
    "final norm gain",
    "logits",
)


def sized(width: int, depth: int = 2) -> Model:
    return Model.sized(width=width, depth=depth, vocabulary=64, head_size=16)


WIDTHS = [sized(width) for width in (32, 64, 128, 256, 512)]
# The same range in fewer programs, whose compilation takes most of the time.
FEW_WIDTHS = WIDTHS[::2]
DEPTHS = [sized(32, depth) for depth in (1, 2, 4, 8)]
MUON = Optimizer(name="muon", learning_rate=0.01, clip=0.0)


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
    """A table of scalings with one entry of one matrix as it is at the base width."""

    def table(specs, parametrization, model):
        def entry(path, row, base_row):
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            if name.endswith(matrix):
                return row._replace(**{field: getattr(base_row, field)})
            return row

        _, base_specs = abstract(WIDTHS[0], parametrization)
        rows = scalings(specs, parametrization, model)
        base_rows = scalings(base_specs, parametrization, WIDTHS[0])
        return jax.tree_util.tree_map_with_path(
            entry, rows, base_rows, is_leaf=lambda node: isinstance(node, Scaling)
        )

    return table


@pytest.fixture
def leave_out(monkeypatch):
    """A function that replaces a forward multiplier of the network by 1."""

    # Networks and programs that were built with the other multiplier are cached.
    def clear_caches():
        transformer.abstract.cache_clear()
        coordinates._compiled_training.cache_clear()

    def replace_by_one(multiplier: str):
        monkeypatch.setattr(transformer, multiplier, lambda *_: 1.0)
        clear_caches()

    yield replace_by_one
    monkeypatch.undo()
    clear_caches()


@pytest.mark.slow
def test_mup_keeps_activations_in_width_and_every_matrix_needs_its_multipliers():
    parametrization = mup(base_width=32)
    check = coordinate_check(run(parametrization), WIDTHS)
    assert check.passed, str(check)
    # What is missing shows without the widest model, which takes most of the time.
    models = WIDTHS[:-1]
    for field in ("init_std", "learning_rate"):
        for matrix, activation in MATRICES.items():
            changed = coordinate_check(run(parametrization), models, table=without(matrix, field))
            name, slope = changed.worst
            assert name.removeprefix("change of ") == activation and slope > 2 * TOLERANCE, (
                f"no {field} of {matrix}:\n{changed}"
            )


def faster(tensor: str, exponent: float):
    """A table in which the rate of some tensors grows as this power of the width."""

    def table(specs, parametrization, model):
        def entry(path, row):
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            factor = (model.width / 32) ** exponent if name.endswith(tensor) else 1.0
            return row._replace(learning_rate=row.learning_rate * factor)

        return jax.tree_util.tree_map_with_path(
            entry,
            scalings(specs, parametrization, model),
            is_leaf=lambda node: isinstance(node, Scaling),
        )

    return table


@pytest.mark.slow
@pytest.mark.parametrize("tensor", ["embedding", "norm/gain"])
@pytest.mark.parametrize("exponent", [1.0, -1.0])
def test_a_wrong_rate_of_embedding_or_gains_shows_in_how_far_they_move(tensor, exponent):
    """Activations keep their size: the change since initialization tells."""
    table = faster(tensor, exponent)
    check = coordinate_check(run(mup(base_width=32)), FEW_WIDTHS, seeds=1, table=table)
    name = {"embedding": "change of embedding", "norm/gain": "change of final norm gain"}[tensor]
    assert not check.passed
    assert check.slopes[name][2] == pytest.approx(exponent, abs=TOLERANCE), str(check)


@pytest.mark.slow
def test_without_the_output_multiplier_logits_change_with_width(leave_out):
    leave_out("output_multiplier")
    check = coordinate_check(run(mup(base_width=32)), FEW_WIDTHS)
    assert not check.passed, str(check)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lion", "schedule-free-adamw"])
def test_mup_keeps_activations_under_every_optimizer_it_accepts(name):
    optimizer = Optimizer(name=name, learning_rate=0.01, clip=0.0)
    check = coordinate_check(run(mup(base_width=32)).replace(optimizer=optimizer), FEW_WIDTHS)
    assert check.passed, str(check)


def adams_rate_for_muon(specs, parametrization, model):
    """A table in which matrices have Adam's multiplier 1/m, not Muon's 1/sqrt(m)."""
    return jax.tree.map(
        lambda row: row._replace(muon_rate=row.learning_rate),
        scalings(specs, parametrization, model),
        is_leaf=lambda node: isinstance(node, Scaling),
    )


@pytest.mark.slow
def test_mup_keeps_activations_under_muon_only_with_its_own_multiplier():
    muon = run(mup(base_width=32)).replace(optimizer=MUON)
    models = [sized(width) for width in (32, 96, 256)]
    check = coordinate_check(muon, models, seeds=2)
    assert check.passed, str(check)
    changed = coordinate_check(muon, models, seeds=2, table=adams_rate_for_muon)
    name, slope = changed.worst
    assert slope < -2 * TOLERANCE and name.startswith("change of "), str(changed)


@pytest.mark.slow
def test_completep_keeps_activations_in_depth_under_muon():
    muon = run(completep(base_width=32, base_depth=1)).replace(optimizer=MUON)
    check = coordinate_check(muon, DEPTHS[:3], steps=3, seeds=1)
    assert check.passed, str(check)


@pytest.mark.slow
def test_activations_keep_their_size_with_tied_head_grouped_queries_and_qk_norm():
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
        for w in (32, 128, 512)
    ]
    check = coordinate_check(run(completep(base_width=32, base_depth=2)), models)
    assert check.passed, str(check)


@pytest.mark.slow
def test_the_standard_parametrization_does_not_keep_activations():
    check = coordinate_check(run(standard()), FEW_WIDTHS)
    assert not check.passed, str(check)


@pytest.mark.slow
def test_completep_keeps_activations_in_depth_only_with_its_branch_multiplier(leave_out):
    parametrization = completep(base_width=32, base_depth=1)
    check = coordinate_check(run(parametrization), DEPTHS, steps=3)
    assert check.passed, str(check)
    leave_out("branch_multiplier")
    changed = coordinate_check(run(parametrization), DEPTHS, steps=3)
    assert not changed.passed, str(changed)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("parametrization", "models"),
    [(mup(base_width=32), FEW_WIDTHS), (completep(base_width=32, base_depth=2), DEPTHS[1:])],
)
def test_epsilon_shrinks_with_size_as_fast_as_the_gradients_it_is_added_to(parametrization, models):
    rows = jnp.asarray(np.random.default_rng(0).integers(0, 64, (4, 33)), jnp.int32)
    over = "width" if models[0].width != models[-1].width else "depth"

    def log_rms_and_epsilon(model):
        graphdef, specs = abstract(model, parametrization)
        params = initialize(model, parametrization, jax.random.key(0))

        def loss(params):
            network = nnx.merge(graphdef, params)
            return jnp.mean(coordinates.token_losses(network, rows, "concatenate"))

        def rms_and_epsilon(row, gradient):
            return float(jnp.sqrt(jnp.mean(gradient**2))), row.epsilon

        pairs = jax.tree.map(
            rms_and_epsilon,
            scalings(specs, parametrization, model),
            jax.jit(jax.grad(loss))(params),
            is_leaf=lambda node: isinstance(node, Scaling),
        )
        block = pairs["blocks"][0]
        tensors = {
            **block["attention"],
            **block["mlp"],
            "embedding": pairs["embedding"],
            "head": pairs["head"],
            "final norm": pairs["norm"]["gain"],
            "block norm": block["mlp_norm"]["gain"],
        }
        return {name: np.log(pair) for name, pair in tensors.items()}

    sizes = np.log([getattr(model, over) for model in models])
    by_model = [log_rms_and_epsilon(model) for model in models]
    for name in by_model[0]:
        logs = np.asarray([of_model[name] for of_model in by_model])
        (gradient, epsilon), _ = np.polyfit(sizes, logs, 1)
        assert abs(gradient - epsilon) < 0.25, (
            f"{name}: gradients scale as {over}^{gradient:.2f}, epsilon as {over}^{epsilon:.2f}"
        )


def synthetic(slope: float) -> CoordinateCheck:
    """A check whose logits reach this slope at the last step; the rest stays flat."""
    sizes = (32, 64, 128, 256, 512)
    values = np.ones((5, 2, 4)) * np.asarray([1.0, 2.0])[None, :, None]
    moving = values * (np.asarray(sizes, float) ** slope)[:, None, None] ** (np.arange(4) / 3)
    activations = {name: moving if name == "logits" else values for name in ACTIVATIONS}
    copies = {name: x.copy() for name, x in activations.items()}
    return CoordinateCheck(over="width", sizes=sizes, values=copies)


def test_the_verdict_is_the_worst_slope_after_two_steps():
    still, moving = synthetic(0.1), synthetic(-0.3)
    assert still.passed and not moving.passed
    np.testing.assert_allclose(moving.slopes["logits"], [0, -0.1, -0.2, -0.3], atol=1e-12)
    assert moving.worst == ("logits", pytest.approx(-0.3))
    assert "FAILED" in str(moving)
    # The slope returns to zero at the last step, but not before.
    moving.values["logits"] = moving.values["logits"][:, :, [0, 0, 3, 0]]
    assert moving.worst == ("logits", pytest.approx(-0.3)) and not moving.passed


def test_a_diverged_activation_does_not_pass():
    check = synthetic(0.0)
    check.values["MLP output"][-1, 0, -1] = np.nan
    assert not check.passed and check.worst[0] == "MLP output"


def test_the_activations_are_those_of_the_network():
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
    tensors = activations(network, tokens)
    assert tuple(tensors) == ACTIVATIONS
    np.testing.assert_allclose(tensors["logits"], network(tokens), rtol=1e-5, atol=1e-6)
    values = measures(tensors, {name: x - 3.0 for name, x in tensors.items()})
    for name, x in tensors.items():
        assert values[name] == pytest.approx(float(np.abs(x).mean()), rel=1e-5)
        assert values[f"change of {name}"] == pytest.approx(3.0, rel=1e-5)


@pytest.mark.parametrize(
    "models",
    [WIDTHS[:2], WIDTHS[::-1], [sized(32, 1), sized(64, 2), sized(128, 4)], [WIDTHS[0]] * 3],
)
def test_models_that_do_not_grow_in_exactly_one_way_are_refused(models):
    with pytest.raises(ValueError, match="grow in width or in depth; got width x depth"):
        coordinate_check(run(standard()), models)


def test_the_figure_has_a_panel_for_every_activation(tmp_path):
    synthetic(0.1).plot(tmp_path / "coordinates.png")
    assert (tmp_path / "coordinates.png").stat().st_size > 10_000
