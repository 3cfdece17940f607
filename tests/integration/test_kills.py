"""Preparing, aligning and tokenizing that are killed, or find the disk full."""

import multiprocessing
import random
import resource
import signal
import time

import numpy as np
import pytest
import soundfile
import torch

from spiritlm_plugin.dataio.corpus import preparation
from spiritlm_plugin.dataio.corpus.alignment import align_corpus
from spiritlm_plugin.dataio.corpus.manifests import open_source, write_manifest
from spiritlm_plugin.dataio.corpus.merging import merge_shards
from spiritlm_plugin.dataio.corpus.preparation import prepare
from spiritlm_plugin.dataio.corpus.unit_store import tokenize_corpus
from spiritlm_plugin.dataio.units.units import SpeechUnits
from spiritlm_plugin.utils.files import DiskFullError

UTTERANCES, KILLS = 40, 10
# Two utterances a shard.
SHARD_SECONDS = 0.7
# A child is killed so long after it began, at most; a whole run takes longer.
LATEST_SECONDS = 0.25


def tokenizer(wavs):
    time.sleep(0.05)
    loud = [(wav[:8000].view(-1, 400).abs().sum(1) * 100) for wav in wavs]
    return [SpeechUnits(units.long()) for units in loud]


class Aligner(torch.nn.Module):
    """Words of equal length."""

    characters = {letter: 1 for letter in "ADLY"}

    def forward(self, wavs, texts):
        time.sleep(0.05)
        spans = []
        for wav, words in zip(wavs, texts):
            width = len(wav) / 16000 / len(words)
            spans.append(
                [(w, i * width, (i + 1) * width) for i, w in enumerate(words)]
            )
        return spans


def tokenize(source, folder):
    tokenize_corpus(source, folder, tokenizer, {"phonetic": "1"}, SHARD_SECONDS)


def align(source, folder):
    align_corpus(
        source, folder, Aligner(), shard_seconds=SHARD_SECONDS, device="cpu"
    )


def prepare_slowly(source, folder):
    def read():
        for name, item in source.items(0, UTTERANCES).items():
            time.sleep(0.005)
            yield name, item

    prepare({folder.name: read()}, folder.parent)


def make(step, manifests, folder, started=None):
    """Do what a recipe does with a split."""
    torch.set_num_threads(1)
    preparation.ROWS = 4
    if started is not None:
        started.set()
    step(open_source(manifests / "train"), folder)
    if step is not prepare_slowly:
        merge_shards(folder, 4000)


@pytest.fixture(scope="module")
def manifests(tmp_path_factory):
    folder = tmp_path_factory.mktemp("manifests")
    generator = np.random.default_rng(0)
    items = {}
    for i in range(UTTERANCES):
        samples = generator.normal(size=8000 + 160 * (i % 7)) / 9
        soundfile.write(folder / f"{i}.wav", samples, 16000)
        items[f"u{i}"] = {
            "wav": f"{{data_root}}/{i}.wav",
            "duration": len(samples) / 16000,
            "text": "all day",
        }
    write_manifest(items, folder / "train.json")
    open_source(folder / "train")  # keeps that the recordings are fine
    return folder


def contents(folder):
    return {
        path.name: path.read_bytes()
        for path in sorted(folder.iterdir())
        if path.suffix == ".arrow" or path.name == "corpus.json"
    }


@pytest.mark.slow
@pytest.mark.parametrize("step", [prepare_slowly, tokenize, align])
def test_a_run_that_is_killed_ends_the_same(
    manifests, tmp_path, step, monkeypatch
):
    monkeypatch.setattr(preparation, "ROWS", preparation.ROWS)  # put back
    make(step, manifests, tmp_path / "whole")
    # A server that has imported all forks what is killed.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    draws = random.Random(step.__name__)
    killed = tmp_path / "killed"
    for _ in range(KILLS):
        started = context.Event()
        child = context.Process(
            target=make, args=[step, manifests, killed, started]
        )
        child.start()
        assert started.wait(120)
        time.sleep(draws.uniform(0, LATEST_SECONDS))
        child.kill()
        child.join()
        assert child.exitcode in (0, -signal.SIGKILL)
    make(step, manifests, killed)
    assert contents(killed) == contents(tmp_path / "whole")
    assert not list(killed.glob("*.partial"))


@pytest.fixture
def small_disk():
    """Let no file be longer than 20 kB, as if the disk were full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def make_room():
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    yield make_room
    make_room()


@pytest.mark.parametrize("step", [tokenize, align])
def test_a_full_disk_is_named_and_room_helps(
    manifests, tmp_path, step, small_disk
):
    items = open_source(manifests / "train").items(0, 8)
    items["u5"] = items["u5"] | {"text": "day " * 5000}
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    with pytest.raises(DiskFullError, match="no room for .*shard-0000"):
        step(items, killed)
    assert not list(killed.glob("*.partial"))
    small_disk()
    step(items, killed)
    step(items, whole)
    assert contents(killed) == contents(whole)
