#!/usr/bin/env python3
"""Write the manifest of Asterisk's prompts, which one person speaks.

    apt-get download asterisk-core-sounds-en asterisk-core-sounds-en-g722
    for package in asterisk-core-sounds-en*.deb; do
        dpkg-deb -x $package DATA_FOLDER
    done
    pip install -r extra_requirements.txt
    python asterisksounds_prepare.py DATA_FOLDER MANIFEST_FOLDER

Where the packages are installed DATA_FOLDER is /. The manifest is ``test.json``,
its recordings are beside it, and ``left_out.json`` says of each prompt that is
not in it why.
"""

from __future__ import annotations

import argparse
import gzip
import json
import logging
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from phone_alignment import RATE, Aligner, AlignmentError
from tqdm import tqdm

from spiritlm_plugin.dataio.audio.writing import write_wav
from spiritlm_plugin.dataio.corpus.manifests import write_manifest
from spiritlm_plugin.utils.files import write_file

logger = logging.getLogger(__name__)

SOUNDS = "usr/share/asterisk/sounds/en_US_f_Allison"
TEXTS = "usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt"
SPEAKER = "allison"
# Where text and recording agree a word has -26 or more, a phone 0.55 s or less.
WORST_SCORE = -30.0
LONGEST_PHONE = 0.6

_BITS_PER_SECOND = 64_000
_DIGITS = dict(
    zip(
        "0123456789",
        "zero one two three four five six seven eight nine".split(),
    )
)
_NOTE = re.compile(r"\[(.*?)\]|\((.*?)\)|<(.*?)>")
_WORD = re.compile(r"[a-z]+(?:'[a-z]+)*", re.IGNORECASE)


class LeftOutError(ValueError):
    """A prompt that cannot be used, and why."""


def prepare_asterisksounds(data_folder: str, save_folder: str) -> None:
    """Write ``test.json``, its recordings and ``left_out.json``.

    Raises
    ------
    FileNotFoundError
        If a package is not there.
    ImportError
        If what reads or aligns the recordings is not installed.
    ValueError
        If no prompt can be used.
    """
    sounds, texts = find_sounds(data_folder), read_texts(data_folder)
    aligner, save = Aligner(WORST_SCORE, LONGEST_PHONE), Path(save_folder)
    items, left_out = dict[str, dict[str, Any]](), dict[str, str]()
    for name, text in tqdm(texts.items(), desc="aligning", leave=False):
        place = f"wav/{name}.wav"
        try:
            item, samples = read_prompt(sounds / f"{name}.g722", text, aligner)
        except (LeftOutError, AlignmentError) as problem:
            left_out[name] = str(problem)
            continue
        (save / place).parent.mkdir(parents=True, exist_ok=True)
        write_wav(save / place, samples / np.float32(2**15))
        items[name.replace("/", "_")] = {"wav": f"{{data_root}}/{place}"} | item
    if not items:
        raise ValueError(
            f"no prompt of the {len(texts)} in {data_folder} can be used: "
            f"{next(iter(left_out.values()), 'its texts are empty')}"
        )
    write_file(save / "left_out.json", json.dumps(left_out, indent=2))
    write_manifest(items, save / "test.json")
    _report(items, left_out)


def _report(items: dict[str, dict[str, Any]], left_out: dict[str, str]) -> None:
    seconds = sum(item["duration"] for item in items.values())
    words = sum(len(item["words"]) for item in items.values())
    logger.info(
        "%d prompts, %.1f minutes, %d words; %d left out",
        *(len(items), seconds / 60, words, len(left_out)),
    )
    reasons = Counter(why.split(":")[0] for why in left_out.values())
    for why, count in reasons.most_common():
        logger.info("%5d: %s", count, why)


def find_sounds(data_folder: str | Path) -> Path:
    """Return where the recordings are."""
    folder = Path(data_folder) / SOUNDS
    if not any(folder.glob("*.g722")):
        raise FileNotFoundError(
            f"no *.g722 in {folder}; apt-get download "
            "asterisk-core-sounds-en-g722, and dpkg-deb -x it to the folder "
            "that you name"
        )
    return folder


def read_texts(data_folder: str | Path) -> dict[str, str]:
    """Return the texts of all prompts, by the names of their recordings."""
    path = Path(data_folder) / TEXTS
    packed = path.with_name(path.name + ".gz")
    if packed.is_file():
        content = gzip.decompress(packed.read_bytes()).decode("utf-8")
    elif path.is_file():
        content = path.read_text("utf-8")
    else:
        raise FileNotFoundError(
            f"no {packed}; apt-get download asterisk-core-sounds-en, and "
            "dpkg-deb -x it to the folder that you name (an installation may "
            "leave documents out)"
        )
    lines = [line for line in content.splitlines() if line[:1] not in ("", ";")]
    pairs = (line.partition(":") for line in lines)
    return {name.strip(): text.strip() for name, _, text in pairs}


def read_prompt(
    path: Path, text: str, aligner: Aligner
) -> tuple[dict[str, Any], np.ndarray]:
    """Return the entry of a prompt, but its place, and samples of 16 bits.

    Raises
    ------
    LeftOutError, AlignmentError
        If it cannot be used.
    """
    said = normalize(text)
    if unknown := aligner.unknown(said):
        raise LeftOutError(
            f"words that the dictionary lacks: {', '.join(unknown)}"
        )
    if not path.is_file():
        raise LeftOutError("there is no recording")
    samples = decode(path.read_bytes())
    words, phones = aligner(said, samples)
    return {
        "duration": round(len(samples) / RATE, 6),
        "speaker": SPEAKER,
        "text": said,
        "words": words,
        "phones": phones,
    }, samples


def normalize(text: str) -> str:
    """Return the words of a prompt in lower case, one space between two.

    Raises
    ------
    LeftOutError
        If it is not known which words are said.

    Example
    -------
    >>> normalize("Press 3, or re-enter your party's number ...")
    "press three or re enter your party's number"
    >>> normalize("at [@]")
    'at'
    """
    for match in _NOTE.finditer(text):
        if re.search(r"\w", match.group()):
            raise LeftOutError("a sound or a note beside its words")
    words = [*map(_word, _NOTE.sub(" ", text).replace("-", " ").split())]
    said = " ".join(filter(None, words))
    if len(said) < 2:
        raise LeftOutError("a letter, or nothing")
    return said


def _word(token: str) -> str:
    """Return a word as it is said, or nothing for a mark."""
    token = token.strip(".,:;?!\"…'")
    if not token:
        return ""
    if token in _DIGITS:
        return _DIGITS[token]
    if not _WORD.fullmatch(token):
        raise LeftOutError(f"a number or a sign: {token}")
    spelled = token.isupper() and token not in ("A", "I")
    if spelled or (len(token) == 1 and token.lower() not in "ai"):
        raise LeftOutError(f"letters that may be spelled: {token}")
    return token.lower()


def decode(content: bytes) -> np.ndarray:
    """Return the samples of a G.722 recording, 16 bits at 16 kHz."""
    try:
        from G722 import G722
    except ImportError as error:
        raise ImportError(
            "no G722; pip install -r extra_requirements.txt"
        ) from error
    return np.array(G722(RATE, _BITS_PER_SECOND).decode(content), np.int16)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("data_folder", help="where the packages are unpacked")
    parser.add_argument("save_folder", help="of the manifest")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    prepare_asterisksounds(**vars(parser.parse_args()))
