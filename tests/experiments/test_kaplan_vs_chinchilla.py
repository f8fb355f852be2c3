"""The exponents of N* on made runs (mirrors experiments/kaplan_vs_chinchilla.py)."""

import numpy as np
import pandas as pd
import pytest

from configs import models
from experiments import kaplan_vs_chinchilla as experiment
from scalejax.laws.forms import Chinchilla
from scalejax.model.transformer import Counts, counts

LAW = Chinchilla(A=340.0, B=264.0, E=2.0, alpha=0.6, beta=0.43)
BUDGETS = np.array([0.3e11, 0.6e11, 1.2e11])


def made(*, warmup_loss: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Tables of runs and curves that follow a law, for the mini sizes and three seeds.

    A long warmup adds `warmup_loss` / tokens to the loss. Cooldowns subtract 0.1.
    """
    rng, rows, curves = np.random.default_rng(0), [], []
    for model in models.ISOFLOP[:5]:
        size = counts(model)
        longest = 2.0 * BUDGETS[-1] / (6 * size.params_non_embedding)
        ends = BUDGETS / (6 * size.params_with_head)
        kinds = [(250_000, "constant", longest), (size.params_with_head, "constant", longest)]
        kinds += [(size.params_with_head, "wsd", end) for end in ends]
        for seed in range(3):
            offset = 0.002 * rng.standard_normal()
            for warmup, shape, end in kinds:
                run = f"{model.width}-{seed}-{warmup}-{shape}-{end:.0f}"
                tokens = np.geomspace(2e4, end, 40)
                loss = np.asarray(LAW.loss(size.params_with_head, tokens)) + offset
                loss = loss - 0.1 * (shape == "wsd") + warmup_loss / tokens * (warmup == 250_000)
                # Noise along a trunk is shared by all that is read from it.
                loss += 0.0001 * rng.standard_normal()
                rows.append((run, warmup, shape, end, seed, *size))
                curves.append(pd.DataFrame({"run": run, "tokens": tokens, "loss": loss}))
    columns = ["run", "warmup", "shape", "tokens", "seed", *Counts._fields]
    return pd.DataFrame(rows, columns=columns), pd.concat(curves)


def fits(table, curves):
    return experiment.fit_steps(
        table, curves, budgets=list(BUDGETS), kaplan_share=0.6, ratios=(2, 130)
    )


def test_the_steps_have_the_exponents_of_the_law_that_made_them():
    analysis = experiment.compare(fits(*made(warmup_loss=3e4)))
    kaplan, head, short, cooled = (it.estimate for it in analysis.conclusions[:4])
    # Parabolas through few sizes are biased by some hundredths.
    assert short == pytest.approx(0.43 / 1.03, abs=0.03)
    assert cooled == pytest.approx(short, abs=0.01)
    assert kaplan > head > short
    assert [it.verdict for it in analysis.conclusions[4:]] == ["holds"] * 4


def test_a_warmup_without_effect_does_not_lower_the_exponent():
    analysis = experiment.compare(fits(*made(warmup_loss=0.0)))
    # Without the head, params grow by 1.27 times the power of params with it.
    assert analysis.conclusions[0].estimate == pytest.approx(0.476, abs=0.03)
    warmup = analysis.conclusions[5]
    assert warmup.claim == "A short warmup lowers the exponent"
    assert warmup.verdict != "holds"


def test_runs_without_an_optimum_are_refused_with_the_reason():
    table, curves = made(warmup_loss=0.0)
    with pytest.raises(ValueError, match=r"Kaplan's count, seed 0: .* not bracketed"):
        fits(table[table["params"] > 35_000], curves)
