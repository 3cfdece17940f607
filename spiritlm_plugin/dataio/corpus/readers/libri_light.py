"""Libri-Light: long recordings without texts, to be cut by `cut_by_voice`."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from spiritlm_plugin.dataio.corpus.preparation import Record
from spiritlm_plugin.dataio.corpus.readers.tables import (
    check_split,
    walk_audio,
)
from spiritlm_plugin.utils.files import read_text

logger = logging.getLogger(__name__)

SPLITS = ("small", "medium", "large", "duplicate")


def find_splits(data_folder: str | Path) -> list[str]:
    """Return the subsets that are there.

    Raises
    ------
    FileNotFoundError
        If there is none.

    Example
    -------
    >>> (tmp / "small" / "100").mkdir(parents=True)
    >>> find_splits(tmp)
    ['small']
    """
    folder = Path(data_folder)
    found = [split for split in SPLITS if (folder / split).is_dir()]
    if not found:
        raise FileNotFoundError(
            f"no folder {', '.join(SPLITS)} in {folder}; name the folder "
            "where the archives of Libri-Light are unpacked"
        )
    return found


def read_libri_light(data_folder: str | Path, split: str) -> Iterator[Record]:
    """Yield the recordings of a subset, up to hours long.

    Arguments
    ---------
    data_folder : path
        Holds the subsets, as in
        ``small/100/sea_fairies_0812_librivox_64kb_mp3/01_baum.flac`` with
        ``01_baum.json`` beside.
    split : str
        Such as ``"small"``.

    Yields
    ------
    Record
        With wav, speaker and perhaps book and genre. An id is the path below
        the folder.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no such subset.
    """
    folder = Path(data_folder).resolve()
    check_split(split, find_splits(folder), folder)
    for path in walk_audio(folder / split):
        place = path.relative_to(folder)
        record = {"wav": path, "speaker": place.parts[1], **_read_meta(path)}
        yield place.with_suffix("").as_posix(), record


def _read_meta(path: Path) -> dict[str, str]:
    """Return what the file beside a recording says; it may be missing."""
    beside = path.with_suffix(".json")
    if not beside.is_file():
        return {}
    try:
        content: dict[str, Any] = json.loads(read_text(beside))
        book = content.get("book_meta") or {}
        values = {
            "speaker": content.get("speaker"),
            "book": book.get("title"),
            "genre": book.get("meta_genre"),
        }
    except (ValueError, AttributeError) as error:
        logger.warning("%s is not read: %s", beside, error)
        return {}
    return {key: str(value) for key, value in values.items() if value}
