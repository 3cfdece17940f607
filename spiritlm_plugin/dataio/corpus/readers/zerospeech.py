"""sWUGGY and sBLIMP, of the ZeroSpeech challenge 2021."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from spiritlm_plugin.dataio.corpus.preparation import Record

SPLITS = ("dev", "test")
# Of each task the column of gold.csv with what is said; it may be missing.
TEXTS = {"lexical": "word", "syntactic": "transcription"}
COLUMNS = ("id", "filename", "voice", "correct")


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
        With wav, speaker, pair, correct and perhaps text; the two of a pair
        have id and voice in common.

    Raises
    ------
    ValueError
        If gold.csv cannot be read.
    """
    path = _gold(Path(data_folder).resolve(), task, split)
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    missing = [c for c in COLUMNS if not rows or c not in rows[0]]
    if missing:
        raise ValueError(
            f"{path} has no rows with {', '.join(missing)}; its columns should "
            f"be {', '.join(COLUMNS)} and others"
        )
    for number, row in enumerate(rows, 2):
        if row["correct"] not in ("0", "1"):
            raise ValueError(
                f"{path}, line {number}: correct is {row['correct']!r}, not 0 "
                "or 1; correct the line"
            )
        name = row["filename"].removesuffix(".wav")
        item: dict[str, Any] = {
            "wav": path.parent / f"{name}.wav",
            "speaker": row["voice"],
            "pair": f"{row['id']}_{row['voice']}",
            "correct": row["correct"] == "1",
        }
        if row.get(TEXTS[task]):
            item["text"] = row[TEXTS[task]]
        yield item["wav"].stem, item
