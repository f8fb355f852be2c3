"""Loss and gradient norm of fixed first steps: when they change, every result changes.

If the change is intended (another initialization, another loss), run this file, record
the values from its message, and say in the commit why they moved. Otherwise the last
commit broke the model, the initialization or the optimizer.
"""

import numpy as np
import pytest

from scalejax.config import Data, Model, Optimizer, Placement, Run
from scalejax.model.parametrization import mup, standard
from scalejax.optim.schedules import constant
from scalejax.training.sharding import make_mesh
from scalejax.training.step import init_state, make_train_step

# Name -> (loss, grad_norm) of the first and of the third step.
GOLDEN = {
    "standard": ((4.175315856933594, 0.728586733341217), (3.740339756011963, 0.7262079119682312)),
    "mup-tied": ((4.17311954498291, 0.5237371921539307), (4.002194881439209, 0.38600945472717285)),
}
RUNS = {"standard": (standard(), False), "mup-tied": (mup(base_width=16), True)}


@pytest.mark.parametrize("name", GOLDEN)
def test_first_steps_have_the_recorded_losses_and_gradient_norms(name):
    parametrization, tied = RUNS[name]
    model = Model(
        width=32,
        depth=2,
        heads=4,
        kv_heads=2,
        head_size=8,
        mlp_width=64,
        vocabulary=64,
        tied=tied,
        qk_norm=tied,
    )
    run = Run(
        model=model,
        data=Data(sequence_length=16),
        tokens=1280,
        batch_tokens=128,
        optimizer=Optimizer(learning_rate=0.01, weight_decay=0.1, z_loss=1e-4),
        schedule=constant(warmup=0),
        parametrization=parametrization,
    )
    mesh = make_mesh(Placement())
    rows = (np.arange(8 * 17).reshape(8, 17) ** 2 % 61).astype(np.int32)

    state, step, history = init_state(run, mesh), make_train_step(run, mesh), []
    for _ in range(3):
        state, metrics = step(state, rows, np.float32(0.01))
        history.append((float(metrics["loss"]), float(metrics["grad_norm"])))

    values = (history[0], history[2])
    assert np.allclose(values, GOLDEN[name], rtol=1e-5), (
        f"the golden values of {name!r} moved to {values}; if that is intended, record these"
    )
