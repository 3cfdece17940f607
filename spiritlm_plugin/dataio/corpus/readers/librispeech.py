"""LibriSpeech, and word times where there are alignments."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path

from spiritlm_plugin.dataio.corpus.preparation import Record

logger = logging.getLogger(__name__)

_ALIGNMENT = re.compile(r'(\S+)\s+"([^"]*)"\s+"([^"]*)"')


def read_librispeech(data_folder: str | Path, split: str) -> Iterator[Record]:
    """Yield the utterances of a split.

    Arguments
    ---------
    data_folder : path
        Holds the splits, as in ``train-clean-100/19/198/19-198-0000.flac``.
        Where ``19-198.alignment.txt`` stands beside ``19-198.trans.txt``, words
        have times.
    split : str
        Such as ``"train-clean-100"``.

    Yields
    ------
    Record
        With wav, speaker, text and perhaps words. Recordings without a line
        in a transcript, and lines without one, are reported.

    Raises
    ------
    FileNotFoundError
        If the split is not there.
    ValueError
        If it has no utterance.
    """
    folder = Path(data_folder).resolve() / split
    if not folder.is_dir():
        raise FileNotFoundError(
            f"no folder {folder}; name the folder that holds the splits of "
            "LibriSpeech, and the splits that you have (--tr_splits, "
            "--dev_splits, --te_splits)"
        )
    is_empty = True
    for chapter in sorted(path for path in folder.glob("*/*") if path.is_dir()):
        for record in _read_chapter(chapter):
            yield record
            is_empty = False
    if is_empty:
        raise ValueError(
            f"{folder} has no usable utterance: there should be transcripts "
            "such as 19/198/19-198.trans.txt beside the recordings"
        )


def _read_chapter(chapter: Path) -> Iterator[Record]:
    prefix = f"{chapter.parent.name}-{chapter.name}"
    transcript = chapter / f"{prefix}.trans.txt"
    recordings = {path.stem for path in chapter.glob("*.flac")}
    alignments = _read_alignments(chapter / f"{prefix}.alignment.txt")
    for line in _lines(transcript):
        name, _, text = line.partition(" ")
        if name not in recordings:
            logger.warning("%s is left out: no recording", name)
            continue
        recordings.remove(name)
        text = " ".join(text.lower().split())
        item = {
            "wav": chapter / f"{name}.flac",
            "speaker": chapter.parent.name,
            "text": text,
        }
        if name in alignments:
            try:
                item["words"] = read_words(*alignments[name], text)
            except ValueError as error:
                logger.warning("%s has no word times: %s", name, error)
        yield name, item
    for name in sorted(recordings):
        logger.warning("%s is left out: not in %s", name, transcript)


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
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


def read_words(
    entries: str, ends: str, text: str
) -> list[tuple[str, float, float]]:
    """Read the times of words.

    Arguments
    ---------
    entries : str
        Words and, as empty entries, silences, as in ``",MISTER,,QUILTER,"``.
    ends : str
        Where each entry ends, in seconds.
    text : str
        The transcript, in lower case.

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
    words = entries.lower().split(",")
    times = [float(end) for end in ends.split(",")]
    if len(words) != len(times):
        raise ValueError(f"{len(words)} entries have {len(times)} times")
    if [word for word in words if word] != text.split():
        raise ValueError("the alignment has other words than the transcript")
    return list(zip(words, [0.0, *times], times))
