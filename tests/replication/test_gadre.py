"""Over-training and downstream error of Gadre et al. 2024 (arXiv 2403.08540).

Tables: gadre2024/models.csv, downstream_acc.csv, tasks.csv, from github.com/mlfoundations/scaling.
"""

import pandas as pd
import pytest

from scalejax import laws
from scalejax.fitting import chain
from scalejax.fitting import fit as fits
from tests.published import reference

pytestmark = pytest.mark.replication
LOSS = {"params": "N", "tokens": "D", "loss": "loss_c4_val"}
COEFFICIENTS = {  # a, b, alpha_C, E, sum of squares; k, gamma, epsilon over 17 and 46 tasks
    "c4": (
        (141.28, 189.52, 0.12124, 1.5083, 4.14e-4),
        (2.0789, 0.75612, 0.84974),
        (1.2885, 0.97216, 0.75895),
    ),
    "redpajama": (
        (212.24, 366.69, 0.13643, 1.8366, 4.26e-4),
        (2.2065, 0.71459, 0.85699),
        (1.3229, 0.89071, 0.76085),
    ),
    "refinedweb": (
        (157.12, 246.21, 0.12720, 1.7345, 8.2e-5),
        (2.2148, 0.70705, 0.86528),
        (1.1281, 0.82152, 0.76768),
    ),
}


@pytest.fixture(scope="module")
def folder():
    return reference("gadre2024")


@pytest.fixture(scope="module")
def models(folder):
    return pd.read_csv(folder / "models.csv")


def loss_law(models, train):
    return fits.fit(
        models,
        laws.overtraining(),
        loss="mse",
        columns=LOSS,
        where=f"train_set == '{train}' and in_loss_fit == 1",
    )


def error_law(models, train, tasks):
    columns = {"loss": "loss_c4_val", "top1_error": f"err_avg{tasks}"}
    return fits.fit(
        models,
        laws.downstream(),
        loss="mse",
        columns=columns,
        where=f"train_set == '{train}' and in_err_fit == 1",
    )


@pytest.mark.parametrize("train", COEFFICIENTS)
def test_all_coefficients_of_a_training_set(models, train):
    loss, few, many = COEFFICIENTS[train]
    fitted = loss_law(models, train)
    assert [fitted.params[name] for name in ("a", "b", "alpha_C", "E")] == pytest.approx(
        loss[:4], rel=1e-3
    )
    assert fitted.objective <= loss[4] * 1.01
    for tasks, wanted in ((17, few), (46, many)):
        error = error_law(models, train, tasks)
        assert [error.params[name] for name in ("k", "gamma", "epsilon")] == pytest.approx(
            wanted, rel=1e-3
        )


@pytest.mark.parametrize(
    ("train", "size", "M", "loss", "error17", "error46"),
    [
        ("redpajama", 1.4e9, 640, 0.7103, 3.6365, 3.436),
        ("redpajama", 6.9e9, 20, 0.7320, 0.0464, 2.097),
        ("c4", 6.9e9, 20, 4.295, 0.137, 0.074),
        ("refinedweb", 6.9e9, 20, 1.619, 2.939, 2.759),
    ],
)
def test_the_headline_prediction_errors(models, train, size, M, loss, error17, error46):
    near = models[
        (models.train_set == train)
        & ((models.N / size - 1).abs() < 0.1)
        & ((models.M_nominal - M).abs() < 1)
    ]
    run = near.iloc[0]
    fitted, reached = loss_law(models, train), {"params": run.N, "tokens": run.D}
    assert 100 * abs(fitted.predict(**reached).value / run.loss_c4_val - 1) == pytest.approx(
        loss, abs=0.01
    )
    for tasks, wanted in ((17, error17), (46, error46)):
        error = chain.predict(fitted, error_law(models, train, tasks), **reached).value
        assert 100 * abs(error / run[f"err_avg{tasks}"] - 1) == pytest.approx(wanted, abs=0.01)


def test_the_17_task_rule_gives_exactly_the_published_column(folder, models):
    """Tasks on which some 0.154B model beats chance by more than 10 points."""
    tasks = pd.read_csv(folder / "tasks.csv").set_index("task")
    accuracy = pd.read_csv(folder / "downstream_acc.csv").set_index("name")
    small = models[(models.N / 0.154e9 - 1).abs() < 0.02]["name"]
    best = accuracy.loc[small].max()
    chosen = best[best - tasks.random_acc.reindex(best.index) > 0.10].index
    assert set(chosen) == set(tasks.index[tasks.in_17 == 1]) and len(chosen) == 17
