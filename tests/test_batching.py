"""Steps and tokens of runs whose batch doubles on the way (mirrors scalejax/clock.py)."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalejax.batching import Clock

CLOCKS = st.builds(
    lambda size, doublings: Clock(batch_tokens=8 * size, doublings=sorted(doublings)),
    st.integers(1, 50),
    st.sets(st.integers(1, 5000), max_size=3),
)


def step_by_step(clock: Clock, steps: int) -> list[int]:
    """Tokens before each step, one step after another."""
    size, tokens = clock.batch_tokens // 2 ** len(clock.doublings), [0]
    for _ in range(steps):
        tokens.append(tokens[-1] + size * 2 ** sum(at <= tokens[-1] for at in clock.doublings))
    return tokens


@given(CLOCKS)
def test_the_batch_doubles_at_the_first_step_that_begins_at_or_after_each_token_count(clock):
    expected = step_by_step(clock, 200)
    assert [clock.tokens(steps) for steps in range(201)] == expected
    np.testing.assert_array_equal(clock.batches(np.arange(201)) * clock.batch_tokens, expected)


@given(CLOCKS, st.floats(0, 50_000, allow_subnormal=False))
def test_steps_are_the_fewest_that_read_the_tokens(clock, tokens):
    steps = clock.steps(tokens)
    assert clock.tokens(steps) >= tokens
    assert steps == 0 or clock.tokens(steps - 1) < tokens


def test_counts_are_exact_where_float32_and_float64_are_not():
    clock = Clock(batch_tokens=2**20, doublings=(2**40 + 1,))
    assert clock.tokens(2**40) == 2**40 + 2**19 + (2**40 - 2**21 - 1) * 2**20
    assert isinstance(clock.tokens(3), int)


@pytest.mark.parametrize("doublings", [(0,), (10, 10), (20, 10), (1.5,), (-3,)])
def test_doublings_that_do_not_rise_are_refused(doublings):
    with pytest.raises(ValueError, match="rising whole numbers of tokens"):
        Clock(batch_tokens=64, doublings=doublings)


def test_a_first_batch_that_is_no_whole_number_of_sequences_is_refused():
    assert Clock(batch_tokens=64, doublings=(100,), sequence=32).phases[0].batch_tokens == 32
    with pytest.raises(
        ValueError, match=r"multiple of Data.sequence_length 32 times 2\^2, one for each .* got 64"
    ):
        Clock(batch_tokens=64, doublings=(100, 200), sequence=32)
