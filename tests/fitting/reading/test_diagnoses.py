"""Mistakes in tables are named with their remedy (mirrors .../reading/diagnoses.py)."""

import numpy as np
import pandas as pd
import pytest

import scalejax
from scalejax import laws
from scalejax.fitting import tables
from scalejax.fitting.reading import diagnoses

N, D = (x.ravel() for x in np.meshgrid(np.geomspace(5e7, 8e8, 5), np.geomspace(1e9, 1e11, 5)))
LOSS = 1.69 + 406.4 * N**-0.34 + 410.7 * D**-0.28
RUNS = pd.DataFrame({"params": N, "tokens": D, "loss": LOSS})


def test_a_clean_table_gets_no_remark():
    assert scalejax.fit(RUNS, laws.chinchilla(), bootstrap=0).reasons == []


def test_perplexities_are_named_and_their_logarithm_gives_the_law():
    table = RUNS.assign(ppl=np.exp(LOSS))
    fit = scalejax.fit(table, laws.chinchilla(), columns={"loss": "ppl"}, bootstrap=0)
    assert "look like perplexities" in fit.reasons[0] and "loss=log(ppl)" in fit.reasons[0]
    fit = scalejax.fit(table, laws.chinchilla(), columns={"loss": "log(ppl)"}, bootstrap=0)
    assert fit.reasons == [] and fit.params["alpha"] == pytest.approx(0.34, rel=1e-6)


def test_one_diverged_run_is_no_perplexity():
    assert diagnoses.loss_reasons("loss", np.array([2.5, 2.6, 13.0])) == []


def test_an_accuracy_in_place_of_the_error_is_named_and_its_error_gives_the_law():
    loss = np.linspace(3.6, 2.0, 15)
    accuracy = 1 - (0.2 + 0.55 / (1 + np.exp(-4 * (loss - 2.7))))
    table = pd.DataFrame({"loss": loss, "acc": accuracy, "percent": 100 * accuracy})
    for law in (laws.sigmoid(), laws.downstream()):
        fit = scalejax.fit(table, law, columns={"top1_error": "acc"}, bootstrap=0)
        assert "is it an accuracy?" in fit.reasons[0]
        assert "--columns top1_error=1-acc" in fit.reasons[0]
    fit = scalejax.fit(table, laws.sigmoid(), columns={"top1_error": "1-acc"}, bootstrap=0)
    assert fit.verdict == "ok" and fit.params["midpoint"] == pytest.approx(2.7, rel=1e-5)
    with pytest.raises(ValueError, match="top1_error=percent/100"):
        scalejax.fit(table, laws.sigmoid(), columns={"top1_error": "percent"}, bootstrap=0)


def test_an_accuracy_that_rises_with_the_data_is_named():
    table = pd.DataFrame({"tokens": np.geomspace(1e2, 1e4, 8), "loss": 0.2 * np.arange(1, 9) / 2})
    fit = scalejax.fit(table, laws.power("tokens"), bootstrap=0)
    assert fit.reasons[0].startswith("loss rises with tokens; is it an accuracy?")


def test_flops_in_other_units_than_params_and_tokens_are_named():
    table = RUNS.assign(params=N / 1e6, tokens=D / 1e9, flops=6 * N * D)
    (reason,) = scalejax.fit(table, laws.chinchilla(), bootstrap=0).reasons
    assert reason.startswith("flops is about 1e+15 times 6 x params x tokens")
    columns = {"params": "params*1e6", "tokens": "tokens*1e9"}
    assert scalejax.fit(table, laws.chinchilla(), columns=columns, bootstrap=0).reasons == []


def test_parameters_in_millions_are_named_without_a_column_of_flops():
    table = RUNS.assign(params=N / 1e6)
    (reason,) = scalejax.fit(table, laws.chinchilla(), bootstrap=0).reasons
    assert reason.startswith("tokens is about 5e+07 times params") and "params=params*1e6" in reason
    table = table.assign(tokens=D / 1e9)
    (reason,) = scalejax.fit(table, laws.chinchilla(), bootstrap=0).reasons
    assert reason.startswith("tokens is about 0.05 times params")


def test_flops_are_refused_for_a_law_in_millions_and_billions():
    fit = scalejax.fit(RUNS.assign(params=N / 1e6, tokens=D / 1e9), laws.chinchilla(), bootstrap=0)
    with pytest.raises(ValueError, match=r"params are 50 to 800 and tokens are 1 to 100"):
        fit.predict(flops=1e21)
    columns = {"params": "params*1e6", "tokens": "tokens*1e9"}
    table = RUNS.assign(params=N / 1e6, tokens=D / 1e9)
    fit = scalejax.fit(table, laws.chinchilla(), columns=columns, bootstrap=0)
    best = fit.forecast(flops=1e21).run
    assert best["params"] * best["tokens"] == pytest.approx(1e21 / 6)


@pytest.mark.parametrize("column", ["run", "run_id", "Name"])
def test_a_table_of_histories_is_refused_and_the_remedy_works(column):
    histories = [
        pd.DataFrame(
            {
                column: f"run {i}",
                "trainer/global_step": [10, 20, 30],
                "params": RUNS.params[i],
                "tokens": RUNS.tokens[i] * np.array([1 / 3, 2 / 3, 1]),
                "loss": RUNS.loss[i] + np.array([0.5, 0.3, 0.0]),
            }
        )
        for i in RUNS.index
    ]
    table = pd.concat(histories, ignore_index=True)
    remedy = f"last({column}, `trainer/global_step`)"
    with pytest.raises(ValueError, match="several rows") as refusal:
        scalejax.fit(table, laws.chinchilla(), bootstrap=0)
    assert remedy in str(refusal.value)
    fit = scalejax.fit(table, laws.chinchilla(), where=remedy, bootstrap=0)
    assert fit.n_rows == len(RUNS) and fit.params["alpha"] == pytest.approx(0.34, rel=1e-6)


def test_a_name_that_repeats_without_steps_is_no_history():
    table = RUNS.assign(name=["a", "b", "c", "d", "e"] * 5)
    assert scalejax.fit(table, laws.chinchilla(), bootstrap=0).reasons == []


@pytest.mark.parametrize(
    ("name", "column", "reason"),
    [
        ("loss", "val/bits_per_byte", "in nats it is --columns loss=`val/bits_per_byte`*log(2)"),
        ("loss", "c4_bpb", "c4_bpb is in bits by its name"),
        ("loss", "ppl", "loss=log(ppl)"),
        ("loss", "Accuracy", "loss=1-Accuracy"),
        ("top1_error", "arc_acc", "top1_error=1-arc_acc"),
        ("top1_error", "acc_error", ""),
        ("loss", "log_ppl", ""),
        ("loss", "loss_web", ""),
    ],
)
def test_the_name_of_a_column_says_what_it_is(name, column, reason):
    reasons = diagnoses.name_reasons(name, column)
    assert bool(reasons) == bool(reason) and reason in "".join(reasons)


def test_bits_are_named_and_their_conversion_is_not():
    table = RUNS.assign(bpb=LOSS / np.log(2) / 4)
    values = {"params": N, "tokens": D, "loss": table.bpb.to_numpy()}
    names = {"params": "params", "tokens": "tokens", "loss": "bpb"}
    (reason,) = tables.diagnose(table, values, "loss", names)
    assert reason.startswith("bpb is in bits by its name")
    names["loss"] = "bpb*log(2)"
    assert tables.diagnose(table, values, "loss", names) == []


def test_two_units_in_one_column_are_named():
    mixed = np.where(np.arange(25) < 10, N / 1e6, N)
    values = {"params": mixed, "tokens": D, "loss": LOSS}
    names = {"params": "size", "tokens": "tokens", "loss": "loss"}
    (reason,) = tables.diagnose(RUNS, values, "loss", names)
    assert reason.startswith("size is at most 800 in 10 rows and at least 5e+07 in the others")
    assert diagnoses.gap_reasons("params", "size", np.array([4e6, 7e9])) == []


def test_swapped_columns_are_suspected():
    names = {"params": "params", "tokens": "tokens"}
    (reason,) = diagnoses.ratio_reasons(D, N / 100, names)
    assert reason.endswith("or are the two swapped?")
    (reason,) = diagnoses.ratio_reasons(N / 1e6, D, names)
    assert "swapped" not in reason


def test_runs_of_one_sweep_with_almost_equal_tokens_are_named():
    params, tokens = np.full(6, 1e8), np.array([2.0, 2.01, 2.02, 8.0, 8.0, 8.1]) * 1e9
    (reason,) = diagnoses.cell_reasons(params, tokens, "tokens")
    assert reason.startswith("3 of 5 cells have under 5% more tokens")
    assert diagnoses.cell_reasons(params, np.round(tokens, -9), "tokens") == []


def test_swapped_tokens_and_unique_tokens_are_suspected():
    unique = np.minimum(D, 1e10)
    names = {"tokens": "tokens", "unique_tokens": "unique"}
    swapped = {"tokens": "unique", "unique_tokens": "tokens"}
    assert diagnoses.repeat_reasons(D, unique, names) == []
    # Where every run reads each token once, the order does not matter.
    assert diagnoses.repeat_reasons(unique, unique, names) == []
    (reason,) = diagnoses.repeat_reasons(unique, D, swapped)
    assert reason.startswith("unique are at most tokens in every row")
    fit = scalejax.fit(
        RUNS.assign(unique=unique), laws.data_constrained(), columns=swapped, bootstrap=0
    )
    assert reason in fit.reasons
