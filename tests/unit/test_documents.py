"""Tests of ``spiritlm_plugin.dataio.stream.documents``."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spiritlm_plugin.dataio.stream.documents import FORMS, DocumentMaker
from spiritlm_plugin.dataio.stream.utterances import (
    LABELS,
    DocumentError,
    Utterance,
)
from spiritlm_plugin.dataio.units.segments import (
    Reading,
    Speech,
    Text,
    Transcript,
)
from spiritlm_plugin.dataio.units.units import SpeechStream, SpeechUnits
from tests.unit.utterances import make_utterance

LABELLED = {name: f"of {name}" for name in LABELS}


def test_forms():
    make = DocumentMaker()
    utterance = make_utterance(3)
    spoken, text = Speech(utterance.units), "w0 w1 w2"
    expected = {
        "text": [Text(text)],
        "speech": [spoken],
        "asr": [spoken, Transcript(text)],
        "tts": [Text(text), Reading(utterance.units)],
        "words": [Speech, Text("w0"), Speech, Text("w1"), Speech, Text("w2")],
    }
    for form, segments in expected.items():
        made = make(form, [utterance], Random(0))
        assert len(made) == len(segments)
        for one, other in zip(made, segments):
            if isinstance(other, Text):
                assert one == other and type(one) is type(other)
            elif isinstance(other, Speech):
                assert type(one) is type(other)
                assert one.stream == other.stream
            else:
                assert type(one) is other
    other_way_round = make("words", [utterance], Random(1))
    assert [s.marker for s in other_way_round] == ["text", "speech"] * 3


@pytest.mark.parametrize("form", FORMS)
def test_every_form_can_be_made(form):
    make = DocumentMaker(shots=(2, 4))
    count = make.draw_count(form, Random(0))
    utterances = [make_utterance(3, labels=LABELLED)] * count
    segments = make(form, utterances, Random(0))
    assert segments and all(isinstance(s, (Text, Speech)) for s in segments)


@pytest.mark.parametrize("form", ["asr_span", "tts_span"])
@given(words=st.integers(1, 9), seed=st.integers(0, 99))
def test_a_span_is_a_part_with_its_units(form, words, seed):
    utterance = make_utterance(words)
    segments = DocumentMaker()(form, [utterance], Random(seed))
    text, speech = sorted(segments, key=lambda s: isinstance(s, Speech))
    said = text.text.split()
    first = int(said[0][1:])
    assert said == [f"w{i}" for i in range(first, first + len(said))]
    boundaries = utterance.boundaries()
    start, end = boundaries[first], boundaries[first + len(said)]
    expected = utterance.units.cut(start, end).merge()
    assert speech.stream == expected


@pytest.mark.parametrize("form", ["asr_shuffled", "tts_shuffled"])
@given(words=st.integers(1, 9), seed=st.integers(0, 99))
def test_shuffled_words_keep_their_units(form, words, seed):
    utterance = make_utterance(words)
    segments = DocumentMaker()(form, [utterance], Random(seed))
    text, speech = sorted(segments, key=lambda s: isinstance(s, Speech))
    kinds = {"asr": (Speech, Transcript), "tts": (Text, Reading)}
    assert tuple(map(type, segments)) == kinds[form[:3]]
    said = [int(word[1:]) for word in text.text.split()]
    assert sorted(said) == [*range(words)]
    boundaries = utterance.boundaries()
    expected = [
        utterance.units.cut(boundaries[i], boundaries[i + 1]).merge()
        for i in said
    ]
    assert speech.stream == SpeechStream.concatenate(expected)


def test_few_shot_prompts_are_those_of_the_evaluations():
    make = DocumentMaker(shots=(2, 4))
    counts = {make.draw_count("few_shot_asr", Random(i)) for i in range(30)}
    assert counts == {2, 3, 4} and make.draw_count("asr", Random(0)) == 1
    one = make_utterance(2, labels={"intent": "a b"})
    other = make_utterance(1, labels={"intent": "c"})
    asr = make("few_shot_asr", [one, other], Random(0))
    assert [s.marker for s in asr] == ["speech", "text"] * 2
    assert asr[1] == Text("<START Transcript> w0 w1 <END>")
    intents = make("few_shot_intent", [one, other], Random(0))
    assert intents[1::2] == [Text("A:a b"), Text("A:c")]
    with pytest.raises(DocumentError, match="no intent"):
        make("few_shot_intent", [one, make_utterance(1)], Random(0))


def test_interleaving_is_new_each_time_and_the_same_for_a_seed():
    make = DocumentMaker((2, 5), (2, 5))
    utterance = make_utterance(20)

    def draw(seed):
        return [
            s.text if isinstance(s, Text) else s.stream.to_string()
            for s in make("interleaved", [utterance], Random(seed))
        ]

    assert len({tuple(draw(seed)) for seed in range(20)}) > 15
    assert draw(3) == draw(3)


def change(**arguments):
    utterance = make_utterance(3)
    fields = ("units", "text", "words", "times")
    own = {name: getattr(utterance, name) for name in fields}
    return Utterance(**own | arguments)


@pytest.mark.parametrize(
    "form, utterance, message",
    [
        ("interleaved", change(words=[], times=[]), "no words with times"),
        ("words", change(words=[], times=[]), "no words with times"),
        (
            "interleaved",
            change(times=[(0, 0.3), (0.8, 1.1), (0.4, 0.7)]),
            "not in the order",
        ),
        (
            "interleaved",
            change(times=[(0, 0.3), (0.7, 0.4), (0.8, 1.1)]),
            "not in the order",
        ),
        (
            "interleaved",
            change(times=[(-1, -0.5), (0.4, 0.7), (0.8, 1.1)]),
            "not in the order",
        ),
        (
            "interleaved",
            change(times=[(0, 0.3), (0.4, 0.7), (0.8, 1.6)]),
            "end at 1.60 s and its speech at 1.20 s",
        ),
        ("interleaved", change(units=None), "no speech units"),
        ("speech", change(units=SpeechUnits([])), "no speech units"),
        ("asr", change(text=None), "no text"),
        ("tts", change(text="  "), "no text"),
        ("text", change(text=""), "no text"),
    ],
)
def test_what_cannot_be_used_is_refused(form, utterance, message):
    with pytest.raises(DocumentError, match=message):
        DocumentMaker()(form, [utterance], Random(0))


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("speech_words", (4, 2), "fewest and the most"),
        ("speech_words", (3,), "fewest and the most"),
        ("text_words", "12", "fewest and the most"),
        ("text_words", (0, 3), "text_words must be >= 1, got 0"),
        ("shots", (1.5, 2), "shots must be a whole number, got 1.5"),
        ("document_tokens", 0, "document_tokens must be >= 1, got 0"),
        ("document_tokens", 1.5, "must be a whole number, got 1.5"),
        ("document_tokens", "a", "must be a whole number, got 'a'"),
    ],
)
def test_settings_that_cannot_be_are_refused(name, value, message):
    with pytest.raises((TypeError, ValueError), match=message):
        DocumentMaker(**{name: value})
