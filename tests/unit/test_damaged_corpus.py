"""Tokenized corpora that were damaged where they lay."""

from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path

import pytest
import torch

from spiritlm_plugin.dataio.corpus import checksums
from spiritlm_plugin.dataio.corpus.stores import CorpusError, load_corpus
from spiritlm_plugin.dataio.corpus.unit_store import tokenize_corpus
from spiritlm_plugin.dataio.units.units import SpeechUnits
from spiritlm_plugin.utils.files import DiskFullError

PARTS = {"phonetic": "p1"}
SIZES = {"shard_seconds": 2.0, "batch_seconds": 1.0}
ITEMS = {
    f"utterance{i}": {"wav": f"{i}.wav", "duration": 1.0, "text": f"text {i}"}
    for i in range(5)
}


class Tokenizer:
    """Units that depend on the samples; counts what it hears."""

    heard = 0

    def __call__(self, wavs):
        self.heard += len(wavs)
        return [SpeechUnits(wav[:25].long()) for wav in wavs]


@pytest.fixture(autouse=True)
def _recordings(monkeypatch):
    """Make recordings of their names."""

    def read(wav):
        return torch.arange(16_000) + int(wav.split(".")[0])

    name = "spiritlm_plugin.dataio.corpus.unit_store.read_audio"
    monkeypatch.setattr(name, read)


def tokenize(folder, items=ITEMS, parts=PARTS):
    tokenizer = Tokenizer()
    tokenize_corpus(items, folder, tokenizer, parts, **SIZES)
    return tokenizer.heard


@pytest.fixture
def corpus(tmp_path):
    """Folder of a corpus in three shards of two utterances and one."""
    folder = tmp_path / "corpus"
    assert tokenize(folder) == 5
    return folder


def contents(folder):
    return {p.name: p.read_bytes() for p in folder.glob("*.arrow")}


def rows(folder):
    corpus = load_corpus(folder)
    return [(row["utterance"], row["phonetic_units"][0]) for row in corpus]


WHOLE = [(f"utterance{i}", i) for i in range(5)]


def truncate(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])


def flip(path, share, keep_time=False):
    content, status = bytearray(path.read_bytes()), path.stat()
    content[int(share * len(content))] ^= 4
    path.write_bytes(content)
    if keep_time:
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def exchange(path):
    shutil.copy(path.with_name("shard-00000.arrow"), path)


DAMAGES = {
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: truncate(path, 0.5),
    "without its end": lambda path: truncate(path, 0.999),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\0" * 8),
    "foreign": lambda path: path.write_bytes(b"<!DOCTYPE html>" * 99),
    "another shard": exchange,
    **{
        f"flipped at {share}": lambda path, share=share: flip(path, share)
        for share in (0.01, 0.1, 0.4, 0.7, 0.9)
    },
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_shard_is_named_and_made_anew(corpus, damage, caplog):
    path, before = corpus / "shard-00001.arrow", contents(corpus)
    DAMAGES[damage](path)
    with pytest.raises(CorpusError, match=f"cannot read {path}: .*; delete it"):
        load_corpus(corpus)
    assert tokenize(corpus) == 2
    assert f"{path} is made anew: " in caplog.text
    assert contents(corpus) == before
    assert rows(corpus) == WHOLE


@pytest.mark.parametrize("damage", ["empty", "cut", "foreign", "another shard"])
def test_damage_is_named_without_checksums_as_well(corpus, damage):
    for path in corpus.glob("shard-*.json"):
        path.unlink()
    assert rows(corpus) == WHOLE
    path = corpus / "shard-00001.arrow"
    DAMAGES[damage](path)
    if damage == "another shard":
        path = corpus / "shard-00002.arrow"
        exchange(path)
    with pytest.raises(CorpusError, match="6 utterances|shard-00001.arrow"):
        load_corpus(corpus)
    assert tokenize(corpus) == (3 if damage == "another shard" else 2)
    assert rows(corpus) == WHOLE


def test_a_bit_that_flips_later_is_found_by_tokenizing(corpus, caplog):
    path = corpus / "shard-00002.arrow"
    flip(path, 0.9, keep_time=True)
    assert tokenize(corpus) == 1
    assert "has changed since it was written" in caplog.text
    assert rows(corpus) == WHOLE


def test_a_copy_is_read_once(corpus, tmp_path, monkeypatch):
    read, crc32 = [], checksums._crc32

    def record(path):
        read.append(path.name)
        return crc32(path)

    monkeypatch.setattr(checksums, "_crc32", record)
    load_corpus(corpus)
    assert read == []
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in corpus.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    assert rows(copy) == WHOLE
    assert sorted(read) == [f"shard-0000{i}.arrow" for i in range(3)]
    load_corpus(copy)
    assert len(read) == 3


def test_processes_share_the_reading(corpus, monkeypatch):
    for path in corpus.glob("*.arrow"):
        flip(path, 0.9)
    name = "spiritlm_plugin.dataio.corpus.stores.rank_and_world_size"
    for rank in range(3):
        monkeypatch.setattr(name, lambda rank=rank: (rank, 3))
        with pytest.raises(CorpusError, match=f"shard-0000{rank}.arrow"):
            load_corpus(corpus)


def test_a_checksum_that_cannot_be_kept_does_not_matter(
    corpus, monkeypatch, caplog
):
    def refuse(path, content):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(checksums, "write_file", refuse)
    os.utime(corpus / "shard-00000.arrow", ns=(1, 1))
    with caplog.at_level(logging.INFO):
        assert rows(corpus) == WHOLE
    assert "shard-00000.arrow will be read again: [Errno 13]" in caplog.text


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"bytes": "a"}'])
def test_a_damaged_checksum_is_named(corpus, content):
    (corpus / "shard-00001.json").write_text(content)
    with pytest.raises(CorpusError, match="shard-00001"):
        load_corpus(corpus)
    assert tokenize(corpus) == 2
    assert rows(corpus) == WHOLE


def describe(folder, **changes):
    path = folder / "corpus.json"
    description = json.loads(path.read_text()) | changes
    path.write_text(json.dumps(description))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shards": 2}, "tells of 2 shards, and there is shard-00002.arrow"),
        ({"shards": 4}, "3 of 4 shards are there, shard-00003.arrow is not"),
        ({"utterances": 9}, "it is of another corpus or place"),
        ({"shards": "3"}, "corpus.json says '3' of shards; delete it"),
        ({"shards": 0}, "corpus.json says 0 of shards; delete it"),
        ({"parts": None}, "corpus.json says None of parts; delete it"),
        ({"parts": ["a"]}, "corpus.json says .* of parts; delete it"),
    ],
)
def test_a_description_that_does_not_fit_is_named(corpus, change, message):
    describe(corpus, **change)
    with pytest.raises(CorpusError, match=message):
        load_corpus(corpus)


@pytest.mark.parametrize("kept", [0, 1, 20, -2])
def test_a_damaged_description_is_made_again(corpus, kept):
    path = corpus / "corpus.json"
    before = path.read_bytes()
    path.write_bytes(before[:kept])
    for use in (load_corpus, tokenize):
        with pytest.raises(CorpusError, match=f"cannot read {path}: .*delete"):
            use(corpus)
    path.unlink()
    assert tokenize(corpus) == 0
    assert path.read_bytes() == before
    assert rows(corpus) == WHOLE


@pytest.mark.parametrize("known", [True, False])
def test_shards_of_an_unknown_corpus_are_refused(corpus, known):
    (corpus / "corpus.json").unlink()
    if not known:
        for path in corpus.glob("shard-*.json"):
            path.unlink()
    parts = {"phonetic": "p2"} if known else PARTS
    with pytest.raises(CorpusError, match="00000.arrow is there without a"):
        tokenize(corpus, parts=parts)
    assert not (corpus / "corpus.json").exists()


def test_a_missing_shard_is_named(corpus):
    (corpus / "shard-00001.arrow").unlink()
    with pytest.raises(CorpusError, match="2 of 3 .*shard-00001.arrow is not"):
        load_corpus(corpus)
    assert tokenize(corpus) == 2
    assert rows(corpus) == WHOLE


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path, small_disk):
    folder = tmp_path / "corpus"
    long = {n: i | {"text": "a" * 15_000} for n, i in ITEMS.items()}
    with pytest.raises(DiskFullError, match="no room for .*shard-00000.arrow"):
        tokenize(folder, long)
    assert [path.name for path in folder.iterdir()] == ["corpus.json"]


def test_what_was_being_written_in_a_kill_is_no_shard(corpus):
    path = corpus / "shard-00001.arrow"
    left = Path(f"{path}.partial")
    path.rename(left)
    assert tokenize(corpus) == 2
    assert not left.exists()
    assert rows(corpus) == WHOLE
