#!/usr/bin/env python3
"""Write manifests of sWUGGY and sBLIMP, of the ZeroSpeech challenge 2021.

    python zerospeech_prepare.py DATA_FOLDER MANIFEST_FOLDER

DATA_FOLDER holds lexical (sWUGGY) and syntactic (sBLIMP), or one of them, each
with dev and test, and those with recordings and gold.csv; a test set without
gold.csv, as it was published, is passed over. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import csv
import logging
from pathlib import Path
from typing import Any

from spiritlm_plugin.dataio.audio.durations import read_durations
from spiritlm_plugin.dataio.corpus.manifests import write_manifest

logger = logging.getLogger("zerospeech_prepare")

SPLITS = {"dev": "valid", "test": "test"}
# Of each task the column of gold.csv with what is said; it may be missing.
TEXTS = {"lexical": "word", "syntactic": "transcription"}
COLUMNS = ("id", "filename", "voice", "correct")


def prepare_zerospeech(
    data_folder: str | Path, save_folder: str | Path
) -> None:
    """Write ``valid_lexical.json`` and so on, of what is there.

    Arguments
    ---------
    data_folder : path
        Holds ``lexical/dev/gold.csv`` and so on.
    save_folder : path
        Of the manifests; made if there is none.

    Raises
    ------
    FileNotFoundError
        If there is no gold.csv.
    ValueError
        If one cannot be read, or none of its recordings.
    """
    data_folder, save_folder = Path(data_folder).resolve(), Path(save_folder)
    golds = {
        f"{name}_{task}": (task, data_folder / task / split / "gold.csv")
        for task in TEXTS
        for split, name in SPLITS.items()
    }
    there = {n: g for n, g in golds.items() if g[1].is_file()}
    if not there:
        raise FileNotFoundError(
            f"no gold.csv in {data_folder}: there should be one such as "
            "lexical/dev/gold.csv; name the folder that holds lexical and "
            "syntactic"
        )
    save_folder.mkdir(parents=True, exist_ok=True)
    for name, (task, path) in there.items():
        items = read_gold(path, TEXTS[task])
        write_manifest(items, save_folder / f"{name}.json")
        logger.info("%s.json: %d recordings", name, len(items))


def read_gold(path: Path, text: str) -> dict[str, dict[str, Any]]:
    """Return the recordings of a gold.csv; rows of a pair have id and voice."""
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    missing = [c for c in COLUMNS if not rows or c not in rows[0]]
    if missing:
        raise ValueError(
            f"{path} has no rows with {', '.join(missing)}; its columns should "
            f"be {', '.join(COLUMNS)} and others"
        )
    wavs = [_wav(path.parent, row["filename"]) for row in rows]
    durations = read_durations(
        wavs, f"{path.parent.parent.name} {path.parent.name}"
    )
    items = {}
    for number, (row, wav) in enumerate(zip(rows, wavs), 2):
        if row["correct"] not in ("0", "1"):
            raise ValueError(
                f"{path}, line {number}: correct is {row['correct']!r}, not 0 "
                "or 1; correct the line"
            )
        if wav in durations:
            items[wav.stem] = {
                "wav": str(wav),
                "duration": durations[wav],
                "speaker": row["voice"],
                "pair": f"{row['id']}_{row['voice']}",
                "correct": row["correct"] == "1",
            }
            if row.get(text):
                items[wav.stem]["text"] = row[text]
    if not items:
        raise ValueError(
            f"{path} names no recording that can be used; they should lie "
            "beside it"
        )
    return items


def _wav(folder: Path, name: str) -> Path:
    return folder / f"{name.removesuffix('.wav')}.wav"


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("data_folder", help="holds lexical and syntactic")
    parser.add_argument("save_folder", help="of the manifests")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    prepare_zerospeech(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
