"""LibriSpeech, and word times where there are alignments."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path

from spiritlm_plugin.dataio.corpus.preparation import Record
from spiritlm_plugin.dataio.corpus.readers.tables import place_of
from spiritlm_plugin.dataio.corpus.textgrids import (
    Word,
    match_words,
    read_textgrid,
)
from spiritlm_plugin.utils.files import read_lines

logger = logging.getLogger(__name__)

_ALIGNMENT = re.compile(r'(\S+)\s+"([^"]*)"\s+"([^"]*)"')


def read_librispeech(
    data_folder: str | Path,
    split: str,
    alignment_folder: str | Path | None = None,
) -> Iterator[Record]:
    """Yield the utterances of a split.

    Arguments
    ---------
    data_folder : path
        Holds the splits, as in ``train-clean-100/19/198/19-198-0000.flac``.
    split : str
        Such as ``"train-clean-100"``.
    alignment_folder : path, optional
        Holds alignments, laid out as the corpus is; by default they are looked
        for beside the recordings. Words have times where there is a TextGrid
        ``train-clean-100/19/198/19-198-0000.TextGrid`` or a line of the
        utterance in ``train-clean-100/19/198/19-198.alignment.txt``.

    Yields
    ------
    Record
        With wav, speaker, text, its place in the chapter and perhaps words. Recordings without a line
        in a transcript, lines without one, and alignments that do not fit are
        reported.

    Raises
    ------
    FileNotFoundError
        If the split, or the folder of alignments, is not there.
    ValueError
        If the split has no utterance, or a transcript is not UTF-8.
    """
    folder = Path(data_folder).resolve() / split
    if not folder.is_dir():
        raise FileNotFoundError(
            f"no folder {folder}; name the folder that holds the splits of "
            "LibriSpeech, and the splits that you have (--tr_splits, "
            "--dev_splits, --te_splits)"
        )
    aligned = _find_alignments(folder, alignment_folder)
    is_empty = True
    for chapter in sorted(path for path in folder.glob("*/*") if path.is_dir()):
        place = aligned / chapter.parent.name / chapter.name
        for record in _read_chapter(chapter, place):
            yield record
            is_empty = False
    if is_empty:
        raise ValueError(
            f"{folder} has no usable utterance: there should be transcripts "
            "such as 19/198/19-198.trans.txt beside the recordings"
        )


def _find_alignments(split: Path, folder: str | Path | None) -> Path:
    """Return the folder of a split's alignments."""
    if folder is None:
        return split
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"no folder of alignments: {folder}")
    found = Path(folder) / split.name
    if not found.is_dir():
        logger.warning(
            "%s holds no %s: its words have no times; name the folder that "
            "holds the splits",
            *(folder, split.name),
        )
    return found


def _read_chapter(chapter: Path, aligned: Path) -> Iterator[Record]:
    prefix = f"{chapter.parent.name}-{chapter.name}"
    transcript = chapter / f"{prefix}.trans.txt"
    recordings = {path.stem for path in chapter.glob("*.flac")}
    alignments = _read_alignments(aligned / f"{prefix}.alignment.txt")
    textgrids = {path.stem: path for path in aligned.glob("*.TextGrid")}
    for line in _lines(transcript):
        name, *spoken = line.split()
        if name not in recordings:
            logger.warning("%s is left out: no recording", name)
            continue
        recordings.remove(name)
        text = " ".join(spoken).lower()
        item = {
            "wav": chapter / f"{name}.flac",
            "speaker": chapter.parent.name,
            "text": text,
            **place_of(name, "-"),
        }
        try:
            if name in textgrids:
                item["words"] = match_words(
                    read_textgrid(textgrids[name]), text
                )
            elif name in alignments:
                item["words"] = read_words(*alignments[name], text)
        except ValueError as error:
            logger.warning("%s has no word times: %s", name, error)
        yield name, item
    for name in sorted(recordings):
        logger.warning("%s is left out: not in %s", name, transcript)


def _lines(path: Path) -> list[str]:
    """Return the lines of a file that is there; empty ones are none."""
    lines = read_lines(path) if path.is_file() else []
    return [line.strip() for line in lines if line.strip()]


def _read_alignments(path: Path) -> dict[str, tuple[str, str]]:
    alignments = {}
    for line in _lines(path):
        match = _ALIGNMENT.fullmatch(line)
        if match is None:
            logger.warning("%s: cannot read the line %.60r", path, line)
        else:
            alignments[match[1]] = match[2], match[3]
    return alignments


def read_words(entries: str, ends: str, text: str) -> list[Word]:
    """Read the times of words.

    Arguments
    ---------
    entries : str
        Words and, as empty entries, silences, as in ``",MISTER,,QUILTER,"``.
    ends : str
        Where each entry ends, in seconds.
    text : str
        The transcript, whose spelling the words get; see `match_words`.

    Returns
    -------
    list of (str, float, float)
        Words and silences, starts and ends.

    Raises
    ------
    ValueError
        If the alignment does not fit the transcript.

    Example
    -------
    >>> read_words(",GO,", "0.25,0.75,1.5", "go")
    [('', 0.0, 0.25), ('go', 0.25, 0.75), ('', 0.75, 1.5)]
    """
    words = entries.split(",")
    times = [float(end) for end in ends.split(",")]
    if len(words) != len(times):
        raise ValueError(f"{len(words)} entries have {len(times)} times")
    return match_words(zip(words, [0.0, *times], times), text)
