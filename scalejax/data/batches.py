"""Batches by arithmetic: row i of a run is a function of the seed and i only.

Any number of hosts, any micro-batch size and any resume therefore read the same tokens.
"""

from collections.abc import Callable, Iterable
from typing import Protocol

import numpy as np

from scalejax.config import Data, Run
from scalejax.data.packing import TokenArray
from scalejax.data.permutation import permutation_keys, permute
from scalejax.data.shards import Shards

# Rows whose order is computed at once. A permutation costs 50 us per call, whether for
# 4 rows or for a hundred.
ROWS_AHEAD = 1_024

# A mixture has its exact shares over every period of this many rows, so weights count
# in steps of about a thousandth.
PERIOD = 1_024


class Rows(Protocol):
    """The rows of a run: `Batches` of one corpus, or a `Mixture` of domains."""

    def batch_at(self, step: int) -> np.ndarray:
        """int32 [sequences, sequence_length + 1]: the rows of step 0, 1, ..."""
        ...

    def rows(self, start: int, stop: int) -> np.ndarray:
        """int32 [stop - start, sequence_length + 1]: these rows of the run."""
        ...

    def epochs(self, step: float) -> float:
        """Passes over the data that are made before `step`."""
        ...

    def unique_rows(self, step: float) -> float:
        """How many different rows are read before `step`; repetitions do not count."""
        ...


def batches(shards: Shards, run: Run) -> Rows:
    """The rows that `run` trains on.

    A row holds the tokens of a sequence and the one that follows it: the inputs are
    row[:-1], the targets row[1:]. With `Data.packing="documents"` it carries the flags
    of `packing.py`. The shares of domains are those of `Data.mixture`, or else those of
    the source; without either, every window is read equally often.

    Raises ValueError for too few tokens, for a mixture of unknown domains, and for
    packed documents that no token separates.
    """
    length, weights = run.data.sequence_length, run.data.weights or shards.shares
    if not weights:
        tokens = shards.tokens("train", run.data.packing)
        return Batches(tokens, sequence_length=length, sequences=run.batch_sequences, seed=run.seed)
    check_mixture(run.data, shards.domains)
    domains = {name: shards.tokens("train", run.data.packing, domain=name) for name in weights}
    return Mixture(
        domains, weights, sequence_length=length, sequences=run.batch_sequences, seed=run.seed
    )


def check_mixture(data: Data, domains: Iterable[str]) -> None:
    """Raise ValueError when `Data.mixture` names a domain that is not in `domains`."""
    if unknown := sorted(set(data.weights) - set(domains)):
        raise ValueError(
            f"Data.mixture names the domain {unknown[0]!r}, which {data.source} does not have; "
            f"its domains are {', '.join(domains)}"
        )


def unique_tokens(rows: Rows, run: Run, tokens: int) -> int:
    """How many of the first `tokens` tokens that `run` reads are not repetitions."""
    return round(rows.unique_rows(tokens / run.batch_tokens) * run.data.sequence_length)


class Batches:
    """Windows of sequence_length + 1 tokens, in a new order in every epoch.

    The tokens are cut into W = (tokens - 1) // sequence_length windows. Neighbouring
    windows share one token: the last target of one is the first input of the next. Row
    r of a run is window P(r mod W) of epoch r // W, where the permutation P is keyed by
    (seed, epoch).

    Raises ValueError when there are fewer tokens than one window.
    """

    def __init__(self, tokens: TokenArray, *, sequence_length: int, sequences: int, seed: int):
        self.windows = (len(tokens) - 1) // sequence_length
        if self.windows < 1:
            raise ValueError(
                f"{len(tokens):,} training tokens are fewer than one window of sequence_length "
                f"{sequence_length} + 1: use more text or a smaller Data.sequence_length"
            )
        self.sequences = sequences
        self.seed = seed
        self.tokens = tokens.windows(sequence_length)
        self._lookahead = _Lookahead(self.order)

    def batch_at(self, step: int) -> np.ndarray:
        """int32 [sequences, sequence_length + 1]: the rows of step 0, 1, ..."""
        return self.rows(step * self.sequences, (step + 1) * self.sequences)

    def rows(self, start: int, stop: int) -> np.ndarray:
        """int32 [stop - start, sequence_length + 1]: these rows of the run."""
        return self.tokens.rows(self._lookahead(start, stop))

    def order(self, rows: np.ndarray) -> np.ndarray:
        """int64: the number of the window in each of these rows, in any order."""
        epochs, windows = np.divmod(rows, self.windows)
        for epoch in set(epochs.tolist()):
            members = epochs == epoch
            keys = permutation_keys(self.seed, epoch)
            windows[members] = permute(windows[members], self.windows, keys)
        return windows

    def epochs(self, step: float) -> float:
        """Passes over the windows that are made before `step`."""
        return step * self.sequences / self.windows

    def unique_rows(self, step: float) -> float:
        """How many different windows are read before `step`."""
        return min(step * self.sequences, self.windows)


class Mixture:
    """Domains that are read in given shares; row i is still a function of (seed, i).

    Rows come in periods of PERIOD. In every period a domain has q places, where q /
    PERIOD is as close to its weight as possible. Row i takes place s = P(i mod PERIOD),
    where the permutation P is keyed by (seed, i // PERIOD); the domain that owns place
    s provides the row. The n-th of a domain's q places in period p holds row p q + n of
    that domain's own `Batches`. So every row of every domain is read exactly once, in
    order except within a period, and each domain has its own epochs.

    Raises ValueError when a weight is too small for one place, and when a domain has
    fewer tokens than one window.
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
        self._lookahead = _Lookahead(self.order)

    def batch_at(self, step: int) -> np.ndarray:
        """int32 [sequences, sequence_length + 1]: the rows of step 0, 1, ..."""
        return self.rows(step * self.sequences, (step + 1) * self.sequences)

    def rows(self, start: int, stop: int) -> np.ndarray:
        """int32 [stop - start, sequence_length + 1]: these rows of the run."""
        out = np.empty((stop - start, self.length + 1), np.int32)
        domains, windows = self._lookahead(start, stop).T
        for number, part in enumerate(self.parts):
            members = domains == number
            out[members] = part.tokens.rows(windows[members])
        return out

    def order(self, rows: np.ndarray) -> np.ndarray:
        """int64 [len(rows), 2]: the numbers of each row's domain and window."""
        domains, numbers = self.places(rows)
        for number, part in enumerate(self.parts):
            members = domains == number
            numbers[members] = part.order(numbers[members])
        return np.stack([domains, numbers], axis=1)

    def places(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The number of the domain of each row of the run, and the domain's own row."""
        periods, places = np.divmod(rows, PERIOD)
        for period in set(periods.tolist()):
            members = periods == period
            # The third number keeps these keys apart from those of epochs.
            keys = permutation_keys(self.seed, period, 1)
            places[members] = permute(places[members], PERIOD, keys)
        # Domain d owns the places from ends[d] - quotas[d] to ends[d] - 1.
        ends = np.cumsum(self.quotas)
        domains = np.searchsorted(ends, places, side="right")
        return domains, periods * self.quotas[domains] + places - (ends - self.quotas)[domains]

    def epochs(self, step: float) -> float:
        """Passes before `step` over the domain that is repeated most."""
        shares = self.quotas / PERIOD
        return max(
            step * self.sequences * share / part.windows
            for share, part in zip(shares, self.parts, strict=True)
        )

    def unique_rows(self, step: float) -> float:
        """How many different windows of all domains are read before `step`."""
        shares = self.quotas / PERIOD
        return sum(
            min(step * self.sequences * share, part.windows)
            for share, part in zip(shares, self.parts, strict=True)
        )


class _Lookahead:
    """Computes `order` for ROWS_AHEAD consecutive rows at a time and remembers them.

    The result depends only on the rows, as it does without the cache.
    """

    def __init__(self, order: Callable[[np.ndarray], np.ndarray]):
        self._order = order
        # The first row that is remembered, and the order from there on.
        self._cache = (0, order(np.arange(0)))

    def __call__(self, start: int, stop: int) -> np.ndarray:
        first, order = self._cache
        if not first <= start <= stop <= first + len(order):
            rows = np.arange(start, max(stop, start + ROWS_AHEAD))
            first, order = self._cache = (start, self._order(rows))
        return order[start - first : stop - first]


def quotas(weights: dict[str, float]) -> np.ndarray:
    """int64 [domains]: how many of PERIOD places each domain gets.

    `weights` sum to 1 and are rounded by largest remainders. Raises ValueError when a
    domain gets no place.

    >>> quotas({"wiki": 2 / 3, "code": 1 / 3}).tolist()
    [683, 341]
    """
    exact = np.array(list(weights.values())) * PERIOD
    places = np.floor(exact).astype(np.int64)
    # What rounding down leaves over goes to the largest remainders.
    by_remainder = np.argsort(places - exact, kind="stable")
    places[by_remainder[: PERIOD - places.sum()]] += 1
    for name, count in zip(weights, places.tolist(), strict=True):
        if count == 0:
            raise ValueError(
                f"Data.mixture gives {name!r} a share below 1/{PERIOD}, which is never read; raise "
                "it or leave it out"
            )
    return places
