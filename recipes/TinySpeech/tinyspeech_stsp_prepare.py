#!/usr/bin/env python3
"""Write TinySpeech in the layout of the STSP benchmark.

    python tinyspeech_stsp_prepare.py CORPUS ARCHIVE

CORPUS is what tinyspeech_prepare.py has made, of size small or full. Voices with
neutral words have the sentiment of their style; texts have that of their words.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from pathlib import Path
from random import Random

import soundfile
from tinyspeech.corpus import share_of
from tinyspeech.language import Language, load_language
from tinyspeech.templates import transcript

from spiritlm_plugin.dataio.audio.reading import read_audio
from spiritlm_plugin.dataio.corpus.manifests import load_manifest
from spiritlm_plugin.dataio.corpus.stsp import (
    DIRECTIONS,
    SENTIMENT_OF,
    SENTIMENTS,
)
from spiritlm_plugin.dataio.units.units import SAMPLE_RATE

# The splits of the benchmark: manifest, and texts.
SPLITS = {
    "train": ("train", 3000),
    "dev": ("valid", 300),
    "test": ("test", 180),
}
ENGLISH = load_language("en")
# Their words are neutral.
KINDS = ("sentence", "command")


def prepare_stsp(corpus: str | Path, archive: str | Path) -> dict[str, int]:
    """Write the archive.

    Arguments
    ---------
    corpus : path
        Of TinySpeech.
    archive : path
        Made if there is none; its recordings are links to the corpus, but
        for the speech prompts of the test, which are cut.

    Returns
    -------
    dict
        How many records each manifest has.

    Raises
    ------
    FileNotFoundError, ManifestError
        If the corpus is not there.
    """
    corpus, archive = Path(corpus).resolve(), Path(archive)
    manifests = {
        split: load_manifest(corpus / name, ["style", "words"])
        for split, (name, _) in SPLITS.items()
    }
    language = read_language(corpus)
    (archive / "data" / "prompts").mkdir(parents=True, exist_ok=True)
    link(archive / "data" / "tinyspeech", corpus)
    written = {}
    for split, (share, count) in SPLITS.items():
        spoken = voices(manifests[split])
        if split == "test":
            spoken = cut_prompts(spoken, manifests[split], archive, corpus)
        tables = {
            "tinyspeech_read": with_paths(spoken, corpus),
            "tinyspeech_asr": texts(share, count, split != "test", language),
        }
        for name, rows in tables.items():
            name = f"tinyspeech/{name}.{split}"
            written[name] = write(archive, name, split, rows)
    for direction in DIRECTIONS:
        rows = shots(direction, manifests["train"], corpus, language)
        written[f"few_shot/{direction}"] = write(
            archive, f"few_shot/{direction}", "train", rows
        )
    return written


def read_language(corpus: Path) -> Language:
    """Return the language of a corpus; English where it says none."""
    path = corpus / "corpus.json"
    settings = json.loads(path.read_text("utf-8")) if path.exists() else {}
    return load_language(settings.get("language", "en"))


def link(path: Path, target: Path) -> None:
    """Link to a folder, relative to where the link is."""
    if not path.is_symlink():
        path.symlink_to(os.path.relpath(target, path.parent.resolve()))


def voices(items: dict) -> Iterator[dict]:
    """Yield the utterances with neutral words."""
    for name, item in items.items():
        if item["kind"] in KINDS:
            yield {
                "id": name,
                "emotion": item["style"],
                "sentiment": SENTIMENT_OF[item["style"]],
                "speaker": item["speaker"],
                "wav_path": item["wav"],
            }


def cut_prompts(
    rows: Iterator[dict], items: dict, archive: Path, corpus: Path
) -> Iterator[dict]:
    """Write the first half of each sentence's words, so that it goes on."""
    for row in rows:
        item = items[row["id"]]
        if item["kind"] != "sentence":
            continue
        words = item["words"]
        end = words[len(words) // 2 - 1][2]
        path = archive / "data" / "prompts" / f"{row['id']}.wav"
        wav = read_audio(item["wav"])[: round(end * SAMPLE_RATE)]
        soundfile.write(path, wav.numpy(), SAMPLE_RATE)
        yield row | {"wav_path": f"prompts/{path.name}"}


def with_paths(rows: Iterator[dict], corpus: Path) -> Iterator[dict]:
    """Name the recordings by their places in the archive."""
    for row in rows:
        yield row | {"wav_path": place(row["wav_path"], corpus)}


def place(wav: str, corpus: Path) -> str:
    """Return where the archive has a recording of the corpus."""
    if not os.path.isabs(wav):
        return wav
    return f"tinyspeech/{Path(wav).relative_to(corpus)}"


def texts(
    share: str, count: int, whole: bool, language: Language = ENGLISH
) -> Iterator[dict]:
    """Yield texts, balanced over the sentiments.

    Arguments
    ---------
    share : str
        Of the corpus, which has no text of another one.
    count : int
        Of texts.
    whole : bool
        Whether to give whole sentences, first and second halves in turn, or
        first halves alone, which are prompts.
    language : Language
        Of the texts.
    """
    rng = Random(f"stsp {share}")
    used = set()
    for i in range(count):
        sentiment = SENTIMENTS[i % len(SENTIMENTS)]
        while True:
            text = draw(sentiment, rng, language)
            parts = halves(text, sentiment, language)
            if parts and share_of(text) == share and text not in used:
                break
        used.add(text)
        turn = i // len(SENTIMENTS) % 3 if whole else 1
        yield {
            "id": f"{share}_text_{i:05d}",
            "sentiment": sentiment,
            "asr": (text, *parts)[turn],
        }


def draw(sentiment: str, rng: Random, language: Language) -> str:
    """Draw a sentence with a sentiment."""
    if sentiment == "neutral":
        return transcript(language.grammar(rng).sentence())
    return transcript(language.opinion(sentiment, rng))


def halves(
    text: str, sentiment: str, language: Language = ENGLISH
) -> tuple[str, str] | None:
    """Cut a text so that both halves have its sentiment; None if none can."""
    words, cut = text.split(), len(text.split()) // 2
    if sentiment == "neutral":
        if not cut or any(
            charged(words, other, language) for other in language.feelings
        ):
            return None
    else:
        spans = charged(words, sentiment, language)
        if not spans or spans[0][1] > spans[-1][0]:
            return None
        cut = min(max(cut, spans[0][1]), spans[-1][0])
    return " ".join(words[:cut]), " ".join(words[cut:])


def charged(
    words: list[str], sentiment: str, language: Language = ENGLISH
) -> list[tuple[int, int]]:
    """Return where phrases with a sentiment begin and end."""
    return [
        (start, start + len(phrase))
        for start in range(len(words))
        for phrase in language.feelings[sentiment]
        if words[start : start + len(phrase)] == list(phrase)
    ]


def shots(
    direction: str, items: dict, corpus: Path, language: Language
) -> Iterator[dict]:
    """Yield utterances, in halves, whose voice and words agree."""
    _, prompt, output = DIRECTIONS[direction]
    for item in items.values():
        sentiment = item["sentiment"]
        parts = halves(item["text"], sentiment, language)
        is_told = item["kind"] in ("sentence", "sentiment")
        if is_told and parts and SENTIMENT_OF[item["style"]] == sentiment:
            wav = place(item["wav"], corpus)
            yield {
                "sentiment": sentiment,
                "prompt": wav if prompt == "speech" else parts[0],
                "generation": wav if output == "speech" else parts[1],
            }


def write(archive: Path, name: str, split: str, rows: Iterator[dict]) -> int:
    """Write a manifest, and return how many records it has."""
    path = archive / "manifest" / f"{name}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(row | {"split": split}) for row in rows]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return len(lines)


def main(arguments: list[str] | None = None) -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("corpus", help="folder of TinySpeech")
    parser.add_argument("archive", help="where the archive goes")
    for name, count in prepare_stsp(
        **vars(parser.parse_args(arguments))
    ).items():
        print(f"{name:32} {count:5} records")


if __name__ == "__main__":
    main()
