#!/usr/bin/env python3
"""Measure the pitch and the tempo of the speakers of TinySpeech.

    python measure_voices.py CORPUS

CORPUS is what tinyspeech_prepare.py has made.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path

import torch
from tinyspeech.styles import STYLES

from spiritlm_plugin.dataio.audio.reading import read_audio
from spiritlm_plugin.lobes.pitch import FCPE

KINDS = ("sentence", "command", "sentiment")


def measure_voices(
    corpus: str | Path, count: int = 5
) -> dict[str, dict[str, tuple[float, float]]]:
    """Return the median F0 in Hz, and the phones a second, by speaker and style.

    Arguments
    ---------
    corpus : path
        Of TinySpeech.
    count : int
        Utterances of each speaker and style.
    """
    corpus = Path(corpus)
    groups = defaultdict(list)
    for path in sorted(corpus.glob("t*.json")):  # train and test
        for entry in json.loads(path.read_text("utf-8")).values():
            group = groups[entry["speaker"], entry["style"]]
            if entry["kind"] in KINDS and len(group) < count:
                group.append(entry)
    extractor, found = FCPE(), defaultdict(dict)
    for (speaker, style), entries in sorted(groups.items()):
        numbers = [measure(corpus, entry, extractor) for entry in entries]
        f0, tempo = torch.tensor(numbers).mean(0).tolist()
        found[speaker][style] = f0, tempo
    return dict(found)


def measure(corpus: Path, entry: dict, extractor: FCPE) -> tuple[float, float]:
    """Return the median F0 of a recording, and its phones a second."""
    path = entry["wav"].replace("{data_root}", str(corpus))
    wav = read_audio(path)
    f0, voiced, _ = extractor(wav[None], torch.tensor([len(wav)]))
    spans = [b - a for name, a, b in entry["phones"] if name != "sil"]
    return float(f0[voiced > 0].median()), len(spans) / sum(spans)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("corpus", help="folder of TinySpeech")
    parser.add_argument(
        "--count", type=int, default=5, help="default: %(default)s"
    )
    options = parser.parse_args()
    print("| speaker | neutral | happy | sad | phones a second |")
    print("|---|---|---|---|---|")
    for speaker, styles in measure_voices(**vars(options)).items():
        if set(styles) != set(STYLES):
            continue  # of a corpus that is too small
        (f0, _), *others = numbers = [styles[name] for name in STYLES]
        cells = [f"{f0:.0f} Hz"]
        cells += [f"{100 * other / f0 - 100:+.0f}%" for other, _ in others]
        cells.append(", ".join(f"{tempo:.1f}" for _, tempo in numbers))
        print(f"| {speaker} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
