"""The formulas of the laws (mirrors scalejax/laws/forms.py)."""

import jax
import numpy as np
import pytest

from scalejax import laws
from scalejax.laws import forms
from scalejax.laws.broken_power import BrokenPower
from scalejax.laws.hyperparameter_lines import BatchLine, Timescale
from scalejax.laws.interactions import Interaction
from scalejax.laws.law import ParametricLaw
from scalejax.laws.log_sum_exp import WidthDepth
from scalejax.laws.loss_to_loss import LossToLoss
from scalejax.laws.routed import Routed
from scalejax.laws.solver.multistart import pad_rows
from scalejax.laws.solver.problem import parameters_in_table_units, theta_from_parameters
from scalejax.laws.solver.starts import prepare

TRUTHS = {
    "chinchilla": forms.Chinchilla(A=406.4, B=410.7, E=1.69, alpha=0.34, beta=0.28),
    "kaplan": forms.Kaplan(N_c=6.4e13, D_c=1.8e13, alpha_N=0.076, alpha_D=0.103),
    "overtraining": forms.Overtraining(a=212.2, b=366.7, alpha_C=0.136, E=1.84),
    "interaction": Interaction(A=400.0, B=900.0, E=1.7, alpha=0.4, beta=0.42, k=0.7),
    "power": forms.Power(a=300.0, b=-0.4, c=2.0),
    "data-constrained": forms.DataConstrained(
        A=521.0, B=1488.0, E=1.87, alpha=0.35, beta=0.35, R_N=5.3, R_D=15.4
    ),
    "downstream": forms.Downstream(k=2.2, gamma=0.71, epsilon=0.86),
    "broken-power": BrokenPower(a=1.2, b=60.0, c0=0.2, c1=0.3, d=3e8, f=0.4),
    "loss-to-loss": LossToLoss(K=1.3, kappa=1.2, E0=1.6, E1=0.7),
    "routed": Routed(a=-0.082, b=-0.108, c=0.004, d=2.5, E_start=1.85, span=312.0),
    "timescale": Timescale(c=1.1, m=-0.53),
    "best-batch": BatchLine(c=0.6, m=0.57),
    # c, k and the exponents of code and books, relative to web.
    "mixture:web,code,books": (2.0, 1.5, 0.7, -2.5),
    "sigmoid": forms.Sigmoid(height=0.6, steepness=3.0, midpoint=3.2, floor=0.25),
    "width-depth": WidthDepth(
        A_width=9.0, A_depth=1.2, A_tokens=400.0, E=1.7, p_width=0.45, p_depth=0.8, p_tokens=0.3
    ),
}


def design(law, rng, rows=60):
    """Inputs of a law over three decades, which do not lie on a line."""
    if law.inputs == ("loss",):
        return [np.sort(rng.uniform(2.2, 4.5, rows))]
    if law.inputs[0] == "width":
        ranges = ((64, 4096), (2, 64), (1e8, 1e12))
        return [np.exp(rng.uniform(np.log(low), np.log(high), rows)) for low, high in ranges]
    if law.name.startswith("mixture"):
        return [*rng.dirichlet(np.ones(len(law.inputs)), rows).T]
    sizes = np.exp(rng.uniform(np.log(1e7), np.log(1e10), rows))
    tokens = sizes * np.exp(rng.uniform(np.log(5), np.log(300), rows))
    if "experts" in law.inputs:
        return [sizes, 2.0 ** rng.integers(0, 10, rows)]
    return [sizes, tokens, tokens / rng.uniform(1, 40, rows)][: len(law.inputs)]


def exact(law, truth, inputs):
    """Predictions of a law at true parameters, in float64."""
    with jax.enable_x64(True):
        return np.asarray(law.predict(truth, *inputs), np.float64)


@pytest.mark.parametrize("name", TRUTHS)
def test_a_law_keeps_its_shape_under_a_change_of_units(name):
    law, truth = laws.named(name), TRUTHS[name]
    assert isinstance(law, ParametricLaw)
    inputs = design(law, np.random.default_rng(0))
    targets = exact(law, truth, inputs)
    with jax.enable_x64(True):
        *columns, padded, weights = pad_rows([*inputs, targets, np.ones(len(targets))])
        problem, _ = prepare(law, tuple(columns), padded, weights, "log")
        form = law.form(*(np.full(1, value) for value in truth))
        theta = theta_from_parameters(law, problem, form)
        again = parameters_in_table_units(law, problem, theta)
        centred_form = in_centred_units(law, theta[:, 0])
        centred = np.asarray(law.predict(centred_form, *problem.inputs))[: len(targets)]
    np.testing.assert_allclose([x[0] for x in again], truth, rtol=1e-12)
    np.testing.assert_allclose(centred, targets, rtol=1e-11)


def in_centred_units(law, theta):
    pairs = zip(theta, law.coordinates, strict=True)
    return law.form(*(np.exp(x) if coordinate.log else x for x, coordinate in pairs))


def test_overtraining_as_a_chinchilla_law_predicts_the_same():
    gadre = TRUTHS["overtraining"]
    inputs = design(laws.overtraining(), np.random.default_rng(1))
    view = exact(laws.chinchilla(), gadre.chinchilla(), inputs)
    np.testing.assert_allclose(view, exact(laws.overtraining(), gadre, inputs), rtol=1e-13)
    N, D = inputs
    C, M = 6 * N * D, D / N
    alpha = gadre.alpha_C
    published = gadre.E + (gadre.a * M**alpha + gadre.b * M**-alpha) * C**-alpha
    np.testing.assert_allclose(exact(laws.overtraining(), gadre, inputs), published, rtol=1e-13)


def test_with_fresh_data_and_below_the_optimal_size_the_data_constrained_law_is_chinchilla():
    truth = TRUTHS["data-constrained"]
    base = forms.Chinchilla(*truth[:5])
    D = np.geomspace(1e9, 1e12, 9)
    # Half the size that is optimal for D when alpha = beta.
    N = 0.5 * D * (truth.A / truth.B) ** (1 / truth.alpha)
    fresh = exact(laws.data_constrained(), truth, [N, D, D])
    np.testing.assert_allclose(fresh, exact(laws.chinchilla(), base, [N, D]), rtol=1e-13)
    # Repeated tokens are worth less than fresh ones.
    assert np.all(exact(laws.data_constrained(), truth, [N, D, D / 8]) > fresh)


def test_the_optimal_size_minimizes_the_loss_at_its_budget():
    law, C = TRUTHS["chinchilla"], 1e21
    best = law.optimal_params(C)
    around = best * np.array([0.99, 1.0, 1.01])
    losses = exact(laws.chinchilla(), law, [around, C / (6 * around)])
    assert losses[1] < min(losses[0], losses[2])
