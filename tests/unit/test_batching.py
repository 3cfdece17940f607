"""Tests of ``spiritlm_plugin.dataio.batching``."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spiritlm_plugin.dataio.batching import length_batches, sized_batches


@given(st.lists(st.integers(0, 50), max_size=40), st.integers(1, 200))
def test_batches_partition_the_items(lengths, limit):
    batches = length_batches(lengths, limit)
    flat = [index for batch in batches for index in batch]
    assert sorted(flat) == list(range(len(lengths)))
    # Longest first, so each batch's first item sets its width.
    assert [lengths[i] for i in flat] == sorted(lengths, reverse=True)
    for batch in batches:
        longest, shortest = lengths[batch[0]], lengths[batch[-1]]
        assert len(batch) * longest <= limit or len(batch) == 1
        assert shortest >= 0.75 * longest
    for batch, following in zip(batches, batches[1:]):
        # No batch is closed while the next item would fit.
        longest = lengths[batch[0]]
        too_many = (len(batch) + 1) * longest > limit
        assert too_many or lengths[following[0]] < 0.75 * longest


def test_padding_is_bounded():
    assert length_batches([8, 10, 7], 100) == [[1, 0], [2]]
    assert length_batches([8, 10, 7], 100, max_padding=0.3) == [[1, 0, 2]]


def test_equal_lengths_keep_their_order():
    assert length_batches([5, 5, 5, 5], 15) == [[0, 1, 2], [3]]
    assert length_batches([], 10) == []


@given(st.lists(st.integers(0, 50), max_size=40), st.integers(1, 50))
def test_sized_batches(lengths, size):
    batches = sized_batches(lengths, size)
    flat = [index for batch in batches for index in batch]
    assert sorted(flat) == list(range(len(lengths)))
    assert [lengths[i] for i in flat] == sorted(lengths, reverse=True)
    sizes = [len(batch) for batch in batches]
    assert sizes[:-1] == [size] * (len(sizes) - 1)
    assert not sizes or 0 < sizes[-1] <= size
    with pytest.raises(ValueError, match="batch_size must be >= 1, got 0"):
        sized_batches(lengths, 0)
