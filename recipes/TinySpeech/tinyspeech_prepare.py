#!/usr/bin/env python3
"""Synthesize TinySpeech: a small world with all that is known of it.

    python tinyspeech_prepare.py FOLDER --size small

The sentences come from a grammar, of English or, by ``--language es``, of
Spanish; the sound from eSpeak NG (package espeakng-loader) and, by ``--voices``,
from Piper, Flite, Festival, RHVoice and Pico. A run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import soundfile
from tqdm import tqdm

try:
    import espeakng_loader  # noqa: F401
except ModuleNotFoundError as error:
    raise SystemExit(
        "TinySpeech needs eSpeak NG: pip install espeakng-loader"
    ) from error

from tinyspeech import VERSION
from tinyspeech.corpus import (
    SIZES,
    Utterance,
    plan,
    text_lines,
)
from tinyspeech.engines import MissingEngineError, load_engine
from tinyspeech.language import LANGUAGES, VOICES, Language, load_language
from tinyspeech.synthesis import SAMPLE_RATE, record

SHARD = 200


def prepare_tinyspeech(
    folder: str | Path,
    size: str = "small",
    seed: int = 0,
    jobs: int | None = None,
    speakers: str = "",
    language: str = "en",
    voices: str = "espeak",
    splits: str = "",
) -> dict:
    """Make the corpus, or finish one that was begun.

    Arguments
    ---------
    folder : path
        Of the corpus; made if there is none.
    size : str
        "debug" (4 minutes), "small" (80) or "full" (11 hours).
    seed : int
        Of all that is random; the corpus depends on nothing else.
    jobs : int or None
        Processes; None for one per core.
    speakers : str
        Names of voices, with commas between them, that speak all of it; empty
        for those of ``voices``.
    language : str
        "en" or "es".
    voices : str
        "espeak" for six voices, and a seventh in ``test_unseen_voice``;
        "natural" for ten of other engines instead of the six, and two held
        out in ``test_unseen_natural``; or "all".
    splits : str
        Names of the only splits to make, with commas between them; empty for
        all. What they hold is the same.

    Returns
    -------
    dict
        The statistics, as in ``stats.json``.

    Raises
    ------
    ValueError
        If the folder holds a corpus of other settings, or if there is no such
        voice, language or split.
    MissingEngineError
        If an engine that is needed is not installed.
    """
    folder = Path(folder)
    names = _chosen(speakers, load_language(language).voices, "voice")
    wanted = {"version": VERSION, "size": size, "seed": seed}
    if names or voices != "espeak":  # whose voices may become more
        cast = load_language(language).cast(voices)
        wanted["speakers"] = names or list(cast[""])
    if language != "en":
        wanted["language"] = language
    if voices != "espeak":
        wanted["voices"] = voices
    manifests = plan(size, seed, language, names, voices)
    if splits:
        chosen = _chosen(splits, manifests, "split")
        manifests = {name: manifests[name] for name in chosen}
        wanted["splits"] = chosen
    _find_engines(manifests, load_language(language))
    _claim(folder, wanted)
    if (folder / "stats.json").exists():
        return json.loads((folder / "stats.json").read_text("utf-8"))
    shards = {
        f"{name}_{start // SHARD:03d}": utterances[start : start + SHARD]
        for name, utterances in manifests.items()
        for start in range(0, len(utterances), SHARD)
    }
    _synthesize(folder, shards, language, jobs or os.cpu_count() or 1)
    lines = text_lines(size, seed, language)
    _write_text(folder / "text" / "train.txt", lines)
    entries: dict[str, dict] = {name: {} for name in manifests}
    for shard in shards:
        name = shard.rpartition("_")[0]
        entries[name] |= json.loads(_sidecar(folder, shard).read_text("utf-8"))
    for name, content in entries.items():
        _write_json(folder / f"{name}.json", content)
    stats = _statistics(entries)
    _write_json(folder / "stats.json", stats)
    return stats


def _chosen(names: str, known: Iterable[str], kind: str) -> list[str]:
    chosen = list(dict.fromkeys(names.replace(",", " ").split()))
    for name in chosen:
        if name not in known:
            raise ValueError(
                f"no {kind} {name!r}; there are {', '.join(known)}"
            )
    return chosen


def _find_engines(
    manifests: dict[str, list[Utterance]], language: Language
) -> None:
    """Load each engine once, in a process that ends."""
    names = {u.speaker for found in manifests.values() for u in found}
    engines = sorted({language.voices[name].engine for name in names})
    with multiprocessing.Pool(1) as pool:
        pool.map(_load, engines)


def _load(engine: str) -> None:
    load_engine(engine)


def _claim(folder: Path, wanted: dict) -> None:
    path = folder / "corpus.json"
    if path.exists():
        found = json.loads(path.read_text("utf-8"))
        if found != wanted:
            raise ValueError(
                f"{folder} holds TinySpeech of {_words(found)}, not of "
                f"{_words(wanted)}; choose another folder, or delete this one"
            )
    else:
        _write_json(path, wanted)


def _words(settings: dict) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items())


def _sidecar(folder: Path, shard: str) -> Path:
    return folder / "shards" / f"{shard}.json"


def _synthesize(
    folder: Path,
    shards: dict[str, list[Utterance]],
    language: str,
    jobs: int,
) -> None:
    missing = [
        (folder, shard, utterances, language)
        for shard, utterances in shards.items()
        if not _sidecar(folder, shard).exists()
    ]
    total = sum(map(len, shards.values()))
    done = total - sum(len(utterances) for _, _, utterances, _ in missing)
    # eSpeak remembers what it said: a new process for each shard makes the
    # sound of a shard depend on nothing but the shard.
    with (
        tqdm(total=total, initial=done, unit="utt", desc="synthesis") as bar,
        multiprocessing.Pool(jobs, maxtasksperchild=1) as pool,
    ):
        for count in pool.imap_unordered(_make_shard, missing):
            bar.update(count)


def _make_shard(task: tuple[Path, str, list[Utterance], str]) -> int:
    folder, shard, utterances, code = task
    language = load_language(code)
    entries = {}
    split, _, number = shard.rpartition("_")
    (folder / "wav" / split / number).mkdir(parents=True, exist_ok=True)
    for utterance in utterances:
        where = f"wav/{split}/{number}/{utterance.name}.wav"
        entries[utterance.name] = _make(folder, where, utterance, language)
    _write_json(_sidecar(folder, shard), entries)
    return len(utterances)


def _make(
    folder: Path, where: str, utterance: Utterance, language: Language
) -> dict:
    recording = record(
        utterance.sentences,
        utterance.speaker,
        utterance.style,
        utterance.key,
        language,
    )
    temporary = folder / f"{where}.tmp"
    soundfile.write(
        temporary, recording.samples, SAMPLE_RATE, "PCM_16", format="WAV"
    )
    os.replace(temporary, folder / where)
    entry = {
        "wav": "{data_root}/" + where,
        "duration": len(recording.samples) / SAMPLE_RATE,
        "speaker": utterance.speaker,
        "style": utterance.style,
        "sentiment": utterance.sentiment,
        "intent": utterance.intent,
        "kind": utterance.kind,
        "text": utterance.text,
        "words": recording.words,
        "phones": recording.phones,
        **utterance.extra,
    }
    if "ending" in utterance.extra:
        entry["ending_start"] = recording.starts[-1]
    return entry


def _statistics(entries: dict[str, dict]) -> dict:
    stats: dict = {}
    for name, content in entries.items():
        items = content.values()
        stats[name] = {
            "utterances": len(content),
            "hours": round(sum(i["duration"] for i in items) / 3600, 3),
            **{
                key: dict(sorted(Counter(i[key] for i in items).items()))
                for key in ("kind", "speaker", "style", "sentiment")
            },
        }
    spoken = [
        i for n, c in entries.items() if "lexical" not in n for i in c.values()
    ]
    total = {
        "utterances": sum(s["utterances"] for s in stats.values()),
        "hours": round(sum(s["hours"] for s in stats.values()), 3),
        "words": len({w for i in spoken for w in i["text"].split()}),
        "phones": len({p for i in spoken for p, _, _ in i["phones"]}),
    }
    return {"total": total, **stats}


def _write_json(path: Path, content: dict) -> None:
    _write_text(path, [json.dumps(content, ensure_ascii=False, indent=None)])


def _write_text(path: Path, lines: list[str] | Iterator[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)
    os.replace(temporary, path)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="where the corpus goes")
    parser.add_argument(
        "--size",
        choices=list(SIZES),
        default="small",
        help="debug: 4 minutes of audio; small: 80; full: 11 hours "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="default: %(default)s"
    )
    parser.add_argument(
        "--jobs", type=int, help="processes (default: one per core)"
    )
    parser.add_argument(
        "--speakers",
        default="",
        help="voices that speak all of it, as anna,gus (default: those of "
        "--voices)",
    )
    parser.add_argument(
        "--voices",
        choices=list(VOICES),
        default="espeak",
        help="espeak: six, and another one in test_unseen_voice; natural: "
        "ten\nof other engines, and slt in "
        "test_unseen_natural;\nall: both (default: %(default)s)",
    )
    parser.add_argument(
        "--splits",
        default="",
        help="the only ones to make, as train,valid (default: all)",
    )
    parser.add_argument(
        "--language",
        choices=list(LANGUAGES),
        default="en",
        help="default: %(default)s",
    )
    options = parser.parse_args(arguments)
    try:
        stats = prepare_tinyspeech(**vars(options))
    except (ValueError, MissingEngineError) as error:
        parser.error(str(error))
    for name, numbers in stats.items():
        hours, count = numbers["hours"], numbers["utterances"]
        print(f"{name:20} {count:6} utterances {60 * hours:7.1f} min")
    total = stats["total"]
    print(f"{total['words']} words, {total['phones']} phones")


if __name__ == "__main__":
    main()
