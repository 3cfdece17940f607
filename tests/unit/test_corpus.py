"""Tests of ``spiritlm_plugin.dataio.corpus.unit_store``."""

from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from speechbrain.dataio.dataset import DynamicItemDataset

from spiritlm_plugin.dataio.corpus.manifests import (
    find_manifest,
    write_manifest,
)
from spiritlm_plugin.dataio.corpus.preparation import prepare
from spiritlm_plugin.dataio.corpus.stores import CorpusError, load_corpus
from spiritlm_plugin.dataio.corpus.unit_store import (
    fingerprints,
    tokenize_corpus,
)
from spiritlm_plugin.dataio.stream.sources import load_corpora
from spiritlm_plugin.dataio.units.units import SpeechUnits

PARTS = {"phonetic": "p1", "pitch": "f1", "style": "s1"}
PHONETIC = {"phonetic": "p1"}
# 0.5 s of audio each: shards of four utterances, batches of two.
SIZES = {"shard_seconds": 2.0, "batch_seconds": 1.0}


@pytest.fixture
def items(tmp_path):
    generator = np.random.default_rng(0)
    made = {}
    for i in range(10):
        path = tmp_path / f"{i}.wav"
        soundfile.write(path, generator.normal(size=8000) / 9, 16000)
        made[f"utterance{i}"] = {
            "wav": str(path),
            "duration": 0.5,
            "text": f"text {i}",
            "style": "sad",
            "words": [["text", 0.0, 0.25], [str(i), 0.25, 0.5]],
        }
    made["utterance3"] |= {"style": None, "words": None}
    return made


class Tokenizer:
    """Units that depend on the samples; fails at a given utterance."""

    def __init__(self, fails_at=None):
        self.seen = 0
        self.fails_at = fails_at

    def __call__(self, wavs):
        units = []
        for wav in wavs:
            if self.seen == self.fails_at:
                raise KeyboardInterrupt
            self.seen += 1
            loud = (wav.view(-1, 400).abs().sum(1) * 100).long()
            units.append(SpeechUnits(loud[:12], loud[:6] % 64, loud[:1] % 100))
        return units


def shards(folder):
    return {p.name: p.read_bytes() for p in sorted(folder.glob("*.arrow"))}


def test_corpus_holds_manifest_and_units(items, tmp_path):
    tokenize_corpus(items, tmp_path / "c", Tokenizer(), PARTS, **SIZES)
    corpus = load_corpus(tmp_path / "c", PARTS)
    assert len(shards(tmp_path / "c")) == 3
    assert corpus["utterance"] == list(items)
    assert corpus["text"] == [item["text"] for item in items.values()]
    row = corpus[4]
    assert row["words"][1] == {"word": "4", "start": 0.25, "end": 0.5}
    wav, _ = soundfile.read(row["wav"], dtype="float32")
    [units] = Tokenizer()([torch.from_numpy(wav)])
    for name in ("phonetic", "pitch", "style"):
        stored = row[f"{name}_units"]
        assert stored.dtype == torch.int64
        assert torch.equal(stored, getattr(units, name))
    assert corpus[3]["style"] is None and corpus[3]["words"] == []
    assert str(corpus.features["phonetic_units"].feature.dtype) == "uint16"


def test_dataset_of_speechbrain(items, tmp_path):
    tokenize_corpus(items, tmp_path / "c", Tokenizer(), PARTS, **SIZES)
    data = DynamicItemDataset.from_arrow_dataset(
        load_corpus(tmp_path / "c"), output_keys=["utterance", "pitch_units"]
    )
    assert data[9]["utterance"] == "utterance9"
    assert data[9]["pitch_units"].shape == (6,)


def test_base_tokenizer_has_one_stream(items, tmp_path):
    def base(wavs):
        return [units.base() for units in Tokenizer()(wavs)]

    tokenize_corpus(items, tmp_path / "base" / "train", base, PHONETIC)
    names = load_corpus(tmp_path / "base" / "train").column_names
    assert "phonetic_units" in names and "pitch_units" not in names

    # Beside a corpus that has them too, there is no more for all.
    folders = [tmp_path / "c", tmp_path / "base"]
    tokenize_corpus(items, folders[0] / "train", Tokenizer(), PARTS)
    for order in (folders, folders[::-1]):
        rows = load_corpora(order, "train", PHONETIC)
        assert len(rows) == 2 * len(items)
        assert not {"pitch_units", "style_units"} & set(rows.column_names)
        first, second = rows[4], rows[4 + len(items)]
        assert torch.equal(first["phonetic_units"], second["phonetic_units"])
        assert first["text"] == second["text"]
    with pytest.raises(CorpusError, match="pitch"):
        load_corpora(folders, "train", PARTS)


def test_stopped_run_goes_on(items, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    tokenize_corpus(items, whole, Tokenizer(), PARTS, **SIZES)
    with pytest.raises(KeyboardInterrupt):
        tokenize_corpus(items, parts, Tokenizer(6), PARTS, **SIZES)
    with pytest.raises(CorpusError, match="1 of 3 shards"):
        load_corpus(parts)
    rest = Tokenizer()
    tokenize_corpus(items, parts, rest, PARTS, **SIZES)
    assert rest.seen == 6
    assert shards(parts) == shards(whole)
    again = Tokenizer(0)
    tokenize_corpus(items, parts, again, PARTS, **SIZES)
    assert again.seen == 0


def test_a_shard_begins_with_little_to_wait_for(items, tmp_path):
    sizes = []

    def tokenizer(wavs):
        sizes.append(len(wavs))
        return Tokenizer()(wavs)

    tokenize_corpus(items, tmp_path / "c", tokenizer, PARTS, batch_seconds=2.0)
    assert sizes == [1, 4, 4, 1]
    assert load_corpus(tmp_path / "c")["utterance"] == list(items)


def test_workers_read_the_same(items, tmp_path):
    for workers in (0, 2):
        tokenize_corpus(
            items,
            tmp_path / str(workers),
            Tokenizer(),
            PARTS,
            workers=workers,
            **SIZES,
        )
    assert shards(tmp_path / "0") == shards(tmp_path / "2")


@pytest.mark.parametrize("parts", [{"pitch": "f2"}, {"style": None}])
def test_other_parts_are_named(items, tmp_path, parts):
    folder = tmp_path / "c"
    tokenize_corpus(items, folder, Tokenizer(), PARTS)
    (name,) = parts
    other = {k: v for k, v in {**PARTS, **parts}.items() if v}
    with pytest.raises(CorpusError, match=f"another {name} tokenizer"):
        tokenize_corpus(items, folder, Tokenizer(), other)


def test_parts_that_the_units_must_come_from(items, tmp_path):
    folder = tmp_path / "c"
    tokenize_corpus(items, folder, Tokenizer(), PARTS)
    load_corpus(folder, {"phonetic": "p1"})
    with pytest.raises(CorpusError, match="fingerprint p1, now p2"):
        load_corpus(folder, {"phonetic": "p2"})


def test_other_utterances(items, tmp_path):
    folder = tmp_path / "c"
    tokenize_corpus(items, folder, Tokenizer(), PARTS)
    fewer = dict(list(items.items())[:9])
    with pytest.raises(CorpusError, match="delete it or name another folder"):
        tokenize_corpus(fewer, folder, Tokenizer(), PARTS)


def test_no_corpus(tmp_path):
    with pytest.raises(FileNotFoundError, match="tokenize the corpus first"):
        load_corpus(tmp_path)


def test_fingerprints_depend_on_weights():
    def make(value):
        layer = torch.nn.Linear(2, 2)
        torch.nn.init.constant_(layer.weight, value)
        torch.nn.init.zeros_(layer.bias)
        return SimpleNamespace(phonetic=layer, pitch=None, style=layer)

    one, other, same = (fingerprints(make(value)) for value in (1, 2, 1))
    assert one == same and one["phonetic"] != other["phonetic"]
    assert list(one) == ["phonetic", "style"]


def test_a_recording_that_changed_is_named(items, tmp_path):
    path = items["utterance4"]["wav"]
    soundfile.write(path, np.ones(3000) / 9, 16000)
    message = r"4\.wav has 0\.19 s, and 0\.50 when it was prepared; prepare"
    with pytest.raises(CorpusError, match=message):
        tokenize_corpus(items, tmp_path / "c", Tokenizer(), PARTS, **SIZES)


def test_units_are_not_prepared_away(items, tmp_path):
    tokenize_corpus(items, tmp_path / "train", Tokenizer(), PARTS, **SIZES)
    before = shards(tmp_path / "train")
    for merged in (None, {"train": ["valid"]}):  # as a split, as a union
        names = ["valid"] if merged else ["train"]
        splits = {name: items.items() for name in names}
        with pytest.raises(CorpusError, match="train holds a corpus that was"):
            prepare(splits, tmp_path, merged)
    assert shards(tmp_path / "train") == before
    # A manifest beside it is what it was made of.
    write_manifest(items, tmp_path / "train.json")
    assert find_manifest(tmp_path, "train").name == "train.json"
