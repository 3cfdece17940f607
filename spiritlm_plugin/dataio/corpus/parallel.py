"""Units of the same words, said by another voice.

A tokenizer that knows some voices says what the units of a sentence are; a
recording of the same sentence by a voice that it does not know gets them by
the times of words and phones that both have.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from difflib import SequenceMatcher
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from spiritlm_plugin.dataio.corpus.mapping import (
    Items,
    Source,
    Work,
    map_shards,
)
from spiritlm_plugin.dataio.corpus.shards import make_row, read_row
from spiritlm_plugin.dataio.corpus.stores import CorpusError, Store, load_corpus
from spiritlm_plugin.dataio.units.units import (
    PHONETIC_HOP,
    SAMPLE_RATE,
    SpeechUnits,
)

# Samples that a frame sees, from its place on.
_SEEN = 720
# Of times that are rounded.
_NEAR = 1e-3

Item = Mapping[str, Any]


def units_at_times(units: Tensor, said: Item, item: Item) -> Tensor:
    """Return units of one recording at the times of another.

    What stands between the times of words and phones that both have is
    stretched evenly.

    Arguments
    ---------
    units : Tensor
        Of what was ``said``, at 25 a second, shape (frames,).
    said, item : dict
        Entries of manifests, with ``duration``, ``words`` and, where phones
        are known, ``phones``.

    Returns
    -------
    Tensor
        Of the recording of ``item``, shape (its frames,).

    Raises
    ------
    ValueError
        If the words are not the same.

    Example
    -------
    >>> said = {"duration": 1.0, "words": [["a", 0.2, 0.4], ["b", 0.4, 0.8]]}
    >>> slow = {"duration": 2.0, "words": [["a", 0.4, 0.8], ["b", 0.8, 1.6]]}
    >>> units = units_at_times(torch.arange(24), said, slow)
    >>> units[:6].tolist(), len(units)
    ([0, 0, 1, 1, 2, 2], 49)
    """
    here, there = _anchors(item, said)
    samples = round(item["duration"] * SAMPLE_RATE)
    count = max((samples - _SEEN) // PHONETIC_HOP + 1, 0)
    middles = (np.arange(count) * PHONETIC_HOP + _SEEN / 2) / SAMPLE_RATE
    times = np.interp(middles, here, there)
    frames = np.round((times * SAMPLE_RATE - _SEEN / 2) / PHONETIC_HOP)
    return units[frames.clip(0, len(units) - 1).astype(np.int64)]


def _anchors(item: Item, said: Item) -> tuple[np.ndarray, np.ndarray]:
    """Return times of two recordings that belong together, in order."""
    words, others = item.get("words") or [], said.get("words") or []
    if not words or [w[0] for w in words] != [w[0] for w in others]:
        raise ValueError(
            f"{_text(words)!r} are not the words of {_text(others)!r}"
        )
    pairs = [(0.0, 0.0)]
    for (_, start, end), (_, begin, stop) in zip(words, others):
        own, other = (
            _within(entry.get("phones") or [], *span)
            for entry, span in ((item, (start, end)), (said, (begin, stop)))
        )
        pairs += [(start, begin), *_shared(own, other), (end, stop)]
    pairs.append((item["duration"], said["duration"]))
    here, there = np.maximum.accumulate(np.array(pairs), 0).T
    return here, there


def _shared(own: list, other: list) -> Iterator[tuple[float, float]]:
    """Yield the times of phones that both say."""
    names = [[phone for phone, _, _ in said] for said in (own, other)]
    matcher = SequenceMatcher(None, *names, autojunk=False)
    for i, j, size in matcher.get_matching_blocks():
        for (_, *here), (_, *there) in zip(own[i:][:size], other[j:][:size]):
            yield from zip(here, there)


def _within(spans: list, start: float, end: float) -> list:
    return [s for s in spans if start - _NEAR <= s[1] and s[2] <= end + _NEAR]


def _text(words: list) -> str:
    return " ".join(word for word, _, _ in words)


def transfer_units(
    source: Source,
    folder: str | Path,
    units: str | Path,
    own_units: str | Path,
    known: Collection[str],
    **options: Any,
) -> None:
    """Give recordings of new voices the units of one that is known.

    Arguments
    ---------
    source : Source
        The recordings, as from `open_source`.
    folder : str or Path
        Of the store to make.
    units : str or Path
        A store of other recordings of the same ids and words, by a voice that
        the tokenizer knows, with its phonetic units.
    own_units : str or Path
        A store of these recordings with its units of their own.
    known : collection of str
        Speakers of ``source`` that it knows, too, who keep their own units.
    **options
        As of `map_shards`.

    Raises
    ------
    CorpusError
        If an utterance is in neither store, or has other words.

    Example
    -------
    >>> from spiritlm_plugin.dataio.corpus.mapping import Listed
    >>> from spiritlm_plugin.dataio.corpus.unit_store import tokenize_corpus
    >>> def hear(items, folder):
    ...     tokenize_corpus(
    ...         items, folder, lambda wavs: [SpeechUnits(range(58))] * len(wavs),
    ...         {"phonetic": "1"},
    ...     )
    >>> words = {"words": [["all", 0.5, 1.0], ["day", 1.0, 2.0]]}
    >>> ann = {"wav": recording, "duration": 2.36, "speaker": "ann", **words}
    >>> hear({"a": ann}, tmp / "ann")
    >>> bob = {"a": {**ann, "speaker": "bob"}}
    >>> hear(bob, tmp / "bob")
    >>> transfer_units(
    ...     Listed(bob), tmp / "units", tmp / "ann", tmp / "bob", ["ann"]
    ... )
    >>> load_corpus(tmp / "units")[0]["phonetic_units"][:3].tolist()
    [0, 1, 2]
    """
    said, own = Store(units), Store(own_units)
    map_shards(
        source,
        folder,
        partial(_make_work, str(units), str(own_units), set(known)),
        {
            "parts": {"phonetic": said.description["parts"]["phonetic"]},
            "units_of": [said.digest, own.digest, *sorted(known)],
        },
        **options,
    )


def _make_work(units: str, own_units: str, known: set[str]) -> Work:
    said, own = _Units(units), _Units(own_units)

    def work(items: Items) -> Iterator[dict[str, Any]]:
        for name, item in items.items():
            if item.get("speaker") in known:
                _, found = own.find(name)
            else:
                other, found = said.find(name)
                try:
                    found = units_at_times(found, other, item)
                except ValueError as error:
                    raise CorpusError(f"{name}: {error}") from error
            yield make_row(name, item, SpeechUnits(found))

    return work


class _Units:
    """Entries and units by id."""

    def __init__(self, folder: str):
        self.folder = folder
        self.rows = load_corpus(folder)
        self.places = {n: i for i, n in enumerate(self.rows["utterance"])}

    def find(self, name: str) -> tuple[Item, Tensor]:
        if name not in self.places:
            raise CorpusError(
                f"{name} is not in {self.folder}; tokenize the same utterances "
                "first"
            )
        row = self.rows[self.places[name]]
        return read_row(row)[1], row["phonetic_units"]
