"""Fluent Speech Commands, with an intent for each command."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from spiritlm_plugin.dataio.corpus.csv_tables import Row, read_table
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
        together. Its id is the name of the recording, after that of its folder
        where several have one name. Rows that are not complete are reported.

    Raises
    ------
    FileNotFoundError
        If the table is not there.
    ValueError
        If it cannot be read, lacks a column, or has no complete row.
    """
    data_folder = Path(data_folder).resolve()
    rows = _read_rows(data_folder / "data" / f"{split}_data.csv")
    stems = Counter(Path(path).stem for path in {row["path"] for row in rows})
    is_empty = True
    for row in rows:
        text = " ".join(row["transcription"].lower().split())
        slots = [row[slot].strip() for slot in SLOTS]
        if not text or not row["path"] or not all(slots):
            logger.warning(
                "%s is left out: its row is not complete", row["path"]
            )
            continue
        wav = data_folder / row["path"]
        # Two speakers may have a recording of one name.
        is_shared = stems[wav.stem] > 1
        yield (
            f"{wav.parent.name}/{wav.stem}" if is_shared else wav.stem,
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


def _read_rows(path: Path) -> list[Row]:
    if not path.is_file():
        raise FileNotFoundError(
            f"no table {path}; name the folder of Fluent Speech Commands that "
            "holds data/ and wavs/"
        )
    return [row for _, row in read_table(path, COLUMNS)]
