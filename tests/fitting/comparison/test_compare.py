"""Gains of compute between two tables (mirrors scalejax/fitting/comparison/)."""

import matplotlib
import numpy as np
import pandas as pd
import pytest

import scalejax
from scalejax import laws
from scalejax.fitting.comparison import checks
from scalejax.fitting.comparison.pairing import pair_rows

matplotlib.use("Agg")


def runs(saving=1.0, *, noise=0.0, seed=0, shared=0, E=1.6, sizes=4):
    """Runs of a recipe whose loss is that of `saving` times the compute.

    noise: of the loss, relative. seed: of the runs. shared: seed of the noise that
    tables have in common.
    """
    params, tokens = (
        x.ravel() for x in np.meshgrid(33e3 * 2.0 ** np.arange(sizes), np.geomspace(4.5e5, 7e6, 5))
    )
    # With equal exponents, N and D both count as sqrt(saving) times what they are.
    n, d = params * saving**0.5, tokens * saving**0.5
    own, common = (np.random.default_rng(x) for x in (seed + 100, shared))
    error = noise * (common.normal(size=n.size) + 0.3 * own.normal(size=n.size))
    loss = (E + 20 * n**-0.34 + 60 * d**-0.35) * np.exp(error)
    return pd.DataFrame({"params": params, "tokens": tokens, "seed": 0, "loss": loss})


def test_without_noise_the_gain_is_the_true_one_at_every_budget():
    result = scalejax.compare(runs(), runs(1.5), "chinchilla", draws=40)
    assert [gain.value for gain in result.gains] == pytest.approx([1.5] * 3, rel=1e-3)
    assert result.pairs == 20 and not any(gain.notes for gain in result.gains[:2])


def test_a_gain_that_only_other_units_explain_is_questioned():
    # Params in thousands: the FLOPs of both tables still overlap.
    a = runs(sizes=8)
    b = a.assign(params=a.params / 1e3)
    first, *_ = scalejax.compare(a, b, "chinchilla", draws=40).gains
    assert first.value == pytest.approx(1e3, rel=1e-2)
    assert "params, tokens, FLOPs and the loss in the same units?" in first.notes[-1]


def test_pairs_make_the_interval_narrower_and_domains_are_compared(tmp_path):
    a, b = (runs(x, noise=0.003, seed=i) for i, x in enumerate((1.0, 1.5)))
    a["loss_web"], a["loss_web_se"] = 1.1 * a["loss"], 0.01
    b["loss_web"], b["loss_web_se"] = 1.1 * b["loss"], 0.01
    a["loss_code"] = a["loss"]
    # These are columns of both tables, and no domains.
    a["loss_std"], b["loss_std"], a["loss_spikes"], b["loss_spikes"] = 0.01, 0.01, 0, 0
    paired = scalejax.compare(a, b, "chinchilla", draws=100)
    unpaired = scalejax.compare(
        a[["params", "tokens", "seed", "loss"]], b.assign(seed=1), "chinchilla", draws=100
    )
    assert (paired.pairs, unpaired.pairs) == (20, 0)
    assert paired.correlation is not None and paired.correlation > 0.7
    for one, other in zip(paired.gains, unpaired.gains, strict=False):
        assert one.low and one.high and other.low and other.high
        assert one.low < 1.5 < one.high and other.low < 1.5 < other.high
        assert np.log(one.high / one.low) < 0.7 * np.log(other.high / other.low)
    assert [gain.column for gain in paired.gains] == ["loss"] * 3 + ["loss_web"] * 3
    assert paired.reasons[0].startswith("loss_spikes is not compared: loss_spikes is 0 in row 0")
    # The gate is about the loss, not about its domains.
    worst = min(gain.low for gain in paired.gains[:3] if gain.low)
    assert not paired.shortfalls(worst) and len(paired.shortfalls(worst + 1e-6)) == 1
    assert "A needs" in str(paired) and "loss_web" in str(paired)
    paired.plot(tmp_path / "gain.svg")
    assert "<svg" in (tmp_path / "gain.svg").read_text()
    # A notebook shows the same as `print`, with a table, and the figure as an image.
    assert paired._repr_html_().count("<tr>") == 1 + len(paired.gains)
    assert paired.figure()._repr_html_().count("<img") == 1


def test_a_loss_that_a_never_reaches_has_an_open_interval():
    a, b = runs(E=2.2, noise=1e-4), runs(E=1.6, noise=1e-4)
    result = scalejax.compare(a, b, "chinchilla", draws=40, flops=[1e16])
    (gain,) = result.gains
    assert gain.value == np.inf and (gain.low, gain.high) == (None, None)
    assert gain.notes[0].startswith("A does not reach this loss")
    assert gain.record()["gain"] is None
    assert result.shortfalls(1.0) == [gain]


def test_tables_without_a_common_range_extrapolate_and_say_how_far():
    large = runs(sizes=8).query("params > 1e6 and tokens > 3e6")
    large = pd.concat([large.assign(tokens=large.tokens * x) for x in (5, 9, 40)])
    large["loss"] = 1.6 + 20 * large.params**-0.34 + 60 * large.tokens**-0.35
    result = scalejax.compare(runs(), large, "chinchilla", draws=40)
    assert any("A extrapolates: flops is" in note for gain in result.gains for note in gain.notes)
    assert result.gains[-1].value == pytest.approx(1.0, rel=0.01)


def test_a_law_of_flops_and_a_fixed_ratio_compare_runs_of_one_ratio():
    a, b = (runs(x, sizes=7).assign(tokens=lambda t: 20 * t.params) for x in (1.0, 1.3))
    for table, saving in ((a, 1.0), (b, 1.3)):
        n, d = table.params * saving**0.5, table.tokens * saving**0.5
        table["loss"] = 1.6 + 20 * n**-0.34 + 60 * d**-0.34
        table["flops"] = 6 * table.params * table.tokens
    a, b = (table.drop_duplicates("params") for table in (a, b))
    result = scalejax.compare(a, b, laws.power("flops"), draws=40)
    assert [gain.value for gain in result.gains] == pytest.approx([1.3] * 3, rel=0.02)
    with pytest.raises(ValueError, match="--tokens-per-param 20"):
        scalejax.compare(a, b, "chinchilla", draws=40)
    held = laws.chinchilla(alpha=0.34, beta=0.34)
    with pytest.raises(ValueError, match="nothing of other ratios"):
        scalejax.compare(a, b, "chinchilla", draws=40, tokens_per_param=40)
    gain = scalejax.compare(a, b, held, draws=40, tokens_per_param=20).gains[0]
    assert gain.value == pytest.approx(1.3, rel=0.02)


def test_seeds_decide_which_rows_are_pairs():
    frame = pd.DataFrame({"seed": [0, 1, 1], "trunk": ["x", "x", "y"]})
    inputs = [np.array([1.0, 1.0, 2.0])]
    other = frame.assign(seed=[1, 0, 2])
    assert pair_rows([frame, other], [inputs, inputs], "seed").pairs.tolist() == [[0, 1], [1, 0]]
    # A table in which some seed is missing has them as floats.
    floats = other.assign(seed=other.seed.astype(float))
    assert len(pair_rows([frame, floats], [inputs, inputs], "seed").pairs) == 2
    # Without seeds, nothing says which of two equal rows is the partner.
    bare = frame.drop(columns="seed")
    pairing = pair_rows([bare, other], [inputs, inputs], "seed")
    assert pairing.pairs.tolist() == [[2, 2]] and pairing.trunks[0].tolist() == [0, 0, 1]


REFUSED = [
    ({"loss": lambda t: t.loss / np.log(2)}, {}, "ratio of nats to bits. Convert B to nats"),
    ({"params": lambda t: t.params * 1e6}, {}, "times apart; give params, tokens and FLOPs in"),
    ({"tokenizer": "bpe:512"}, {}, "tokenizer byte and B has bpe:512: .*loss=bits_per_byte"),
    ({"tokens": 1e6}, {}, "all runs of B have 1e\\+06 tokens, which says nothing of"),
    ({}, {"law": "downstream"}, "does not say what a run costs"),
    ({}, {"flops": [-1.0]}, "flops must be positive"),
    ({}, {"draws": 10}, "40 draws or more; got draws=10"),
    ({}, {"tokens_per_param": -1.0}, "must be a positive number"),
    ({}, {"where": "params > 1e12"}, "leaves no rows"),
]


@pytest.mark.parametrize(("changes", "options", "message"), REFUSED)
def test_what_cannot_be_compared_is_refused(changes, options, message):
    a = runs().assign(tokenizer="byte")
    options = {"law": "chinchilla", "draws": 40} | options
    with pytest.raises(ValueError, match=message):
        scalejax.compare(a, a.assign(**changes), **options)


def test_losses_per_token_of_other_tokenizers_are_refused_whatever_their_name():
    a = runs().assign(tokenizer="byte", vocabulary=256)
    frames = [a, a.assign(tokenizer="bpe:512")]
    for name in ("val_loss", "log(ppl)"):
        with pytest.raises(ValueError, match="tokenizer byte and B has bpe:512"):
            checks.check_tokenizers(frames, name)
    checks.check_tokenizers(frames, "val_bits_per_byte")
    # The same vocabulary as a whole number and, where one is missing, as a float.
    checks.check_tokenizers([a, a.assign(vocabulary=256.0)], "loss")


def test_kaplans_law_counts_flops_by_the_parameters_that_it_reads():
    a = runs().assign(params_non_embedding=lambda t: t.params / 4)
    b = a.assign(params_non_embedding=a.params * 1e6)
    with pytest.raises(ValueError, match="times apart; give params, tokens and FLOPs in"):
        scalejax.compare(a, b, "kaplan", draws=40)


def test_other_data_without_a_common_held_out_text_is_mentioned():
    a = runs().assign(data_hash="a", validation="")
    b = runs(1.2).assign(data_hash="b", validation="")
    (reason,) = checks.held_out_reasons([a, b])
    assert "the same text" in reason
    assert not checks.held_out_reasons([a, b.assign(data_hash="a")])
    shared = [table.assign(validation="held-out.jsonl") for table in (a, b)]
    assert not checks.held_out_reasons(shared)


def test_beyond_two_sizes_nothing_bounds_the_gain():
    """Any exponent of the size fits two sizes."""
    a, b = runs(noise=0.002, sizes=2), runs(1.5, noise=0.002, seed=1, sizes=2)
    (beyond,) = scalejax.compare(a, b, "chinchilla", draws=40, flops=[1e16]).gains
    assert (beyond.low, beyond.high) == (None, None) and beyond.value > 0
    assert beyond.notes[0].startswith("no interval, of A: params is beyond the fitted rows, which")
