"""Tokenizing of corpora: utterances become stores with speech units.

A shard is there when it is complete, so a run that was killed goes on where it
stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from spiritlm_plugin.dataio.audio.read_ahead import read_ahead
from spiritlm_plugin.dataio.audio.reading import read_audio
from spiritlm_plugin.dataio.checkpoints import digest_values, digest_weights
from spiritlm_plugin.dataio.corpus.mapping import (
    Items,
    Listed,
    Source,
    Work,
    divide,
    map_shards,
)
from spiritlm_plugin.dataio.corpus.shards import STREAMS, make_row
from spiritlm_plugin.dataio.corpus.stores import CorpusError
from spiritlm_plugin.dataio.units.units import SAMPLE_RATE, SpeechUnits
from spiritlm_plugin.utils.engines import Engine

# What durations in manifests may be off by, seconds.
_TOLERANCE = 0.05
# Of a batch, how much of a shard is read before there are units of it.
_FIRST = 0.1

Tokenizer = Callable[[Sequence[Tensor]], Sequence[SpeechUnits]]


def fingerprints(tokenizer: nn.Module) -> dict[str, str]:
    """Return what tells a tokenizer's parts from all others.

    Arguments
    ---------
    tokenizer : SpeechTokenizer
        Ready for inference.

    Returns
    -------
    dict of str to str
        For each stream, of its weights and the windows that it hears.

    Example
    -------
    >>> codec = SpeechCodec.from_hparams("tinyspeech")
    >>> list(fingerprints(codec.mods.tokenizer))
    ['phonetic', 'pitch', 'style']
    """
    parts = {name: getattr(tokenizer, name) for name in STREAMS}
    return {n: _digest(part) for n, part in parts.items() if part is not None}


def _digest(part: nn.Module) -> str:
    weights = digest_weights(part)
    window = getattr(part, "window_seconds", None)
    # Without windows there is no more to it, as before there were any.
    return digest_values([weights, window]) if window else weights


def tokenize_corpus(
    source: Source | Items,
    folder: str | Path,
    tokenizer: Tokenizer,
    parts: Mapping[str, str],
    shard_seconds: float = 3600.0,
    batch_seconds: float = 400.0,
    workers: int = 1,
    description: Mapping[str, Any] | None = None,
    engine: Engine = "torchrun",
    device: str | None = None,
) -> None:
    """Tokenize a corpus, or what is left to do of it.

    Under ``torchrun`` all processes call this and share the work. Shards that
    are there are read and compared with their checksums; damaged ones are made
    anew.

    Arguments
    ---------
    source : Source or dict
        A `Store`, or the entries of a manifest, as from `load_manifest`. What
        is known of an utterance is kept.
    folder : str or Path
        Of the corpus.
    tokenizer : callable
        Waveforms at 16 kHz to units, such as a `SpeechTokenizer`. It is
        called once for each batch. Ray pickles it.
    parts : dict of str to str
        `fingerprints` of the tokenizer.
    shard_seconds, batch_seconds : float
        Audio in a shard, and at a time in memory.
    workers : int
        Threads that read audio.
    description : dict, optional
        What the units depend on besides, such as what is done to recordings
        before the tokenizer listens.
    engine, device
        As of `spiritlm_plugin.utils.engines.run`.

    Raises
    ------
    CorpusError
        If the folder holds a corpus of other utterances, parts or another
        description, or shards of an unknown one.
    DiskFullError
        If there is no room for a shard.

    Example
    -------
    >>> def tokenizer(wavs):
    ...     return [SpeechUnits(range(len(w) // 640)) for w in wavs]
    >>> items = {"a": {"wav": recording, "duration": 2.4, "text": "all day"}}
    >>> tokenize_corpus(items, tmp / "corpus", tokenizer, {"phonetic": "1"})
    >>> from spiritlm_plugin.dataio.corpus.stores import load_corpus
    >>> corpus = load_corpus(tmp / "corpus")
    >>> corpus[0]["text"], corpus[0]["phonetic_units"][:4]
    ('all day', tensor([0, 1, 2, 3]))
    """
    map_shards(
        Listed(source) if isinstance(source, Mapping) else source,
        folder,
        partial(_make_work, tokenizer, batch_seconds, workers),
        {"parts": dict(parts), **(description or {})},
        shard_seconds=shard_seconds,
        name=f"tokenizing {Path(folder).name}",
        engine=engine,
        device=device,
        cpus=max(1, workers),
    )


def _make_work(
    tokenizer: Tokenizer, batch_seconds: float, workers: int
) -> Work:
    def work(items: Items) -> Iterator[dict[str, Any]]:
        batches = _divide(items, batch_seconds)
        wavs = [[i["wav"] for i in batch.values()] for batch in batches]
        read = read_ahead(wavs, read_audio, workers)
        for batch, waveforms in zip(batches, read):
            check_durations(batch, waveforms)
            for (name, item), units in zip(batch.items(), tokenizer(waveforms)):
                yield make_row(name, item, units)

    return work


def check_durations(items: Items, wavs: Sequence[Tensor]) -> None:
    """Refuse recordings that are not those that were prepared.

    Arguments
    ---------
    items : dict
        Entries of a manifest.
    wavs : sequence of Tensor
        Of each its recording, (samples,), at 16 kHz.

    Raises
    ------
    CorpusError
        If a recording has another length than its entry says.

    Example
    -------
    >>> import torch
    >>> items = {"a": {"wav": "a.wav", "duration": 1.0}}
    >>> check_durations(items, [torch.zeros(16000)])
    """
    for item, wav in zip(items.values(), wavs):
        seconds = len(wav) / SAMPLE_RATE
        if abs(seconds - item["duration"]) > _TOLERANCE:
            raise CorpusError(
                f"{item['wav']} has {seconds:.2f} s, and {item['duration']:.2f} "
                "when it was prepared; prepare the corpus again"
            )


def _divide(items: Items, seconds: float) -> list[dict[str, Any]]:
    """Divide utterances, in their order, into batches of so many seconds.

    The first one, which nothing is done beside, is small.
    """
    rows = [*items.items()]
    durations = [item["duration"] for item in items.values()]
    [(_, first), *_] = divide(durations, seconds * _FIRST)
    rest = divide(durations[first:], seconds)
    pieces = [(0, first), *((first + a, first + b) for a, b in rest)]
    return [dict(rows[start:stop]) for start, stop in pieces]
