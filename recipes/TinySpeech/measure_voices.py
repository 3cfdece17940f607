#!/usr/bin/env python3
"""Measure the pitch and the tempo of the speakers of TinySpeech.

    python measure_voices.py CORPUS
    python measure_voices.py

CORPUS is what tinyspeech_prepare.py has made. Without it all voices say the same
sentences: how long their words are is compared with those of eSpeak's anna, and the
time of the CPU that a minute of audio takes is measured.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import psutil
import torch
from tinyspeech.corpus import plan
from tinyspeech.engines import MissingEngineError, load_engine
from tinyspeech.language import Voice, load_language
from tinyspeech.styles import STYLES
from tinyspeech.synthesis import SAMPLE_RATE, record
from tqdm import tqdm

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


def compare_voices(count: int = 60) -> dict[str, tuple[float, list[float]]]:
    """Return how far words last as anna's do, and what speech costs, by speaker.

    That is the correlation of the durations of words, and the seconds of one CPU
    for a minute of audio in each style. Speakers whose engine is not installed are
    left out, with a line that says so.

    Arguments
    ---------
    count : int
        Sentences that each of them says; a third of them for the costs.
    """
    english = load_language("en")
    drawn = [u for u in plan("full", 0)["train"] if u.kind == "sentence"]
    texts = [utterance.sentences[0] for utterance in drawn[:count]]

    def durations(voice: Voice) -> list[float]:
        engine = load_engine(voice.engine)
        said = [
            engine.say(text, voice, STYLES["neutral"], english)
            for text in tqdm(texts, desc=voice.name)
        ]
        return [end - start for one in said for _, start, end in one.words]

    def cost(name: str, style: str) -> float:
        begun, samples = cpu_seconds(), 0
        for text in texts[: -(-count // 3)]:
            said = record((text,), name, style, text, english)
            samples += len(said.samples)
        return 60 * (cpu_seconds() - begun) / (samples / SAMPLE_RATE)

    spoken, costs = {}, {}
    for name, voice in english.voices.items():
        try:
            spoken[name] = durations(voice)
        except MissingEngineError as error:
            tqdm.write(f"{name}: {error}", file=sys.stderr)
        else:
            costs[name] = [cost(name, style) for style in STYLES]
    return {
        name: (float(np.corrcoef(spoken["anna"], others)[0, 1]), costs[name])
        for name, others in spoken.items()
    }


def cpu_seconds() -> float:
    """Return the time of the CPU that this process and its children have had."""
    process = psutil.Process()
    alive = [child.cpu_times() for child in process.children(recursive=True)]
    ended = process.cpu_times()
    times = [ended.user, ended.system, ended.children_user]
    times += [ended.children_system, *(x.user + x.system for x in alive)]
    return sum(times)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("corpus", nargs="?", help="folder of TinySpeech")
    parser.add_argument(
        "--count",
        type=int,
        help="utterances of each speaker and style (default: 5), or sentences "
        "to compare (default: 60)",
    )
    options = parser.parse_args()
    if options.corpus is None:
        print("| speaker | durations of words | CPU s a minute |")
        print("|---|---|---|")
        compared = compare_voices(options.count or 60)
        for name, (correlation, costs) in compared.items():
            numbers = ", ".join(f"{seconds:.1f}" for seconds in costs)
            print(f"| {name} | {correlation:.2f} | {numbers} |")
        return
    print("| speaker | neutral | happy | sad | phones a second |")
    print("|---|---|---|---|---|")
    for speaker, styles in measure_voices(
        options.corpus, options.count or 5
    ).items():
        if set(styles) != set(STYLES):
            continue  # of a corpus that is too small
        (f0, _), *others = numbers = [styles[name] for name in STYLES]
        cells = [f"{f0:.0f} Hz"]
        cells += [f"{100 * other / f0 - 100:+.0f}%" for other, _ in others]
        cells.append(", ".join(f"{tempo:.1f}" for _, tempo in numbers))
        print(f"| {speaker} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
