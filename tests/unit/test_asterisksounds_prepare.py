"""Tests of the script that prepares Asterisk's prompts, and of its aligner."""

import gzip
import importlib
import json
import os
import subprocess
import sys
from collections import namedtuple
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from spiritlm_plugin.dataio.corpus.manifests import load_manifest

RECIPE = Path(__file__).parents[2] / "recipes/AsteriskSounds/phonetic"
TEXTS = """; Prompts

hello: Hello.
digits/7: seven
press: Press 7, or re-enter...
beep: [this is a beep]
lost: Hello.
odd: Hello zyzzyva.
unlike: Goodbye!
"""
Entry = namedtuple("Entry", "name start duration score phones")
Phone = namedtuple("Phone", "name start duration")


@pytest.fixture(scope="module")
def modules():
    """The script and its aligner, by their names."""
    names = ("asterisksounds_prepare", "phone_alignment")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(RECIPE))
        yield SimpleNamespace(**{n: importlib.import_module(n) for n in names})
        for name in names:
            del sys.modules[name]


@pytest.fixture(scope="module")
def script(modules):
    return modules.asterisksounds_prepare


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Press 3, or re-enter it ...", "press three or re enter it"),
        ("...I'm sorry; your party's busy!", "i'm sorry your party's busy"),
        ('A polite "no".', "a polite no"),
        ("at [@]", "at"),
        ("zero", "zero"),
    ],
)
def test_words_are_lower_case_without_marks(script, text, said):
    assert script.normalize(text) == said
    assert script.normalize(said) == said


@given(st.lists(st.from_regex(r"[A-Z]?[a-z]{2,9}", fullmatch=True), min_size=1))
def test_marks_change_no_words(script, words):
    said = " ".join(words).lower()
    assert script.normalize("..." + ", ".join(words) + "?") == said
    assert script.normalize("-".join(words)) == said


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[sound of monkeys]", "a sound"),
        ("Leave a message (a tone sounds)", "a sound"),
        ("<beep>", "a sound"),
        ("dial 500", "a number or a sign: 500"),
        ("press # to exit", "a number or a sign: #"),
        ("A.M.", "a number or a sign"),
        ("an open PBX platform", "may be spelled: PBX"),
        ("the 7 key for Q", "may be spelled: Q"),
        ("a", "a letter"),
        ("...", "a letter, or nothing"),
    ],
)
def test_what_is_said_must_be_known(script, text, reason):
    with pytest.raises(script.LeftOutError, match=reason):
        script.normalize(text)


@pytest.fixture
def packages(tmp_path, script):
    """Two packages, unpacked into one folder."""
    root = tmp_path / "packages"
    texts = root / (script.TEXTS + ".gz")
    texts.parent.mkdir(parents=True)
    texts.write_bytes(gzip.compress(TEXTS.encode()))
    for name in ("hello", "digits/7", "press", "beep", "odd", "unlike"):
        path = root / script.SOUNDS / f"{name}.g722"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(4000))
    return root


def hear(script, monkeypatch):
    """Let a second of a tone be heard, and an aligner that shares it out."""

    class Aligner:
        def __init__(self, worst_score, longest_phone):
            assert worst_score < 0 < longest_phone

        def unknown(self, text):
            return [word for word in text.split() if word == "zyzzyva"]

        def __call__(self, text, samples):
            if text == "goodbye":
                raise script.AlignmentError("it does not sound like its words")
            step = len(samples) / script.RATE / len(text.split())
            spans = [
                (w, step * i, step * (i + 1))
                for i, w in enumerate(text.split())
            ]
            return spans, [("ə", start, end) for _, start, end in spans]

    tone = (3000 * np.sin(np.arange(16000) / 9)).astype(np.int16)
    monkeypatch.setattr(script, "Aligner", Aligner)
    monkeypatch.setattr(script, "decode", lambda content: tone)
    return tone


def test_prompts_become_a_manifest(script, packages, tmp_path, monkeypatch):
    tone = hear(script, monkeypatch)
    script.prepare_asterisksounds(packages, tmp_path / "data")
    items = load_manifest(tmp_path / "data" / "test", ["words", "phones"])
    assert {name: item["text"] for name, item in items.items()} == {
        "hello": "hello",
        "digits_7": "seven",
        "press": "press seven or re enter",
    }
    item = items["digits_7"]
    assert item["duration"] == 1.0 and item["speaker"] == "allison"
    samples, rate = soundfile.read(item["wav"], dtype="int16")
    assert rate == 16000 and (samples == tone).all()
    left_out = json.loads((tmp_path / "data" / "left_out.json").read_text())
    assert left_out == {
        "beep": "a sound or a note beside its words",
        "lost": "there is no recording",
        "odd": "words that the dictionary lacks: zyzzyva",
        "unlike": "it does not sound like its words",
    }


def test_texts_may_be_unpacked(script, packages):
    packed = packages / (script.TEXTS + ".gz")
    texts = script.read_texts(packages)
    packed.with_suffix("").write_text(TEXTS, "utf-8")
    packed.unlink()
    assert script.read_texts(packages) == texts
    assert texts["press"] == "Press 7, or re-enter..."


def test_what_is_missing_is_named(script, packages, tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="asterisk-core-sounds-en-g722"):
        script.prepare_asterisksounds(tmp_path / "nowhere", tmp_path / "data")
    (packages / (script.TEXTS + ".gz")).unlink()
    with pytest.raises(FileNotFoundError, match="asterisk-core-sounds-en,"):
        script.prepare_asterisksounds(packages, tmp_path / "data")
    for name in ("G722", "pocketsphinx"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match="extra_requirements.txt"):
        script.decode(b"")
    with pytest.raises(ImportError, match="extra_requirements.txt"):
        script.Aligner(-30.0, 0.6)


def test_prompts_that_are_all_left_out_are_none(
    script, packages, tmp_path, monkeypatch
):
    hear(script, monkeypatch)
    texts = packages / (script.TEXTS + ".gz")
    texts.write_bytes(gzip.compress(b"beep: [a beep]\n"))
    with pytest.raises(ValueError, match="can be used: a sound"):
        script.prepare_asterisksounds(packages, tmp_path / "data")
    assert not (tmp_path / "data" / "test.json").exists()


class StandIn:
    """PocketSphinx, hearing "the day" in the second half of a second."""

    heard = [
        Entry("<sil>", 0, 60, -600, [Phone("SIL", 0, 60)]),
        Entry(
            "the(2)", 60, 20, -200, [Phone("DH", 60, 5), Phone("IY", 65, 15)]
        ),
        Entry("day", 80, 30, -300, [Phone("D", 80, 10), Phone("EY", 90, 20)]),
        Entry("</s>", 110, 10, -90, [Phone("SIL", 110, 10)]),
    ]

    def __init__(self, **settings):
        assert settings["cmn"] == "batch"

    def lookup_word(self, word):
        return "D EY" if word in ("the", "day") else None

    def set_align_text(self, text):
        self.text, self.seconds = text, []

    def start_utt(self):
        pass

    def process_raw(self, content, full_utt):
        self.seconds.append(len(content) / 2 / 16000)

    def end_utt(self):
        if self.text == "failing":
            raise RuntimeError("Failed to stop utterance processing")

    def hyp(self):
        return None if self.text == "nothing" else "the day"

    def set_alignment(self):
        pass

    def get_alignment(self):
        assert self.seconds == [1.2, 1.2]
        for entry in self.heard:
            word = SimpleNamespace(**entry._asdict())
            yield type(
                "Word",
                (SimpleNamespace,),
                {"__iter__": lambda self: iter(self.phones)},
            )(**vars(word))


@pytest.fixture
def aligner(modules, monkeypatch):
    package = SimpleNamespace(Decoder=StandIn)
    monkeypatch.setitem(sys.modules, "pocketsphinx", package)
    return modules.phone_alignment.Aligner(-30.0, 0.6)


SECOND = np.zeros(16000, np.int16)


def test_times_are_of_the_recording_without_its_padding(aligner):
    words, phones = aligner("the day", SECOND)
    # Frames of 10 ms meet 7.8 ms behind their beginnings.
    assert words == [("the", 0.5078, 0.7078), ("day", 0.7078, 1.0)]
    assert phones == [
        ("sil", 0.0, 0.5078),
        ("ð", 0.5078, 0.5578),
        ("i", 0.5578, 0.7078),
        ("d", 0.7078, 0.8078),
        ("eɪ", 0.8078, 1.0),
    ]
    assert aligner.unknown("the other day") == ["other"]


@pytest.mark.parametrize("text", ["the day after", "day", "nothing", "failing"])
def test_other_words_are_refused(modules, aligner, text):
    with pytest.raises(modules.phone_alignment.AlignmentError, match="heard"):
        aligner(text, SECOND)


@pytest.mark.parametrize(
    ("limits", "why"), [((-9.9, 0.6), "sound like"), ((-30.0, 0.18), "as long")]
)
def test_a_poor_alignment_is_refused(modules, aligner, limits, why):
    aligner.worst_score, aligner.longest_phone = limits
    with pytest.raises(modules.phone_alignment.AlignmentError, match=why):
        aligner("the day", SECOND)


SPOKEN = "the doctor opened the window in the morning"
# In a process of its own: eSpeak keeps what it has said.
SPEAK = f"""
import numpy
from scipy.signal import resample_poly
from tinyspeech.espeak import Espeak

samples, phones = Espeak().say({SPOKEN!r}, "en-us", 150, 50, 50)
numpy.save("spoken.npy", resample_poly(samples, 320, 441).astype("int16"))
"""


def test_a_recording_is_aligned(modules, tmp_path):
    """By PocketSphinx itself, whatever it has heard before."""
    pytest.importorskip("pocketsphinx")
    g722 = pytest.importorskip("G722").G722(16000, 64000)
    subprocess.run(
        [sys.executable, "-c", SPEAK],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(RECIPE.parents[1] / "TinySpeech")},
        check=True,
    )
    spoken = np.load(tmp_path / "spoken.npy")
    samples = modules.asterisksounds_prepare.decode(g722.encode(spoken))
    spoken = spoken[: len(samples)]  # pairs of samples
    # It lags by the filters of both sides.
    error = samples[22:].astype(float) - spoken[:-22]
    assert (
        np.square(error).mean() < 0.01 * np.square(spoken.astype(float)).mean()
    )
    aligner = modules.phone_alignment.Aligner(-40.0, 0.6)
    words, phones = first = aligner(SPOKEN, samples)
    assert " ".join(name for name, _, _ in words) == SPOKEN
    assert all(a[2] == b[1] for a, b in pairwise(phones))
    assert 1.5 < words[-1][2] - words[0][1] < len(samples) / 16000
    with pytest.raises(modules.phone_alignment.AlignmentError):
        aligner("please leave a message after the tone", samples)
    assert aligner(SPOKEN, samples) == first
