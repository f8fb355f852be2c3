"""Batches are a function of (seed, step) only (mirrors scalejax/data/batches.py)."""

from pathlib import Path
from typing import cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalejax.config import Data, Model, Optimizer, Run, Schedule
from scalejax.data import batches as batches_file
from scalejax.data.batches import PERIOD, Batches, Mixture, quotas
from scalejax.data.packing import TokenArray
from scalejax.data.shards import Manifest, Shards


def batches(windows: int, *, length: int = 3, sequences: int = 4, seed: int = 0) -> Batches:
    """Batches of tokens whose ids are their positions: a row tells its window."""
    tokens = TokenArray(np.arange(windows * length + 1, dtype=np.uint32))
    return Batches(tokens, sequence_length=length, sequences=sequences, seed=seed)


@settings(deadline=None)
@given(windows=st.integers(1, 300), epoch=st.integers(0, 5), seed=st.integers(0, 2**32))
def test_each_epoch_visits_every_window_exactly_once(windows, epoch, seed):
    rows = batches(windows, seed=seed).rows(epoch * windows, (epoch + 1) * windows)
    assert np.array_equal(np.sort(rows[:, 0]), np.arange(windows) * 3)
    assert np.array_equal(rows, rows[:, :1] + np.arange(4)), "a window is not contiguous"


@settings(deadline=None)
@given(
    windows=st.integers(1, 50),
    sequences=st.integers(1, 8),
    step=st.integers(0, 40),
    seed=st.integers(0, 9),
)
def test_a_batch_is_a_slice_of_one_long_run(windows, sequences, step, seed):
    source = batches(windows, sequences=sequences, seed=seed)
    run = source.rows(0, (step + 1) * sequences)
    assert np.array_equal(source.batch_at(step), run[-sequences:])


def test_the_orders_of_two_epochs_and_of_two_seeds_are_unrelated():
    n = 10_000
    first, second = batches(n).rows(0, n)[:, 0], batches(n).rows(n, 2 * n)[:, 0]
    other_seed = batches(n, seed=1).rows(0, n)[:, 0]
    pairs = [
        (first, second),
        (first, other_seed),
        (first, np.arange(n)),
        (np.diff(first), np.diff(second)),
    ]
    for a, b in pairs:
        assert abs(np.corrcoef(a, b)[0, 1]) < 0.05
        assert (a == b).sum() < 10
    assert abs(np.corrcoef(first[1:], first[:-1])[0, 1]) < 0.05, (
        "neighbors in the run are neighbors in the text"
    )


def test_inputs_and_targets_overlap_in_all_but_one_token():
    batch = batches(20).batch_at(2)
    assert batch.dtype == np.int32 and batch.shape == (4, 4)
    assert np.array_equal(batch[:, 1:-1], batch[:, :-1][:, 1:])
    assert np.array_equal(batch[:, 1:], batch[:, :-1] + 1)


def test_epochs_count_windows():
    assert batches(8).epochs(3) == 12 / 8
    assert batches(8).unique_rows(1) == 4 and batches(8).unique_rows(3) == 8


def test_numpys_global_random_state_is_neither_read_nor_changed():
    np.random.seed(3)
    first, after = batches(50).batch_at(1), np.random.random()
    np.random.seed(3)
    np.random.random(5)
    assert np.array_equal(first, batches(50).batch_at(1))
    np.random.seed(3)
    assert np.random.random() == after


@pytest.mark.parametrize("tokens", [0, 1, 3])
def test_fewer_tokens_than_one_window_are_refused(tokens):
    with pytest.raises(ValueError, match=r"fewer than one window of sequence_length 3 \+ 1"):
        Batches(TokenArray(np.zeros(tokens, np.uint16)), sequence_length=3, sequences=1, seed=0)
    assert batches(1).windows == 1


def mixture(
    windows: dict[str, int], weights: dict[str, float], *, sequences: int = 4, seed: int = 0
) -> Mixture:
    """A mixture of domains; token p of domain d has the id 100,000 d + p."""
    domains = {
        name: TokenArray(np.arange(count * 3 + 1, dtype=np.uint32) + 100_000 * number)
        for number, (name, count) in enumerate(windows.items())
    }
    return Mixture(domains, weights, sequence_length=3, sequences=sequences, seed=seed)


@settings(deadline=None, max_examples=30)
@given(
    windows=st.lists(st.integers(1, 700), min_size=3, max_size=3),
    share=st.floats(0.01, 0.9),
    start=st.integers(0, 5_000),
    hosts=st.integers(1, 4),
    accumulate=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_the_rows_of_a_step_do_not_depend_on_hosts_accumulation_or_resumes(
    windows, share, start, hosts, accumulate, seed
):
    sizes = dict(zip("abc", windows, strict=True))
    weights = {"a": share, "b": (1 - share) / 3, "c": 2 * (1 - share) / 3}
    sequences = 4 * hosts * accumulate
    for source in (
        mixture(sizes, weights, sequences=sequences, seed=seed),
        batches(windows[0], sequences=sequences, seed=seed),
    ):
        # Two steps of an uninterrupted run, over several epochs and periods.
        steps = source.rows(0, start + 2 * sequences)[start:]
        micro_batches = [
            source.rows(row, row + 4) for row in range(start, start + 2 * sequences, 4)
        ]
        assert np.array_equal(np.concatenate(micro_batches), steps)
        step = start // sequences
        resumed = source.rows(step * sequences, (step + 2) * sequences)
        assert np.array_equal(
            resumed, np.concatenate([source.batch_at(step), source.batch_at(step + 1)])
        )


def test_a_mixture_reads_every_row_of_every_domain_once_in_the_given_shares():
    weights = {"wiki": 0.7, "code": 0.2, "plays": 0.1}
    windows = {"wiki": 50, "code": 400, "plays": 7}
    source = mixture(windows, weights)
    domains, rows = source.places(np.arange(3 * PERIOD))
    for number, (name, share) in enumerate(weights.items()):
        own_rows = rows[domains == number]
        assert abs(len(own_rows) - 3 * PERIOD * share) <= 3
        assert np.array_equal(np.sort(own_rows), np.arange(len(own_rows))), (
            f"{name}: a row is missing or read twice"
        )
        starts = source.rows(0, 3 * PERIOD)[domains == number, 0] - 100_000 * number
        epochs = len(own_rows) // windows[name]
        counts = np.bincount(starts // 3, minlength=windows[name])
        assert epochs <= counts.min() <= counts.max() <= epochs + 1, (
            "a window is read more often than another one"
        )
    assert source.epochs(3 * PERIOD // 4) == max(source.quotas * 3 / list(windows.values()))
    read = {(number, row) for number, row in zip(*source.order(np.arange(PERIOD)).T, strict=True)}
    assert source.unique_rows(PERIOD // 4) == len(read) < PERIOD
    assert abs(np.corrcoef(domains[1:], domains[:-1])[0, 1]) < 0.05, "domains come in blocks"


def test_another_seed_and_another_period_mix_domains_in_another_order():
    first, other_seed = (
        mixture({"a": 9, "b": 9}, {"a": 0.5, "b": 0.5}, seed=seed).places(np.arange(2 * PERIOD))[0]
        for seed in (0, 1)
    )
    for one, other in ((first, other_seed), (first[:PERIOD], first[PERIOD:])):
        assert abs(np.corrcoef(one, other)[0, 1]) < 0.1


def test_quotas_fill_a_period_and_a_domain_that_is_never_read_is_refused():
    assert quotas({"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}).sum() == PERIOD
    with pytest.raises(ValueError, match="gives 'b' a share below 1/1024"):
        quotas({"a": 0.9999, "b": 0.0001})
    with pytest.raises(ValueError, match="domain 'b': 1 training tokens are fewer than one window"):
        mixture({"a": 9, "b": 0}, {"a": 0.5, "b": 0.5})


def two_domains(shares: dict[str, float]) -> Shards:
    """61 tokens whose ids are their positions; domain `a` has the first 31."""
    domains = {"a": {"train": 30}, "b": {"train": 30}}
    # Only what is read here.
    manifest = cast(Manifest, {"shares": shares, "domains": domains})
    empty = np.zeros(0, np.int64)
    return Shards(Path("nowhere"), np.arange(61, dtype=np.uint16), empty, empty, empty, manifest)


def run(mixture: str) -> Run:
    return Run(
        model=Model.sized(width=8, depth=1, head_size=8, vocabulary=64),
        data=Data(source="here", tokenizer="own", sequence_length=3, mixture=mixture),
        optimizer=Optimizer(learning_rate=0.1),
        schedule=Schedule(shape="constant", warmup=0),
        tokens=60,
        batch_tokens=12,
    )


def mixture_of(shares: dict[str, float], mixture: str) -> Mixture:
    rows = batches_file.batches(two_domains(shares), run(mixture))
    assert isinstance(rows, Mixture)
    return rows


def test_the_runs_own_mixture_comes_first_then_that_of_the_source():
    assert isinstance(batches_file.batches(two_domains({}), run("")), Batches)
    shares = {"a": 0.25, "b": 0.75}
    assert mixture_of(shares, "").quotas.tolist() == [256, 768]
    assert mixture_of(shares, "b=1,a=1").quotas.tolist() == [512, 512]
    only_b = mixture_of({}, "b=1").rows(0, 50)
    assert only_b.min() == 30 and only_b.max() == 60


def test_a_mixture_of_a_domain_that_does_not_exist_is_refused():
    with pytest.raises(
        ValueError,
        match=r"Data\.mixture names the domain 'c', which here does not have; .* are a, b",
    ):
        batches_file.batches(two_domains({}), run("a=1,c=2"))


@pytest.mark.parametrize(
    "mixture", ["a", "a=", "=1", "a=0", "a=-1", "a=nan", "a=inf", "a=1,a=2", "a=x"]
)
def test_a_mixture_that_cannot_be_read_is_refused(mixture):
    with pytest.raises(ValueError, match=r"Data\.mixture must be DOMAIN=WEIGHT"):
        Data(mixture=mixture)
