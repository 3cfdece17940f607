"""Tests of ``spiritlm_plugin.dataio.corpus.alignment`` and its shards."""

import json
import logging
import shutil

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st

from spiritlm_plugin.dataio.corpus.alignment import align_manifest, spoken_words
from spiritlm_plugin.dataio.corpus.json_shards import ShardError
from spiritlm_plugin.dataio.corpus.manifests import (
    load_manifest,
    write_manifest,
)

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
SIZES = {"shard_utterances": 3, "batch_seconds": 1.0}


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
    items["missing"] = {
        "wav": "{data_root}/wavs/missing.wav",
        "duration": 1.0,
        "text": "a day",
    }
    items["mute"] = items["utterance0"] | {"text": None}
    write_manifest(items, tmp_path / "corpus" / "train.json")
    return tmp_path / "corpus" / "train.json"


@pytest.fixture
def log(caplog, monkeypatch):
    """What is logged, also where SpeechBrain has set up loggers."""
    monkeypatch.setattr(logging.getLogger("spiritlm_plugin"), "propagate", True)
    caplog.set_level(logging.INFO)
    return caplog


def contents(folder):
    files = sorted(folder.rglob("*.json"))
    return {p.relative_to(folder): p.read_text() for p in files}


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
    align_manifest(manifest, tmp_path / "out", Aligner(), **SIZES)
    before = json.loads(manifest.read_text())
    after = json.loads((tmp_path / "out" / "train.json").read_text())
    assert list(after) == list(before)
    for name, item in after.items():
        words = item.pop("words", None)
        assert item.pop("wav").startswith("{data_root}/../corpus/wavs/")
        kept = {k: v for k, v in before[name].items() if k in item}
        assert item == kept
        if name in ("utterance3", "missing", "mute"):
            assert words is None
        elif name == "utterance5":
            assert words == before[name]["words"]
        else:
            assert [word for word, _, _ in words] == item["text"].split()
    loaded = load_manifest(tmp_path / "out" / "train.json")
    assert list(loaded) == [n for n in before if n != "missing"]


def test_the_folders_can_move_together(manifest, tmp_path):
    align_manifest(manifest, tmp_path / "corpus/out", Aligner(), **SIZES)
    shutil.move(tmp_path / "corpus", tmp_path / "moved")
    loaded = load_manifest(tmp_path / "moved/out/train.json")
    assert "words" in loaded["utterance0"]
    align_manifest(
        tmp_path / "moved/train.json", tmp_path / "moved/out", idle(), **SIZES
    )


def test_the_aligner_gets_what_is_said(manifest, tmp_path, log):
    aligner = Aligner()
    align_manifest(manifest, tmp_path / "out", aligner, **SIZES)
    texts = [text for call in aligner.calls for text in call]
    assert ["", "all", "day", "", ""] in texts
    assert ["all", "", "in", "a", "day"] in texts
    # The longest first, in each shard.
    assert [len(call) for call in aligner.calls] == [2, 1, 2, 1]
    assert "train.json: 6 words are markup or have no character" in log.text
    assert "such as '[Hu3]'" in log.text


def test_what_cannot_be_aligned_is_reported(manifest, tmp_path, log):
    align_manifest(manifest, tmp_path / "out", Aligner(), **SIZES)
    messages = [record.getMessage() for record in log.records]
    start = "train.json: {} gets no word times: {}"
    unusable = "the check of the manifest left it out"
    assert start.format("missing", unusable) in messages
    assert start.format("utterance3", "too many characters") in messages
    assert messages[-1] == (
        "train.json: 5 of 9 utterances got word times, 2 could not"
    )
    log.clear()
    align_manifest(manifest, tmp_path / "out", Aligner(), **SIZES)
    assert start.format("utterance3", "too many characters") in log.text


def test_a_recording_that_disappears_is_reported(manifest, tmp_path, log):
    class Remover(Aligner):
        def forward(self, wavs, texts):
            (manifest.parent / "wavs" / "6.wav").unlink(missing_ok=True)
            return super().forward(wavs, texts)

    align_manifest(manifest, tmp_path / "out", Remover(), **SIZES)
    assert "utterance6 gets no word times: no such audio file" in log.text
    items = json.loads((tmp_path / "out" / "train.json").read_text())
    assert "words" not in items["utterance6"]
    assert "words" in items["utterance4"]


@pytest.mark.parametrize("fails_at", range(4))
def test_a_run_goes_on_where_it_was_killed(manifest, tmp_path, fails_at):
    align_manifest(manifest, tmp_path / "whole", Aligner(), **SIZES)
    folder = tmp_path / "killed"
    with pytest.raises(KeyboardInterrupt):
        aligner = Aligner(fails_at=fails_at)
        align_manifest(manifest, folder, aligner, **SIZES)
    assert not (folder / "train.json").exists()
    done = sorted((folder / "shards").glob("train-*.json"))
    assert len(done) == fails_at // 2
    times = [path.stat().st_mtime_ns for path in done]
    partial = folder / "shards" / "train-00001.json.123.partial"
    partial.write_text("{")
    aligner = Aligner()
    align_manifest(manifest, folder, aligner, **SIZES)
    assert len(aligner.calls) == 4 - 2 * len(done)
    assert [path.stat().st_mtime_ns for path in done] == times
    assert contents(folder) == contents(tmp_path / "whole")
    assert not partial.exists()


def test_workers_read_the_same(manifest, tmp_path):
    align_manifest(manifest, tmp_path / "a", Aligner(), **SIZES)
    align_manifest(manifest, tmp_path / "b", Aligner(), **SIZES, workers=1)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_a_manifest_with_all_words_is_copied(manifest, tmp_path):
    items = json.loads(manifest.read_text())
    items = {"utterance5": items["utterance5"]}
    write_manifest(items, manifest)
    align_manifest(manifest, tmp_path / "out", idle())
    copied = load_manifest(tmp_path / "out" / "train.json")
    assert copied["utterance5"]["words"] == items["utterance5"]["words"]


def change_text(manifest, shards):
    text = manifest.read_text().replace("a day", "all day")
    manifest.write_text(text)


def forget(manifest, shards):
    (shards / "train.json").unlink()


@pytest.mark.parametrize(
    "change, aligner, sizes, message",
    [
        (None, Aligner(1.0), {}, "with another aligner"),
        (None, Aligner(), {"shard_utterances": 2}, "another shard_utterances"),
        (change_text, Aligner(), {}, "with another manifest"),
        (forget, Aligner(), {}, "with another manifest"),
    ],
)
def test_other_shards_are_refused(
    manifest, tmp_path, change, aligner, sizes, message
):
    align_manifest(manifest, tmp_path / "out", Aligner(), **SIZES)
    before = contents(tmp_path / "out" / "shards")
    if change is not None:
        change(manifest, tmp_path / "out" / "shards")
        before = contents(tmp_path / "out" / "shards")
    with pytest.raises(ShardError, match=f"{message}.*; delete them, or name"):
        align_manifest(manifest, tmp_path / "out", aligner, **SIZES | sizes)
    assert contents(tmp_path / "out" / "shards") == before


@pytest.mark.parametrize(
    "content, message",
    [
        ("{", "cannot read .*train-00001.json: .*; delete it"),
        ("7", "cannot read .*train-00001.json: .*; delete it"),
        ('{"x": {}}', "train-00001.json has other utterances"),
    ],
)
def test_damaged_shards_are_named(manifest, tmp_path, content, message):
    align_manifest(manifest, tmp_path / "out", Aligner(), **SIZES)
    (tmp_path / "out" / "shards" / "train-00001.json").write_text(content)
    with pytest.raises(ShardError, match=message):
        align_manifest(manifest, tmp_path / "out", Aligner(), **SIZES)


def test_arguments_are_checked(manifest, tmp_path):
    before = manifest.read_text()
    with pytest.raises(ValueError, match="is the folder of train.json itself"):
        align_manifest(manifest, manifest.parent, Aligner())
    with pytest.raises(ValueError, match="at least 1 utterance, got 0"):
        align_manifest(manifest, tmp_path / "o", Aligner(), shard_utterances=0)
    assert manifest.read_text() == before
    with pytest.raises(FileNotFoundError, match="no such manifest: .*dev.json"):
        align_manifest(manifest.with_name("dev.json"), tmp_path, Aligner())
