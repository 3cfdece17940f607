"""Tests of ``spiritlm_plugin.dataio.units.segments``."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spiritlm_plugin.dataio.units.segments import (
    Break,
    Speech,
    Text,
    as_prompt,
    as_prompts,
    as_segment,
    is_single_prompt,
    parse_prompt,
)
from spiritlm_plugin.dataio.units.units import SpeechStream, SpeechUnits

UNITS = SpeechUnits([1, 1, 2], pitch=[3, 4], style=[5])
RECORDINGS = ["a.wav", Path("a.wav"), b"RIFF", np.zeros(3), torch.zeros(3)]

# Any text but the markers, which the notation cannot quote.
plain = st.text(max_size=12).filter(
    lambda t: "[Text]" not in t and "[Speech]" not in t
)
streams = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 500)), max_size=8
).map(lambda rows: SpeechStream(*(zip(*rows) if rows else ([], []))))
segments = st.one_of(plain.map(Text), streams.map(Speech))


@given(st.lists(segments, min_size=1, max_size=6))
def test_parse_reads_what_the_notation_says(prompt):
    written = "".join(
        f"[Text]{s.text}"
        if isinstance(s, Text)
        else f"[Speech]{s.stream.to_string()}"
        for s in prompt
    )
    read = parse_prompt(written)
    assert [type(s) for s in read] == [type(s) for s in prompt]
    for ours, theirs in zip(read, prompt):
        if isinstance(ours, Text):
            assert ours == theirs
        else:
            assert ours.stream == theirs.stream


@pytest.mark.parametrize(
    "string", ["", "he said", " [Text]he", "[Hu3][Speech]", "[text]he"]
)
def test_parse_needs_a_marker_in_front(string):
    with pytest.raises(ValueError, match=r"starts with \[Text\]") as error:
        parse_prompt(string)
    assert repr(string) in str(error.value)


@pytest.mark.parametrize("speech", ["he", "[Hu1] [Hu2]", "[Hu01]", "[Hu٣]"])
def test_parse_refuses_text_in_speech(speech):
    with pytest.raises(ValueError, match="speech tokens alone") as error:
        parse_prompt(f"[Text]a[Speech]{speech}")
    assert repr(speech) in str(error.value)


def test_as_prompt_takes_every_form():
    text, speech = Text("a"), Speech(UNITS)
    assert as_prompt(text) == [text]
    assert as_prompt((text, speech)) == [text, speech]
    [first, second] = as_prompt([("text", "a"), ("speech", UNITS)])
    assert first == text and second.content is UNITS
    assert as_prompt([Text(""), speech]) == [Text(""), speech]


@pytest.mark.parametrize(
    "prompt", [[], (), [Text("")], Text(""), [("text", "")]]
)
def test_as_prompt_refuses_empty_prompts(prompt):
    with pytest.raises(ValueError, match="prompt is empty: give"):
        as_prompt(prompt)


@pytest.mark.parametrize("prompt", ["the cat", {"text": "a"}, None, UNITS])
def test_as_prompt_refuses_other_types(prompt):
    with pytest.raises(TypeError, match=r'wrap a text as \[Text\("..."\)\]'):
        as_prompt(prompt)


@pytest.mark.parametrize(
    "part", ["the cat", ("txt", "a"), ("text",), ["text", "a"], 3]
)
def test_as_segment_names_what_it_got(part):
    with pytest.raises(TypeError, match="use Text") as error:
        as_segment(part)
    assert repr(part) in str(error.value)


@pytest.mark.parametrize("prompts", [Text("a"), [Text("a")], [("text", "a")]])
def test_single_prompts(prompts):
    assert is_single_prompt(prompts)


@pytest.mark.parametrize(
    "prompts",
    [
        [],
        [[Text("a")]],
        [[("text", "a")], [Text("b")]],
        ([Text("a")],),
        [(Text("a"), Text("b"))],
    ],
)
def test_lists_of_prompts(prompts):
    assert not is_single_prompt(prompts)


@pytest.mark.parametrize(
    ("prompts", "error", "message"),
    [
        (None, ValueError, "list of segments .* got None"),
        ("the cat", ValueError, "got 'the cat'"),
        (("text", "a"), TypeError, "put the segment in a list"),
    ],
)
def test_what_is_no_prompt(prompts, error, message):
    with pytest.raises(error, match=message):
        is_single_prompt(prompts)


@pytest.mark.parametrize("make", [list, iter, np.array, tuple])
def test_whatever_has_items_is_a_list(make):
    prompt = [Text("a"), Text("b")]
    assert as_prompt(make(prompt)) == prompt
    assert as_prompts(make(prompt)) == ([prompt], True)
    batch = [make(prompt), make(prompt)]
    assert as_prompts(iter(batch)) == ([prompt, prompt], False)


def test_a_break_ends_something():
    assert as_prompt([Text("a"), Break("\n")])[1] == Break("\n")
    assert as_segment(("break", "\n")) == Break("\n") != Text("\n")
    with pytest.raises(ValueError, match=r"starts with Break\(text='a'\)"):
        as_prompt([Break("a"), Text("b")])


def test_text_holds_a_str():
    with pytest.raises(TypeError, match="str, got bytes"):
        Text(b"the cat")
    with pytest.raises(ValueError, match="'.udcff' at character 1, half of"):
        Text("a\udcff")


class Decoder:
    def get_all_samples(self):
        raise NotImplementedError


@pytest.mark.parametrize(
    "content",
    [
        {"array": np.zeros(3), "sampling_rate": 8000},
        {"bytes": b"RIFF", "path": None},
        Decoder(),
    ],
)
def test_recordings_of_datasets(content):
    assert Speech(content).content is content
    assert not Speech(content).has_units


@pytest.mark.parametrize(
    "content", [None, 3, [0.0, 0.1], Text("a"), {}, {"text": "a"}]
)
def test_speech_refuses_other_content(content):
    with pytest.raises(TypeError, match=f"got {type(content).__name__}"):
        Speech(content)


@pytest.mark.parametrize("content", RECORDINGS, ids=lambda c: type(c).__name__)
def test_recordings_have_no_units_yet(content):
    speech = Speech(content)
    assert not speech.has_units
    for name in ("stream", "units"):
        with pytest.raises(ValueError, match="encode it with"):
            getattr(speech, name)
    assert repr(speech).startswith("Speech(")


def test_speech_gives_units_and_stream():
    speech, merged = Speech(UNITS), Speech(UNITS.merge())
    assert speech.stream == merged.stream == UNITS.merge()
    assert speech.units is UNITS
    assert merged.units == UNITS.deduplicate()
    assert repr(merged) == "Speech(2 phonetic units)"
    spoken = Speech(UNITS, wav=torch.zeros(9))
    assert repr(spoken) == "Speech(3 phonetic units, 9 samples)"
    assert repr(Speech(Path("a.wav"))) == "Speech('a.wav')"
