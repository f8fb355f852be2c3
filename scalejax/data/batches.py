"""Batches as arithmetic: row i of a run is a window of the shards, found from (seed, i) alone."""

from collections.abc import Callable
from functools import lru_cache
from typing import Protocol

import numpy as np

from scalejax.config import Run
from scalejax.data.packing import TokenArray
from scalejax.data.shards import Shards

ROUNDS = 6  # of the Feistel network; four make a pseudo-random permutation (Luby and Rackoff 1988), two more cost little
ROWS_AHEAD = (
    1_024  # placed at once: a permutation costs 50 us a call, whether of 4 rows or of a hundred
)
PERIOD = (
    1_024  # rows over which a mixture's shares are exact: weights count in steps of a thousandth
)


class Rows(Protocol):
    """What training reads: `Batches` of one corpus, or a `Mixture` of domains."""

    def batch_at(self, step: int) -> np.ndarray: ...

    def rows(self, start: int, stop: int) -> np.ndarray: ...

    def epochs(self, step: float) -> float: ...


def batches(shards: Shards, run: Run) -> "Rows":
    """The rows that `run` trains on, marked (data/packing.py) when its `Data.packing` is `documents`.

    Raises ValueError for too few tokens, for a mixture of domains that are not there, and for documents that nothing tells apart.
    """
    length, weights = run.data.sequence_length, run.data.weights or shards.shares
    if not weights:
        tokens = shards.tokens("train", run.data.packing)
        return Batches(tokens, sequence_length=length, sequences=run.batch_sequences, seed=run.seed)
    if unknown := sorted(set(weights) - set(shards.domains)):
        raise ValueError(
            f"Data.mixture names the domain {unknown[0]!r}; the domains of {run.data.source} are {', '.join(shards.domains)}"
        )
    domains = {name: shards.tokens("train", run.data.packing, domain=name) for name in weights}
    return Mixture(domains, weights, sequence_length=length, sequences=run.batch_sequences, seed=run.seed)


class Batches:
    """Windows of sequence_length + 1 tokens in an order drawn anew for every epoch.

    The shard is cut into W = (tokens - 1) // sequence_length windows; neighbours share one token, the last target of one being
    the first input of the next. Row r of a run is window P(r mod W) of epoch r // W, with a permutation P keyed by (seed, epoch)
    and computed index by index, without a table. Nothing else is state, so that any split of a step into micro-batches, and any
    number of hosts, reads the same tokens.

    Raises ValueError when there are fewer tokens than one window.
    """

    def __init__(self, tokens: TokenArray, *, sequence_length: int, sequences: int, seed: int):
        self.windows = (len(tokens) - 1) // sequence_length
        if self.windows < 1:
            raise ValueError(
                f"{len(tokens):,} training tokens are fewer than one window of sequence_length {sequence_length} + 1: "
                "use more text or a smaller Data.sequence_length"
            )
        self.sequences = sequences
        self.seed = seed
        self.tokens = tokens.windows(sequence_length)
        self._ahead = _Ahead(self.order)

    def batch_at(self, step: int) -> np.ndarray:
        """int32 [sequences, sequence_length + 1] of step 0, 1, ..: inputs are [:, :-1], targets [:, 1:]."""
        return self.rows(step * self.sequences, (step + 1) * self.sequences)

    def rows(self, start: int, stop: int) -> np.ndarray:
        """int32 [stop - start, sequence_length + 1]: these rows of the run, across epochs."""
        return self.tokens.rows(self._ahead(start, stop))

    def order(self, rows: np.ndarray) -> np.ndarray:
        """int64: the numbers of the windows that stand in these rows, which may be in any order."""
        epochs, windows = np.divmod(rows, self.windows)
        for epoch in set(epochs.tolist()):
            here = epochs == epoch
            windows[here] = permuted(windows[here], self.windows, _keys(self.seed, epoch))
        return windows

    def epochs(self, step: float) -> float:
        """Passes over the windows made before `step`."""
        return step * self.sequences / self.windows


class Mixture:
    """Domains read in given shares; row i is still a pure function of (seed, i).

    Every domain has q of the PERIOD places in a period of rows, q nearest to its weight. Row i takes place s = P(i mod PERIOD),
    with a permutation P keyed by (seed, i // PERIOD); the n-th place of a domain's q in period p is row p q + n of that domain's
    own `Batches`. So each row of each domain is met exactly once, in order up to one period, and each domain has its own epochs.

    Raises ValueError when a weight is below half of 1 / PERIOD, or a domain has fewer tokens than one window.
    """

    def __init__(
        self,
        domains: dict[str, TokenArray],
        weights: dict[str, float],
        *,
        sequence_length: int,
        sequences: int,
        seed: int,
    ):
        self.sequences = sequences
        self.seed = seed
        self.length = sequence_length
        self.quotas = quotas(weights)
        self.parts = []
        for name, tokens in domains.items():
            try:
                self.parts.append(
                    Batches(tokens, sequence_length=sequence_length, sequences=sequences, seed=seed)
                )
            except ValueError as error:
                raise ValueError(f"domain {name!r}: {error}") from error
        self._ahead = _Ahead(self.order)

    def batch_at(self, step: int) -> np.ndarray:
        """int32 [sequences, sequence_length + 1] of step 0, 1, ..: inputs are [:, :-1], targets [:, 1:]."""
        return self.rows(step * self.sequences, (step + 1) * self.sequences)

    def rows(self, start: int, stop: int) -> np.ndarray:
        """int32 [stop - start, sequence_length + 1]: these rows of the run."""
        out = np.empty((stop - start, self.length + 1), np.int32)
        domains, windows = self._ahead(start, stop).T
        for number, part in enumerate(self.parts):
            here = domains == number
            out[here] = part.tokens.rows(windows[here])
        return out

    def order(self, rows: np.ndarray) -> np.ndarray:
        """int64 [len(rows), 2]: the domain that stands in each row, and the number of its window."""
        domains, own = self.places(rows)
        for number, part in enumerate(self.parts):
            own[domains == number] = part.order(own[domains == number])
        return np.stack([domains, own], axis=1)

    def places(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For each row of the run: the number of its domain, and the row of that domain's own stream."""
        periods, places = np.divmod(rows, PERIOD)
        for period in set(periods.tolist()):
            here = periods == period
            places[here] = permuted(places[here], PERIOD, _keys(self.seed, period, 1))
        ends = np.cumsum(self.quotas)
        domains = np.searchsorted(ends, places, side="right")
        return domains, periods * self.quotas[domains] + places - (ends - self.quotas)[domains]

    def epochs(self, step: float) -> float:
        """Passes over the domain that is repeated most."""
        shares = self.quotas / PERIOD
        return max(
            step * self.sequences * share / part.windows
            for share, part in zip(shares, self.parts, strict=True)
        )


class _Ahead:
    """`order` of consecutive rows, found ROWS_AHEAD at a time and remembered: a function of the rows alone all the same."""

    def __init__(self, order: Callable[[np.ndarray], np.ndarray]):
        self._order = order
        self._found = (0, order(np.arange(0)))

    def __call__(self, start: int, stop: int) -> np.ndarray:
        first, found = self._found
        if not first <= start <= stop <= first + len(found):
            first, found = self._found = (
                start,
                self._order(np.arange(start, max(stop, start + ROWS_AHEAD))),
            )
        return found[start - first : stop - first]


def quotas(weights: dict[str, float]) -> np.ndarray:
    """int64 [domains]: places of every domain among PERIOD, by largest remainders; ValueError when one has none.

    >>> quotas({"wiki": 2 / 3, "code": 1 / 3}).tolist()
    [683, 341]
    """
    exact = np.array(list(weights.values())) * PERIOD
    whole = np.floor(exact).astype(np.int64)
    whole[np.argsort(whole - exact, kind="stable")[: PERIOD - whole.sum()]] += 1
    for name, places in zip(weights, whole.tolist(), strict=True):
        if places == 0:
            raise ValueError(
                f"Data.mixture gives {name!r} a share below 1/{PERIOD}, which is never read: raise it or leave it out"
            )
    return whole


def permuted(indices: np.ndarray, size: int, keys: tuple[int, ...]) -> np.ndarray:
    """int64 images of `indices` under a permutation of 0 .. size - 1 keyed by `keys`: a Feistel network that walks its cycles.

    The network permutes 0 .. 2^b - 1, the least power of two that holds `size`; an image outside is permuted again until it is
    inside, fewer than two times on average (Black and Rogaway 2002, section 3).

    >>> sorted(permuted(np.arange(5), 5, (1, 2, 3, 4, 5, 6)).tolist())
    [0, 1, 2, 3, 4]
    """
    bits = max(2, int(size - 1).bit_length())
    images = _feistel(indices.astype(np.uint64), bits, keys)
    outside = np.flatnonzero(images >= size)
    while outside.size:
        images[outside] = _feistel(images[outside], bits, keys)
        outside = outside[images[outside] >= size]
    return images.astype(np.int64)


def _feistel(x: np.ndarray, bits: int, keys: tuple[int, ...]) -> np.ndarray:
    """One pass over 0 .. 2^bits - 1: halves of `low` and `bits - low` bits change places every round."""
    low = np.uint64(bits // 2)
    high = np.uint64(bits) - low
    for key in keys:
        right = x & ((np.uint64(1) << low) - np.uint64(1))
        mixed = (right + np.uint64(key)) * np.uint64(
            0x9E3779B97F4A7C15
        )  # multiply and fold: the high bits know all of `right`
        mixed = (mixed ^ (mixed >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
        left = (x >> low) ^ (mixed >> (np.uint64(64) - high))
        x = right << high | left
        low, high = high, low
    return x


@lru_cache(maxsize=64)
def _keys(*numbers: int) -> tuple[int, ...]:
    return tuple(
        int(key) for key in np.random.SeedSequence(numbers).generate_state(ROUNDS, np.uint64)
    )
