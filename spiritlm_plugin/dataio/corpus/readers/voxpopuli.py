"""VoxPopuli, as its own scripts lay it out: transcribed and unlabelled."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from spiritlm_plugin.dataio.corpus.preparation import Record
from spiritlm_plugin.dataio.corpus.readers.tables import (
    by_place,
    check_split,
    clean_text,
    place_of,
    recordings_by_stem,
    report_left,
    walk_audio,
)
from spiritlm_plugin.utils.files import read_lines

logger = logging.getLogger(__name__)

UNLABELLED = "unlabelled"
TEXTS = ("normalized", "raw")
_TRANSCRIBED = ("train", "dev", "test")
# What a manifest keeps, and of which column.
_KEPT = {"speaker": "speaker_id", "gender": "gender"}
# As the corpus writes speakers that are not known.
_UNKNOWN = ("", "None", "nan")


def find_languages(data_folder: str | Path) -> list[str]:
    """Return the languages that are there.

    Raises
    ------
    FileNotFoundError
        If there is none.

    Example
    -------
    >>> (tmp / "unlabelled_data" / "pl").mkdir(parents=True)
    >>> find_languages(tmp)
    ['pl']
    """
    folder = Path(data_folder)
    parts = ("transcribed_data", "unlabelled_data")
    found = {
        path.name
        for part in parts
        for path in (folder / part).glob("*")
        if path.is_dir()
    }
    if not found:
        raise FileNotFoundError(
            f"no {parts[0]}/<language> and no {parts[1]}/<language> in "
            f"{folder}; name the root folder of VoxPopuli"
        )
    return sorted(found)


def find_splits(data_folder: str | Path, language: str) -> list[str]:
    """Return the splits of a language that are there.

    Example
    -------
    >>> (tmp / "unlabelled_data" / "pl").mkdir(parents=True)
    >>> find_splits(tmp, "pl")
    ['unlabelled']
    """
    folder = Path(data_folder)
    check_split(language, find_languages(folder), folder)
    found = [
        split
        for split in _TRANSCRIBED
        if _table(folder, language, split).is_file()
    ]
    if (folder / "unlabelled_data" / language).is_dir():
        found.append(UNLABELLED)
    return found


def _table(folder: Path, language: str, split: str) -> Path:
    return folder / "transcribed_data" / language / f"asr_{split}.tsv"


def read_voxpopuli(
    data_folder: str | Path, split: str, language: str, text: str = "normalized"
) -> Iterator[Record]:
    """Yield the utterances of a split of a language.

    Arguments
    ---------
    data_folder : path
        The root: it holds ``transcribed_data/en/asr_train.tsv`` with
        ``transcribed_data/en/2013/<id>.ogg``, and
        ``unlabelled_data/en/2013/<id>.ogg``.
    split : str
        ``"train"``, ``"dev"``, ``"test"`` or ``"unlabelled"``.
    language : str
        Such as ``"en"``.
    text : str
        ``"normalized"``, or ``"raw"`` with case and punctuation.

    Yields
    ------
    Record
        With wav, its place in the session and, where they are transcribed,
        text and perhaps speaker and gender. Recordings without a line in the table, and lines without one,
        are reported.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no such language, split or text, or a table cannot be
        read.
    """
    if text not in TEXTS:
        raise ValueError(f"no text {text!r}; there are {', '.join(TEXTS)}")
    folder = Path(data_folder).resolve()
    check_split(split, find_splits(folder, language), folder)
    if split == UNLABELLED:
        paths = walk_audio(folder / "unlabelled_data" / language)
        found = recordings_by_stem(paths)
        for name in sorted(found, key=by_place):
            yield name, {"wav": found[name], **place_of(name)}
        return
    table = _table(folder, language, split)
    recordings = recordings_by_stem(walk_audio(table.parent))
    rows = _read_rows(table, f"{text}_text")
    for row in sorted(rows, key=lambda row: by_place(row["id"])):
        path = recordings.pop(row["id"], None)
        if path is None:
            logger.warning("%s is left out: no recording", row["id"])
            continue
        record: dict[str, Any] = {
            "wav": path,
            "text": clean_text(row[f"{text}_text"]),
            **place_of(row["id"]),
        }
        for key, column in _KEPT.items():
            if row.get(column, "") not in _UNKNOWN:
                record[key] = row[column]
        yield row["id"], record
    others = (_table(folder, language, s) for s in _TRANSCRIBED if s != split)
    listed = {
        line.partition("\t")[0]
        for other in filter(Path.is_file, others)
        for line in read_lines(other)
    }
    left = {n: path for n, path in recordings.items() if n not in listed}
    report_left(left, table.parent / "asr_*.tsv")


def _read_rows(path: Path, text: str) -> Iterator[dict[str, str]]:
    lines = read_lines(path)
    columns = lines[0].split("\t") if lines else []
    missing = {"id", text} - set(columns)
    if missing:
        raise ValueError(
            f"{path} has no column {', '.join(sorted(missing))}; its first "
            "line should name its columns, id, raw_text, normalized_text and "
            "others, with tabs between them"
        )
    for number, line in enumerate(lines[1:], 2):
        fields = line.split("\t")
        if len(fields) == len(columns):
            yield dict(zip(columns, fields))
        elif line.strip():
            logger.warning(
                "%s, line %d is left out: it has %d columns, not %d",
                *(path, number, len(fields), len(columns)),
            )
