"""Multilingual LibriSpeech (MLS), FLAC or Opus."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

from spiritlm_plugin.dataio.corpus.preparation import Record
from spiritlm_plugin.dataio.corpus.readers.tables import (
    clean_text,
    place_of,
    recordings_by_stem,
    report_left,
    walk_audio,
)
from spiritlm_plugin.utils.files import read_lines

logger = logging.getLogger(__name__)

SPLITS = ("train", "dev", "test")
_TRANSCRIPTS = "transcripts.txt"
_HANDLES = "handles.txt"


def find_splits(data_folder: str | Path) -> list[str]:
    """Return the splits of a language that have transcripts.

    Raises
    ------
    FileNotFoundError
        If there is none.

    Example
    -------
    >>> (tmp / "mls_polish" / "dev").mkdir(parents=True)
    >>> _ = (tmp / "mls_polish" / "dev" / "transcripts.txt").write_text("")
    >>> find_splits(tmp / "mls_polish")
    ['dev']
    """
    folder = Path(data_folder)
    found = [s for s in SPLITS if (folder / s / _TRANSCRIPTS).is_file()]
    if not found:
        raise FileNotFoundError(
            f"no train/{_TRANSCRIPTS}, dev/{_TRANSCRIPTS} or "
            f"test/{_TRANSCRIPTS} in {folder}; name the folder of a language, "
            "such as mls_german or mls_german_opus"
        )
    return found


def read_mls(data_folder: str | Path, split: str) -> Iterator[Record]:
    """Yield the utterances of a split.

    Arguments
    ---------
    data_folder : path
        Of a language, such as ``mls_polish``: it holds
        ``train/transcripts.txt`` and ``train/audio/6892/10049/``, where
        ``6892_10049_000000.flac`` or ``.opus`` lies.
    split : str
        ``"train"``, ``"dev"`` or ``"test"``; ``"train_9hr"``, ``"train_1hr"``,
        ``"train_1hr_0"`` (ten minutes) or ``"train_10hr"`` for what the lists
        of limited supervision name.

    Yields
    ------
    Record
        With wav, speaker, book, text and its place in the book. Recordings without a line in the
        transcripts, and lines without one, are reported.

    Raises
    ------
    FileNotFoundError
        If there are no transcripts, or no such list.
    ValueError
        If the transcripts are not UTF-8.
    """
    folder = Path(data_folder).resolve()
    part, _, limited = split.partition("_")
    transcripts = folder / part / _TRANSCRIPTS
    if not transcripts.is_file():
        raise FileNotFoundError(
            f"no {transcripts}; name the folder of a language, such as "
            f"mls_german, and of its splits {', '.join(SPLITS)} those that "
            "are there"
        )
    wanted = _read_handles(folder, limited) if limited else None
    recordings = recordings_by_stem(walk_audio(folder / part / "audio"))
    for line in sorted(read_lines(transcripts)):
        name, _, text = line.partition("\t")
        name = name.strip()
        path = recordings.pop(name, None)
        if not name or (wanted is not None and name not in wanted):
            continue
        if path is None:
            logger.warning("%s is left out: no recording", name)
            continue
        yield (
            name,
            {
                "wav": path,
                "speaker": path.parent.parent.name,
                "book": path.parent.name,
                "text": clean_text(text),
                **place_of(name),
            },
        )
    report_left(recordings, transcripts)


def _read_handles(folder: Path, limited: str) -> set[str]:
    """Return the ids of a list of limited supervision."""
    lists = folder / "train" / "limited_supervision"
    size, _, fold = limited.partition("_")
    parts = {
        "9hr": [lists / "9hr"],
        "1hr": sorted((lists / "1hr").glob(fold or "*")),
    }
    parts["10hr"] = [*parts["9hr"], *parts["1hr"]]
    files = [part / _HANDLES for part in parts.get(size, ())]
    files = [path for path in files if path.is_file()]
    if not files:
        raise FileNotFoundError(
            f"no list of {limited} in {lists}; there are 9hr, 1hr, 1hr_0 to "
            "1hr_5 and 10hr, where the corpus has them"
        )
    return {line.strip() for path in files for line in read_lines(path) if line}
