"""What readers share: names of columns, recordings in folders, texts."""

from __future__ import annotations

import logging
import os
import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

AUDIO_SUFFIXES = frozenset(
    (
        ".aac .aif .aifc .aiff .amr .au .caf .flac .m4a .mp3 .mp4 .oga .ogg "
        ".opus .rf64 .snd .sph .w64 .wav .webm .wma"
    ).split()
)
# Of files that stand beside recordings.
_BESIDE = frozenset(
    ".csv .doc .htm .html .json .jsonl .lab .md .pdf .textgrid .tsv .txt .xml "
    ".yaml .yml".split()
)
# How tables call what is said, and by whom; the first that is there.
TEXTS = (
    "text",
    "sentence",
    "transcription",
    "normalized_text",
    "text_normalized",
    "transcript",
    "raw_text",
    "text_original",
)
SPEAKERS = ("speaker_id", "speaker", "client_id")
# So many names stand in a warning.
_SHOWN = 3


def choose_column(
    columns: Collection[str],
    candidates: Sequence[str],
    wanted: str | None = None,
) -> str | None:
    """Return the column that is wanted, or else the first that is known.

    Arguments
    ---------
    columns : collection of str
        Of a table.
    candidates : sequence of str
        Names that such a column usually has.
    wanted : str, optional
        The name of the column; None to look for one.

    Raises
    ------
    ValueError
        If there is no column that is wanted.

    Example
    -------
    >>> choose_column(["audio", "raw_text", "normalized_text"], TEXTS)
    'normalized_text'
    """
    if wanted is not None and wanted not in columns:
        raise ValueError(
            f"no column {wanted!r}; there are {', '.join(sorted(columns))}"
        )
    return wanted or next((c for c in candidates if c in columns), None)


def clean_text(text: object) -> str:
    r"""Return a text in one line, its letters as they are usually written.

    Example
    -------
    >>> clean_text(" two\n\u2028boats,  cafe\u0301 ")
    'two boats, café'
    """
    return unicodedata.normalize("NFC", " ".join(str(text).split()))


def place_of(name: str, separator: str = "_") -> dict[str, Any]:
    """Return the group and position that an id ends in, if it does.

    Arguments
    ---------
    name : str
        Whose last part is a number that counts the utterances of a recording.
    separator : str
        Of its parts.

    Example
    -------
    >>> place_of("6892_10049_000012")
    {'group': '6892_10049', 'position': 12}
    >>> place_of("boats")
    {}
    """
    group, _, number = name.rpartition(separator)
    if not group or re.fullmatch("[0-9]{1,9}", number) is None:
        return {}
    return {"group": group, "position": int(number)}


def by_place(name: str) -> tuple[str, int]:
    """Return what ids are sorted by, for utterances to follow each other.

    Example
    -------
    >>> sorted(["a_10", "a_9", "b"], key=by_place)
    ['a_9', 'a_10', 'b']
    """
    place = place_of(name)
    return place.get("group", name), place.get("position", 0)


def read_place(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the group and position of a row that has both.

    Raises
    ------
    ValueError
        If the position is no number.

    Example
    -------
    >>> read_place({"group": "chapter 1", "position": "12"})
    {'group': 'chapter 1', 'position': 12}
    """
    group, position = (row.get(key) for key in ("group", "position"))
    if group in (None, "") or position in (None, ""):
        return {}
    try:
        return {"group": str(group), "position": int(str(position))}
    except ValueError:
        raise ValueError(
            f"the position in {group!r:.40} is {position!r:.40}; write whole "
            "numbers"
        ) from None


def timed_words(
    words: Iterable[Mapping[str, Any]], text: str
) -> list[tuple[str, float, float]]:
    """Return the words of a text with their times.

    Arguments
    ---------
    words : iterable of dict
        ``word`` or ``text``, and ``start`` and ``end`` in seconds.
    text : str
        Which they should make up, whatever its spaces and punctuation.

    Raises
    ------
    ValueError
        If a word has no time, as WhisperX leaves digits, or they are words of
        another text.

    Example
    -------
    >>> timed_words([{"word": " Two", "start": 0, "end": 0.5}], "Two.")
    [('Two', 0.0, 0.5)]
    """
    found = []
    for word in words:
        said = clean_text(word.get("word", word.get("text")))
        try:
            found.append((said, float(word["start"]), float(word["end"])))
        except (KeyError, TypeError, ValueError):
            raise ValueError(f"the word {said!r} has no time") from None
    if _letters("".join(word[0] for word in found)) != _letters(text):
        raise ValueError("the words are not those of its text")
    return found


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, clean_text(text).casefold()))


def walk_audio(folder: str | Path) -> Iterator[Path]:
    """Yield the files below a folder that are audio by their names, in order.

    Links are followed, hidden files are not looked at.

    Example
    -------
    >>> for name in ("b.wav", "a.FLAC", "a.txt", "._a.wav"):
    ...     (tmp / name).touch()
    >>> [path.name for path in walk_audio(tmp)]
    ['a.FLAC', 'b.wav']
    """
    seen = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:  # a link to a folder above it
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        for name in sorted(files):
            path = Path(place, name)
            is_audio = path.suffix.lower() in AUDIO_SUFFIXES
            if not is_audio or name.startswith("."):
                continue
            if path.exists() and not path.is_file():
                continue  # a pipe, whose end may never come
            try:
                str(path).encode()
            except UnicodeEncodeError:
                logger.warning(
                    "%a is left out: its name is not UTF-8; rename it",
                    str(path),
                )
                continue
            yield path


def recordings_by_stem(paths: Iterable[Path]) -> dict[str, Path]:
    """Return recordings by their names; of two with one name, the first.

    The other is reported.

    Example
    -------
    >>> recordings_by_stem([Path("a/1_2.flac"), Path("b/1_2.flac")])
    {'1_2': PosixPath('a/1_2.flac')}
    """
    recordings: dict[str, Path] = {}
    for path in paths:
        known = recordings.setdefault(path.stem, path)
        if known is not path:
            logger.warning("%s is left out: %s has the same name", path, known)
    return recordings


def report_left(recordings: Mapping[str, object], where: str | Path) -> None:
    """Report recordings that no table names.

    Example
    -------
    >>> report_left({}, "transcripts.txt")
    """
    if recordings:
        names = ", ".join(map(str, list(recordings.values())[:_SHOWN]))
        logger.warning(
            "%d recordings are left out, since they are not in %s, such as %s",
            len(recordings),
            where,
            names,
        )


def check_split(split: str, splits: Collection[str], where: str | Path) -> None:
    """Raise a ValueError unless a split is one of those that there are.

    Example
    -------
    >>> check_split("dev", ["train", "dev"], "mls_polish")
    """
    if split not in splits:
        raise ValueError(
            f"no split {split!r} in {where}; "
            + (
                f"there are {', '.join(splits)}"
                if splits
                else "name the folder of the corpus as it is unpacked"
            )
        )


def report_passed_over(folder: Path) -> None:
    """Report files below a folder whose names say neither audio nor text.

    Example
    -------
    >>> report_passed_over(tmp)
    """
    others = [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() not in _BESIDE | AUDIO_SUFFIXES
        and not path.name.startswith(".")
        and path.is_file()
    ]
    if others:
        names = ", ".join(ascii(path.name)[1:-1] for path in others[:_SHOWN])
        logger.warning(
            "%s: %d files are passed over, such as %s; name recordings by a "
            "suffix of audio, such as .wav",
            *(folder, len(others), names),
        )
