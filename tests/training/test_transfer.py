"""The verdict on best learning rates (mirrors scalejax/study/transfer.py)."""

import itertools

import numpy as np
import pandas as pd
import pytest

from scalejax.training.transfer import transfer_check

RATES = 2.0 ** -np.arange(10, 2, -1)
WIDTHS = (32, 64, 128, 256)


def table(shift: float, seeds: int = 2) -> pd.DataFrame:
    """Parabolas in log2 rate whose vertex, 2^-6.2 at width 32, moves by `shift` per doubling."""
    rows = [
        {
            "width": width,
            "learning_rate": rate,
            "seed": seed,
            "parametrization": "mup",
            "loss": 3
            - 0.1 * place
            + 0.05 * (np.log2(rate) + 6.2 - shift * place) ** 2
            + 0.01 * seed,
        }
        for (place, width), rate, seed in itertools.product(enumerate(WIDTHS), RATES, range(seeds))
    ]
    return pd.DataFrame(rows)


def test_an_optimum_that_stays_put_passes_and_one_that_halves_with_width_fails():
    still, moving = transfer_check(table(0.0)), transfer_check(table(-1.0))
    assert still.passed and still.drift == 0
    assert not moving.passed and moving.drift == 3 and moving.interior
    np.testing.assert_allclose(np.log2(still.optima), -6.2, atol=1e-9)
    np.testing.assert_allclose(np.log2(moving.optima), [-6.2, -7.2, -8.2, -9.2], atol=1e-9)


def test_losses_are_means_over_seeds_and_a_diverged_run_is_infinite():
    rows = table(0.0)
    found = transfer_check(rows)
    at = found.rates.index(2.0**-6)
    np.testing.assert_allclose(found.losses[0, at], 3 + 0.05 * 0.2**2 + 0.005)
    rows.loc[
        (rows["learning_rate"] == 2.0**-3) & (rows["width"] == 32) & (rows["seed"] == 0), "loss"
    ] = np.nan
    assert (
        np.isinf(transfer_check(rows).losses[0, -1]) and transfer_check(rows).drift == found.drift
    )


def test_an_optimum_at_the_end_of_the_grid_does_not_pass():
    found = transfer_check(table(0.0)[lambda rows: rows["learning_rate"] <= 2.0**-6])
    assert found.drift == 0 and not found.passed
    assert "end of the grid" in str(found)


def test_what_is_not_one_whole_grid_is_refused():
    rows = table(0.0)
    with pytest.raises(ValueError, match="each pair with as many seeds"):
        transfer_check(rows.iloc[1:])
    with pytest.raises(ValueError, match="each pair with as many seeds"):
        transfer_check(rows[(rows["width"] > 32) | (rows["learning_rate"] < 0.01)])
    with pytest.raises(ValueError, match="depth is not there"):
        transfer_check(rows, over="depth")
    mixed = pd.concat([rows, rows.assign(parametrization="standard")])
    with pytest.raises(ValueError, match="got mup, standard"):
        transfer_check(mixed)


def test_the_figure_has_a_line_and_a_mark_for_every_size(tmp_path):
    from matplotlib.figure import Figure

    found, figure = transfer_check(table(-1.0)), Figure()
    found.draw(axes := figure.subplots())
    assert len(axes.lines) == 2 * len(WIDTHS)
    found.plot(tmp_path / "transfer.png")
    assert (tmp_path / "transfer.png").stat().st_size > 10_000
