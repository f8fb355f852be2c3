"""The exponents of N* on made runs (mirrors experiments/kaplan_vs_chinchilla.py)."""

import numpy as np
import pandas as pd
import pytest

from configs import models
from experiments import kaplan_vs_chinchilla as experiment
from scalejax.laws.forms import Chinchilla
from scalejax.model.transformer import Counts, counts
from tests.published import reference

LAW = Chinchilla(A=340.0, B=264.0, E=2.0, alpha=0.6, beta=0.43)
BUDGETS = np.array([0.3e11, 0.6e11, 1.2e11])
RATE, BATCH = 0.008, 512
CELLS = [
    (cell.get("learning_rate", RATE), cell.get("batch_tokens", BATCH)) for cell in experiment.CELLS
]


def excess(size: float, rate: float, batch: float) -> float:
    """Nats above the best cell, at 0.012 (N / 40,000)^-0.2 and 200 (N / 40,000)^0.4."""
    off_rate = np.log(rate / 0.012 * (size / 40_000) ** 0.2 * np.sqrt(BATCH / batch))
    off_batch = np.log(batch / 200 * (size / 40_000) ** -0.4)
    return 0.02 * off_rate**2 + 0.01 * off_batch**2


def made(*, warmup_loss: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Tables of runs and curves that follow a law, for the mini sizes and three seeds.

    A long warmup adds `warmup_loss` / tokens to the loss. Cooldowns subtract 0.1. Every
    cell adds its excess to that of the base cell.
    """
    rng, rows, curves = np.random.default_rng(0), [], []
    for model in models.ISOFLOP[:5]:
        size = counts(model)
        longest = 2.0 * BUDGETS[-1] / (6 * size.params_non_embedding)
        ends = BUDGETS / (6 * size.params_with_head)
        base, short = (RATE, BATCH), size.params_with_head
        kinds = [(250_000, "constant", longest, base), (short, "constant", ends[-1], base)]
        kinds += [(short, "wsd", end, base) for end in ends]
        kinds += [(short, "constant", ends[-1], cell) for cell in CELLS]
        for seed in range(3):
            offset = 0.002 * rng.standard_normal()
            for warmup, shape, end, cell in kinds:
                run = f"{model.width}-{seed}-{warmup}-{shape}-{end:.0f}-{cell}"
                tokens = np.geomspace(2e4, end, 40)
                loss = np.asarray(LAW.loss(size.params_with_head, tokens)) + offset
                loss = loss - 0.1 * (shape == "wsd") + warmup_loss / tokens * (warmup == 250_000)
                loss += excess(short, *cell) - excess(short, *base)
                # Noise along a trunk is shared by all that is read from it.
                loss += 0.0001 * rng.standard_normal()
                rows.append((run, warmup, shape, end, seed, loss[-1], model.width, *cell, *size))
                curves.append(pd.DataFrame({"run": run, "tokens": tokens, "loss": loss}))
    columns = ["run", "warmup", "shape", "tokens", "seed", "loss", "width", *experiment.CELL]
    columns += Counts._fields
    return pd.DataFrame(rows, columns=columns), pd.concat(curves)


def fits(table, curves):
    return experiment.fit_steps(
        table, curves, budgets=list(BUDGETS), kaplan_share=0.6, ratios=(2, 130)
    )


def test_the_steps_have_the_exponents_of_the_law_that_made_them():
    analysis = experiment.compare(fits(*made(warmup_loss=3e4)))
    kaplan, head, short, cooled, tuned = (it.estimate for it in analysis.conclusions[:5])
    # Parabolas through few sizes are biased by some hundredths.
    assert short == pytest.approx(0.43 / 1.03, abs=0.03)
    assert cooled == pytest.approx(short, abs=0.01)
    # What tuning gains depends on the size here, and not on the budget.
    assert tuned == pytest.approx(short, abs=0.01)
    assert kaplan > head > short
    *steps, tuning, warmup = (it.verdict for it in analysis.conclusions[5:])
    assert [*steps, warmup] == ["holds"] * 4
    assert tuning == "not resolved at this scale"


def test_a_warmup_without_effect_does_not_lower_the_exponent():
    analysis = experiment.compare(fits(*made(warmup_loss=0.0)))
    # Without the head, params grow by 1.27 times the power of params with it.
    assert analysis.conclusions[0].estimate == pytest.approx(0.476, abs=0.03)
    warmup = analysis.conclusions[6]
    assert warmup.claim == "A short warmup lowers the exponent"
    assert warmup.verdict != "holds"


def test_runs_without_an_optimum_are_refused_with_the_reason():
    table, curves = made(warmup_loss=0.0)
    with pytest.raises(ValueError, match=r"Kaplan's count, seed 0: .* not bracketed"):
        fits(table[table["params"] > 35_000], curves)


def test_the_best_rate_and_batch_move_with_the_size_as_they_were_made():
    rate, batch = experiment.best_by_size(made(warmup_loss=0.0)[0])
    assert rate.estimate == pytest.approx(-0.2, abs=0.02)
    assert batch.estimate == pytest.approx(0.4, abs=0.02)
    assert rate.verdict == batch.verdict == "holds"


def test_the_tuned_step_reads_the_best_cell_of_each_size_at_each_budget():
    points = experiment.tune(experiment.losses(*made(warmup_loss=0.0), BUDGETS, step="tuned"))
    assert points.groupby(["params", "flops"]).size().unique().tolist() == [3]
    for size, runs in points.groupby("params"):
        cells = [(RATE, BATCH), *CELLS]
        best = min(cells, key=lambda cell: excess(size, *cell))
        assert set(zip(*(runs[name] for name in experiment.CELL), strict=True)) == {best}


def test_the_papers_cells_are_those_of_its_tables():
    table = pd.read_csv(reference("porian2024") / "architectures.csv")
    laws = zip(table["N"], table["lr_rounded_law"], table["bs_rounded_law"], strict=True)
    for size, rate, sequences in laws:
        cell = experiment.porian_cell(size)
        assert cell["learning_rate"] == pytest.approx(rate, rel=1e-6)
        # Rounded to a multiple of 16.
        assert cell["batch_tokens"] / 2_048 == pytest.approx(sequences, abs=8)
