"""A plain folder of recordings, and what it knows of their texts."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from spiritlm_plugin.dataio.corpus.csv_tables import read_table
from spiritlm_plugin.dataio.corpus.preparation import Record
from spiritlm_plugin.dataio.corpus.readers.tables import (
    SPEAKERS,
    TEXTS,
    choose_column,
    clean_text,
    read_place,
    report_passed_over,
    timed_words,
    walk_audio,
)
from spiritlm_plugin.dataio.corpus.shards import TEXT_KEYS
from spiritlm_plugin.dataio.corpus.textgrids import match_words, read_textgrid
from spiritlm_plugin.utils.files import read_lines, read_text

logger = logging.getLogger(__name__)

# Folders of these names are splits, where there are no others.
_SPLITS = {
    "train": "train",
    "training": "train",
    "valid": "valid",
    "validation": "valid",
    "val": "valid",
    "dev": "valid",
    "test": "test",
    "eval": "test",
}
# Tables, in the order in which they are looked for.
_TABLES = ("metadata.csv", "metadata.jsonl", "transcripts.txt")
_TEXTS = (".txt", ".lab")
# Columns of tables that are taken as they are.
_LABELS = sorted({*TEXT_KEYS} - {"text", "speaker"})
_Entry = dict[str, Any]


def find_splits(data_folder: str | Path) -> dict[str, Path]:
    """Return the splits of a folder, by name.

    Where all its folders have names as ``train``, ``dev`` and ``test``, each
    is a split, the second called ``valid``. Otherwise all is ``train``.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.

    Example
    -------
    >>> (tmp / "dev").mkdir()
    >>> list(find_splits(tmp)), list(find_splits(tmp / "dev"))
    (['valid'], ['train'])
    """
    folder = Path(data_folder).resolve()
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}")
    folders = sorted(p for p in folder.iterdir() if p.is_dir())
    splits = {_SPLITS.get(path.name.lower(), ""): path for path in folders}
    if folders and len(splits) == len(folders) and "" not in splits:
        return splits
    return {"train": folder}


def read_folder(
    folder: str | Path, speaker_folders: bool = False
) -> Iterator[Record]:
    """Yield the recordings below a folder, in any container.

    What is said comes of, in this order, a table in the recording's folder or
    one above it, a text beside it (``a.txt`` or ``a.lab``), a TextGrid
    (``a.TextGrid``) or what WhisperX has written (``a.json``). The latter two
    have the times of words. Tables are ``metadata.csv`` or ``metadata.jsonl``
    with ``file_name``, text and perhaps ``group`` and ``position``, ``metadata.csv`` as in LJSpeech (with ``|``),
    and ``transcripts.txt`` (a name, a tab or space, a text a line).

    Arguments
    ---------
    folder : path
        Of a split.
    speaker_folders : bool
        Whether the first folder on the way to a recording is its speaker.

    Yields
    ------
    Record
        With wav and perhaps text, words and speaker. An id is the path below
        the folder. What a table names and is not there, what it does not name
        and texts that cannot be read are reported.

    Raises
    ------
    FileNotFoundError
        If there is no recording.
    ValueError
        If a table cannot be read.

    Example
    -------
    >>> (tmp / "anna").mkdir()
    >>> _ = (tmp / "anna" / "a.wav").write_bytes(b"")
    >>> _ = (tmp / "anna" / "a.txt").write_text("Two boats.")
    >>> list(read_folder(tmp, speaker_folders=True))
    [('anna/a', {'wav': PosixPath('.../anna/a.wav'), 'text': 'Two boats.',
                 'speaker': 'anna'})]
    """
    folder = Path(folder).resolve()
    paths = list(walk_audio(folder))
    if not paths:
        raise FileNotFoundError(f"no recording in {folder}")
    report_passed_over(folder)
    entries = _read_tables(folder, paths)
    stems = [path.with_suffix("") for path in paths]
    twice = {s for s, n in zip(sorted(stems), sorted(stems)[1:]) if s == n}
    for path, stem in zip(paths, stems):
        place = path if stem in twice else stem
        record: _Entry = {"wav": path}
        try:
            record |= entries.get(path) or _read_beside(stem)
        except ValueError as error:
            logger.warning("%s has no text: %s", path, error)
        parts = path.relative_to(folder).parts
        if speaker_folders and len(parts) > 1:
            record["speaker"] = parts[0]
        yield place.relative_to(folder).as_posix(), record


def _read_beside(stem: Path) -> _Entry:
    """Return what is said, as the files say that have a recording's name."""
    entry: _Entry = {}
    for suffix in _TEXTS:
        if (path := _beside(stem, suffix)).is_file():
            entry["text"] = clean_text(read_text(path))
            break
    for suffix, read in ((".TextGrid", _read_grid), (".json", _read_json)):
        if (path := _beside(stem, suffix)).is_file():
            try:
                return read(path, entry.get("text"))
            except (
                ValueError,
                TypeError,
                AttributeError,
                RecursionError,
            ) as error:
                logger.warning("%s: no word times: %s", path, error)
    return entry


def _beside(stem: Path, suffix: str) -> Path:
    return stem.with_name(f"{stem.name}{suffix}")


def _read_grid(path: Path, text: str | None) -> _Entry:
    words = read_textgrid(path)
    if text is not None:
        return {"text": text, "words": match_words(words, text)}
    spoken = " ".join(word for word, _, _ in words if word)
    return {"text": spoken, "words": words}


def _read_json(path: Path, text: str | None) -> _Entry:
    """Read what WhisperX has heard; other JSON says nothing."""
    content = json.loads(read_text(path))
    segments = content.get("segments") if isinstance(content, dict) else None
    if not isinstance(segments, list):
        return {} if text is None else {"text": text}
    heard = clean_text(" ".join(s.get("text", "") for s in segments))
    entry: _Entry = {"text": text or heard}
    try:
        words = [word for s in segments for word in s["words"]]
        entry["words"] = timed_words(words, entry["text"])
    except KeyError:
        logger.warning("%s: no word times: a segment has no words", path)
    except ValueError as error:
        logger.warning("%s: no word times: %s", path, error)
    return entry


def _read_tables(folder: Path, paths: list[Path]) -> dict[Path, _Entry]:
    """Return what the tables of a folder say of its recordings."""
    below: dict[Path, list[Path]] = {}
    for path in paths:
        for parent in path.parents:
            if parent.is_relative_to(folder):
                below.setdefault(parent, []).append(path)
    entries: dict[Path, _Entry] = {}
    for place in sorted(below):
        tables = [place / name for name in _TABLES]
        table = next(filter(Path.is_file, tables), None)
        if table is not None:
            entries |= _read_table(table, below[place])
    return entries


def _read_table(table: Path, paths: list[Path]) -> dict[Path, _Entry]:
    known = _by_name(table.parent, paths)
    entries = {}
    for name, entry in _rows(table):
        path = known.get(name)
        if path is None:
            problem = "several recordings" if name in known else "no recording"
            logger.warning("%s: %s is left out: %s", table, name, problem)
        else:
            entries[path] = entry
    missing = [path for path in paths if path not in entries]
    if missing:
        logger.warning(
            "%s does not name %d recordings, such as %s",
            *(table, len(missing), missing[0]),
        )
    return entries


def _by_name(folder: Path, paths: list[Path]) -> dict[str, Path | None]:
    """Return recordings by all that a table may call them.

    That is the path, with the suffix or without, or else the last part of it;
    of a name that is not of one recording alone, None.
    """
    places = {path: path.relative_to(folder) for path in paths}
    known: dict[str, Path | None] = {}
    for form in (
        lambda place: place.as_posix(),
        lambda place: place.with_suffix("").as_posix(),
        lambda place: place.name,
        lambda place: place.stem,
    ):
        new: dict[str, Path | None] = {}
        for path, place in places.items():
            new[form(place)] = None if form(place) in new else path
        known = new | known
    return known


def _rows(table: Path) -> Iterator[tuple[str, _Entry]]:
    """Yield the name of each recording, and what a table says of it."""
    lines = [line for line in read_lines(table) if line.strip()]
    if table.suffix == ".jsonl":
        for line in lines:
            yield _entry(table, _load(table, line))
    elif table.suffix == ".txt":
        for line in lines:
            name, *text = line.split("\t" if "\t" in line else None, 1)
            yield name.strip(), {"text": clean_text("".join(text))}
    elif (
        lines and "|" in lines[0] and "file_name" not in lines[0]
    ):  # as LJSpeech
        for line in lines:
            name, *texts = line.split("|")
            yield name, {"text": clean_text(texts[-1] if texts else "")}
    else:
        for _, row in read_table(table, ["file_name"]):
            yield _entry(table, row)


def _load(table: Path, line: str) -> dict[str, Any]:
    try:
        return dict(json.loads(line))
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(
            f"{table}: cannot read {line:.60} as a JSON object ({error}); "
            "correct the line"
        ) from error


def _entry(table: Path, row: Mapping[str, Any]) -> tuple[str, _Entry]:
    if not row.get("file_name"):
        raise ValueError(
            f"{table} has a row without file_name: {dict(row)}; it should have "
            f"the columns file_name and {TEXTS[0]}"
        )
    entry: _Entry = {}
    text, speaker = choose_column(row, TEXTS), choose_column(row, SPEAKERS)
    if text is not None and row[text] is not None:
        said = row[text]
        if isinstance(said, bool) or not isinstance(said, (str, int)):
            raise ValueError(
                f"{table}: the {text} of {row['file_name']} is {said!r:.40}, no "
                "text; correct it"
            )
        entry["text"] = clean_text(said)
    if speaker is not None and row[speaker] is not None:
        entry["speaker"] = str(row[speaker])
    for label in _LABELS:
        if row.get(label) not in (None, ""):
            entry[label] = str(row[label])
    try:
        entry |= read_place(row)
    except ValueError as error:
        raise ValueError(f"{table}: {row['file_name']}: {error}") from error
    return str(row["file_name"]), entry
