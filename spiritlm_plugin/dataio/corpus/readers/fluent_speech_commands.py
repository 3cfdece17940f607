"""Fluent Speech Commands, with an intent for each command."""

from __future__ import annotations

import csv
import logging
from collections.abc import Iterator
from pathlib import Path

from spiritlm_plugin.dataio.corpus.preparation import Record

logger = logging.getLogger(__name__)

SLOTS = ("action", "object", "location")
COLUMNS = ("path", "speakerId", "transcription", *SLOTS)


def read_fluent_speech_commands(
    data_folder: str | Path, split: str
) -> Iterator[Record]:
    """Yield the commands of a split.

    Arguments
    ---------
    data_folder : path
        Holds ``data/train_data.csv`` and so on, and ``wavs``.
    split : str
        ``"train"``, ``"valid"`` or ``"test"``.

    Yields
    ------
    Record
        With wav, speaker, text, and the intent: action, object and location
        together. Rows that are not complete are reported.

    Raises
    ------
    FileNotFoundError
        If the table is not there.
    ValueError
        If it lacks a column, or has no complete row.
    """
    data_folder = Path(data_folder).resolve()
    is_empty = True
    for row in _read_table(data_folder / "data" / f"{split}_data.csv"):
        text = " ".join((row["transcription"] or "").lower().split())
        slots = [(row[slot] or "").strip() for slot in SLOTS]
        if not text or not all(slots):
            logger.warning(
                "%s is left out: its row is not complete", row["path"]
            )
            continue
        wav = data_folder / row["path"]
        yield (
            wav.stem,
            {
                "wav": wav,
                "speaker": row["speakerId"],
                "text": text,
                "intent": " ".join(slots),
            },
        )
        is_empty = False
    if is_empty:
        raise ValueError(
            f"the {split} split in {data_folder} has no usable recording: "
            "there should be wavs/speakers/<speaker>/<name>.wav"
        )


def _read_table(path: Path) -> Iterator[dict[str, str]]:
    if not path.is_file():
        raise FileNotFoundError(
            f"no table {path}; name the folder of Fluent Speech Commands that "
            "holds data/ and wavs/"
        )
    with open(path, encoding="utf-8", newline="") as file:
        table = csv.DictReader(file)
        missing = set(COLUMNS) - set(table.fieldnames or ())
        if missing:
            raise ValueError(
                f"{path} has no column {', '.join(sorted(missing))}; unpack "
                "the corpus again"
            )
        yield from table
