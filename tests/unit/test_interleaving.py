"""Tests of ``spiritlm_plugin.dataio.stream.interleaving``."""

from random import Random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spiritlm_plugin.dataio.stream.interleaving import (
    SpokenWords,
    draw_spans,
    interleave,
    join_speech,
)
from spiritlm_plugin.dataio.stream.utterances import (
    DocumentError,
    Utterance,
)
from spiritlm_plugin.dataio.units.segments import Speech, Text
from spiritlm_plugin.dataio.units.units import Kind, SpeechUnits
from tests.unit.utterances import make_utterance

RANGES = st.tuples(st.integers(1, 9), st.integers(0, 9)).map(
    lambda pair: (pair[0], sum(pair))
)


@given(st.integers(0, 200), RANGES, RANGES, st.integers())
def test_spans_take_turns_and_leave_no_word_out(words, text, speech, seed):
    spans = draw_spans(words, text, speech, Random(seed))
    assert [s[1] for s in spans] == [0, *(s[2] for s in spans)][: len(spans)]
    assert not words or spans[-1][2] == words
    kinds = [is_text for is_text, _, _ in spans]
    assert all(one != other for one, other in zip(kinds, kinds[1:]))
    for is_text, first, end in spans:
        fewest, most = text if is_text else speech
        assert end - first <= most
        assert end == words or end - first >= fewest


def test_both_modalities_come_first_and_all_lengths_come():
    spans = [draw_spans(99, (2, 4), (5, 6), Random(i)) for i in range(200)]
    assert 60 < sum(first[0] for first, *_ in spans) < 140
    for is_text, wanted in ((True, {2, 3, 4}), (False, {5, 6})):
        inner = [s for one in spans for s in one[:-1] if s[0] == is_text]
        assert {end - first for _, first, end in inner} == wanted


@given(st.integers(1, 40), st.booleans(), st.integers())
def test_each_word_comes_once_in_its_place(count, expressive, seed):
    utterance = make_utterance(count, expressive=expressive)
    spans = draw_spans(count, (1, 4), (1, 4), Random(seed))
    segments = interleave(SpokenWords([utterance]), spans)
    assert len(segments) == len(spans)
    for segment, (is_text, first, end) in zip(segments, spans):
        if is_text:
            assert segment == Text(" ".join(utterance.words[first:end]))
            continue
        # Words are parted in the middle of the tenth that is silent.
        low = 0 if first == 0 else 0.4 * first - 0.02
        high = 9e9 if end == count else 0.4 * end - 0.02
        stream = segment.stream
        units = stream.values[stream.kinds == int(Kind.PHONETIC)]
        expected = [i for i in range(10 * count) if low <= i / 25 < high]
        assert units.tolist() == expected
        assert bool(stream.count(Kind.PITCH)) is expressive
        assert bool(stream.count(Kind.STYLE)) is expressive


def test_units_are_deduplicated_inside_a_span_and_not_across():
    units = SpeechUnits([5] * 20 + [6] * 10 + [5] * 20)
    utterance = Utterance(units, "a b", ["a", "b"], [(0, 0.6), (0.6, 2)])
    one = interleave(SpokenWords([utterance]), [(False, 0, 2)])
    assert one[0].stream.to_string() == "[Hu5][Hu6][Hu5]"
    two = interleave(SpokenWords([utterance]), [(False, 0, 1), (True, 1, 2)])
    assert two[0].stream.to_string() == "[Hu5]"
    assert two[1] == Text("b")


def test_a_word_too_short_for_a_unit_is_text():
    units = SpeechUnits(range(50))
    times = [(0.1, 0.401), (0.401, 0.415), (0.415, 1.9)]
    utterance = Utterance(units, "so a cat", ["so", "a", "cat"], times)
    spans = [(False, 0, 1), (False, 1, 2), (False, 2, 3)]
    kinds = [type(s) for s in interleave(SpokenWords([utterance]), spans)]
    assert kinds == [Speech, Text, Speech]


def test_texts_side_by_side_keep_their_space():
    units = SpeechUnits(range(50))
    times = [(0.1, 0.401), (0.401, 0.415), (0.415, 1.9)]
    utterance = Utterance(units, "so a cat", ["so", "a", "cat"], times)
    words = SpokenWords([utterance])
    spans = [(True, 0, 1), (False, 1, 2), (True, 2, 3)]
    assert interleave(words, spans) == [Text("so a cat")]
    # Where each word is written and spoken, it is not written twice.
    spans = [(kind, i, i + 1) for i in range(3) for kind in (True, False)]
    kinds = [
        s.text if isinstance(s, Text) else "speech"
        for s in interleave(words, spans)
    ]
    assert kinds == ["so", "speech", "a cat", "speech"]


@given(st.integers(1, 12), st.floats(0, 0.999), st.booleans())
def test_the_rest_of_an_utterance(count, begin, expressive):
    utterance = make_utterance(count, expressive=expressive)
    rest = utterance.rest(begin)
    first = count - len(rest.words)
    assert rest.words == utterance.words[first:]
    assert first == min(round(begin * count), count - 1)
    start = utterance.starts()[first]
    assert rest.units == utterance.units.cut(start)
    for ours, theirs in zip(rest.starts()[1:], utterance.starts()[first + 1 :]):
        assert ours + start == pytest.approx(theirs)


def test_speech_is_one_run_over_utterances():
    units = SpeechUnits([5] * 10 + [6] * 15)
    others = SpeechUnits([6] * 10 + [5] * 15)
    pair = [
        Utterance(units, "a", ["a"], [(0, 1)]),
        Utterance(others, "b", ["b"], [(0, 1)]),
    ]
    speech = interleave(SpokenWords(pair), [(False, 0, 2)])[0]
    assert speech.stream.to_string() == "[Hu5][Hu6][Hu5]"
    assert join_speech([]).to_string() == ""


def test_rows_of_corpora():
    row = {
        "phonetic_units": torch.arange(30),
        "pitch_units": torch.arange(15),
        "style_units": torch.arange(2),
        "text": "a cat",
        "words": [
            {"word": "a", "start": 0.0, "end": 0.5},
            {"word": "cat", "start": 0.5, "end": 1.2},
        ],
    }
    utterance = Utterance.from_row(row)
    assert not utterance.units.expressive
    assert utterance.boundaries() == [0.0, 0.5, None]
    assert Utterance.from_row(row, expressive=True).units.expressive
    assert Utterance.from_row({"text": "a"}).units is None
    with pytest.raises(DocumentError, match="no pitch or style"):
        Utterance.from_row(row | {"style_units": None}, expressive=True)
