"""Loss and gradient norm of fixed first steps: a change here is a change of every result.

When the change is meant (another init, another loss), run this file: the message gives the new values. Say in the commit why
they moved. When it is not meant, the last commit broke the model, the init or the optimizer.
"""

import numpy as np
import pytest

from scalejax.config import Data, Model, Optimizer, Placement, Run
from scalejax.model.parametrization import mup, standard
from scalejax.optim.schedules import constant
from scalejax.training.sharding import make_mesh
from scalejax.training.step import init_state, make_train_step

GOLDEN = {  # name -> (loss, grad_norm) of the first and of the third step
    "standard": ((4.175315856933594, 0.728586733341217), (3.740339756011963, 0.7262079119682312)),
    "mup-tied": ((4.17311954498291, 0.5237371921539307), (4.002194881439209, 0.38600945472717285)),
}
RUNS = {"standard": (standard(), False), "mup-tied": (mup(base_width=16), True)}


@pytest.mark.parametrize("name", GOLDEN)
def test_first_steps_are_the_recorded_ones(name):
    parametrization, tied = RUNS[name]
    run = Run(
        model=Model(
            width=32,
            depth=2,
            heads=4,
            kv_heads=2,
            head_size=8,
            mlp_width=64,
            vocabulary=64,
            tied=tied,
            qk_norm=tied,
        ),
        data=Data(sequence_length=16),
        tokens=1280,
        batch_tokens=128,
        optimizer=Optimizer(learning_rate=0.01, weight_decay=0.1, z_loss=1e-4),
        schedule=constant(warmup=0),
        parametrization=parametrization,
    )
    mesh, rows = (
        make_mesh(Placement()),
        (np.arange(8 * 17).reshape(8, 17) ** 2 % 61).astype(np.int32),
    )
    state, step, found = init_state(run, mesh), make_train_step(run, mesh), []
    for _ in range(3):
        state, metrics = step(state, rows, np.float32(0.01))
        found.append((float(metrics["loss"]), float(metrics["grad_norm"])))
    seen = (found[0], found[2])
    assert np.allclose(seen, GOLDEN[name], rtol=1e-5), (
        f"golden values of {name!r} moved: {seen}; if that is meant, record these"
    )
