"""From (params, tokens) to loss to top-1 error, with both errors (mirrors scalejax/study/chain.py)."""

from dataclasses import replace

import numpy as np
import pytest

from scalejax import laws
from scalejax.fitting import chain
from scalejax.fitting import fit as fits
from tests.fitting.test_fit import ladder, true_loss

RUN = {"params": 2e7, "tokens": 6e7}


def true_error(loss):
    return 0.9 - 1.6 * np.exp(-0.5 * loss)


def measured(seed=0, noise=0.01, own=0.001):
    """A table in which the error follows what the law says of the loss, so what moves a measured loss moves no error."""
    frame, clean = ladder(seed, noise), ladder(seed, 0.0).loss
    return frame.assign(
        top1_error=true_error(clean) + np.random.default_rng(seed + 1).normal(0, own, len(frame))
    )


def both(frame, seed=0, bootstrap=200):
    loss = fits.fit(frame, laws.chinchilla(), loss="log-mse", bootstrap=bootstrap)
    return loss, fits.fit(frame, laws.downstream(), loss="log-mse", bootstrap=bootstrap, seed=seed)


@pytest.fixture(scope="module")
def fitted():
    return both(measured())


def width(estimate):
    return estimate.high - estimate.low


def test_the_value_is_one_law_after_the_other_and_the_interval_holds_the_truth(fitted):
    estimate = chain.predict(*fitted, **RUN)
    loss = fitted[0].predict(**RUN).value
    assert estimate.value == fitted[1].predict(loss=loss).value
    assert estimate.low < true_error(true_loss(**RUN)) < estimate.high


def test_the_interval_holds_what_the_loss_does_not_tell():
    frame = ladder(noise=0.01)
    loss, error = both(frame.assign(top1_error=true_error(frame.loss)))
    independent = loss.predict(**RUN)
    ends = [error.predict(loss=end).value for end in (independent.low, independent.high)]
    alone = error.predict(loss=independent.value)
    carried = chain.predict(
        loss,
        fits.fit(
            measured(noise=0.02, own=1e-4), laws.downstream(), loss="log-mse", bootstrap=200, seed=1
        ),
        **RUN,
    )
    assert width(carried) > 1.2 * width(alone) and width(carried) > 0.9 * (ends[1] - ends[0])


def test_draws_of_the_same_rows_keep_what_the_errors_share(fitted):
    """A run measured above its law has no higher error here: in pairs the two residuals cancel, at random they add up."""
    paired, apart = chain.predict(*fitted, **RUN), chain.predict(*both(measured(), seed=1), **RUN)
    assert "of the same rows in both laws" in paired.method and "independent" in apart.method
    assert paired.value == apart.value and width(paired) < 0.75 * width(apart)


def test_a_chain_of_saved_fits_is_the_same(fitted, tmp_path):
    for name, made in zip(("loss", "error"), fitted, strict=True):
        made.save(tmp_path / f"{name}.json")
    saved = [fits.load(tmp_path / f"{name}.json") for name in ("loss", "error")]
    assert chain.predict(*saved, **RUN) == chain.predict(*fitted, **RUN)


def test_draws_that_failed_leave_the_others_in_step(fitted):
    spoilt = []
    for at, made in zip((3, 7), fitted, strict=True):
        drawn = {
            name: np.where(np.arange(len(values)) == at, np.nan, values)
            for name, values in made.draws.items()
        }
        spoilt.append(replace(made, draws=drawn))
    estimate, whole = chain.predict(*spoilt, **RUN), chain.predict(*fitted, **RUN)
    assert width(estimate) == pytest.approx(width(whole), rel=0.1), (
        "out of step they add up as independent ones do"
    )
    assert len(spoilt[0].converged_draws()["alpha"]) == 199


def test_other_rows_other_losses_and_other_laws_do_not_pair(fitted):
    loss, error = fitted
    some = fits.fit(
        measured(), laws.downstream(), loss="log-mse", bootstrap=200, where="tokens > 1.5e6"
    )
    assert "independent" in chain.predict(loss, some, **RUN).method
    other = fits.fit(
        measured().assign(c4=lambda f: f.loss), laws.downstream(), columns={"loss": "c4"}
    )
    with pytest.raises(ValueError, match="first predicts 'loss', the second reads 'c4'"):
        chain.predict(loss, other, **RUN)
    with pytest.raises(ValueError, match="a law that reads the loss"):
        chain.predict(error, loss, loss=3.0)
    plain = chain.predict(*both(measured(), bootstrap=0), **RUN)
    assert plain.low is None and "both laws need bootstraps" in plain.method
