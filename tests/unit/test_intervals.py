"""Intervals of rates."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spiritlm_plugin.metrics.intervals import (
    percent_interval,
    ratio_interval,
    speaker_groups,
)


def test_the_interval_of_a_share_is_the_binomial_one():
    right = np.array([1] * 300 + [0] * 100)
    low, high = ratio_interval(right)
    # 1.96 * sqrt(.75 * .25 / 400) = 0.0424
    assert low == pytest.approx(0.75 - 0.0424, abs=0.006)
    assert high == pytest.approx(0.75 + 0.0424, abs=0.006)


def test_it_covers_what_it_should():
    draw = np.random.default_rng(1)
    hits = 0
    for seed in range(200):
        words = draw.integers(3, 30, 60)
        errors = draw.binomial(words, 0.2)
        low, high = ratio_interval(errors, words, seed=seed)
        hits += low <= 0.2 <= high
    assert 0.90 <= hits / 200 <= 0.98


def test_items_of_a_group_stand_together():
    speakers = np.repeat(np.arange(10), 40)
    right = (speakers < 7).astype(float)
    alone = ratio_interval(right)
    together = ratio_interval(right, groups=speakers.tolist())
    assert together[1] - together[0] > 4 * (alone[1] - alone[0])


def test_where_there_is_nothing_to_draw_there_is_none():
    assert ratio_interval([]) is None
    assert ratio_interval([], [], []) is None
    assert ratio_interval([1]) is None
    assert ratio_interval([0, 3], [0, 0]) is None
    assert ratio_interval([2, 1], [3, 0]) is None


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="2 numerators, 3 denominators"):
        ratio_interval([1, 2], [1, 2, 3])


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9)), min_size=2))
def test_ends_are_in_order_and_repeatable(pairs):
    errors, words = zip(*pairs)
    interval = ratio_interval(errors, words)
    rates = [e / w for e, w in pairs]
    assert interval == ratio_interval(errors, words)
    if interval is None:
        assert max(rates) - min(rates) < 1e-5
        return
    low, high = interval
    assert 0 <= low <= sum(errors) / sum(words) + 1e-9
    assert sum(errors) / sum(words) - 1e-9 <= high
    if len(pairs) >= 20:
        assert min(rates) - 1e-9 <= low <= high <= max(rates) + 1e-9


def test_few_groups_have_a_wider_interval():
    """That of Student's t for the mean of five numbers."""
    low, high = ratio_interval([2.0, 3.0, 5.0, 4.0, 6.0])
    margin = 2.7764 * 2.5**0.5 / 5**0.5
    assert (low, high) == pytest.approx((4 - margin, 4 + margin), rel=1e-4)
    # A share stays one; what does not differ has none.
    assert ratio_interval([1, 1, 0]) == (0, 1)
    assert ratio_interval([1, 1, 1]) is None
    assert ratio_interval([1] * 30) == (1, 1)


def test_the_interval_covers_what_it_says():
    """Four speakers of 40 words, whose rates differ, 400 times."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        rates = rng.beta(6, 14, 4)
        low, high = ratio_interval(rng.binomial(40, rates), [40] * 4)
        covered += low <= 0.3 <= high
    assert 0.92 < covered / 400 < 0.98


def test_percents():
    assert percent_interval([1, 0] * 9) == [
        100 * end for end in ratio_interval([1, 0] * 9)
    ]
    assert percent_interval([1]) is None


def test_who_is_drawn_together():
    speakers = {"a": "ann", "b": None, "c": "bob", "d": "ann"}
    groups = speaker_groups(speakers)
    assert groups["a"] == groups["d"] != groups["c"]
    assert len(set(groups.values())) == 3
    # A speaker is not taken for an utterance of the same name.
    assert (
        len(set(speaker_groups({"a": "b", "b": None, "c": "c"}).values())) == 3
    )
    # Of a single speaker there is no other to draw.
    assert len(set(speaker_groups(dict.fromkeys("abc", "ann")).values())) == 3
