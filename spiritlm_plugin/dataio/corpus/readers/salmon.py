"""SALMon, a suite for acoustic language model evaluation."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from spiritlm_plugin.dataio.corpus.preparation import Record

logger = logging.getLogger(__name__)

PARTS = (
    "sentiment_consistency",
    "speaker_consistency",
    "gender_consistency",
    "bg_domain_consistency",
    "bg_all_consistency",
    "rir_consistency",
    "sentiment_alignment",
    "bg_alignment",
)
_NUMBER = re.compile(r"-?\d+")


def find_parts(data_folder: str | Path) -> list[str]:
    """Return the folders with recordings: those of `PARTS`, then others.

    Parts that are not there are reported.

    Raises
    ------
    FileNotFoundError
        If there is none.
    """
    data_folder = Path(data_folder).resolve()
    found = {path.parent.name for path in data_folder.glob("*/*.wav")}
    if not found:
        raise FileNotFoundError(
            f"no folder with recordings in {data_folder}; name the folder that "
            f"holds {', '.join(PARTS)}"
        )
    missing = [part for part in PARTS if part not in found]
    if missing:
        logger.warning(
            "%s holds no %s; figures are of the parts that it holds",
            data_folder,
            ", ".join(missing),
        )
    known = [part for part in PARTS if part in found]
    return known + sorted(found.difference(PARTS))


def read_salmon(
    data_folder: str | Path, parts: Sequence[str]
) -> Iterator[Record]:
    """Yield the recordings of some parts, the right one of a pair first.

    Source: Maimon, Roth and Adi, "Salmon: A Suite for Acoustic Language Model
    Evaluation", 2024.

    Arguments
    ---------
    data_folder : path
        Holds a folder for each part, with two recordings ``*_<i>_*.wav`` for
        each number i; in alphabetical order the first is right.
    parts : sequence of str
        As of `find_parts`.

    Yields
    ------
    Record
        With wav, part, pair and correct; its id is that of the part and the
        name of the file. A number that has not two recordings is reported.

    Raises
    ------
    ValueError
        If a part has no pair.
    """
    for part in parts:
        folder = Path(data_folder).resolve() / part
        for number, paths in _find_pairs(folder).items():
            for path, correct in zip(paths, (True, False)):
                yield (
                    f"{part}/{path.stem}",
                    {
                        "wav": path,
                        "part": part,
                        "pair": f"{part}/{number}",
                        "correct": correct,
                    },
                )


def _find_pairs(folder: Path) -> dict[str, list[Path]]:
    """Return the two recordings of each number, by number."""
    paths = sorted(folder.glob("*.wav"), key=lambda path: path.name)
    longest = max((path.stem.count("_") for path in paths), default=0)
    by_number: dict[str, list[Path]] = {}
    pairs: dict[str, list[Path]] = {}
    # The number is the second field, unless names have more in front of it.
    for place in range(1, longest):
        found = _by_number(paths, place)
        complete = {n: two for n, two in found.items() if len(two) == 2}
        if len(complete) > len(pairs):
            by_number, pairs = found, complete
    if not pairs:
        raise ValueError(
            f"{folder} has no pair; its recordings should have names such as "
            "sample_0_0.wav and sample_0_1.wav, two for each number"
        )
    used = {path for two in pairs.values() for path in two}
    for path in paths:
        if path not in used:
            number = _number(path, by_number)
            logger.warning(
                "%s is left out: %s",
                path,
                f"{len(by_number[number])} recordings have the number {number}"
                if number is not None
                else "its name has no number between two underscores",
            )
    order = sorted(pairs, key=lambda number: (int(number), number))
    return {number: pairs[number] for number in order}


def _by_number(paths: Sequence[Path], place: int) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in paths:
        fields = path.stem.split("_")
        if place < len(fields) - 1 and _NUMBER.fullmatch(fields[place]):
            found.setdefault(fields[place], []).append(path)
    return found


def _number(path: Path, by_number: dict[str, list[Path]]) -> str | None:
    return next((n for n, some in by_number.items() if path in some), None)
