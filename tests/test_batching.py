"""Steps and tokens when the batch size doubles (mirrors scalejax/batching.py)."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalejax.batching import BatchSchedule

SCHEDULES = st.builds(
    lambda size, doublings: BatchSchedule(batch_tokens=8 * size, doublings=sorted(doublings)),
    st.integers(1, 50),
    st.sets(st.integers(1, 5000), max_size=3),
)


def tokens_step_by_step(schedule: BatchSchedule, steps: int) -> list[int]:
    """Tokens read before each step, accumulated one step at a time."""
    first_batch = schedule.batch_tokens // 2 ** len(schedule.doublings)
    tokens = [0]
    for _ in range(steps):
        doublings = sum(at <= tokens[-1] for at in schedule.doublings)
        tokens.append(tokens[-1] + first_batch * 2**doublings)
    return tokens


@given(SCHEDULES)
def test_the_batch_doubles_at_the_first_step_that_begins_at_or_after_each_doubling(schedule):
    expected = tokens_step_by_step(schedule, 200)
    assert [schedule.tokens_after(steps) for steps in range(201)] == expected
    batches = schedule.batches_after(np.arange(201))
    np.testing.assert_array_equal(batches * schedule.batch_tokens, expected)


@given(SCHEDULES, st.floats(0, 50_000, allow_subnormal=False))
def test_steps_for_is_the_smallest_number_of_steps_that_reads_the_tokens(schedule, tokens):
    steps = schedule.steps_for(tokens)
    assert schedule.tokens_after(steps) >= tokens
    assert steps == 0 or schedule.tokens_after(steps - 1) < tokens


def test_token_counts_stay_exact_beyond_the_precision_of_float64():
    schedule = BatchSchedule(batch_tokens=2**20, doublings=(2**40 + 1,))
    assert schedule.tokens_after(2**40) == 2**40 + 2**19 + (2**40 - 2**21 - 1) * 2**20
    assert isinstance(schedule.tokens_after(3), int)


@pytest.mark.parametrize("doublings", [(0,), (10, 10), (20, 10), (1.5,), (-3,)])
def test_doublings_that_do_not_increase_are_refused(doublings):
    with pytest.raises(ValueError, match="increasing whole numbers of tokens"):
        BatchSchedule(batch_tokens=64, doublings=doublings)


def test_a_first_batch_without_a_whole_number_of_sequences_is_refused():
    schedule = BatchSchedule(batch_tokens=64, doublings=(100,), sequence_length=32)
    assert schedule.phases[0].batch_tokens == 32
    message = r"multiple of Data.sequence_length 32 times 2\^2, one factor of 2 .* got 64"
    with pytest.raises(ValueError, match=message):
        BatchSchedule(batch_tokens=64, doublings=(100, 200), sequence_length=32)
