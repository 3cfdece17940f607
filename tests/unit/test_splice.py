"""Splicing: other texts in a voice, of pieces of what it has said."""

import importlib.util
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spiritlm_plugin.dataio.corpus.mapping import Listed, map_shards
from spiritlm_plugin.dataio.corpus.shards import make_row
from spiritlm_plugin.dataio.corpus.stores import load_corpus
from spiritlm_plugin.dataio.units.units import SpeechUnits

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "recipes" / "TinySpeech" / "finetuning" / "splice.py"
PHONES = "abc"


def load_script():
    spec = importlib.util.spec_from_file_location("splice", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


splicing = load_script()


def phones_of(names, seconds=0.08):
    return [[n, i * seconds, (i + 1) * seconds] for i, n in enumerate(names)]


def utterance(names, style="sad", units=None):
    """Two units a phone: ten times its place in the alphabet, and one more."""
    if units is None:
        units = [10 * PHONES.index(n) + i for n in names for i in (0, 1)]
    item = {"wav": "a.wav", "duration": 0.08 * len(names), "style": style}
    item |= {"text": names, "phones": phones_of(names)}
    item |= {"words": [[names, 0.0, 0.08 * len(names)]]}
    return item, SpeechUnits(torch.tensor(units))


def voice_of(*utterances):
    rows = [
        make_row(str(i), item, units)
        for i, (item, units) in enumerate(utterances)
    ]
    for row in rows:
        row["phonetic_units"] = torch.tensor(row["phonetic_units"])
    return splicing.Voice(rows)


@given(st.text(PHONES, min_size=1, max_size=12), st.integers(0, 99))
def test_each_phone_is_said_as_it_was(names, seed):
    voice = voice_of(utterance("abca"), utterance("cbbac"), utterance("aac"))
    said = voice.say(names, "sad", Random(seed))
    expected = utterance(names)[1].phonetic
    assert np.concatenate(said).tolist() == expected.tolist()


def said_at(place, voice, names, style):
    """Return the units that a phone begins with, over thirty draws."""
    draws = [voice.say(names, style, Random(i))[place][0] for i in range(30)]
    return {*map(int, draws)}


def test_pieces_had_the_same_neighbors():
    voice = voice_of(
        utterance("abc", units=[0, 0, 1, 1, 2, 2]),
        utterance("bca", units=[3, 3, 4, 4, 5, 5]),
        utterance("cca", units=[6, 6, 7, 7, 8, 8]),
    )
    assert said_at(2, voice, "abca", "sad") == {4}


def test_pieces_have_the_style_where_there_are_some():
    voice = voice_of(
        utterance("abc", units=[0, 0, 1, 1, 2, 2]),
        utterance("abc", "happy", units=[3, 3, 4, 4, 5, 5]),
    )
    assert said_at(1, voice, "abc", "happy") == {4}
    assert said_at(1, voice, "abc", "calm") == {1, 4}


def test_what_was_never_said_is_left_out():
    voice = voice_of(utterance("ab"))
    said = voice.say("axb", "sad", Random(0))
    assert [len(units) for units in said] == [2, 0, 2]


def test_a_voice_without_phones_is_refused():
    item, units = utterance("ab")
    with pytest.raises(ValueError, match="no times of phones"):
        voice_of((item | {"phones": []}, units))


def write_store(folder, *texts):
    said = {names: utterance(names) for names in texts}
    map_shards(
        Listed({names: item for names, (item, _) in said.items()}),
        folder,
        lambda: lambda items: [make_row(n, *said[n]) for n in items],
        {"parts": {"phonetic": "1"}},
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Units of a voice, and those of another text in each split."""
    folder = tmp_path_factory.mktemp("splice")
    write_store(folder / "voice" / "train", "abcab", "cba")
    for split in ("train", "valid"):
        write_store(folder / "texts" / split, "bcabca")
    return folder


def test_a_corpus_is_made(folder):
    arguments = [str(folder / name) for name in ("voice", "texts", "out")]
    splicing.main(arguments)
    for split in ("train", "valid"):
        [row] = load_corpus(folder / "out" / split, {"phonetic": "1"})
        assert row["text"] == "bcabca"
        expected = utterance("bcabca")[1].phonetic
        assert row["phonetic_units"].tolist() == expected.tolist()
        assert row["duration"] == pytest.approx(0.48)
        [word] = row["words"]
        assert word["end"] == pytest.approx(0.48)


def test_texts_need_phones():
    voice = voice_of(utterance("ab"))
    with pytest.raises(ValueError, match="four has no times of phones"):
        next(splicing.splice(voice, 0, {"four": {"text": "four"}}))
