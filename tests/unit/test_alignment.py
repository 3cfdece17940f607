"""Tests of ``spiritlm_plugin.dataio.corpus.alignment``."""

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st

from spiritlm_plugin.dataio.corpus.alignment import align_corpus, spoken_words
from spiritlm_plugin.dataio.corpus.manifests import (
    load_manifest,
    open_source,
    write_manifest,
)
from spiritlm_plugin.dataio.corpus.stores import CorpusError, Store
from spiritlm_plugin.utils.files import DiskFullError

TEXTS = [
    "a day",
    "[Hu3] all day [background noise]",
    "all <unk> in[Pi2] a day",
    "too long",
    "42 all -- day",
    "day",
    "all",
]
# Shards of three utterances, batches of one or two.
SIZES = {"shard_seconds": 1.2, "batch_seconds": 1.0}


class Aligner(torch.nn.Module):
    """Words of equal length; fails for "long" and at a given call."""

    characters = {letter: 1 for letter in "ADILNOY"}

    def __init__(self, weight=0.0, fails_at=None):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(weight))
        self.fails_at = fails_at
        self.calls = []

    def forward(self, wavs, texts):
        if len(self.calls) == self.fails_at:
            raise KeyboardInterrupt
        self.calls.append(texts)
        assert all(wav.shape[0] > 1280 for wav in wavs)
        return [self.align(len(w) / 16000, t) for w, t in zip(wavs, texts)]

    def align(self, seconds, words):
        if "long" in words:
            return ValueError("too many characters")
        width = seconds / len(words)
        return [
            (word, round(i * width, 4), round((i + 1) * width, 4))
            for i, word in enumerate(words)
        ]


def idle():
    """Return the same aligner, for when all shards are there."""
    return Aligner(fails_at=0)


@pytest.fixture
def manifest(tmp_path):
    generator = np.random.default_rng(0)
    items = {}
    for i, text in enumerate(TEXTS):
        path = tmp_path / "corpus" / "wavs" / f"{i}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        samples = 8000 - 160 * i
        soundfile.write(path, generator.normal(size=samples) / 9, 16000)
        items[f"utterance{i}"] = {
            "wav": f"{{data_root}}/wavs/{i}.wav",
            "duration": samples / 16000,
            "text": text,
            "speaker": "s",
        }
    items["utterance5"]["words"] = [["day", 0.1, 0.2]]
    items["mute"] = items["utterance0"] | {"text": None}
    write_manifest(items, tmp_path / "corpus" / "train.json")
    return tmp_path / "corpus" / "train.json"


@pytest.fixture
def log(caplog, monkeypatch):
    """What is logged, also where SpeechBrain has set up loggers."""
    monkeypatch.setattr(logging.getLogger("spiritlm_plugin"), "propagate", True)
    caplog.set_level(logging.INFO)
    return caplog


def align(manifest, folder, aligner=None, **options):
    align_corpus(
        open_source(manifest),
        folder / "train",
        aligner or Aligner(),
        root=manifest.parent,
        device="cpu",
        **{**SIZES, **options},
    )


def contents(folder):
    files = sorted(folder.rglob("*.arrow"))
    return {p.relative_to(folder): p.read_bytes() for p in files}


@given(st.text(st.sampled_from("ab[]<> \n\t-\0\x1c\x85\u2003"), max_size=30))
def test_each_word_is_said_or_not(text):
    spoken = spoken_words(text)
    assert len(spoken) == len(text.split())
    if not set(text) & set("[<\0"):
        assert spoken == text.split()


@pytest.mark.parametrize(
    "text, words",
    [
        ("[Speech][Hu3][Pi0] it's", ["", "it's"]),
        ("<s> one</s> <unk>two", ["", "one", "two"]),
        ("a < b > c [ d", ["a", "<", "b", ">", "c", "[", "d"]),
        ("[a [b] c]", ["[a", "", "c]"]),
    ],
)
def test_markup_is_not_said(text, words):
    assert spoken_words(text) == words


def test_words_get_times_and_all_else_stays(manifest, tmp_path):
    align(manifest, tmp_path / "out")
    before = load_manifest(manifest)
    after = load_manifest(tmp_path / "out" / "train")
    assert list(after) == list(before)
    for name, item in after.items():
        words = item.pop("words", None)
        item.pop("unheard", None)
        assert (item.pop("no_words", None) is None) == (name != "utterance3")
        kept = {k: v for k, v in before[name].items() if v is not None}
        kept.pop("words", None)
        assert Path(item.pop("wav")).samefile(kept.pop("wav"))
        assert item == kept
        if name in ("utterance3", "mute"):
            assert words is None
        elif name == "utterance5":
            assert words == before[name]["words"]
        else:
            assert [word for word, _, _ in words] == item["text"].split()


def test_the_folders_can_move_together(manifest, tmp_path):
    align(manifest, tmp_path / "corpus/out")
    shutil.move(tmp_path / "corpus", tmp_path / "moved")
    moved = tmp_path / "moved"
    loaded = load_manifest(moved / "out/train")
    assert "words" in loaded["utterance0"]
    assert Path(loaded["utterance0"]["wav"]).samefile(moved / "wavs/0.wav")


def test_recordings_elsewhere_keep_their_names(manifest, tmp_path):
    source = open_source(manifest)
    folder = tmp_path / "out"
    align_corpus(source, folder, Aligner(), root=folder, device="cpu")
    rows = Store(folder).raw(0, 1)
    assert rows[0]["wav"] == source.items(0, 1)["utterance0"]["wav"]


def test_the_aligner_gets_what_is_said(manifest, tmp_path, log):
    aligner = Aligner()
    align(manifest, tmp_path, aligner)
    texts = [text for call in aligner.calls for text in call]
    assert ["", "all", "day", "", ""] in texts
    assert ["all", "", "in", "a", "day"] in texts
    # The longest first, in each shard.
    assert [len(call) for call in aligner.calls] == [2, 1, 2, 1]
    assert "train: 6 words are markup or have no character" in log.text
    assert "such as '[Hu3]'" in log.text


def test_what_cannot_be_aligned_is_reported(manifest, tmp_path, log):
    for _ in range(2):
        log.clear()
        align(manifest, tmp_path)
        messages = [record.getMessage() for record in log.records]
        assert any(
            m.endswith("utterance3 gets no word times: too many characters")
            for m in messages
        )
        assert messages[-1].endswith(
            "train: 6 of 8 utterances have word times, 1 could not get them"
        )


def test_not_all_that_fail_are_named(manifest, tmp_path, log):
    item = open_source(manifest).items(0, 1)["utterance0"]
    items = {f"u{i}": item | {"text": "too long"} for i in range(25)}
    align_corpus(items, tmp_path / "out", Aligner(), device="cpu")
    assert log.text.count("gets no word times") == 20
    assert "0 of 25 utterances have word times, 25 could not" in log.text


def test_what_failed_can_be_tried_with_another(manifest, tmp_path):
    class Able(Aligner):
        def forward(self, wavs, texts):
            return super().forward(wavs, [["short"] * len(t) for t in texts])

    align(manifest, tmp_path / "once")
    align(tmp_path / "once" / "train", tmp_path / "twice", Able())
    item = load_manifest(tmp_path / "twice" / "train")["utterance3"]
    assert [word for word, _, _ in item["words"]] == ["too", "long"]
    assert "no_words" not in item


def test_a_recording_that_disappears_is_reported(manifest, tmp_path, log):
    class Remover(Aligner):
        def forward(self, wavs, texts):
            (manifest.parent / "wavs" / "6.wav").unlink(missing_ok=True)
            return super().forward(wavs, texts)

    align(manifest, tmp_path / "out", Remover(), workers=0)
    assert "utterance6 gets no word times: no such audio file" in log.text
    rows = Store(tmp_path / "out" / "train").raw(0, 8)
    assert rows[6]["words"] == [] and rows[4]["words"] != []


@pytest.mark.parametrize("fails_at, shards", list(enumerate([0, 0, 1, 2])))
def test_a_run_goes_on_where_it_was_killed(
    manifest, tmp_path, fails_at, shards
):
    align(manifest, tmp_path / "whole")
    folder = tmp_path / "killed"
    with pytest.raises(KeyboardInterrupt):
        align(manifest, folder, Aligner(fails_at=fails_at))
    done = sorted(folder.rglob("*.arrow"))
    assert len(done) == shards
    times = [path.stat().st_mtime_ns for path in done]
    aligner = Aligner()
    align(manifest, folder, aligner)
    assert len(aligner.calls) == [4, 2, 1][shards]
    assert [path.stat().st_mtime_ns for path in done] == times
    assert contents(folder) == contents(tmp_path / "whole")


def test_threads_read_the_same(manifest, tmp_path):
    for workers in range(3):
        align(manifest, tmp_path / str(workers), workers=workers)
    first, *others = (contents(tmp_path / str(n)) for n in range(3))
    assert others == [first, first]


def test_a_corpus_with_all_words_is_copied(manifest, tmp_path):
    items = {"a": open_source(manifest).items(5, 6)["utterance5"]}
    align_corpus(items, tmp_path / "out", idle(), device="cpu")
    assert Store(tmp_path / "out").items(0, 1) == items


def change_text(manifest):
    text = manifest.read_text().replace("a day", "all day")
    manifest.write_text(text)


@pytest.mark.parametrize(
    "change, options, message",
    [
        (None, {"aligner": Aligner(1.0)}, "with other aligner"),
        (None, {"precision": "bf16"}, "with other precision"),
        (None, {"shard_seconds": 0.6}, "8 utterances in 3 shards"),
        (change_text, {}, "the same with other texts"),
    ],
)
def test_another_store_is_refused(manifest, tmp_path, change, options, message):
    align(manifest, tmp_path / "out")
    before = contents(tmp_path / "out")
    if change is not None:
        change(manifest)
    with pytest.raises(CorpusError, match=f"{message}.*delete it or name"):
        align(manifest, tmp_path / "out", **options)
    assert contents(tmp_path / "out") == before


def test_damaged_shards_are_made_anew(manifest, tmp_path):
    align(manifest, tmp_path / "out")
    before = contents(tmp_path / "out")
    shard = tmp_path / "out" / "train" / "shard-00001.arrow"
    shard.write_bytes(shard.read_bytes()[:-9])
    align(manifest, tmp_path / "out")
    assert contents(tmp_path / "out") == before


def test_a_full_disk_is_named(manifest, tmp_path, small_disk):
    item = open_source(manifest).items(5, 6)["utterance5"]
    items = {"a": item | {"text": "a" * 30_000}}
    with pytest.raises(DiskFullError, match="no room for .*shard-00000.arrow"):
        align_corpus(items, tmp_path / "out", Aligner(), device="cpu")
    assert not contents(tmp_path / "out")


def test_a_recording_that_changed_is_named(manifest, tmp_path):
    source = open_source(manifest)
    path = manifest.parent / "wavs" / "1.wav"
    soundfile.write(path, np.ones(3000) / 9, 16000)
    message = r"1\.wav has 0\.19 s, and 0\.49 when it was prepared; prepare"
    with pytest.raises(CorpusError, match=message):
        align_corpus(source, tmp_path / "out", Aligner(), device="cpu", **SIZES)
