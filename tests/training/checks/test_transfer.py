"""The transfer check (mirrors scalejax/training/checks/transfer.py)."""

import itertools

import numpy as np
import pandas as pd
import pytest

from scalejax.training.checks.transfer import transfer_check

RATES = 2.0 ** -np.arange(10, 2, -1)
WIDTHS = (32, 64, 128, 256)


def table(shift: float, seeds: int = 2) -> pd.DataFrame:
    """Parabolas in log2(rate) with vertex -6.2 at width 32; `shift` is per doubling."""
    rows = []
    for (doublings, width), rate, seed in itertools.product(enumerate(WIDTHS), RATES, range(seeds)):
        distance = np.log2(rate) + 6.2 - shift * doublings
        loss = 3 - 0.1 * doublings + 0.05 * distance**2 + 0.01 * seed
        run = {"width": width, "learning_rate": rate, "seed": seed, "parametrization": "mup"}
        rows.append(run | {"loss": loss})
    return pd.DataFrame(rows)


def test_an_optimum_that_stays_passes_and_one_that_halves_with_every_doubling_fails():
    still, moving = transfer_check(table(0.0)), transfer_check(table(-1.0))
    assert still.passed and still.drift == 0
    assert not moving.passed and moving.drift == 3 and moving.interior
    np.testing.assert_allclose(np.log2(still.optima), -6.2, atol=1e-9)
    np.testing.assert_allclose(np.log2(moving.optima), [-6.2, -7.2, -8.2, -9.2], atol=1e-9)


def test_losses_are_means_over_seeds_and_a_diverged_run_is_infinite():
    rows = table(0.0)
    check = transfer_check(rows)
    np.testing.assert_allclose(
        check.losses[0, check.rates.index(2.0**-6)], 3 + 0.05 * 0.2**2 + 0.005
    )
    largest_rate = (rows["learning_rate"] == 2.0**-3) & (rows["width"] == 32)
    rows.loc[largest_rate & (rows["seed"] == 0), "loss"] = np.nan
    diverged = transfer_check(rows)
    assert np.isinf(diverged.losses[0, -1]) and diverged.drift == check.drift


def test_an_optimum_at_the_end_of_the_grid_does_not_pass():
    rows = table(0.0)
    check = transfer_check(rows.loc[rows["learning_rate"] <= 2.0**-6, :])
    assert check.drift == 0 and not check.passed
    assert "end of the grid" in str(check)


def test_a_table_that_is_not_one_complete_grid_is_refused():
    rows = table(0.0)
    with pytest.raises(ValueError, match="equally many seeds for every pair"):
        transfer_check(rows.iloc[1:])
    with pytest.raises(ValueError, match="equally many seeds for every pair"):
        transfer_check(rows.loc[(rows["width"] > 32) | (rows["learning_rate"] < 0.01), :])
    with pytest.raises(ValueError, match="the table has no depth"):
        transfer_check(rows, over="depth")
    mixed = pd.concat([rows, rows.assign(parametrization="standard")])
    with pytest.raises(ValueError, match="the table has mup, standard"):
        transfer_check(mixed)


def test_the_figure_has_a_line_and_a_mark_for_every_size(tmp_path):
    from matplotlib.figure import Figure

    check, axes = transfer_check(table(-1.0)), Figure().subplots()
    check.draw(axes)
    assert len(axes.lines) == 2 * len(WIDTHS)
    check.plot(tmp_path / "transfer.png")
    assert (tmp_path / "transfer.png").stat().st_size > 10_000
