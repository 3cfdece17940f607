#!/usr/bin/env python3
"""Write manifests of Fluent Speech Commands, with an intent for each command.

    python fluent_speech_commands_prepare.py DATA_FOLDER MANIFEST_FOLDER

DATA_FOLDER holds data/{train,valid,test}_data.csv and wavs/. The intent is the
action, the object and the location together. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import csv
import logging
from pathlib import Path

from spiritlm_plugin.dataio.audio.durations import read_durations
from spiritlm_plugin.dataio.corpus.manifests import write_manifest

logger = logging.getLogger("fluent_speech_commands_prepare")

SPLITS = ("train", "valid", "test")
SLOTS = ("action", "object", "location")
COLUMNS = ("path", "speakerId", "transcription", *SLOTS)


def prepare_fluent_speech_commands(
    data_folder: str | Path, save_folder: str | Path
) -> None:
    """Write ``train.json``, ``valid.json`` and ``test.json``.

    Arguments
    ---------
    data_folder : path
        Of the corpus, unpacked.
    save_folder : path
        Of the manifests; made if there is none.

    Raises
    ------
    FileNotFoundError
        If a table is not there.
    ValueError
        If a table lacks a column, or a split has no usable recording.
    """
    data_folder = Path(data_folder).resolve()
    save_folder = Path(save_folder)
    # All tables are looked at before any recording is.
    tables = {split: _read_table(data_folder, split) for split in SPLITS}
    save_folder.mkdir(parents=True, exist_ok=True)
    for split, rows in tables.items():
        items = _describe_all(data_folder, rows, split)
        write_manifest(items, save_folder / f"{split}.json")
        logger.info(
            "%s: %d utterances, %d left out, %d intents",
            split,
            len(items),
            len(rows) - len(items),
            len({item["intent"] for item in items.values()}),
        )


def _read_table(data_folder: Path, split: str) -> list[dict[str, str]]:
    path = data_folder / "data" / f"{split}_data.csv"
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
        return list(table)


def _describe_all(
    data_folder: Path, rows: list[dict[str, str]], split: str
) -> dict[str, dict]:
    commands = {data_folder / row["path"]: _describe(row) for row in rows}
    usable = [wav for wav, command in commands.items() if command]
    items = {
        wav.stem: {"wav": str(wav), "duration": round(seconds, 4)}
        | commands[wav]
        for wav, seconds in read_durations(usable, split).items()
    }
    if not items:
        raise ValueError(
            f"the {split} split in {data_folder} has no usable recording: "
            "there should be wavs/speakers/<speaker>/<name>.wav"
        )
    return items


def _describe(row: dict[str, str]) -> dict[str, str] | None:
    text = " ".join((row["transcription"] or "").lower().split())
    slots = [(row[slot] or "").strip() for slot in SLOTS]
    if not text or not all(slots):
        logger.warning("%s is left out: its row is not complete", row["path"])
        return None
    return {
        "speaker": row["speakerId"],
        "text": text,
        "intent": " ".join(slots),
    }


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("data_folder", help="holds data/ and wavs/")
    parser.add_argument("save_folder", help="of the manifests")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    prepare_fluent_speech_commands(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
