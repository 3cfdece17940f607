#!/usr/bin/env python3
"""Write manifests of LibriSpeech, with word times where there are alignments.

    python librispeech_prepare.py LibriSpeech MANIFEST_FOLDER \
        --tr_splits train-clean-100 --dev_splits dev-clean \
        --te_splits test-clean test-other

Each split gets a manifest of its name; ``train.json``, ``valid.json`` and
``test.json`` are what the splits make together. Nothing is downloaded. A
manifest that is newer than its split is kept.
"""

from __future__ import annotations

import argparse
import json
import logging
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import soundfile
from tqdm import tqdm

from spiritlm_plugin.dataio.corpus.manifests import write_manifest

logger = logging.getLogger("librispeech_prepare")

TRAIN_SPLITS = ("train-clean-100", "train-clean-360", "train-other-500")
DEV_SPLITS = ("dev-clean",)
TEST_SPLITS = ("test-clean", "test-other")

# What times may exceed the audio by, because they are rounded; seconds.
_ROUNDING = 0.01
_ALIGNMENT = re.compile(r'(\S+)\s+"([^"]*)"\s+"([^"]*)"')
_THREADS = 16


class Utterance(NamedTuple):
    """A line of a transcript, and its line of alignment, if any."""

    name: str
    folder: Path
    text: str
    alignment: tuple[str, str] | None


def prepare_librispeech(
    data_folder: str | Path,
    save_folder: str | Path,
    tr_splits: Sequence[str] = TRAIN_SPLITS,
    dev_splits: Sequence[str] = DEV_SPLITS,
    te_splits: Sequence[str] = TEST_SPLITS,
) -> None:
    """Write the manifests, or what is missing of them.

    Arguments
    ---------
    data_folder : path
        Holds the splits, as in ``train-clean-100/19/198/19-198-0000.flac``.
    save_folder : path
        Of the manifests; made if there is none.
    tr_splits, dev_splits, te_splits : sequence of str
        Splits that make ``train.json``, ``valid.json`` and ``test.json``.

    Raises
    ------
    FileNotFoundError
        If a split is not there.
    ValueError
        If a split has no usable utterance.
    """
    data_folder = Path(data_folder).resolve()
    save_folder = Path(save_folder)
    merged = {"train": tr_splits, "valid": dev_splits, "test": te_splits}
    for split in sum(map(tuple, merged.values()), ()):
        if not (data_folder / split).is_dir():
            raise FileNotFoundError(
                f"no folder {data_folder / split}; name the folder that holds "
                "the splits of LibriSpeech, and the splits that you have "
                "(--tr_splits, --dev_splits, --te_splits)"
            )
    save_folder.mkdir(parents=True, exist_ok=True)
    for name, splits in merged.items():
        items = {}
        for split in splits:
            items |= _prepare_split(
                data_folder / split, save_folder / f"{split}.json"
            )
        if items:
            write_manifest(items, save_folder / f"{name}.json")


def _prepare_split(folder: Path, manifest: Path) -> dict[str, dict]:
    chapters = sorted(p for p in folder.glob("*/*") if p.is_dir())
    items = _read_current(manifest, chapters)
    if items:
        logger.info("%s is there already", manifest)
        return items
    utterances = [u for chapter in chapters for u in _read_chapter(chapter)]
    with ThreadPoolExecutor(_THREADS) as pool:
        found = tqdm(
            pool.map(_describe, utterances),
            total=len(utterances),
            desc=folder.name,
            unit="file",
        )
        items = {u.name: i for u, i in zip(utterances, found) if i is not None}
    if not items:
        raise ValueError(
            f"{folder} has no usable utterance: there should be transcripts "
            "such as 19/198/19-198.trans.txt beside the recordings"
        )
    write_manifest(items, manifest)
    words = sum("words" in item for item in items.values())
    logger.info(
        "%s: %d utterances, %d left out, %.1f hours, %d with word times",
        manifest.name,
        len(items),
        len(utterances) - len(items),
        sum(item["duration"] for item in items.values()) / 3600,
        words,
    )
    return items


def _read_current(manifest: Path, chapters: list[Path]) -> dict[str, dict]:
    """Read a manifest, if nothing has changed in its split since."""
    if not manifest.is_file():
        return {}
    # The status time tells of files that were copied with their old dates.
    made = manifest.stat().st_mtime_ns
    texts = (text for chapter in chapters for text in chapter.glob("*.txt"))
    if any(path.stat().st_ctime_ns >= made for path in (*chapters, *texts)):
        return {}
    items = json.loads(manifest.read_text(encoding="utf-8"))
    folders = {Path(item["wav"]).parent for item in items.values()}
    return items if folders <= set(chapters) else {}


def _read_chapter(chapter: Path) -> Iterator[Utterance]:
    prefix = f"{chapter.parent.name}-{chapter.name}"
    transcript = chapter / f"{prefix}.trans.txt"
    recordings = {path.stem for path in chapter.glob("*.flac")}
    alignments = _read_alignments(chapter / f"{prefix}.alignment.txt")
    for line in _lines(transcript):
        name, _, text = line.partition(" ")
        if name not in recordings:
            logger.warning("%s is left out: no recording", name)
            continue
        recordings.remove(name)
        text = " ".join(text.lower().split())
        yield Utterance(name, chapter, text, alignments.get(name))
    for name in sorted(recordings):
        logger.warning("%s is left out: not in %s", name, transcript)


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return [line.strip() for line in lines if line.strip()]


def _read_alignments(path: Path) -> dict[str, tuple[str, str]]:
    alignments = {}
    for line in _lines(path):
        match = _ALIGNMENT.fullmatch(line)
        if match is None:
            logger.warning("%s: cannot read the line %.60r", path, line)
        else:
            alignments[match[1]] = match[2], match[3]
    return alignments


def _describe(utterance: Utterance) -> dict | None:
    name, folder, text, alignment = utterance
    wav = folder / f"{name}.flac"
    try:
        duration = round(soundfile.info(wav).duration, 4)
    except soundfile.LibsndfileError as error:
        logger.warning("%s is left out: %s", name, error)
        return None
    if not text:
        logger.warning("%s is left out: its transcript is empty", name)
        return None
    item = {
        "wav": str(wav),
        "duration": duration,
        "speaker": name.partition("-")[0],
        "text": text,
    }
    if alignment is not None:
        try:
            item["words"] = read_words(*alignment, text, duration)
        except ValueError as error:
            logger.warning("%s has no word times: %s", name, error)
    return item


def read_words(
    entries: str, ends: str, text: str, duration: float
) -> list[list]:
    """Read the times of words.

    Arguments
    ---------
    entries : str
        Words and, as empty entries, silences, as in ``",MISTER,,QUILTER,"``.
    ends : str
        Where each entry ends, in seconds.
    text : str
        The transcript, in lower case.
    duration : float
        Of the recording, in seconds.

    Returns
    -------
    list of [str, float, float]
        Words, starts and ends.

    Raises
    ------
    ValueError
        If the alignment does not fit the transcript or the recording.
    """
    words = entries.lower().split(",")
    times = [float(end) for end in ends.split(",")]
    if len(words) != len(times):
        raise ValueError(f"{len(words)} entries have {len(times)} times")
    if [word for word in words if word] != text.split():
        raise ValueError("the alignment has other words than the transcript")
    if not times[-1] <= duration + _ROUNDING:
        raise ValueError(
            f"the alignment ends at {times[-1]} s, the recording at "
            f"{duration:.3f} s"
        )
    times = [0.0, *(min(time, duration) for time in times)]
    spans = [list(span) for span in zip(words, times, times[1:])]
    for word, start, end in spans:
        if not start <= end or (word and start == end):
            raise ValueError(f"{word or 'a silence'} is from {start} to {end}")
    return [span for span in spans if span[0]]


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("data_folder", help="holds the splits")
    parser.add_argument("save_folder", help="of the manifests")
    parser.add_argument("--tr_splits", nargs="*", default=TRAIN_SPLITS)
    parser.add_argument("--dev_splits", nargs="*", default=DEV_SPLITS)
    parser.add_argument("--te_splits", nargs="*", default=TEST_SPLITS)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    prepare_librispeech(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
