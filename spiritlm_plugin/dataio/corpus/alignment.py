"""Word times for corpora that have none, by an aligner."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

from speechbrain.utils.distributed import run_on_main
from torch import Tensor, nn

from spiritlm_plugin.dataio.audio.read_ahead import read_ahead
from spiritlm_plugin.dataio.audio.reading import read_audio
from spiritlm_plugin.dataio.batching import length_batches
from spiritlm_plugin.dataio.checkpoints import digest_weights
from spiritlm_plugin.dataio.corpus.mapping import (
    Items,
    Listed,
    Source,
    Work,
    map_shards,
)
from spiritlm_plugin.dataio.corpus.shards import make_row
from spiritlm_plugin.dataio.corpus.stores import ROOT, Store
from spiritlm_plugin.dataio.corpus.unit_store import check_durations
from spiritlm_plugin.utils.engines import Engine
from spiritlm_plugin.utils.placing import Placed

logger = logging.getLogger(__name__)

# As in "[Speech]", "[background noise]" and "<unk>".
_MARKUP = re.compile(r"\[[^\[\]]*\]|<[^<>\s]*>")
# What is kept of an utterance: why it has no words, and which of its words
# were not looked for.
_NO_WORDS, _UNHEARD = "no_words", "unheard"
# So many utterances are named.
_MOST_NAMED = 20
# Waveforms and their words to spans, or to the error that tells why not.
_Align = Callable[[Sequence[Tensor], Sequence[Sequence[str]]], Sequence[Any]]


def spoken_words(text: str) -> list[str]:
    """Return the words of a transcript without what is not said.

    Arguments
    ---------
    text : str
        Words, and markup such as ``[Speech]``, ``[Hu3]`` and ``<unk>``.

    Returns
    -------
    list of str
        As many as ``text.split()`` has; empty where there is only markup.

    Example
    -------
    >>> spoken_words("[background noise] all <unk> day[Hu3]")
    ['', '', 'all', '', 'day']
    """
    masked = _MARKUP.sub(lambda m: re.sub(r"\S", "\0", m[0]), text)
    return [word.replace("\0", "") for word in masked.split()]


def align_corpus(
    source: Source | Items,
    folder: str | Path,
    aligner: nn.Module,
    root: str | Path | None = None,
    shard_seconds: float = 3600.0,
    batch_seconds: float = 120.0,
    workers: int = 1,
    engine: Engine = "torchrun",
    device: str | None = None,
    precision: str = "fp32",
) -> None:
    """Make a store with word times of a corpus, or what is left to do of it.

    Utterances with a transcript and without words get them; all else stays as
    it is. What cannot be aligned is reported and goes without. Markup and
    words of unknown characters lie between their neighbours. Under
    ``torchrun`` all processes call this and share the work; a run that was
    killed goes on from the shards that it has completed.

    Arguments
    ---------
    source : Source or dict
        A `Store`, or the entries of a manifest, as from `load_manifest`.
    folder : str or Path
        Of the store to make.
    aligner : CTCAligner
        On the CPU; Ray pickles it.
    root : str or Path, optional
        Folder of the manifests. Recordings below it are named by their place
        in it, so that both folders can move together.
    shard_seconds : float
        Audio in a shard.
    batch_seconds : float
        Audio in a batch, padding included.
    workers : int
        Threads that read audio.
    engine, device
        As of `spiritlm_plugin.utils.engines.run`.
    precision : str
        Of `Placed`.

    Raises
    ------
    CorpusError
        If the folder holds a store of other utterances or another aligner.
    DiskFullError
        If there is no room for a shard.

    Example
    -------
    >>> class Slow(torch.nn.Module):
    ...     characters = {letter: 1 for letter in "ady l"}
    ...     def forward(self, wavs, texts):
    ...         return [[(w, i, i + 1) for i, w in enumerate(words)]
    ...                 for words in texts]
    >>> items = {"a": {"wav": recording, "duration": 2.4, "text": "all day"}}
    >>> align_corpus(items, tmp / "aligned", Slow(), device="cpu")
    >>> Store(tmp / "aligned").items(0, 1)["a"]["words"]
    [['all', 0.0, 1.0], ['day', 1.0, 2.0]]
    """
    folder = Path(folder)
    characters = cast("dict[str, int]", aligner.characters)
    description = {
        "aligner": digest_weights(aligner),
        "characters": "".join(sorted(characters, key=characters.__getitem__)),
        "precision": precision,
    }
    map_shards(
        Listed(source) if isinstance(source, Mapping) else source,
        folder,
        partial(
            _make_work,
            Placed(aligner, device, precision),
            frozenset(characters),
            _find_place(root, folder),
            batch_seconds,
            workers,
        ),
        description,
        shard_seconds=shard_seconds,
        name=f"aligning {folder.name}",
        engine=engine,
        device=device,
        cpus=max(1, workers),
    )
    run_on_main(_report, args=[folder])


def _find_place(root: str | Path | None, folder: Path) -> tuple[str, str]:
    """Return a beginning of paths, and what it is seen from a store."""
    if root is None:
        return "", ""
    root, parent = Path(root).resolve(), folder.resolve().parent
    return f"{root}/", f"{ROOT}/{os.path.relpath(root, parent)}/"


def _make_work(
    align: _Align,
    characters: Collection[str],
    place: tuple[str, str],
    batch_seconds: float,
    workers: int,
) -> Work:
    before, after = place

    def work(items: Items) -> Iterator[dict[str, Any]]:
        found = _align(items, align, characters, batch_seconds, workers)
        for name, item in items.items():
            if name in found:
                item = {k: v for k, v in item.items() if k != _NO_WORDS}
                item |= found[name]
            wav = item["wav"]
            if before and wav.startswith(before):
                wav = after + wav[len(before) :]
            yield make_row(name, {**item, "wav": wav})

    return work


def _align(
    items: Items,
    align: _Align,
    characters: Collection[str],
    batch_seconds: float,
    workers: int,
) -> dict[str, dict[str, Any]]:
    """Return what is found out about the utterances without words."""
    wanted = [
        (name, item)
        for name, item in items.items()
        if not item.get("words") and (item.get("text") or "").strip()
    ]
    durations = [item["duration"] for _, item in wanted]
    batches = [
        dict(wanted[i] for i in batch)
        for batch in length_batches(durations, batch_seconds)
    ]
    wavs = [[item["wav"] for item in batch.values()] for batch in batches]
    found: dict[str, dict[str, Any]] = {}
    for batch, read in zip(batches, read_ahead(wavs, _read, workers)):
        found |= _align_batch(batch, read, align, characters)
    return found


def _read(wav: str) -> Tensor | str:
    """Return a recording, or why it cannot be read."""
    try:
        return read_audio(wav)
    except (OSError, ValueError) as error:
        return str(error)


def _align_batch(
    batch: Items,
    wavs: Sequence[Tensor | str],
    align: _Align,
    characters: Collection[str],
) -> dict[str, dict[str, Any]]:
    """Return the words of each utterance, or why it has none."""
    rows: dict[str, dict[str, Any]] = {
        n: {_NO_WORDS: w} for n, w in zip(batch, wavs) if isinstance(w, str)
    }
    texts = {n: item["text"] for n, item in batch.items() if n not in rows}
    if not texts:
        return rows
    waveforms = [wav for wav in wavs if isinstance(wav, Tensor)]
    check_durations({name: batch[name] for name in texts}, waveforms)
    spoken = [spoken_words(text) for text in texts.values()]
    found = align(waveforms, spoken)
    for (name, text), said, spans in zip(texts.items(), spoken, found):
        if isinstance(spans, Exception):
            rows[name] = {_NO_WORDS: str(spans)}
            continue
        words = text.split()
        rows[name] = {"words": [[w, *s[1:]] for w, s in zip(words, spans)]}
        unheard = [
            word
            for word, heard in zip(words, said)
            if not any(_is_known(c, characters) for c in heard)
        ]
        if unheard:
            rows[name][_UNHEARD] = unheard
    return rows


def _is_known(character: str, characters: Collection[str]) -> bool:
    return character in characters or character.swapcase() in characters


def _report(folder: Path) -> None:
    """Say who has no words, and which words were not looked for."""
    store = Store(folder)
    failures, unheard, first = 0, 0, ""
    for name, known in _findings(store):
        if _NO_WORDS in known:
            failures += 1
            if failures <= _MOST_NAMED:
                logger.warning(
                    "%s: %s gets no word times: %s",
                    folder,
                    name,
                    known[_NO_WORDS],
                )
        words = known.get(_UNHEARD, [])
        unheard += len(words)
        first = first or "".join(words[:1])
    if unheard:
        logger.warning(
            "%s: %d words are markup or have no character that the aligner "
            "knows, such as %r; they lie between their neighbours",
            folder,
            unheard,
            first,
        )
    logger.info(
        "%s: %d of %d utterances have word times, %d could not get them",
        folder,
        int((store.lengths("word_count") > 0).sum()),
        len(store),
        failures,
    )


def _findings(store: Store) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield what aligning found out about utterances, besides times."""
    rows = store.rows.with_format("arrow").select_columns(["utterance", "more"])
    for table in rows.iter(batch_size=10_000):
        for name, more in zip(*(column.to_pylist() for column in table)):
            if more is not None:
                yield name, json.loads(more)
