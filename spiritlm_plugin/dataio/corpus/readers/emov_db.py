"""EmoV-DB, the emotional voices database, as it is published.

Adigwe and others, "The Emotional Voices Database", arXiv:1806.09514;
openslr.org/115.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from spiritlm_plugin.dataio.corpus.preparation import Record
from spiritlm_plugin.dataio.corpus.readers.expresso import SENTIMENTS
from spiritlm_plugin.dataio.corpus.readers.tables import (
    clean_text,
    walk_audio,
)
from spiritlm_plugin.utils.files import read_lines

logger = logging.getLogger(__name__)

# Of CMU Arctic, from festvox.org; beside the folders of the speakers.
TEXTS = "cmuarctic.data"
_SPEAKER = re.compile(r"(bea|jenie|josh|sam)(?:_.*)?", re.IGNORECASE)
# Folders and files call emotions by several names.
_EMOTION = re.compile(
    r"(?:.*_)?(amuse|ang|disgust|neutral|sleep)[a-z]*(?:_.*)?", re.IGNORECASE
)
_NAMES = {
    "amuse": "amused",
    "ang": "angry",
    "disgust": "disgusted",
    "neutral": "neutral",
    "sleep": "sleepy",
}
_SENTENCE = re.compile(r"\(\s*arctic_a(\d{4})\s+\"(.*)\"\s*\)")
_NUMBER = re.compile(r"_(\d{4})$")


def read_emov_db(data_folder: str | Path) -> Iterator[Record]:
    """Yield all recordings; the corpus has no splits.

    Arguments
    ---------
    data_folder : path
        Holds a folder for each archive, as in
        ``bea_Amused/amused_1-15_0001.wav``, or for each speaker, as in
        ``bea/Amused/amused_1-15_0001.wav``. Where ``cmuarctic.data`` lies
        beside them, recordings have texts: the number at the end of a name is
        that of the sentence in the first list of CMU Arctic (``arctic_a``).

    Yields
    ------
    Record
        With wav, speaker, style (the emotion), and perhaps sentiment and
        text. An id is the path below the folder. Recordings of unknown
        speakers or emotions are reported.

    Raises
    ------
    FileNotFoundError
        If there is no recording.
    ValueError
        If the sentences are not UTF-8.
    """
    folder = Path(data_folder).resolve()
    texts = _read_texts(folder / TEXTS)
    is_empty = True
    for path in walk_audio(folder):
        place = path.relative_to(folder).with_suffix("")
        speaker, emotion = _speaker(place), _emotion(place)
        if speaker is None or emotion is None:
            logger.warning(
                "%s is left out: neither a folder nor the file says the %s",
                path,
                "speaker" if speaker is None else "emotion",
            )
            continue
        record: dict[str, Any] = {
            "wav": path,
            "speaker": speaker,
            "style": emotion,
        }
        if emotion in SENTIMENTS:
            record["sentiment"] = SENTIMENTS[emotion]
        number = _NUMBER.search(place.name)
        if number and number[1] in texts:
            record["text"] = texts[number[1]]
        elif texts:
            logger.warning("%s has no text: not in %s", path, TEXTS)
        yield place.as_posix(), record
        is_empty = False
    if is_empty:
        raise FileNotFoundError(
            f"no recording such as bea_Amused/amused_1-15_0001.wav in {folder};"
            " unpack each archive of EmoV-DB into a folder of its name"
        )


def _speaker(place: Path) -> str | None:
    found = filter(None, map(_SPEAKER.fullmatch, place.parts))
    return next((match[1].lower() for match in found), None)


def _emotion(place: Path) -> str | None:
    """Return what the nearest folder or the file says."""
    parts = [*place.parts[-2::-1], place.name]
    found = filter(None, map(_EMOTION.fullmatch, parts))
    return next((_NAMES[match[1].lower()] for match in found), None)


def _read_texts(path: Path) -> dict[str, str]:
    """Return the sentences by their four digits; there may be none."""
    if not path.is_file():
        logger.info("no %s: the recordings have no texts", path)
        return {}
    found = (_SENTENCE.fullmatch(line.strip()) for line in read_lines(path))
    return {match[1]: clean_text(match[2]) for match in found if match}
