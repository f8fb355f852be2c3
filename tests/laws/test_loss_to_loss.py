"""The law between losses (mirrors scalejax/laws/loss_to_loss.py)."""

import numpy as np

from scalejax.laws.loss_to_loss import LossToLoss


def test_a_loss_at_or_below_the_irreducible_one_gives_that_of_the_other_corpus():
    law = LossToLoss(K=1.2, kappa=0.5, E0=1.5, E1=0.5)
    losses = np.asarray(law.loss(np.array([1.0, 1.5, 2.5])))
    np.testing.assert_allclose(losses, [0.5, 0.5, 1.7], atol=1e-4)
