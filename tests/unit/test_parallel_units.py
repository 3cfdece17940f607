"""Units of the same words, by the times of another voice."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spiritlm_plugin.dataio.corpus.mapping import Listed
from spiritlm_plugin.dataio.corpus.parallel import (
    transfer_units,
    units_at_times,
)
from spiritlm_plugin.dataio.corpus.stores import CorpusError, load_corpus
from spiritlm_plugin.dataio.corpus.unit_store import tokenize_corpus
from spiritlm_plugin.dataio.units.units import SpeechUnits

WORDS = ["a", "cat", "sat"]


def entry(lengths, pause=0.2, phones=False):
    """Return what is known of words of such lengths, in seconds."""
    ends = pause + np.cumsum(lengths)
    spans = [
        [w, round(e - n, 4), round(e, 4)]
        for w, e, n in zip(WORDS, ends, lengths)
    ]
    item = {"duration": float(ends[-1] + pause), "words": spans}
    if phones:
        item["phones"] = [
            [f"{w}{half}", s + (e - s) * half / 2, s + (e - s) * (half + 1) / 2]
            for w, s, e in spans
            for half in (0, 1)
        ]
    return item


def frames(item):
    return (round(item["duration"] * 16000) - 720) // 640 + 1


lengths = st.lists(st.floats(0.1, 0.8), min_size=3, max_size=3)


@given(lengths, lengths, st.floats(0.0, 0.5), st.booleans())
def test_each_word_keeps_its_units(said, slower, pause, phones):
    other, item = entry(said, 0.2, phones), entry(slower, pause, phones)
    middles = (np.arange(frames(other)) * 640 + 360) / 16000
    # The number of the word that is said, 3 in a pause.
    units = np.full(len(middles), 3)
    for number, (_, start, end) in enumerate(other["words"]):
        units[(start <= middles) & (middles < end)] = number
    found = units_at_times(torch.from_numpy(units), other, item)
    assert len(found) == frames(item)
    assert torch.equal(
        units_at_times(torch.from_numpy(units), other, other),
        torch.from_numpy(units),
    )
    for number, (_, start, end) in enumerate(item["words"]):
        # A frame of the other may reach over the border of a word.
        rate = (other["words"][number][2] - other["words"][number][1]) / (
            end - start
        )
        margin = 0.02 / rate + 0.001
        times = (np.arange(len(found)) * 640 + 360) / 16000
        inside = (start + margin < times) & (times < end - margin)
        assert (found.numpy()[inside] == number).all()


def test_phones_that_both_say_are_where_they_are():
    other = {
        "duration": 1.0,
        "words": [["tree", 0.2, 0.8]],
        "phones": [["t", 0.2, 0.3], ["ɹ", 0.3, 0.4], ["i", 0.4, 0.8]],
    }
    item = {
        "duration": 1.0,
        "words": [["tree", 0.2, 0.8]],
        "phones": [["t", 0.2, 0.6], ["i", 0.6, 0.8]],
    }
    units = units_at_times(torch.arange(24), other, item)
    # The t, and the ɹ which is missing, until 0.4 of the one.
    assert units[int(0.58 * 25)] <= 7
    assert units[int(0.64 * 25)] >= 10


def test_other_words_are_refused():
    one = entry([0.2, 0.2, 0.2])
    other = {**one, "words": [["a", 0.2, 0.4], ["dog", 0.4, 0.6]]}
    with pytest.raises(ValueError, match="'a dog' are not the words of 'a cat"):
        units_at_times(torch.arange(20), one, other)
    nothing = {"duration": 1.0, "words": []}
    with pytest.raises(ValueError, match="are not the words"):
        units_at_times(torch.arange(20), nothing, nothing)


def test_new_voices_have_the_units_of_a_known_one(recording, tmp_path):
    def hear(items, name, first):
        wav = {"wav": str(recording)}
        tokenize_corpus(
            {key: item | wav for key, item in items.items()},
            tmp_path / name,
            lambda wavs: [SpeechUnits(range(first, first + 58)) for _ in wavs],
            {"phonetic": "1", "pitch": "2"},
        )

    # As long as the recording.
    said = entry([0.5, 0.6, 0.7], pause=0.28)
    assert said["duration"] == pytest.approx(2.36)
    other = entry([0.7, 0.6, 0.5], pause=0.28)
    items = {
        "new": other | {"speaker": "eve", "kind": "odd"},
        "known": other | {"speaker": "ann"},
    }
    hear(dict.fromkeys(items, said), "said", 0)
    hear(items, "own", 100)
    for item in items.values():
        item["wav"] = "x.wav"
    stores = tmp_path / "said", tmp_path / "own", ["ann"]
    transfer_units(Listed(items), tmp_path / "units", *stores)
    rows = load_corpus(tmp_path / "units", {"phonetic": "1"})
    assert torch.equal(
        rows[0]["phonetic_units"], units_at_times(torch.arange(58), said, other)
    )
    assert torch.equal(rows[1]["phonetic_units"], torch.arange(100, 158))
    assert (rows[0]["wav"], rows[0]["kind"]) == ("x.wav", "odd")
    fewer = {**items["new"], "words": other["words"][:2]}
    for name, entries, message in (
        ("y", {"y": items["new"]}, "y is not in"),
        ("z", {"new": fewer}, "new: 'a cat' are not the words of"),
    ):
        with pytest.raises(CorpusError, match=message):
            transfer_units(Listed(entries), tmp_path / name, *stores)
