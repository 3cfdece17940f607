"""TinySpeech in the voices of other engines than eSpeak."""

import doctest
import json
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from spiritlm_plugin.lobes.pitch import FCPE

pytest.importorskip("espeakng_loader")

RECIPE = Path(__file__).parents[2] / "recipes" / "TinySpeech"
TEXT = "The old man doesn't sing, but I know a ferret."
NATURAL = [
    "joe", "rms", "awb", "kal16", "ked", "alan", "bdl", "clb", "pia", "pam",
    "slt", "slt_hts",
]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def recipe():
    sys.path.insert(0, str(RECIPE))
    yield
    sys.path.remove(str(RECIPE))


@pytest.fixture(scope="module")
def english():
    from tinyspeech.language import load_language

    return load_language("en")


@pytest.fixture
def say(english):
    from tinyspeech.engines import MissingEngineError, load_engine
    from tinyspeech.styles import STYLES

    def speak(name, style="neutral", text=TEXT):
        voice = english.voices[name]
        try:
            engine = load_engine(voice.engine)
        except MissingEngineError as error:
            pytest.skip(str(error))
        return engine.say(text, voice, STYLES[style], english)

    return speak


@pytest.fixture
def tiny(monkeypatch):
    """Two manifests of two sentences, for corpora that are made in no time."""
    from tinyspeech import corpus

    kinds = {"sentence": 2}
    names = ("train", "test_unseen_voice")
    sizes = {name: kinds for name in names} | {"text": {"line": 3}}
    monkeypatch.setitem(corpus.SIZES, "debug", sizes)


@pytest.mark.parametrize(
    "module", ["styles", "engines.radio", "engines.festival", "engines.flite",
               "engines.symbols", "engines.commands", "engines.listening",
               "engines", "language", "timing"]
)  # fmt: skip
def test_examples_are_right(module):
    try:
        found = import_module(f"tinyspeech.{module}")
    except ImportError as error:
        pytest.skip(str(error))
    assert doctest.testmod(found).failed == 0


@pytest.mark.parametrize("name", NATURAL)
def test_a_voice_says_all_words_where_it_tells(say, name):
    spoken = say(name)
    words = "the old man doesn't sing but i know a ferret"
    assert [word for word, _, _ in spoken.words] == words.split()
    length = len(spoken.samples) / 16000
    for spans in (spoken.words, spoken.phones):
        times = [t for _, start, end in spans for t in (start, end)]
        assert times == sorted(times)
        assert 0 <= times[0] and times[-1] <= length + 1e-6
    is_word = np.zeros(len(spoken.samples), dtype=bool)
    for _, start, end in spoken.words:
        is_word[int(start * 16000) : int(end * 16000)] = True
    energy = spoken.samples**2
    assert energy[is_word].sum() > 0.99 * energy.sum()
    assert len(spoken.samples) - is_word.sum() < 0.5 * len(spoken.samples)


@pytest.mark.parametrize("name", NATURAL)
def test_phones_are_those_of_espeak(say, name):
    known = set("ðəɪioʊldmænʌzntsŋbtaɪfɛɹ")
    names = {p for p, _, _ in say(name).phones} - {"sil"}
    assert set("".join(names)) <= known
    assert {"ð", "oʊ", "æ", "ŋ", "aɪ"} <= names


@pytest.mark.parametrize("name", ["joe", "clb", "pia"])
def test_times_that_are_heard_are_like_those_that_are_told(say, name):
    texts = [TEXT, "The strong baker is going to borrow our new bicycles."]

    def durations(speaker):
        words = [w for text in texts for w in say(speaker, text=text).words]
        return [end - start for _, start, end in words]

    assert np.corrcoef(durations("anna"), durations(name))[0, 1] > 0.8


def test_phones_are_heard_where_flite_says_that_they_are(say, english):
    pytest.importorskip("pocketsphinx")
    from tinyspeech.engines.listening import PhoneListener
    from tinyspeech.espeak import Phone

    spoken = say("rms", text="The strong baker borrows our new bicycles.")
    told = [span for span in spoken.phones if span[0] != "sil"]
    words = [start for _, start, _ in spoken.words]
    phones = [
        Phone(name, 0, sum(start >= word for word in words))
        for name, start, _ in told
    ]
    _, heard = PhoneListener()("a b c d e f g", spoken.samples, phones, english)
    heard = [span for span in heard if span[0] != "sil"]
    assert [name for name, _, _ in heard] == [name for name, _, _ in told]
    late = [b - a for (_, a, _), (_, b, _) in zip(told, heard)]
    assert np.mean(np.abs(late) < 0.025) > 0.8


def test_a_sentence_is_heard_whose_words_are_not(say):
    """Whose second pass PocketSphinx does not end."""
    text = "I need you to increase the temperature quickly in the kitchen."
    for name in ("pia", "pam", "clb"):
        words = [word for word, _, _ in say(name, "sad", text).words]
        assert " ".join(words) == text[:-1].lower()


@pytest.fixture(scope="module")
def pitch_of():
    extractor = FCPE()

    def median(samples, name):
        if name == "joe":  # whose first harmonic is missing
            prosody = pytest.importorskip("tinyspeech.prosody")
            f0, _ = prosody.measured_f0(samples, 16000)
            return np.median(f0[f0 > 0])
        wavs = torch.from_numpy(samples).float()[None]
        f0, voiced, _ = extractor(wavs, torch.tensor([len(samples)]))
        return float(f0[voiced > 0].median())

    return median


@pytest.mark.parametrize("name", NATURAL)
def test_styles_change_pitch_and_tempo(say, pitch_of, name):
    def measure(style):
        samples = np.ascontiguousarray(say(name, style).samples, float)
        return pitch_of(samples, name), len(samples)

    pitch, length = measure("neutral")
    high, short = measure("happy")
    low, long = measure("sad")
    assert 1.2 < high / pitch < 1.5
    assert 0.65 < low / pitch < 0.85
    assert short < length < long


def test_a_word_that_does_not_exist_is_said(say):
    for name in ("kal16", "ked"):
        spoken = say(name, text="Garder.")
        names = [p for p, _, _ in spoken.phones if p != "sil"]
        assert names[0] == "ɡ" and names[-1] in ("ɚ", "ɜ")


def test_who_speaks_natural_and_who_is_held_out(english):
    from tinyspeech.corpus import plan

    espeak, natural, both = (
        plan("small", 0, voices=voices)
        for voices in ("espeak", "natural", "all")
    )
    held_out = natural.pop("test_unseen_natural")
    both.pop("test_unseen_natural")
    for found in (natural, both):
        assert {n: [u.text for u in us] for n, us in found.items()} == {
            n: [u.text for u in us] for n, us in espeak.items()
        }
    assert {u.speaker for u in held_out} == {"slt", "slt_hts"}
    counts = [len(us) for us in (held_out, natural["test_unseen_voice"])]
    assert counts[0] == counts[1]
    assert {u.speaker for u in natural.pop("test_unseen_voice")} == {"gus"}
    both.pop("test_unseen_voice")
    heard = {u.speaker for us in natural.values() for u in us}
    assert heard == set(english.natural_speakers)
    heard = {u.speaker for us in both.values() for u in us}
    assert heard <= set(english.cast("all")[""])
    assert heard & set(english.speakers) and heard & {"joe", "rms"}
    texts = {u.text for us in espeak.values() for u in us}
    assert texts.isdisjoint(u.text for u in held_out)


@pytest.mark.parametrize("count", [1, 2, 5, 6, 8, 11])
def test_every_voice_has_every_style_as_often(recipe, count):
    from tinyspeech.corpus import _Draw
    from tinyspeech.styles import STYLES

    speakers = [f"speaker {i}" for i in range(count)]
    draw = _Draw("train", "sentence", 0, set(), "en", speakers)
    made = [draw.utterance(i, ("No.",)) for i in range(3 * count)]
    pairs = {(u.speaker, u.style) for u in made}
    assert len(pairs) == len(STYLES) * count


@pytest.mark.parametrize("speakers", ["joe,kal16", "ked,rms"])
def test_the_same_seed_gives_the_same_sound(say, speakers, tiny, tmp_path):
    from tinyspeech.engines import load_engine
    from tinyspeech_prepare import prepare_tinyspeech

    for name in speakers.split(","):
        say(name, text="No.")  # or skips
    load_engine.cache_clear()  # each shard begins with its own
    folders = [tmp_path / "one", tmp_path / "other"]
    for folder, jobs in zip(folders, (1, 2)):
        prepare_tinyspeech(folder, "debug", jobs=jobs, speakers=speakers)
    one, other = (
        {p.relative_to(f): p.read_bytes() for p in f.rglob("*.*")}
        for f in folders
    )
    assert one == other
    for path in folders[0].rglob("*.wav"):
        assert np.abs(soundfile.read(path)[0]).max() > 0.05
    train = json.loads((folders[0] / "train.json").read_text("utf-8"))
    assert {e["speaker"] for e in train.values()} == set(speakers.split(","))


def test_a_corpus_remembers_its_voices(tiny, tmp_path, monkeypatch):
    import tinyspeech_prepare

    monkeypatch.setattr(tinyspeech_prepare, "_find_engines", lambda *_: None)
    prepare = tinyspeech_prepare.prepare_tinyspeech
    prepare(tmp_path, "debug", jobs=1, speakers="gus")
    with pytest.raises(ValueError, match="voices natural; choose another"):
        prepare(tmp_path, "debug", voices="natural")


def test_voices_that_are_not_there_are_refused(tmp_path):
    from tinyspeech_prepare import prepare_tinyspeech

    with pytest.raises(ValueError, match="no voices 'sung'"):
        prepare_tinyspeech(tmp_path / "a", "debug", voices="sung")
    with pytest.raises(ValueError, match="has voices of eSpeak only"):
        prepare_tinyspeech(tmp_path / "a", "debug", voices="all", language="es")
    assert not (tmp_path / "a").exists()


def test_a_missing_engine_is_named_with_its_command(
    tiny, tmp_path, monkeypatch
):
    from tinyspeech import engines
    from tinyspeech_prepare import prepare_tinyspeech

    monkeypatch.setitem(
        engines.ENGINES,
        "flite",
        ("flite", "NoSuchClass", "apt-get install flite"),
    )
    monkeypatch.setitem(sys.modules, "tinyspeech.engines.flite", None)
    engines.load_engine.cache_clear()
    with pytest.raises(
        engines.MissingEngineError, match="flite is not.*apt-get install"
    ):
        prepare_tinyspeech(tmp_path / "a", "debug", speakers="rms")
    assert not (tmp_path / "a").exists()


def test_words_are_shared_out_by_their_tokens():
    from tinyspeech.engines.radio import spans

    said = [
        ("pau", 0.1, None, False), ("b", 0.2, 0, True), ("er", 0.3, 0, True),
        ("d", 0.4, 0, True), ("ih", 0.42, 0, False), ("er", 0.45, 0, False),
        ("r", 0.47, None, False), ("pau", 0.5, None, False), ("f", 0.6, 1, True),
        ("aa", 0.7, 1, True), ("r", 0.8, 1, True), ("v", 0.9, 2, True),
        ("eh", 1.0, 2, True), ("r", 1.1, 2, False), ("iy", 1.2, 2, False),
    ]  # fmt: skip
    words, phones = spans("Birdier, far very", said)
    assert words[0] == ("birdier", 0.1, 0.47)
    assert words[1:] == [("far", 0.5, 0.8), ("very", 0.8, 1.2)]
    names = [name for name, _, _ in phones]
    assert names == "sil b ɜ d ɪ ɚ sil f ɑɹ v ɛ ɹ i".split()
    with pytest.raises(ValueError, match="3 words were said of the 4"):
        spans("Birdier, far very old", said)


def test_an_error_of_festival_is_told():
    pytest.importorskip("pyworld")
    from tinyspeech.engines.festival import segments

    with pytest.raises(ValueError, match="Festival says 'SIOD ERROR"):
        list(segments(["SIOD ERROR: unbound variable"]))


def test_a_pair_of_phones_that_festival_lacks_ends_nothing():
    pytest.importorskip("pyworld")
    from tinyspeech.engines.festival import segments

    lines = ["UniSyn: using default diphone pau-pau for ae-ax", "ae 0.3 1 1"]
    assert list(segments(lines)) == [("ae", 0.3, 0, True)]
