"""Tokenized corpora: utterances as speech units, in Arrow files.

A corpus is a folder of shards, ``shard-00000.arrow`` and on, and of
``corpus.json``, which says what it was made of. A shard is there when it is
complete, so a run that was killed goes on where it stopped.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import pyarrow
from datasets import List, Value
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from spiritlm_plugin.dataio.audio.reading import read_audio
from spiritlm_plugin.dataio.checkpoints import digest_values, digest_weights
from spiritlm_plugin.dataio.units.units import SpeechUnits

Tokenizer = Callable[[Sequence[Tensor]], Sequence[SpeechUnits]]

STREAMS = ("phonetic", "pitch", "style")
_TEXTS = ("speaker", "style", "sentiment", "intent", "kind", "text")
_ALIGNMENTS = {"words": "word", "phones": "phone"}
_DESCRIPTION = "corpus.json"


class CorpusError(ValueError):
    """A tokenized corpus that cannot be used."""


def fingerprints(tokenizer: nn.Module) -> dict[str, str]:
    """Return what tells a tokenizer's parts from all others.

    Arguments
    ---------
    tokenizer : SpeechTokenizer
        Ready for inference.

    Returns
    -------
    dict of str to str
        For each stream, of its weights.

    Example
    -------
    >>> codec = SpeechCodec.from_hparams("tinyspeech")
    >>> list(fingerprints(codec.mods.tokenizer))
    ['phonetic', 'pitch', 'style']
    """
    parts = {name: getattr(tokenizer, name) for name in STREAMS}
    return {
        n: digest_weights(part) for n, part in parts.items() if part is not None
    }


def tokenize_corpus(
    items: Mapping[str, Mapping[str, Any]],
    folder: str | Path,
    tokenizer: Tokenizer,
    parts: Mapping[str, str],
    shard_seconds: float = 3600.0,
    batch_seconds: float = 400.0,
    workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
    changes: Mapping[str, Any] | None = None,
) -> None:
    """Tokenize a corpus, or what is left to do of it.

    Process ``rank`` of ``world_size`` makes every ``world_size``-th shard;
    the corpus is complete when all have returned.

    Arguments
    ---------
    items : dict
        As from `load_manifest`. Of each utterance its id (as
        ``utterance``), ``wav``, ``duration``, ``speaker``, ``style``,
        ``sentiment``, ``intent``, ``kind``, ``text``, ``words`` and
        ``phones`` are kept.
    folder : str or Path
        Of the corpus.
    tokenizer : callable
        Waveforms at 16 kHz to units, such as a `SpeechTokenizer`. It is
        called once for each batch.
    parts : dict of str to str
        `fingerprints` of the tokenizer.
    shard_seconds, batch_seconds : float
        Audio in a shard, and at a time in memory.
    workers : int
        Processes that read audio.
    rank, world_size : int
        This process, and how many there are.
    changes : dict, optional
        What the tokenizer does to recordings before it listens, to be told
        from all else.

    Raises
    ------
    CorpusError
        If the folder holds a corpus of other utterances, parts or changes.

    Example
    -------
    >>> def tokenizer(wavs):
    ...     return [SpeechUnits(range(len(w) // 640)) for w in wavs]
    >>> items = {"a": {"wav": recording, "duration": 1.0, "text": "all day"}}
    >>> tokenize_corpus(items, tmp / "corpus", tokenizer, {"phonetic": "1"})
    >>> corpus = load_corpus(tmp / "corpus")
    >>> corpus[0]["text"], corpus[0]["phonetic_units"][:4]
    ('all day', tensor([0, 1, 2, 3]))
    """
    folder = Path(folder)
    shards = _divide(items, shard_seconds)
    _describe(folder, items, len(shards), parts, changes)
    missing = [
        index
        for index in range(rank, len(shards), world_size)
        if not _shard(folder, index).exists()
    ]
    batches = [
        batch for i in missing for batch in _divide(shards[i], batch_seconds)
    ]
    read = iter(_audio_loader(batches, workers))
    seconds = sum(i["duration"] for batch in batches for i in batch.values())
    progress = tqdm(
        total=round(seconds),
        desc=f"tokenizing {folder.name}",
        unit="s of audio",
        disable=rank > 0 or not missing,
    )
    with progress:
        for index in missing:
            rows: list[dict[str, Any]] = []
            for batch in _divide(shards[index], batch_seconds):
                for (name, item), units in zip(
                    batch.items(), tokenizer(next(read))
                ):
                    rows.append(_row(name, item, units))
                progress.update(
                    round(sum(item["duration"] for item in batch.values()))
                )
            _write(rows, _shard(folder, index))


def load_corpus(
    folder: str | Path, parts: Mapping[str, str] | None = None
) -> datasets.Dataset:
    """Return a tokenized corpus, memory-mapped.

    Arguments
    ---------
    folder : str or Path
        As given to `tokenize_corpus`.
    parts : dict of str to str, optional
        `fingerprints` of the tokenizer that the units must come from, or some
        of them.

    Returns
    -------
    datasets.Dataset
        A row for each utterance: what the manifest says, and
        ``phonetic_units``, ``pitch_units`` and ``style_units`` at full rate,
        int64 tensors of shape (units,).
        `DynamicItemDataset.from_arrow_dataset` makes it SpeechBrain's.

    Raises
    ------
    FileNotFoundError
        If there is no such corpus.
    CorpusError
        If it is not complete, or of other parts.
    """
    folder = Path(folder)
    path = folder / _DESCRIPTION
    if not path.is_file():
        raise FileNotFoundError(
            f"no tokenized corpus in {folder}: there is no {_DESCRIPTION}; "
            "tokenize the corpus first"
        )
    description = json.loads(path.read_text(encoding="utf-8"))
    _check_parts(folder, description, parts or {})
    paths = [_shard(folder, i) for i in range(description["shards"])]
    there = [path for path in paths if path.exists()]
    if len(there) < len(paths):
        raise CorpusError(
            f"{folder} is not complete: {len(there)} of {len(paths)} shards "
            "are there; tokenize it again, which goes on from these"
        )
    corpus = datasets.concatenate_datasets(
        [datasets.Dataset.from_file(str(path)) for path in paths]
    )
    units = [n for n in corpus.column_names if n.endswith("_units")]
    return corpus.with_format("torch", units, output_all_columns=True)


def _divide(items: Mapping[str, Any], seconds: float) -> list[dict[str, Any]]:
    """Divide utterances, in their order, into groups of so many seconds."""
    groups: list[dict[str, Any]] = []
    total = seconds
    for name, item in items.items():
        if total >= seconds:
            groups.append({})
            total = 0.0
        groups[-1][name] = item
        total += item["duration"]
    return groups


def _describe(
    folder: Path,
    items: Mapping[str, Any],
    shards: int,
    parts: Mapping,
    changes: Mapping | None,
) -> None:
    """Write what the corpus is made of, or compare with what is there."""
    description = {
        "parts": dict(parts),
        "manifest": digest_values(items),
        "utterances": len(items),
        "seconds": sum(item["duration"] for item in items.values()),
        "shards": shards,
    }
    if changes:
        description["changes"] = dict(changes)
    path = folder / _DESCRIPTION
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        partial.write_text(json.dumps(description, indent=2), encoding="utf-8")
        os.replace(partial, path)
        return
    found = json.loads(path.read_text(encoding="utf-8"))
    _check_parts(folder, found, parts, exactly=True)
    before, now = (d.get("changes", "none") for d in (found, description))
    if before != now:
        raise CorpusError(
            f"{folder} holds recordings with other changes ({before}; now "
            f"{now}); delete it or name another folder"
        )
    if found != description:
        raise CorpusError(
            f"{folder} holds a corpus of {found['utterances']} utterances in "
            f"{found['shards']} shards, and other ones are to be tokenized "
            f"({len(items)} in {shards}); delete it or name another folder"
        )


def _check_parts(
    folder: Path, description: Mapping, parts: Mapping, exactly: bool = False
) -> None:
    found = description["parts"]
    for name in [*parts, *(found if exactly else ())]:
        if found.get(name) != parts.get(name):
            raise CorpusError(
                f"{folder} was tokenized with another {name} tokenizer "
                f"(fingerprint {found.get(name)}, now {parts.get(name)}); "
                "delete it and tokenize again, or name the tokenizer that it "
                "was made with"
            )


def _shard(folder: Path, index: int) -> Path:
    return folder / f"shard-{index:05d}.arrow"


class _Batches(Dataset[list[Tensor]]):
    """Reads the audio of a batch of utterances."""

    def __init__(self, batches: Sequence[Mapping[str, Any]]):
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> list[Tensor]:
        items = self.batches[index].values()
        return [read_audio(item["wav"]) for item in items]


def _audio_loader(batches: Sequence, workers: int) -> Iterable[list[Tensor]]:
    return DataLoader(_Batches(batches), batch_size=None, num_workers=workers)


def _row(name: str, item: Mapping[str, Any], units: SpeechUnits) -> dict:
    """Return what is stored of an utterance."""
    row = {"utterance": name, "wav": item["wav"], "duration": item["duration"]}
    row |= {key: item.get(key) for key in _TEXTS}
    for key, label in _ALIGNMENTS.items():
        row[key] = [
            {label: content, "start": start, "end": end}
            for content, start, end in item.get(key) or ()
        ]
    for stream in STREAMS:
        values = getattr(units, stream)
        if values is not None:
            row[f"{stream}_units"] = values.numpy()
    return row


def _write(rows: list[dict[str, Any]], path: Path) -> None:
    """Write a shard, which appears when it is complete."""
    text, seconds = Value("string"), Value("float64")
    features = {"utterance": text, "wav": text, "duration": seconds}
    features |= {key: text for key in _TEXTS}
    for key, label in _ALIGNMENTS.items():
        features[key] = List({label: text, "start": seconds, "end": seconds})
    for stream in STREAMS:
        if f"{stream}_units" in rows[0]:
            features[f"{stream}_units"] = List(Value("uint16"))
    shard = datasets.Dataset.from_list(rows, datasets.Features(features))
    table = shard.with_format("arrow")[:]
    partial = path.with_name(path.name + ".partial")
    with pyarrow.OSFile(str(partial), "wb") as file:
        with pyarrow.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table)
    os.replace(partial, path)
