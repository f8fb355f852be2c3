"""Over-training and downstream error, Gadre et al. 2024 (arXiv 2403.08540).

Tables: gadre2024/{models,downstream_acc,tasks}.csv, from
github.com/mlfoundations/scaling. The expected numbers were computed with the authors'
released code; the paper rounds them.
"""

from typing import NamedTuple

import pandas as pd
import pytest

from scalejax import laws
from scalejax.fitting import chain
from scalejax.fitting import fit as fits
from tests.published import reference

pytestmark = pytest.mark.replication

LOSS_COLUMNS = {"params": "N", "tokens": "D", "loss": "loss_c4_val"}


class Published(NamedTuple):
    """Parameters of the two laws of one training set, evaluated on C4."""

    loss: tuple[float, float, float, float]
    """a, b, alpha_C and E of the loss law."""
    squared_error: float
    """Sum of squared residuals of the loss law."""
    error_17: tuple[float, float, float]
    """k, gamma and epsilon of the error law over 17 tasks."""
    error_46: tuple[float, float, float]
    """The same over 46 tasks."""


PUBLISHED = {
    "c4": Published(
        (141.28, 189.52, 0.12124, 1.5083),
        4.14e-4,
        (2.0789, 0.75612, 0.84974),
        (1.2885, 0.97216, 0.75895),
    ),
    "redpajama": Published(
        (212.24, 366.69, 0.13643, 1.8366),
        4.26e-4,
        (2.2065, 0.71459, 0.85699),
        (1.3229, 0.89071, 0.76085),
    ),
    "refinedweb": Published(
        (157.12, 246.21, 0.12720, 1.7345),
        8.2e-5,
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


def fit_loss(models, train_set, bootstrap=0):
    """The loss law (eq. 4) of the five small runs of one training set."""
    where = f"train_set == '{train_set}' and in_loss_fit == 1"
    return fits.fit(
        models,
        laws.overtraining(),
        loss="mse",
        columns=LOSS_COLUMNS,
        where=where,
        bootstrap=bootstrap,
    )


def fit_error(models, train_set, tasks, bootstrap=0):
    """The error law (eq. 5) of those runs and of the 1.4B model at M = 20."""
    columns = {"loss": "loss_c4_val", "top1_error": f"err_avg{tasks}"}
    where = f"train_set == '{train_set}' and in_err_fit == 1"
    return fits.fit(
        models, laws.downstream(), loss="mse", columns=columns, where=where, bootstrap=bootstrap
    )


@pytest.mark.parametrize("train_set", PUBLISHED)
def test_the_laws_of_a_training_set_have_the_published_coefficients(models, train_set):
    published = PUBLISHED[train_set]
    loss = fit_loss(models, train_set)
    parameters = [loss.params[name] for name in ("a", "b", "alpha_C", "E")]
    assert parameters == pytest.approx(published.loss, rel=1e-3)
    assert loss.objective <= published.squared_error * 1.01
    for tasks, expected in ((17, published.error_17), (46, published.error_46)):
        error = fit_error(models, train_set, tasks)
        parameters = [error.params[name] for name in ("k", "gamma", "epsilon")]
        assert parameters == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    ("train_set", "size", "tokens_per_param", "loss_error", "error_17", "error_46"),
    [
        ("redpajama", 1.4e9, 640, 0.7103, 3.6365, 3.436),
        ("redpajama", 6.9e9, 20, 0.7320, 0.0464, 2.097),
        ("c4", 6.9e9, 20, 4.295, 0.137, 0.074),
        ("refinedweb", 6.9e9, 20, 1.619, 2.939, 2.759),
    ],
)
def test_the_large_runs_are_predicted_with_the_published_errors(
    models, train_set, size, tokens_per_param, loss_error, error_17, error_46
):
    """Relative errors, in percent, of the predicted loss and top-1 errors.

    The paper's abstract is about these runs: 1.4B parameters and 900B tokens, and 6.9B
    parameters and 138B tokens.
    """
    run = models[
        (models.train_set == train_set)
        & ((models.N / size - 1).abs() < 0.1)
        & ((models.M_nominal - tokens_per_param).abs() < 1)
    ].iloc[0]
    loss, inputs = fit_loss(models, train_set), {"params": run.N, "tokens": run.D}
    relative_error = abs(loss.predict(**inputs).value / run.loss_c4_val - 1)
    assert 100 * relative_error == pytest.approx(loss_error, abs=0.01)
    for tasks, expected in ((17, error_17), (46, error_46)):
        predicted = chain.predict(loss, fit_error(models, train_set, tasks), **inputs).value
        relative_error = abs(predicted / run[f"err_avg{tasks}"] - 1)
        assert 100 * relative_error == pytest.approx(expected, abs=0.01)


def test_the_17_tasks_are_those_on_which_a_small_model_beats_chance(folder, models):
    """The rule: some 0.154B model is over 10 points of accuracy above chance."""
    tasks = pd.read_csv(folder / "tasks.csv").set_index("task")
    accuracy = pd.read_csv(folder / "downstream_acc.csv").set_index("name")
    small = models[(models.N / 0.154e9 - 1).abs() < 0.02]["name"]
    best = accuracy.loc[small].max()
    selected = best[best - tasks.random_acc.reindex(best.index) > 0.10].index
    assert set(selected) == set(tasks.index[tasks.in_17 == 1]) and len(selected) == 17


@pytest.mark.parametrize("train_set", PUBLISHED)
def test_the_verdicts_are_the_same_with_and_without_draws(models, train_set):
    """Five rows cannot be resampled, and six leave the largest error open above."""
    for fit in (fit_loss(models, train_set), fit_loss(models, train_set, bootstrap=500)):
        assert fit.verdict == "unidentified"
        assert "5 rows for 4 parameters" in " ".join(fit.reasons)
    for fit in (fit_error(models, train_set, 17), fit_error(models, train_set, 17, bootstrap=500)):
        assert fit.verdict == "unidentified"
        assert "epsilon is not identified: its interval is open above" in fit.reasons
