"""Tests of the measures of phonetic units."""

import math
from collections import Counter

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from spiritlm_plugin.metrics.units import (
    cluster_purity,
    frame_labels,
    joint_counts,
    phone_purity,
    pnmi,
    unit_edit_distance,
)

PAIRS = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 3)), min_size=1, max_size=60
)


def counts_of(pairs):
    units, labels = torch.tensor(pairs).T
    return joint_counts(units, labels, 6, 4)


def entropy(values):
    shares = [n / len(values) for n in Counter(values).values()]
    return -sum(share * math.log(share) for share in shares)


@given(PAIRS)
def test_joint_counts(pairs):
    counts = counts_of(pairs)
    assert counts.shape == (4, 6)
    for (unit, label), n in Counter(pairs).items():
        assert counts[label, unit] == n
    assert counts.sum() == len(pairs)


def test_joint_counts_need_a_label_for_each_unit():
    with pytest.raises(ValueError, match=r"\(3,\) units .* \(2,\) labels"):
        joint_counts(torch.zeros(3), torch.zeros(2), 1, 1)


@given(PAIRS)
def test_purities_are_those_of_the_best_guess(pairs):
    counts = counts_of(pairs)
    for measure, given_by, guessed in (
        (phone_purity, 0, 1),
        (cluster_purity, 1, 0),
    ):
        right = 0
        for value in {pair[given_by] for pair in pairs}:
            seen = Counter(p[guessed] for p in pairs if p[given_by] == value)
            right += seen.most_common(1)[0][1]
        assert measure(counts) == pytest.approx(right / len(pairs))


@given(PAIRS)
def test_pnmi_is_the_share_of_uncertainty_that_goes(pairs):
    units, labels = zip(*pairs)
    value = pnmi(counts_of(pairs))
    assert 0 <= value <= 1
    uncertainty = entropy(labels)
    if uncertainty == 0:
        assert value == 0
        return
    information = uncertainty + entropy(units) - entropy(pairs)
    assert value == pytest.approx(information / uncertainty, abs=1e-9)


@given(st.lists(st.integers(0, 3), min_size=2, max_size=40))
def test_units_that_say_the_phone(labels):
    assume(len(set(labels)) > 1)
    pairs = [(5 - label, label) for label in labels]
    counts = counts_of(pairs)
    assert pnmi(counts) == pytest.approx(1)
    assert phone_purity(counts) == cluster_purity(counts) == 1


@given(
    st.lists(st.integers(1, 9), min_size=4, max_size=4),
    st.lists(st.integers(1, 9), min_size=6, max_size=6),
)
def test_units_that_say_nothing(labels, units):
    counts = torch.outer(torch.tensor(labels), torch.tensor(units))
    assert pnmi(counts) == pytest.approx(0, abs=1e-12)
    assert phone_purity(counts) == pytest.approx(max(labels) / sum(labels))


@given(
    st.lists(st.floats(0.01, 0.3), min_size=1, max_size=6),
    st.floats(0, 0.2),
    st.integers(0, 30),
)
def test_frame_labels(durations, start, frames):
    segments, time = [], start
    for name, duration in zip("abcdef", durations):
        segments.append([name, time, time + duration])
        time += duration
    labels = frame_labels(segments, frames)
    assert len(labels) == frames
    for i, label in enumerate(labels):
        middle = (640 * i + 360) / 16000
        near = any(
            abs(middle - edge) < 1e-9
            for _, *edges in segments
            for edge in edges
        )
        inside = [n for n, start, end in segments if start <= middle < end]
        assert near or label == (inside[0] if inside else "sil")


def levenshtein(one, other):
    if not one or not other:
        return len(one) + len(other)
    return min(
        levenshtein(one[1:], other) + 1,
        levenshtein(one, other[1:]) + 1,
        levenshtein(one[1:], other[1:]) + (one[0] != other[0]),
    )


def collapse(stream):
    return [u for i, u in enumerate(stream) if i == 0 or stream[i - 1] != u]


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=5)))
def test_what_does_not_change(streams):
    assume(streams)
    streams = [torch.tensor(stream) for stream in streams]
    slower = [stream.repeat_interleave(2) for stream in streams]
    assert unit_edit_distance(streams, slower) == 0


@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(0, 2), min_size=1, max_size=5),
            st.lists(st.integers(0, 2), min_size=1, max_size=5),
        ),
        min_size=1,
        max_size=3,
    )
)
def test_unit_edit_distance(pairs):
    edits = sum(levenshtein(collapse(a), collapse(b)) for a, b in pairs)
    length = sum(len(collapse(a)) for a, _ in pairs)
    clean, changed = zip(
        *((torch.tensor(a), torch.tensor(b)) for a, b in pairs)
    )
    assert unit_edit_distance(clean, changed) == edits / length
