"""Word errors in the forms of the field."""

import math
import sys
from types import SimpleNamespace

import jiwer
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spiritlm_plugin.metrics import recognition
from spiritlm_plugin.metrics.intervals import ratio_interval
from spiritlm_plugin.metrics.recognition import (
    WordErrorStats,
    error_figures,
    normalize_english,
    normalize_transcript,
    transcript_errors,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("IT'S THE TEACHER'S", "it's the teacher's"),
        ("It’s “fine”, isn‘t it?", "it's fine isn't it"),
        (
            "'Tis the dogs' bone, she said: 'no'.",
            "tis the dogs bone she said no",
        ),
        ("twenty-three—or so", "twenty three or so"),
        ("at 9 o'clock, $5!", "at 9 o'clock 5"),
        ("L’été, où ça ?", "l'été où ça"),
        ("Ça va, Straße, ŁÓDŹ", "ça va straße łódź"),
        ("Ну, “привет” — ёж!", "ну привет ёж"),
        ("कैसे हैं?", "कैसे हैं"),
        ("soft\u00adware \u200ejoined", "software joined"),
        ("cafe\u0301", "café"),
        (" \n ... -- ", ""),
    ],
)
def test_the_first_form(text, expected):
    assert normalize_transcript(text) == expected


@given(st.text())
def test_the_first_form_is_written_as_it_is(text):
    written = normalize_transcript(text)
    assert normalize_transcript(written) == written
    assert normalize_transcript(f"“{text}”") == written


def test_references_of_librispeech_are_as_they_are():
    text = "HE DIDN'T SAY WHO'D COME BY MR QUILTER'S O'CLOCK"
    assert normalize_transcript(text) == text.lower()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("It's nine o'clock.", "it is 9 o'clock"),
        ("the COLOUR of the theatre", "the color of the theater"),
        ("two hundred and thirty pounds", "£230"),
        ("Mr. Quilter won't", "mister quilter will not"),
    ],
)
def test_whispers_form(one, other):
    assert normalize_english(one) == normalize_english(other)


@given(
    st.lists(
        st.tuples(
            st.lists(st.sampled_from("ab'c"), max_size=5),
            st.lists(st.sampled_from("abc"), min_size=1, max_size=5),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_counts_are_those_of_jiwer(pairs):
    heard, texts = ([" ".join(p[i]) for p in pairs] for i in (0, 1))
    heard = [text.replace("'", "").strip() for text in heard]
    ids = [str(i) for i in range(len(pairs))]
    errors = transcript_errors(ids, heard, texts, characters=True)
    heard = [normalize_transcript(text) for text in heard]
    assert errors["WER"].rate() == pytest.approx(100 * jiwer.wer(texts, heard))
    assert errors["CER"].rate() == pytest.approx(100 * jiwer.cer(texts, heard))
    assert errors["WER"].rate() == errors["WER"].summarize("WER")


def test_what_has_no_words_is_in_no_rate():
    ids, heard = ["a", "b", "c"], ["one two", "Oh, no!", ""]
    errors = transcript_errors(ids, heard, ["one to", "...", "'"])
    figures = error_figures(errors, dict(zip(ids, ids)))
    assert figures["WER"] == 50
    assert figures["empty_references"] == 2
    assert figures["empty_insertions"] == 2
    assert errors["WER"].summarize()["insertions"] == 0


def test_whispers_form_has_texts_without_words_of_its_own():
    ids = ["a", "b"]
    errors = transcript_errors(ids, ["yes", "hm yes"], ["yes", "uh"])
    figures = error_figures(errors, dict(zip(ids, ids)))
    assert figures["empty_references"] == 0 and figures["WER"] == 100
    assert figures["empty_references_whisper"] == 1
    assert figures["WER_whisper"] == 0


def test_where_nothing_is_said_there_is_no_rate(tmp_path):
    errors = transcript_errors(["a"], ["Oh."], ["..."], characters=True)
    figures = error_figures(errors, {"a": "ann"})
    for name in ("WER", "CER", "WER_whisper"):
        assert figures[name] is figures[f"{name}_interval"] is None
    assert math.isnan(errors["WER"].summarize("WER"))
    with open(tmp_path / "wer.txt", "w") as file:
        errors["WER"].write_stats(file)
    assert "a, apart, without words; heard: oh" in open(file.name).read()


def test_intervals_are_those_of_the_speakers():
    texts = ["a b c d"] * 12
    heard = ["a b c d"] * 4 + ["a b"] * 4 + [""] * 4
    ids = [str(i) for i in range(12)]
    speakers = {name: int(name) // 4 for name in ids}
    stats = transcript_errors(ids, heard, texts)["WER"]
    low, high = ratio_interval([0, 8, 16], [16, 16, 16])
    assert stats.rate() == 50
    assert stats.interval(speakers) == [100 * low, 100 * high]
    alone = stats.interval(dict(zip(ids, ids)))
    assert alone[1] - alone[0] < 100 * (high - low)


def test_rates_of_some():
    stats = WordErrorStats()
    stats.append(["a", "b"], ["x", "y z"], ["x", "y y"])
    assert stats.rate(["a"]) == 0 and stats.rate(["b"]) == 50
    assert stats.rate([]) is None
    stats.clear()
    assert not stats.scores and stats.apart == {}


def test_without_whispers_normalizer_there_is_the_first_form(
    monkeypatch, caplog
):
    monkeypatch.setattr(recognition, "find_spec", lambda name: None)
    errors = transcript_errors(["a"], ["x"], ["x"])
    assert list(errors) == ["WER"]
    assert "pip install whisper-normalizer" in caplog.text


def test_recognizer_without_its_package(tmp_path, monkeypatch):
    (tmp_path / "model.bin").touch()
    monkeypatch.setitem(sys.modules, "faster_whisper", None)
    with pytest.raises(ImportError, match="pip install faster-whisper"):
        recognition.load_recognizer(tmp_path)


class Listener:
    """A recognizer of transformers that says what it was asked with."""

    type = "seq2seq_whisper"
    feature_extractor = SimpleNamespace(chunk_length=1)

    def __init__(self, **known):
        config = SimpleNamespace(**known)
        self.model = SimpleNamespace(generation_config=config)

    def __call__(self, inputs, **options):
        text = {"text": str(options.get("generate_kwargs", {}))}
        return [text] * len(inputs) if isinstance(inputs, list) else text


def listen_by(monkeypatch, pipeline):
    """Have transformers make this for a pipeline."""
    for module in ("transformers", "transformers.pipelines"):
        monkeypatch.setattr(f"{module}.pipeline", lambda *_, **__: pipeline)


@pytest.mark.parametrize("samples", [4, 16001])
def test_a_recognizer_is_told_its_language(monkeypatch, samples):
    whisper = Listener(lang_to_id={"<|es|>": 1})
    listen_by(monkeypatch, whisper)
    wav = torch.zeros(samples)
    assert recognition.load_recognizer("small")([wav]) == ["{}"]
    told = recognition.load_recognizer({"source": "small", "language": "es"})
    assert told([wav]) == ["{'language': 'es'}"]


def test_a_recognizer_of_one_language_is_told_none(monkeypatch):
    listen_by(monkeypatch, Listener())
    with pytest.raises(ValueError, match="tiny.en is no multilingual Whisper"):
        recognition.load_recognizer({"source": "tiny.en", "language": "es"})


@pytest.mark.parametrize(
    ("named", "language"), [({}, "en"), ({"language": "es"}, "es")]
)
def test_whisper_of_ctranslate_listens_for_a_language(
    tmp_path, monkeypatch, named, language
):
    class Model:
        def __init__(self, *_, **__): ...

        def transcribe(self, wav, language, **options):
            segment = SimpleNamespace(text=language, compression_ratio=1)
            return iter([segment]), None

    (tmp_path / "model.bin").touch()
    module = SimpleNamespace(WhisperModel=Model)
    monkeypatch.setitem(sys.modules, "faster_whisper", module)
    source = {"source": str(tmp_path), **named}
    assert recognition.load_recognizer(source)([torch.zeros(4)]) == [language]


def test_what_is_longer_than_whisper_hears_at_once(monkeypatch):
    """It is heard alone, from time stamp to time stamp."""

    class Pipeline:
        type = "seq2seq_whisper"
        feature_extractor = SimpleNamespace(chunk_length=1)

        def __call__(self, inputs, **options):
            many = isinstance(inputs, list)
            assert many != bool(options.get("return_timestamps"))
            heard = [
                {"text": f" {len(item['raw'])}"}
                for item in (inputs if many else [inputs])
            ]
            return heard if many else heard[0]

    listen_by(monkeypatch, Pipeline())
    recognize = recognition.load_recognizer("whisper")
    lengths = [16001, 8000, 20000, 16000]
    found = recognize([torch.zeros(n) for n in lengths])
    assert found == list(map(str, lengths))
    assert recognize([torch.zeros(16001)]) == ["16001"]
