"""Tests of ``spiritlm_plugin.dataio.stream.places`` and ``.lengths``."""

import numpy as np
import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spiritlm_plugin.dataio.stream.documents import FORMS, NEEDS
from spiritlm_plugin.dataio.stream.lengths import token_counts
from spiritlm_plugin.dataio.stream.places import (
    BLOCK,
    Places,
    schedule,
    shuffled_place,
)
from spiritlm_plugin.dataio.stream.utterances import UtteranceTable


@given(st.integers(1, 300), st.integers(0, 2**32 - 1))
def test_each_place_has_one_number(count, seed):
    order = [shuffled_place(i, count, seed) for i in range(count)]
    assert sorted(order) == [*range(count)]


def test_orders_are_random():
    orders = np.array(
        [[shuffled_place(i, 50, seed) for i in range(50)] for seed in range(99)]
    )
    # Of a random order, the mean of what stands at each place is 24.5.
    assert abs(orders.mean(0) - 24.5).max() < 6
    steps = (np.diff(orders, axis=1) == 1).mean()
    assert steps < 0.05
    # A place far behind 2**32 is found as fast as any other.
    assert 0 <= shuffled_place(10**15, 10**15 + 1, 3) <= 10**15


@given(
    st.lists(st.floats(0.01, 10), min_size=1, max_size=9), st.integers(1, 500)
)
def test_turns_are_as_even_as_shares_allow(shares, turns):
    order = schedule(shares, turns)
    wanted = np.outer(np.arange(1, turns + 1), shares) / sum(shares)
    had = (order[:, None] == np.arange(len(shares))).cumsum(0)
    assert abs(had - wanted).max() < 2


@given(
    st.lists(st.integers(0, 500), min_size=1, max_size=40).filter(any),
    st.integers(1, 3),
    st.integers(1, 4000),
    st.integers(0, 9),
)
def test_chunks_are_evenly_spread_over_all_tokens(lengths, times, size, seed):
    lengths = np.repeat(np.array(lengths, np.float32), times * BLOCK // 8)
    places = Places(lengths, size, seed)
    blocks = np.arange(0, len(lengths), BLOCK)
    sums = np.add.reduceat(lengths, blocks, dtype=np.float64)
    starts = [0.0, *sums.cumsum()]
    numbers = range(min(places.count, 60))
    found = [places[number] for number in numbers]
    tokens = np.array([starts[p.block] + p.offset for p in found])
    assert (tokens < places.tokens).all() and {p.epoch for p in found} == {0}
    step = places.tokens / places.count
    slots = np.round(((tokens - tokens[0]) / step) % places.count)
    slots = slots.astype(int) % places.count
    assert len({*slots.tolist()}) == len(found)
    assert places[places.count].epoch == 1


def test_a_source_without_tokens_has_no_places():
    with pytest.raises(ValueError, match="no document can be made"):
        Places(np.zeros(9, np.float32), 10, 0)


ROWS = {
    "utterance": ["a", "b", "c", "d", "e"],
    "text": ["two boats", None, "", "one", "x"],
    "intent": [None, "open", "", "close", "go"],
    "phonetic_units": [[1, 1, 2], [3], [4], None, []],
    "words": [[{"word": "two", "start": 0.0, "end": 0.1}], [], None, [], []],
    "group": ["g", "g", "h", "h", None],
    "position": [0, 1, 2, 4, 5],
}


def test_rows_of_no_group_follow_none():
    table = pyarrow.table({"group": pyarrow.nulls(3), "position": [0, 1, 2]})
    assert not UtteranceTable(table).follows().any()
    assert not UtteranceTable(table[:0]).follows().any()


def test_what_lacks_something_makes_no_document():
    table = pyarrow.table(ROWS)
    usable = {}
    for form in FORMS:
        counts = zip("abcde", token_counts(table, form))
        usable[form] = "".join(name for name, count in counts if count)
    expected = dict.fromkeys(FORMS, "a") | {
        "text": "ade",
        "speech": "abc",
        "few_shot_intent": "",
        **{form: "" for form in FORMS if form.endswith(("_speech", "_text"))},
        "intent_of_speech": "b",
        "intent_of_text": "de",
        "turns_s2s": "abc",
        "turns_t2t": "ad",
    }
    assert usable == expected
    assert {*NEEDS} == {*FORMS}


def test_exact_lengths_are_taken_where_they_are():
    table = pyarrow.table(ROWS)
    exact = pyarrow.array([7, 8, 9, 0, 0], pyarrow.int32())
    longer = table.append_column("phonetic_tokens", exact)
    assert token_counts(longer, "speech").tolist() == [7, 8, 9, 0, 0]
    both = longer.append_column("expressive_tokens", exact)
    assert token_counts(both, "speech", True).tolist() == [7, 8, 9, 0, 0]
    assert token_counts(table, "speech").tolist() == [3, 1, 1, 0, 0]


@pytest.mark.parametrize("pieces", [1, 3])
@pytest.mark.parametrize("first", [0, 1])
def test_rows_of_a_table(pieces, first):
    table = pyarrow.table(ROWS)
    if pieces > 1:
        table = pyarrow.concat_tables([table[:2], table[2:3], table[3:]])
    found = UtteranceTable(table[first:])
    utterances = [found[row] for row in range(len(found))]
    names = [found.name(row) for row in range(len(found))]
    assert names == ["a", "b", "c", "d", "e"][first:]
    expected = [[1, 1, 2], [3], [4], None, []]
    for utterance, units in zip(utterances, expected[first:]):
        assert (utterance.units is None) == (units is None)
        if units is not None:
            assert utterance.units.phonetic.tolist() == units
    if not first:
        assert utterances[0].words == ["two"]
        assert utterances[0].starts() == [0.0]
    follows = [False, True, False, False, False][first:]
    assert found.follows().tolist() == [False, *follows[1:]]
    assert utterances[-1].text == "x" and utterances[-1].label("intent") == "go"
