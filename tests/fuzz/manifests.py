"""Manifests, their caches, tokenized corpora and text files, damaged."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import soundfile
import torch

from spiritlm_plugin.dataio.corpus.manifests import load_manifest
from spiritlm_plugin.dataio.corpus.stores import load_corpus
from spiritlm_plugin.dataio.corpus.unit_store import tokenize_corpus
from spiritlm_plugin.dataio.stream.sources import load_texts
from spiritlm_plugin.dataio.units.units import SpeechUnits
from tests.fuzz.harness import Case, SilentLoss, WrongResult, logged_warnings

_RATE = 16000
# Any JSON value in place of another.
_VALUES = [
    *(None, True, False, 0, -1, 5, 0.5, 1e308, -1e-9, 10**400, float("nan")),
    *(float("inf"), "", " ", "a", "\0", "\ud800", "e\u0301", "x" * 10_000),
    *([], [[]], [None], [["a", 0, 1]], [["a", 1, 0]], [["a", "0", "1"]]),
    *({}, {"a": {}}, {"wav": 5}, [["all", 0, 0.1], ["day", 0.1, 0.2]]),
]
_KEYS = ("wav", "duration", "text", "words", "phones", "speaker", "style")


_FOREIGN = [
    *(b"", b"\n", b"\0" * 100, b"\xff\xfe" * 50, b"{}", b"[]", b"null", b"7"),
    *(b'"a"', b"{", b"a: [", b"<!DOCTYPE html><p>404", b"PK\3\4" * 9),
    *(
        b"ARROW1\0\0",
        b"\x80\x02}q\0.",
        b"version https://git-lfs",
        b"[" * 10**5,
    ),
]


def damage_bytes(
    rng: np.random.Generator, content: bytes, flips: bool = True
) -> tuple[str, bytes]:
    """Return how a file's content was damaged, and what became of it."""
    hows = ["truncated", "foreign", "random", "zeros"]
    hows += ["flipped", "more"] if flips else []
    how = str(rng.choice(hows))
    place = int(rng.integers(max(len(content), 1)))
    if how == "truncated":
        return how, content[:place]
    if how == "foreign":
        return how, _FOREIGN[rng.integers(len(_FOREIGN))]
    if how == "random":
        return how, rng.bytes(int(rng.integers(1, 2000)))
    if how == "zeros":  # as a file system leaves what it could not write
        return how, content[:place] + bytes(len(content) - place)
    if how == "more":
        return how, content + rng.bytes(int(rng.integers(1, 100)))
    damaged = bytearray(content)
    for _ in range(int(rng.integers(1, 4))):
        place = int(rng.integers(len(content)))
        damaged[place] ^= 1 << int(rng.integers(8))
    return how, bytes(damaged)


def prepare() -> None:
    """Nothing is shared."""
    torch.set_num_threads(1)


def make_case(rng: np.random.Generator, folder: Path) -> Case:
    """Write something damaged."""
    kind = str(rng.choice(list(_KINDS)))
    return _KINDS[kind](rng, folder, kind)


def run_case(case: Case, tools: None) -> None:
    """Read it: what is whole comes, what is not is named."""
    check, *arguments = case.content
    check(*arguments)


def _entries(folder: Path) -> dict[str, Any]:
    """Return four whole entries, with their recordings."""
    noise = np.random.default_rng(0).normal(size=_RATE // 2) / 9
    soundfile.write(folder / "a.wav", noise, _RATE)
    entry = {
        "wav": "{data_root}/a.wav",
        "duration": 0.5,
        "text": "all day",
        "speaker": "anna",
        "words": [["all", 0.0, 0.2], ["day", 0.2, 0.4]],
    }
    return {f"good{i}": dict(entry) for i in range(4)}


def _entry(rng: np.random.Generator, folder: Path, kind: str) -> Case:
    """Damage some entries of a manifest."""
    entries = _entries(folder)
    whole = list(entries)
    for i in range(int(rng.integers(1, 6))):
        entry: Any = dict(entries["good0"])
        if rng.random() < 0.2:
            entry = _value(rng)
        else:
            for key in rng.choice(_KEYS, rng.integers(1, 4), replace=False):
                entry[str(key)] = _value(rng)
        entries[f"bad{i}"] = entry
    order = rng.permutation(list(entries))
    text = json.dumps({str(name): entries[str(name)] for name in order})
    if rng.random() < 0.2:  # a name twice
        text = f'{text[:-1]}, "bad0": {json.dumps(_value(rng))}}}'
    path = folder / "train.json"
    path.write_text(text)
    needs = [str(k) for k in rng.choice(_KEYS[2:4], rng.integers(0, 2))]
    content = (_check_entries, path, whole, set(entries), needs)
    return Case(kind, content, (path.name,), is_valid=True)


def _value(rng: np.random.Generator) -> Any:
    return _VALUES[rng.integers(len(_VALUES))]


def _check_entries(
    path: Path, whole: list[str], every: set[str], needs: list[str]
) -> None:
    with logged_warnings() as warnings:
        items = load_manifest(path, needs)
    lost = [name for name in whole if name not in items]
    if lost:
        raise WrongResult(f"left out though whole: {lost}; {warnings}")
    for name in every - items.keys():
        if not any(f" {name} is left out: " in text for text in warnings):
            raise SilentLoss(f"{name} is left out without a word")
    for name, item in items.items():
        _check_item(name, item)
    again = load_manifest(path, needs)
    if again != items:
        raise WrongResult("a second time it is another")


def _check_item(name: str, item: Any) -> None:
    if abs(item["duration"] - 0.5) > 0.05 or not Path(item["wav"]).is_file():
        raise WrongResult(f"{name} is not what it says: {item}")
    for key in ("text", "speaker", "style"):
        if not isinstance(item.get(key), (str, type(None))):
            raise WrongResult(f"{name} has the {key} {item[key]!r}")
    for key in ("words", "phones"):
        for _, start, end in item.get(key) or ():
            if not 0 <= start <= end <= 0.56:
                raise WrongResult(f"{name} has {key} {item[key]!r}")


def _manifest(rng: np.random.Generator, folder: Path, kind: str) -> Case:
    """Damage the bytes of a manifest."""
    path = folder / "train.json"
    content = json.dumps(_entries(folder)).encode()
    how, content = damage_bytes(rng, content)
    path.write_bytes(content)
    return Case(f"{kind}: {how}", (_check_manifest, path), (path.name,))


def _check_manifest(path: Path) -> None:
    for name, item in load_manifest(path).items():
        _check_item(name, item)


def _cache(rng: np.random.Generator, folder: Path, kind: str) -> Case:
    """Damage what is known of recordings."""
    path = folder / "train.json"
    path.write_text(json.dumps(_entries(folder)))
    expected = load_manifest(path)
    known = path.with_name("train.json.checked")
    if rng.random() < 0.5:
        how = "other values"
        content = json.loads(known.read_text())
        place: Any = content
        keys = list(content)
        while rng.random() < 0.7 and isinstance(place[keys[-1]], (dict, list)):
            place = place[keys[-1]]
            if not place:
                break
            keys = (
                list(place) if isinstance(place, dict) else [0, len(place) - 1]
            )
        if place:
            value = _value(rng)
            # Numbers and texts may be what was found.
            is_known = isinstance(value, (int, float, str))
            place[keys[int(rng.integers(len(keys)))]] = (
                None if is_known else value
            )
        known.write_text(json.dumps(content))
    else:
        # Flipped bits may make another number, as good as the one before.
        how, damaged = damage_bytes(rng, known.read_bytes(), flips=False)
        known.write_bytes(damaged)
    content = (_check_cache, path, expected)
    return Case(f"{kind}: {how}", content, (path.name,), is_valid=True)


def _check_cache(path: Path, expected: dict[str, Any]) -> None:
    if load_manifest(path) != expected:
        raise WrongResult("what was kept has changed what comes")


@cache
def _corpus() -> dict[str, bytes]:
    """Return the files of a tokenized corpus of three shards."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        entry = _entries(folder)["good0"] | {"wav": str(folder / "a.wav")}
        _tokenize({f"u{i}": entry for i in range(5)}, folder / "corpus")
        return {p.name: p.read_bytes() for p in (folder / "corpus").iterdir()}


def _tokenize(items: dict[str, Any], folder: Path) -> None:
    def tokenizer(wavs: Any) -> list[SpeechUnits]:
        return [SpeechUnits(range(12), range(6), range(1)) for _ in wavs]

    parts = dict.fromkeys(("phonetic", "pitch", "style"), "1")
    tokenize_corpus(items, folder, tokenizer, parts, shard_seconds=1.0)


def _store(rng: np.random.Generator, folder: Path, kind: str) -> Case:
    """Damage a file of a tokenized corpus."""
    corpus = folder / "corpus"
    corpus.mkdir()
    files = _corpus()
    for name, content in files.items():
        (corpus / name).write_bytes(content)
    name = str(rng.choice(sorted(files)))
    how = str(rng.choice(["bytes", "bytes", "bytes", "gone", "exchanged"]))
    if how == "bytes":
        how, content = damage_bytes(rng, files[name])
        (corpus / name).write_bytes(content)
    elif how == "gone":
        (corpus / name).unlink()
    else:
        other = str(rng.choice(sorted(files)))
        (corpus / name).write_bytes(files[other])
    content = (_check_store, corpus)
    return Case(f"{kind}, {Path(name).suffix}: {how}", content, (str(corpus),))


def _check_store(corpus: Path) -> None:
    rows = load_corpus(corpus)
    if rows["utterance"][:] != [f"u{i}" for i in range(5)]:
        raise SilentLoss(f"there are {rows['utterance'][:]}")
    for row in rows:
        found = row["phonetic_units"].tolist(), row["text"], row["words"]
        words = [
            {"word": "all", "start": 0.0, "end": 0.2},
            {"word": "day", "start": 0.2, "end": 0.4},
        ]
        if found != (list(range(12)), "all day", words):
            raise WrongResult(f"a row is {row}")


def _texts(rng: np.random.Generator, folder: Path, kind: str) -> Case:
    """Damage a file of texts."""
    suffix = str(rng.choice([".txt", ".jsonl"]))
    lines = [f"the cat sat on mat {i}" for i in range(20)]
    if suffix == ".jsonl":
        lines = [json.dumps({"text": line}) for line in lines]
    how, content = damage_bytes(rng, ("\n".join(lines) + "\n").encode())
    path = folder / f"texts{suffix}"
    path.write_bytes(content)
    return Case(f"{kind}{suffix}: {how}", (_check_texts, path), (path.name,))


def _check_texts(path: Path) -> None:
    datasets.config.HF_DATASETS_CACHE = path.parent / "cache"
    for text in load_texts([path])["text"]:
        if not isinstance(text, str):
            raise WrongResult(f"a text is {text!r}")


_Maker = Callable[[np.random.Generator, Path, str], Case]
_KINDS: dict[str, _Maker] = {
    "entries": _entry,
    "a manifest": _manifest,
    "a cache": _cache,
    "a store": _store,
    "texts": _texts,
}
