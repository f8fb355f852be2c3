"""Batches are a pure function of (seed, step) (mirrors scalejax/data/batches.py)."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalejax.config import Data, Model, Optimizer, Run, Schedule
from scalejax.data import batches as batches_file
from scalejax.data.batches import PERIOD, Batches, Mixture, permuted, quotas
from scalejax.data.packing import TokenArray
from scalejax.data.shards import Shards


def batches(windows: int, *, length: int = 3, sequences: int = 4, seed: int = 0) -> Batches:
    """Tokens that name their own place, so that a row tells which window it is."""
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
    whole = source.rows(0, (step + 1) * sequences)
    assert np.array_equal(source.batch_at(step), whole[-sequences:])


@given(size=st.integers(1, 5_000), keys=st.lists(st.integers(0, 2**64 - 1), min_size=6, max_size=6))
@settings(deadline=None)
def test_the_permutation_is_one(size, keys):
    assert np.array_equal(np.sort(permuted(np.arange(size), size, tuple(keys))), np.arange(size))


def test_orders_of_two_epochs_and_of_two_seeds_have_nothing_in_common():
    n = 10_000
    first, second = batches(n).rows(0, n)[:, 0], batches(n).rows(n, 2 * n)[:, 0]
    other = batches(n, seed=1).rows(0, n)[:, 0]
    for a, b in (
        (first, second),
        (first, other),
        (first, np.arange(n)),
        (np.diff(first), np.diff(second)),
    ):
        assert abs(np.corrcoef(a, b)[0, 1]) < 0.05
        assert (a == b).sum() < 10
    assert abs(np.corrcoef(first[1:], first[:-1])[0, 1]) < 0.05, (
        "neighbours in the run are neighbours in the text"
    )


def test_inputs_and_targets_overlap_by_all_but_one_token():
    batch = batches(20).batch_at(2)
    assert batch.dtype == np.int32 and batch.shape == (4, 4)
    assert np.array_equal(batch[:, 1:-1], batch[:, :-1][:, 1:])
    assert np.array_equal(batch[:, 1:], batch[:, :-1] + 1)


def test_epochs_count_windows():
    assert batches(8).epochs(3) == 12 / 8


def test_numpys_global_state_is_neither_read_nor_changed():
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
    """Domain d's tokens begin at 100,000 d and name their own place."""
    domains = {
        name: np.arange(count * 3 + 1, dtype=np.uint32) + 100_000 * i
        for i, (name, count) in enumerate(windows.items())
    }
    domains = {name: TokenArray(ids) for name, ids in domains.items()}
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
def test_the_rows_of_a_step_do_not_depend_on_hosts_accumulation_or_where_a_run_was_resumed(
    windows, share, start, hosts, accumulate, seed
):
    sizes = dict(zip("abc", windows, strict=True))
    weights = {"a": share, "b": (1 - share) / 3, "c": 2 * (1 - share) / 3}
    sequences = 4 * hosts * accumulate
    for source in (
        mixture(sizes, weights, sequences=sequences, seed=seed),
        batches(windows[0], sequences=sequences, seed=seed),
    ):
        whole = source.rows(0, start + 2 * sequences)[
            start:
        ]  # an unbroken run, over several epochs and periods
        cut = [source.rows(row, row + 4) for row in range(start, start + 2 * sequences, 4)]
        assert np.array_equal(np.concatenate(cut), whole)
        step = start // sequences
        resumed = source.rows(step * sequences, (step + 2) * sequences)
        assert np.array_equal(
            resumed, np.concatenate([source.batch_at(step), source.batch_at(step + 1)])
        )


def test_a_mixture_reads_every_row_of_every_domain_once_and_in_the_shares_asked_for():
    weights, windows = (
        {"wiki": 0.7, "code": 0.2, "plays": 0.1},
        {"wiki": 50, "code": 400, "plays": 7},
    )
    source = mixture(windows, weights)
    domains, rows = source.places(np.arange(3 * PERIOD))
    for number, (name, share) in enumerate(weights.items()):
        mine = rows[domains == number]
        assert abs(len(mine) - 3 * PERIOD * share) <= 3
        assert np.array_equal(np.sort(mine), np.arange(len(mine))), (
            f"{name}: a row is missing or read twice"
        )
        read = source.rows(0, 3 * PERIOD)[domains == number, 0] - 100_000 * number
        epochs = len(mine) // windows[name]
        counts = np.bincount(read // 3, minlength=windows[name])
        assert epochs <= counts.min() <= counts.max() <= epochs + 1, (
            "a window is read more often than another one"
        )
    assert source.epochs(3 * PERIOD // 4) == max(source.quotas * 3 / list(windows.values()))
    assert abs(np.corrcoef(domains[1:], domains[:-1])[0, 1]) < 0.05, "domains come in blocks"


def test_another_seed_or_period_mixes_in_another_order():
    first, other = (
        mixture({"a": 9, "b": 9}, {"a": 0.5, "b": 0.5}, seed=seed).places(np.arange(2 * PERIOD))[0]
        for seed in (0, 1)
    )
    for one, two in ((first, other), (first[:PERIOD], first[PERIOD:])):
        assert abs(np.corrcoef(one, two)[0, 1]) < 0.1


def test_quotas_fill_a_period_and_a_domain_that_is_never_read_is_refused():
    assert quotas({"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}).sum() == PERIOD
    with pytest.raises(ValueError, match="gives 'b' a share below 1/1024"):
        quotas({"a": 0.9999, "b": 0.0001})
    with pytest.raises(ValueError, match="domain 'b': 1 training tokens are fewer than one window"):
        mixture({"a": 9, "b": 0}, {"a": 0.5, "b": 0.5})


def two_domains(shares: dict[str, float]) -> Shards:
    """61 tokens that name their own place, the first 31 of them of the domain `a`."""
    manifest, none = (
        {"shares": shares, "domains": {"a": {"train": 30}, "b": {"train": 30}}},
        np.zeros(0, np.int64),
    )
    return Shards(Path("nowhere"), np.arange(61, dtype=np.uint16), none, none, none, manifest)


def run(mixture: str) -> Run:
    return Run(
        model=Model.sized(width=8, depth=1, head_size=8, vocabulary=64),
        data=Data(source="here", tokenizer="own", sequence_length=3, mixture=mixture),
        optimizer=Optimizer(learning_rate=0.1),
        schedule=Schedule(shape="constant", warmup=0),
        tokens=60,
        batch_tokens=12,
    )


def test_a_run_reads_its_mixture_else_that_of_the_source_else_every_window_alike():
    assert isinstance(batches_file.batches(two_domains({}), run("")), Batches)
    shares = {"a": 0.25, "b": 0.75}
    assert batches_file.batches(two_domains(shares), run("")).quotas.tolist() == [256, 768]
    assert batches_file.batches(two_domains(shares), run("b=1,a=1")).quotas.tolist() == [512, 512]
    only = batches_file.batches(two_domains({}), run("b=1")).rows(0, 50)
    assert only.min() == 30 and only.max() == 60
    with pytest.raises(
        ValueError, match=r"Data\.mixture names the domain 'c'; the domains of here are a, b"
    ):
        batches_file.batches(two_domains({}), run("a=1,c=2"))


@pytest.mark.parametrize(
    "mixture", ["a", "a=", "=1", "a=0", "a=-1", "a=nan", "a=inf", "a=1,a=2", "a=x"]
)
def test_a_mixture_that_cannot_be_read_is_refused(mixture):
    with pytest.raises(ValueError, match=r"Data\.mixture is DOMAIN=WEIGHT"):
        Data(mixture=mixture)
