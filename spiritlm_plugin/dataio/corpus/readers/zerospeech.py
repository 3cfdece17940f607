"""sWUGGY and sBLIMP, of the ZeroSpeech challenge 2021."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from spiritlm_plugin.dataio.corpus.csv_tables import Row, read_table
from spiritlm_plugin.dataio.corpus.preparation import Record

SPLITS = ("dev", "test")
# Of each task the column of gold.csv with what is said; it may be missing.
TEXTS = {"lexical": "word", "syntactic": "transcription"}
# What tells items from each other: an id is unique within these only.
ITEMS = {"lexical": ("id",), "syntactic": ("type", "subtype", "id")}
COLUMNS = ("filename", "voice", "correct")
# Columns that a manifest keeps, where a table has them, and of which type.
_KEPT = {
    "voice": str,
    "type": str,
    "subtype": str,
    "frequency": int,
    "length": int,
}
IN_VOCABULARY, OOV = "in vocabulary", "OOV"
# Where the scorer of the challenge divides the frequencies of words.
_BANDS = (
    (1, OOV),
    (5, "1 to 4"),
    (20, "5 to 19"),
    (100, "20 to 99"),
    (math.inf, "100 and more"),
)


def find_labelled(data_folder: str | Path) -> list[tuple[str, str]]:
    """Return the tasks and splits that have labels.

    Test sets were published without.

    Raises
    ------
    FileNotFoundError
        If there is none.
    """
    data_folder = Path(data_folder).resolve()
    found = [
        (task, split)
        for task in TEXTS
        for split in SPLITS
        if _gold(data_folder, task, split).is_file()
    ]
    if not found:
        raise FileNotFoundError(
            f"no gold.csv in {data_folder}: there should be one such as "
            "lexical/dev/gold.csv; name the folder that holds lexical and "
            "syntactic"
        )
    return found


def _gold(data_folder: Path, task: str, split: str) -> Path:
    return data_folder / task / split / "gold.csv"


def read_zerospeech(
    data_folder: str | Path, task: str, split: str
) -> Iterator[Record]:
    """Yield the recordings of a task.

    Arguments
    ---------
    data_folder : path
        Holds ``lexical/dev/gold.csv`` and so on, recordings beside it.
    task : str
        ``"lexical"`` (sWUGGY) or ``"syntactic"`` (sBLIMP).
    split : str
        ``"dev"`` or ``"test"``.

    Yields
    ------
    Record
        With wav, speaker, correct and perhaps text. The two of a pair have
        ``pair`` in common, which stands for an item in a voice, and all voices
        of an item ``item``. The columns that decide about figures are kept:
        voice, type, subtype, frequency and length; of an item's word
        ``vocabulary`` and ``frequency_band`` say how frequent it is.

    Raises
    ------
    ValueError
        If gold.csv cannot be read; names the line.
    """
    path = _gold(Path(data_folder).resolve(), task, split)
    needs = (*ITEMS[task], *COLUMNS)
    table = list(read_table(path, needs))
    if not table:
        raise ValueError(f"{path} has no rows; unpack the corpus again")
    for line, row in table:
        _check(path, line, row, needs)
    rows = [row for _, row in table]
    items = [_join(row[column] for column in ITEMS[task]) for row in rows]
    columns = [_columns(path, line, row) for line, row in table]
    frequencies = {
        item: kept["frequency"]
        for item, kept, row in zip(items, columns, rows)
        if row["correct"] == "1" and "frequency" in kept
    }
    for item, kept, row in zip(items, columns, rows):
        name = row["filename"].removesuffix(".wav")
        record: dict[str, Any] = {
            "wav": path.parent / f"{name}.wav",
            "speaker": row["voice"],
            "pair": _join((item, row["voice"])),
            "item": item,
            "correct": row["correct"] == "1",
            **kept,
        }
        if item in frequencies:
            frequency = frequencies[item]
            record["vocabulary"] = IN_VOCABULARY if frequency >= 1 else OOV
            record["frequency_band"] = _band(frequency)
        if row.get(TEXTS[task]):
            record["text"] = row[TEXTS[task]]
        yield name, record


def _check(path: Path, line: int, row: Row, needs: Sequence[str]) -> None:
    """Raise unless a row says what it must."""
    for column in needs:
        if not row[column]:
            raise ValueError(
                f"{path}, line {line}: {column} is empty; correct the line"
            )
    if row["correct"] not in ("0", "1"):
        raise ValueError(
            f"{path}, line {line}: correct is {row['correct']!r}, not 0 or 1; "
            "correct the line"
        )


def _columns(path: Path, line: int, row: Row) -> dict[str, Any]:
    """Return what is kept of a row."""
    kept: dict[str, Any] = {}
    for column, kind in _KEPT.items():
        value = row.get(column)
        if not value:
            continue
        try:
            kept[column] = kind(float(value)) if kind is int else value
        except (ValueError, OverflowError):
            raise ValueError(
                f"{path}, line {line}: {column} is {value!r}, not a number; "
                "correct the line"
            ) from None
    return kept


def _join(parts: Iterable[str]) -> str:
    """Return one name for several, another one for each others.

    Example
    -------
    >>> _join(["a_b", "c"]), _join(["a", "b/c"])
    ('a_b/c', 'a/b%2Fc')
    """
    return "/".join(
        part.replace("%", "%25").replace("/", "%2F") for part in parts
    )


def _band(frequency: int) -> str:
    return next(name for end, name in _BANDS if frequency < end)
