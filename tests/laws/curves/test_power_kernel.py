"""The kernel sum in linear time (mirrors scalejax/laws/curves/power_kernel.py)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scalejax.laws.curves.forms import MultiPower, predict_curve
from scalejax.laws.curves.power_kernel import merged_steps, power_kernel_sum, single_steps
from tests.laws.curves.examples import cosine

LAW = MultiPower(3.1, 0.5, 0.5, 450.0, 1.3, 0.45, 0.55)


def sum_of_the_paper(law, rates, t):
    """The loss after step t by the double sum of the paper."""
    total = 0.0
    for k in range(1, t + 1):
        if k > np.argmax(rates):
            S = rates[k : t + 1].sum()
            clock = max(rates[k], 1e-6 * rates.max()) ** -law.gamma
            total += (rates[k - 1] - rates[k]) * (1 - (1 + law.C * clock * S) ** -law.beta)
    return law.L0 + law.A * rates[: t + 1].sum() ** -law.alpha - law.B * total


@pytest.mark.parametrize(
    ("C", "beta", "gamma"),
    [(1.3, 0.45, 0.55), (1e-3, 0.2, 1.3), (20.0, 3.0, 0.0), (0.5, 0.05, 0.8)],
)
@pytest.mark.parametrize("final", [0.1, 0.0])
def test_the_linear_time_sum_is_the_double_sum_of_the_paper(C, beta, gamma, final):
    law, rates = LAW._replace(C=C, beta=beta, gamma=gamma), cosine(final=final)
    predicted = predict_curve(law, rates)
    for t in (39, 45, 150, 399):
        assert predicted[t] == pytest.approx(sum_of_the_paper(law, rates, t), abs=1e-7)
    without_kernel = law.L0 + law.A * rates.sum() ** -law.alpha
    assert without_kernel - predicted[-1] > 1e-3, "the sum is zero: any kernel would pass"


def test_merged_steps_keep_every_drop_and_come_close_to_the_sum():
    rates, measured = cosine(), np.array([39, 150, 399])
    with jax.enable_x64(True):
        blocks, ends = merged_steps(rates, measured)
        assert set(measured) <= set(ends) and len(ends) < 20
        steps = single_steps(jnp.asarray(rates))
        exact = np.asarray(power_kernel_sum(steps, 1.3, 0.45, 0.55))[ends]
        merged = np.asarray(power_kernel_sum(blocks, 1.3, 0.45, 0.55))
    assert blocks.drop.sum() == pytest.approx(rates.max() - rates[-1])
    np.testing.assert_allclose(merged, exact, atol=1e-2 * exact.max())
    assert np.max(np.abs(merged - exact)) > 0, "merging changed nothing"
