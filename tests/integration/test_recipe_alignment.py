"""The recipe that gives a corpus word times, with a tiny recognizer."""

import importlib.util
import sys
from pathlib import Path

import pytest
import soundfile
import torch

from spiritlm_plugin.dataio.corpus.manifests import (
    load_manifest,
    write_manifest,
)
from spiritlm_plugin.dataio.corpus.stores import CorpusError
from tests.integration.helpers import save_recognizer

RECIPE = Path(__file__).parents[2] / "recipes" / "LibriSpeech" / "pretraining"
TEXTS = [
    "northanger abbey",
    "the old man",
    "[Speech][Hu3] it's [noise] a long day",
    "12 <unk>",
    "words " * 60,
    "all day long",
    "a cat",
]


@pytest.fixture(scope="module")
def recognizer(tmp_path_factory):
    return save_recognizer(tmp_path_factory.mktemp("ctc") / "one", 0)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    generator = torch.Generator().manual_seed(0)
    for split in ("train", "valid"):
        items = {}
        for i, text in enumerate(TEXTS):
            name = f"{split}_{i}"
            wav = 0.1 * torch.randn(16000 + 2000 * i, generator=generator)
            soundfile.write(folder / f"{name}.wav", wav.numpy(), 16000)
            items[name] = {
                "wav": f"{{data_root}}/{name}.wav",
                "duration": len(wav) / 16000,
                "text": text.strip(),
            }
        items[f"{split}_6"]["words"] = [["a", 0.1, 0.2], ["cat", 0.2, 0.5]]
        items["corrupt"] = items[f"{split}_0"] | {"wav": "{data_root}/bad.wav"}
        write_manifest(items, folder / f"{split}.json")
    (folder / "bad.wav").write_bytes(b"RIFF")
    return folder


def arguments(corpus, recognizer, folder, file_bytes=0):
    return [
        str(RECIPE / "hparams" / "align.yaml"),
        f"--manifest_folder={corpus}",
        f"--aligner={recognizer}",
        f"--output_folder={folder}",
        "--splits=[train, valid]",
        "--shard_seconds=2",
        "--batch_seconds=4",
        f"--file_bytes={file_bytes}",
    ]


def run(*options):
    """Run the script in this process."""
    path = RECIPE / "align.py"
    spec = importlib.util.spec_from_file_location("align", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(path)])
        module.main(arguments(*options))


@pytest.fixture(scope="module")
def aligned(corpus, recognizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("results") / "aligned"
    run(corpus, recognizer, folder)
    return folder


def results(folder):
    files = sorted(folder.rglob("*.arrow"))
    return {p.relative_to(folder): p.read_bytes() for p in files}


@pytest.mark.parametrize("split", ["train", "valid"])
def test_words_have_times_in_the_audio(aligned, split):
    items = load_manifest(aligned / split)
    assert list(items) == [f"{split}_{i}" for i in range(len(TEXTS))]
    for i in (0, 1, 2, 5):
        item = items[f"{split}_{i}"]
        assert [word for word, _, _ in item["words"]] == TEXTS[i].split()
        for word, start, end in item["words"]:
            assert 0 <= start <= end <= item["duration"]
            assert start < end or word.startswith("[")
    assert items[f"{split}_6"]["words"] == [["a", 0.1, 0.2], ["cat", 0.2, 0.5]]


def test_what_cannot_be_aligned_is_reported_and_kept(aligned):
    items = load_manifest(aligned / "train")
    assert not any("words" in items[f"train_{i}"] for i in (3, 4))
    log = (aligned / "log.txt").read_text()
    assert "train_3 gets no word times: the recognizer knows no char" in log
    assert "train_4 gets no word times: 359 characters are too many" in log
    assert "corrupt" in log
    assert "2 words are markup or have no character" in log
    assert "valid: 5 of 7 utterances have word times, 2 could not" in log


def test_a_run_goes_on(corpus, recognizer, aligned):
    before = results(aligned)
    shards = sorted(aligned.glob("train/*.arrow"))
    assert len(shards) == 4
    shards.pop(1).unlink()
    times = [path.stat().st_mtime_ns for path in shards]
    run(corpus, recognizer, aligned)
    assert [path.stat().st_mtime_ns for path in shards] == times
    assert results(aligned) == before


def test_shards_are_merged(corpus, recognizer, aligned, tmp_path):
    for _ in range(2):  # a merged store is complete
        run(corpus, recognizer, tmp_path, 1_000_000)
        assert len(results(tmp_path)) == 2
    merged, alone = (load_manifest(f / "valid") for f in (tmp_path, aligned))
    for item in (*merged.values(), *alone.values()):
        item["wav"] = Path(item["wav"]).resolve()
    assert merged == alone


def test_another_aligner_is_refused(corpus, aligned, tmp_path):
    other = save_recognizer(tmp_path / "other", 1)
    with pytest.raises(CorpusError, match="other aligner .*; delete it"):
        run(corpus, other, aligned)


def test_the_manifests_are_not_written_over(corpus, recognizer):
    with pytest.raises(ValueError, match="name another output_folder"):
        run(corpus, recognizer, corpus)


@pytest.mark.slow
def test_two_processes_make_the_same(
    corpus, recognizer, aligned, tmp_path, two_processes
):
    folder = tmp_path / "two"
    two_processes(RECIPE / "align.py", *arguments(corpus, recognizer, folder))
    assert results(folder) == results(aligned)
