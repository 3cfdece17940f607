"""LibriTTS and LibriTTS-R."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from spiritlm_plugin.dataio.corpus.preparation import Record
from spiritlm_plugin.dataio.corpus.readers.tables import (
    check_split,
    clean_text,
)
from spiritlm_plugin.utils.files import read_lines, read_text

logger = logging.getLogger(__name__)

# Where in a line of a chapter's table a text stands.
TEXTS = {"normalized": 2, "original": 1}


def find_splits(data_folder: str | Path) -> list[str]:
    """Return the splits that are there: folders with speakers and chapters.

    Raises
    ------
    FileNotFoundError
        If there is none.

    Example
    -------
    >>> (tmp / "dev-clean" / "84" / "121123").mkdir(parents=True)
    >>> (tmp / "dev-clean" / "84" / "121123" / "84_121123_0_0.wav").touch()
    >>> find_splits(tmp)
    ['dev-clean']
    """
    folder = Path(data_folder)
    found = [
        path.name
        for path in sorted(folder.glob("*"))
        if any(path.glob("*/*/*.wav"))
    ]
    if not found:
        raise FileNotFoundError(
            f"no recording such as dev-clean/84/121123/84_121123_000007_000001"
            f".wav in {folder}; name the folder that holds the splits of "
            "LibriTTS"
        )
    return found


def read_libritts(
    data_folder: str | Path, split: str, text: str = "normalized"
) -> Iterator[Record]:
    """Yield the utterances of a split.

    Arguments
    ---------
    data_folder : path
        Holds the splits, as in
        ``dev-clean/84/121123/84_121123_000007_000001.wav``.
    split : str
        Such as ``"train-clean-100"``.
    text : str
        ``"normalized"``, where numbers and the like are written out, or
        ``"original"``. It is read of ``84_121123.trans.tsv``, or else of the
        file beside the recording.

    Yields
    ------
    Record
        With wav, speaker, chapter, text and its place in the chapter. Recordings without a text, and
        texts without one, are reported.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no such split or text, or a file is not UTF-8.
    """
    if text not in TEXTS:
        raise ValueError(f"no text {text!r}; there are {', '.join(TEXTS)}")
    folder = Path(data_folder).resolve()
    check_split(split, find_splits(folder), folder)
    for chapter in sorted(
        p for p in (folder / split).glob("*/*") if p.is_dir()
    ):
        yield from _read_chapter(chapter, text)


def _read_chapter(chapter: Path, kind: str) -> Iterator[Record]:
    texts = _read_table(chapter, TEXTS[kind])
    recordings = sorted(chapter.glob("*.wav"))
    places = _places([wav.stem for wav in recordings])
    for wav, position in zip(recordings, places):
        text, beside = (
            texts.pop(wav.stem, None),
            wav.with_suffix(f".{kind}.txt"),
        )
        if text is None and beside.is_file():
            text = read_text(beside)
        if text is None:
            logger.warning("%s is left out: it has no %s text", wav, kind)
            continue
        yield (
            wav.stem,
            {
                "wav": wav,
                "speaker": chapter.parent.name,
                "chapter": chapter.name,
                "text": clean_text(text),
                "group": f"{chapter.parent.name}_{chapter.name}",
                "position": position,
            },
        )
    for name in texts:
        logger.warning("%s is left out: no recording", name)


def _places(names: Iterable[str]) -> Iterator[int]:
    """Yield the positions of utterances in their chapter, in order.

    Their ids end in the numbers of the paragraph and of the sentence in it. A
    gap in these is one in the positions.
    """
    position, before = 0, (-1, -1)
    for name in names:
        found = re.fullmatch(r".*_([0-9]{1,9})_([0-9]{1,9})", name)
        paragraph, sentence = map(int, found.groups()) if found else (-1, -1)
        follows = (paragraph, sentence) in (
            (before[0], before[1] + 1),
            (before[0] + 1, 0),
        )
        position += 1 if follows and found else 2
        before = paragraph, sentence
        yield position


def _read_table(chapter: Path, column: int) -> dict[str, str]:
    """Return the texts of a chapter; its table may be missing."""
    path = chapter / f"{chapter.parent.name}_{chapter.name}.trans.tsv"
    if not path.is_file():
        return {}
    rows = [line.split("\t") for line in read_lines(path)]
    return {row[0]: row[column] for row in rows if len(row) > column}
