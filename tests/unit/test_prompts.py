"""Few-shot prompts are those of the paper, and answers are read as it does."""

import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st

from spiritlm_plugin.dataio.units.prompts import (
    FewShotPrompts,
    asr_answer,
    asr_query,
    asr_shot,
    continuation_answer,
    continuation_shot,
    draw_shots,
    fitting_shots,
    intent_answer,
    intent_query,
    intent_shot,
    tts_answer,
    tts_query,
    tts_shot,
)
from spiritlm_plugin.dataio.units.segments import Speech, Text
from spiritlm_plugin.dataio.units.text_tokenizers import load_text_tokenizer
from spiritlm_plugin.dataio.units.units import SpeechStream, SpeechUnits
from spiritlm_plugin.dataio.units.vocabulary import Vocabulary

ONE = Speech(SpeechUnits([1, 1, 2]))
TWO = Speech(SpeechUnits([3]))
STOP = Speech(SpeechUnits([7, 8]))


@pytest.fixture(scope="module")
def vocabulary(checkpoints):
    folder = checkpoints / "spiritlm_model" / "spirit-lm-base-7b"
    return Vocabulary.extend(load_text_tokenizer(folder), 10, 5, 5)


@pytest.mark.parametrize(
    ("segments", "output", "expected"),
    [
        (
            [*asr_shot(ONE, "the cat"), *asr_query(TWO)],
            "text",
            "[Speech][Hu1][Hu2][Text]<START Transcript> the cat <END>"
            "[Speech][Hu3][Text]",
        ),
        (
            [*asr_shot(ONE, "the cat", trained=True), *asr_query(TWO)],
            "asr",
            "[Speech][Hu1][Hu2][ASR]the cat[Speech][Hu3][ASR]",
        ),
        (
            [*tts_shot("the cat", ONE, STOP), *tts_query("a dog")],
            "speech",
            "[Text]the cat 'stop'[Speech][Hu1][Hu2][Hu7][Hu8]"
            "[Text]a dog 'stop'[Speech]",
        ),
        (
            [*tts_shot("the cat", ONE), *tts_query("a dog", trained=True)],
            "tts",
            "[Text]the cat[TTS][Hu1][Hu2][Text]a dog[TTS]",
        ),
        (
            [*intent_shot(ONE, "bring shoes none"), *intent_query(TWO)],
            "any",
            "[Speech][Hu1][Hu2][Text]A:bring shoes none[Speech][Hu3][Text]A:",
        ),
    ],
)
def test_prompts_of_the_paper(vocabulary, segments, output, expected):
    actual = vocabulary.encode(segments, output)
    if expected.endswith("]") and output != "any":
        # A marker that ends a prompt has nothing behind it to be parsed.
        marker = expected.rsplit("[", 1)[1].rstrip("]").lower()
        ids = vocabulary.encode_string(expected.rsplit("[", 1)[0])
        assert actual == [*ids, vocabulary.markers[marker]]
    else:
        assert actual == vocabulary.encode_string(expected)


P, G = Text("so it rained"), Text("all day.")
A, B = Speech(SpeechUnits([1, 1, 2])), Speech(SpeechUnits([3, 4]))


@pytest.mark.parametrize(
    ("shot", "query", "output", "expected"),
    [
        (
            (P, G),
            Text("the cat"),
            "text",
            "[Text]so it rained[Text]all day.\n" * 2 + "[Text]the cat",
        ),
        (
            (P, B),
            Text("the cat"),
            "speech",
            "[Text]so it rained[Speech][Hu3][Hu4]\n" * 2
            + "[Text]the cat[Speech]",
        ),
        (
            (A, B),
            Speech(SpeechUnits([5])),
            "speech",
            "[Speech][Hu1][Hu2][Speech][Hu3][Hu4]\n" * 2 + "[Speech][Hu5]",
        ),
        (
            (A, G),
            Speech(SpeechUnits([5])),
            "text",
            "[Speech][Hu1][Hu2][Text]all day.\n" * 2 + "[Speech][Hu5][Text]",
        ),
    ],
    ids=["t2t", "t2s", "s2s", "s2t"],
)
def test_shots_of_the_benchmark_of_sentiments(
    checkpoints, shot, query, output, expected
):
    """They have the ids that the released tokenizer gives the whole string."""
    folder = checkpoints / "spiritlm_model" / "spirit-lm-base-7b"
    released = sentencepiece.SentencePieceProcessor(
        model_file=str(folder / "tokenizer.model")
    )
    ids = [released.bos_id(), *released.encode(expected)]
    shots = [continuation_shot(*shot)] * 2
    prompts = FewShotPrompts(Vocabulary.load(folder), shots, output, 999)
    prompt = prompts([query])
    assert prompts.vocabulary.encode(prompt.segments, output) == ids
    assert (prompt.shots, prompt.tokens) == (2, len(ids))
    # Without shots it is simply continued.
    alone = expected.rpartition("\n")[2]
    assert prompts.vocabulary.encode([query], output) == [
        released.bos_id(),
        *released.encode(alone),
    ]


def test_continuations_end_with_their_line():
    assert continuation_answer("all day.\nso it") == "all day."
    assert continuation_answer("all day.") == "all day."


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<START Transcript> the cat <END>", ("the cat", True)),
        (
            "<START Transcript> the cat <END> <START Transcript> a",
            ("the cat", 1),
        ),
        ("<START Transcript> the cat", ("the cat", False)),
        ("the cat <END> and", ("the cat", True)),
        ("so: <START Transcript>the cat<END>", ("the cat", True)),
        ("<END> the cat", ("", True)),
        ("<START Transcript><END>", ("", True)),
        ("", ("", False)),
    ],
)
def test_transcripts_are_read(text, expected):
    assert asr_answer(text) == expected


@given(st.text(alphabet="ab '", max_size=20), st.text(max_size=20))
def test_what_is_shown_is_read_back(transcript, behind):
    [_, text] = asr_shot(ONE, transcript)
    assert asr_answer(text.text + behind) == (transcript.strip(), True)


@pytest.mark.parametrize(
    ("said", "expected", "complete"),
    [
        ("[Hu1][Hu7][Hu8]", "[Hu1]", True),
        ("[St1][Pi1][Hu1][Pi2][Hu7][Pi3][Hu8][Hu1]", "[St1][Pi1][Hu1][Pi2]", 1),
        ("[Hu7][Hu8][Hu7][Hu8]", "", True),
        ("[Hu7][Hu7][Hu8]", "[Hu7]", True),
        ("[Hu8][Hu7]", "[Hu8][Hu7]", False),
        ("[Hu7]", "[Hu7]", False),
        ("", "", False),
    ],
)
def test_readings_end_at_the_stop(said, expected, complete):
    stream, found = tts_answer(SpeechStream.from_string(said), STOP.stream)
    assert (stream.to_string(), found) == (expected, complete)


def test_a_stop_without_units():
    with pytest.raises(ValueError, match='"stop" has no phonetic units'):
        tts_answer(ONE.stream, SpeechStream.from_string("[Pi1]"))


@pytest.mark.parametrize(
    ("segments", "label"),
    [
        ([Text(" bring shoes none "), ONE, Text("A:x")], "bring shoes none"),
        ([ONE, Text("bring")], ""),
        ([], ""),
    ],
)
def test_labels_are_read(segments, label):
    assert intent_answer(segments) == label


@given(st.lists(st.integers(1, 9), max_size=9), st.integers(-5, 60))
def test_shots_are_dropped_from_the_left(lengths, room):
    kept = fitting_shots(lengths, room)
    assert sum(lengths[len(lengths) - kept :]) <= max(room, 0)
    if kept < len(lengths):
        assert sum(lengths[len(lengths) - kept - 1 :]) > room


@given(st.integers(1, 120))
def test_prompts_fit_and_are_counted(vocabulary, limit):
    shots = [asr_shot(ONE, "the " * i) for i in range(1, 5)]
    prompts = FewShotPrompts(vocabulary, shots, "text", limit)
    prompt = prompts(asr_query(TWO))
    assert prompt.tokens == len(vocabulary.encode(prompt.segments, "text"))
    assert prompt.tokens <= limit or prompt.shots == 0
    expected = sum(shots[4 - prompt.shots :], [])
    assert prompt.segments == [*expected, TWO]
    # Also where shots end in a break.
    shots = [continuation_shot(Text("a"), Text("the " * i)) for i in range(4)]
    prompt = FewShotPrompts(vocabulary, shots, "text", limit)([Text("b")])
    assert prompt.tokens == len(vocabulary.encode(prompt.segments, "text"))


@given(st.integers(0, 20), st.integers(0, 9))
def test_shots_are_balanced(count, seed):
    labels = {f"u{i:02}": "abc"[min(i // 4, 2)] for i in range(20)}
    drawn = draw_shots(labels, count, seed, labels)
    assert len(set(drawn)) == len(drawn) == count
    assert drawn == draw_shots(reversed(labels), count, seed, labels)
    if count <= 12:
        counts = [sum(labels[n] == x for n in drawn) for x in "abc"]
        assert max(counts) - min(counts) <= 1


def test_shots_depend_on_the_seed():
    names = [str(i) for i in range(50)]
    assert draw_shots(names, 5, 1) != draw_shots(names, 5, 2)
    with pytest.raises(ValueError, match="51 shots from 50"):
        draw_shots(names, 51, 1)
