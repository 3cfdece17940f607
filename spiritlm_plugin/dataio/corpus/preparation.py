"""From the records of a corpus to its manifests.

A corpus is read by a generator of records, one function for each corpus in
`spiritlm_plugin.dataio.corpus.readers`::

    def read_my_corpus(folder: Path, split: str) -> Iterator[Record]:
        for name, text in _transcripts(folder / split):
            yield name, {"wav": folder / split / f"{name}.flac", "text": text}

It looks at tables and transcripts only; `prepare` does the rest.
"""

from __future__ import annotations

import json
import logging
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from spiritlm_plugin.dataio.audio.reading import audio_seconds
from spiritlm_plugin.dataio.corpus.manifests import write_manifest

logger = logging.getLogger(__name__)

# Id, and entry of the manifest. Of `wav`, a path, the `duration` is found unless
# it is there. `words` are [word, start, end] in order of time, in seconds;
# silences may stand between them as empty words.
Record = tuple[str, dict[str, Any]]

# What times may exceed the audio by, because they are rounded; seconds.
_ROUNDING = 0.01
_THREADS = 16


class _Known(NamedTuple):
    """What a manifest holds, and when it was written."""

    items: dict[str, dict[str, Any]]
    made: int


def prepare(
    splits: Mapping[str, Iterable[Record]],
    save_folder: str | Path,
    merged: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Write the manifests of splits.

    What cannot be used is reported and left out. Recordings that a manifest
    names already are not opened again, unless they have changed since.

    Arguments
    ---------
    splits : dict of iterable of Record
        Of each manifest, by its name, what is in it. All are read before any
        recording is opened.
    save_folder : path
        Of the manifests, such as ``train-clean-100.json``; made if there is
        none. ``{data_root}`` in a path of a recording stands for it.
    merged : dict of sequence of str, optional
        More manifests, each of several splits, such as ``{"train":
        ["train-clean-100", "train-clean-360"]}``. Of no split none is written.

    Raises
    ------
    ValueError
        If a split has no recording that can be used.

    Example
    -------
    >>> def read_boats():
    ...     yield "boats", {"wav": recording, "text": "two boats"}
    >>> prepare({"train": read_boats()}, tmp)
    >>> print((tmp / "train.json").read_text())
    {
    "boats": {"wav": ".../boats.wav", "duration": 2.3999, "text": "two boats"}
    }
    """
    save_folder = Path(save_folder)
    records = {split: _by_id(found) for split, found in splits.items()}
    save_folder.mkdir(parents=True, exist_ok=True)
    items = {
        split: _prepare_split(split, found, save_folder)
        for split, found in records.items()
    }
    for name, parts in (merged or {}).items():
        if parts:
            union = _by_id(r for s in parts for r in items[s].items())
            write_manifest(union, save_folder / f"{name}.json")


def _by_id(records: Iterable[Record]) -> dict[str, dict[str, Any]]:
    items: dict[str, dict[str, Any]] = {}
    for name, item in records:
        known = items.setdefault(name, item)
        if known is not item:
            logger.warning(
                "%s is left out: %s has the same id", item["wav"], known["wav"]
            )
    return items


def _prepare_split(
    split: str, records: Mapping[str, dict[str, Any]], folder: Path
) -> dict[str, dict[str, Any]]:
    """Write the manifest of a split, unless it is there, and return it."""
    manifest = folder / f"{split}.json"
    known = _read_known(manifest)
    with ThreadPoolExecutor(_THREADS) as pool:
        found = tqdm(
            pool.map(
                partial(_describe, folder=folder, known=known),
                records,
                records.values(),
            ),
            total=len(records),
            desc=split,
            unit="file",
        )
        items = {n: i for n, i in zip(records, found) if i is not None}
    if not items:
        raise ValueError(
            f"the split {split} names no recording that can be used "
            f"({len(records)} are left out); name the folder of the corpus as "
            "it is unpacked"
        )
    if items == known.items:
        logger.info("%s is there already", manifest)
        return items
    write_manifest(items, manifest)
    words = sum("words" in item for item in items.values())
    logger.info(
        "%s: %d utterances, %d left out, %.2f hours%s",
        manifest.name,
        len(items),
        len(records) - len(items),
        sum(item["duration"] for item in items.values()) / 3600,
        f", {words} with word times" if words else "",
    )
    return items


def _read_known(manifest: Path) -> _Known:
    """Read what an earlier run has found, if it can be read."""
    try:
        made = manifest.stat().st_mtime_ns
        items = json.loads(manifest.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return _Known({}, 0)
    if not isinstance(items, dict):
        return _Known({}, 0)
    is_whole = {"wav", "duration"}.issubset
    return _Known(
        {n: i for n, i in items.items() if isinstance(i, dict) and is_whole(i)},
        made,
    )


def _describe(
    name: str, record: dict[str, Any], folder: Path, known: _Known
) -> dict[str, Any] | None:
    """Return the entry of a recording, or None if it cannot be used."""
    item = {"wav": "", "duration": None, **record}
    item["wav"] = str(item["wav"])
    words = item.pop("words", None)
    try:
        if item.get("text") is not None:
            item["text"] = _check_text(item["text"])
        if item["duration"] is None:
            item["duration"] = _seconds(name, item["wav"], folder, known)
    except (OSError, ValueError) as error:
        logger.warning("%s is left out: %s", name, error)
        return None
    if words is not None:
        try:
            words = fit_words(words, item["duration"])
            item["words"] = [[_composed(w), *times] for w, *times in words]
        except ValueError as error:
            logger.warning("%s has no word times: %s", name, error)
    return item


def _check_text(text: Any) -> str:
    if not isinstance(text, str):
        raise ValueError(f"its transcript is {text!r}, not a text")
    if not text.strip():
        raise ValueError("its transcript is empty")
    return _composed(text)


def _composed(text: str) -> str:
    """Return a text whose letters with accents are one character each."""
    return unicodedata.normalize("NFC", text)


def _seconds(name: str, wav: str, folder: Path, known: _Known) -> float:
    path = Path(wav.replace("{data_root}", str(folder)))
    item = known.items.get(name, {})
    # The status time tells of files that were copied with their old dates.
    if (
        item.get("wav") == wav
        and path.is_file()
        and path.stat().st_ctime_ns < known.made
    ):
        return item["duration"]
    return round(audio_seconds(path), 4)


def fit_words(words: Iterable[Sequence[Any]], duration: float) -> list[list]:
    """Return words with times that lie in their recording.

    Arguments
    ---------
    words : iterable of (str, float, float)
        Words and, as empty ones, silences: what, start and end in seconds.
    duration : float
        Of the recording, in seconds.

    Returns
    -------
    list of [str, float, float]
        The words, without the silences.

    Raises
    ------
    ValueError
        If times are not in order, or exceed the recording by more than they
        may be rounded.

    Example
    -------
    >>> fit_words([("", 0, 0.25), ("two", 0.25, 0.5), ("boats", 0.5, 1.2)], 1.2)
    [['two', 0.25, 0.5], ['boats', 0.5, 1.2]]
    """
    spans, before = [list(span) for span in words], 0.0
    for _, _, end in spans:
        if not end <= duration + _ROUNDING:
            raise ValueError(
                f"the alignment ends at {end} s, the recording at "
                f"{duration:.3f} s"
            )
    for span in spans:
        word, start, end = span[0], *(min(t, duration) for t in span[1:])
        if not before <= start <= end or (word and start == end):
            raise ValueError(
                f"{word or 'a silence'} is from {start} to {end} s, after "
                f"what begins at {before} s"
            )
        span[1:], before = (start, end), start
    return [span for span in spans if span[0]]
