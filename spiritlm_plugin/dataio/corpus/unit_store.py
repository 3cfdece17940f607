"""Tokenized corpora: utterances as speech units, in Arrow files.

A corpus is a folder of shards, ``shard-00000.arrow`` and on, and of
``corpus.json``, which says what it was made of. A shard is there when it is
complete, so a run that was killed goes on where it stopped. Beside it
``shard-00000.json`` keeps its checksum.
"""

from __future__ import annotations

import json
import logging
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
from spiritlm_plugin.dataio.corpus.checksums import (
    ChecksumError,
    check_file,
    keep_checksum,
)
from spiritlm_plugin.dataio.corpus.manifests import TEXT_KEYS
from spiritlm_plugin.dataio.units.units import SpeechUnits
from spiritlm_plugin.utils.files import read_json, write_file, writing
from spiritlm_plugin.utils.processes import rank_and_world_size

logger = logging.getLogger(__name__)

Tokenizer = Callable[[Sequence[Tensor]], Sequence[SpeechUnits]]

STREAMS = ("phonetic", "pitch", "style")
_ALIGNMENTS = {"words": "word", "phones": "phone"}
_DESCRIPTION = "corpus.json"
_SHARDS = "shard-?????*.arrow"
_REMAKE = "delete it and tokenize the corpus again, which makes it anew"


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
    the corpus is complete when all have returned. Shards that are there are
    read and compared with their checksums; damaged ones are made anew.

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
        If the folder holds a corpus of other utterances, parts or changes, or
        shards of an unknown one.
    DiskFullError
        If there is no room for a shard.

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
    corpus = _describe(folder, items, len(shards), parts, changes)
    missing = [
        index
        for index in range(rank, len(shards), world_size)
        if not _is_whole(_shard(folder, index), shards[index], corpus)
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
            _write(rows, _shard(folder, index), corpus)


def load_corpus(
    folder: str | Path, parts: Mapping[str, str] | None = None
) -> datasets.Dataset:
    """Return a tokenized corpus, memory-mapped.

    Of each shard the size is compared with its checksum; the bytes are where
    its time of change is another, as after copying, once, and the processes
    of ``torchrun`` share that. `tokenize_corpus` compares all of them. Shards
    of versions that kept no checksum are read as they are.

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
        If it is not complete, damaged, or of other parts.
    """
    folder = Path(folder)
    path = folder / _DESCRIPTION
    if not path.is_file():
        raise FileNotFoundError(
            f"no tokenized corpus in {folder}: there is no {_DESCRIPTION}; "
            "tokenize the corpus first"
        )
    description = _read_description(path)
    _check_parts(folder, description, parts or {})
    paths = [_shard(folder, i) for i in range(description["shards"])]
    _check_shards(folder, paths)
    rank, processes = rank_and_world_size()
    corpus_digest = digest_values(description)
    shards = [
        _open(path, corpus_digest, check=i % processes == rank)
        for i, path in enumerate(paths)
    ]
    _check_rows(paths, shards, description["utterances"])
    corpus = datasets.concatenate_datasets(shards)
    units = [n for n in corpus.column_names if n.endswith("_units")]
    return corpus.with_format("torch", units, output_all_columns=True)


def _read_description(path: Path) -> dict[str, Any]:
    remedy = (
        "delete it and tokenize the corpus again, which goes on from its shards"
    )
    found = read_json(path, remedy, CorpusError)
    for key, kind in (("parts", dict), ("shards", int), ("utterances", int)):
        if not isinstance(found.get(key), kind) or not found[key]:
            raise CorpusError(
                f"{path} says {found.get(key)!r:.80} of {key}; {remedy}"
            )
    return found


def _check_shards(folder: Path, paths: Sequence[Path]) -> None:
    missing = [path.name for path in paths if not path.exists()]
    if missing:
        raise CorpusError(
            f"{folder} is not complete: {len(paths) - len(missing)} of "
            f"{len(paths)} shards are there, {missing[0]} is not; tokenize it "
            "again, which goes on from these"
        )
    unknown = sorted(set(folder.glob(_SHARDS)) - set(paths))
    if unknown:
        raise CorpusError(
            f"{folder / _DESCRIPTION} tells of {len(paths)} shards, and there "
            f"is {unknown[0].name} as well; delete the folder, or what does "
            "not belong there"
        )


def _open(path: Path, corpus: str, check: bool) -> datasets.Dataset:
    try:
        if check:
            kept = check_file(path)
            if (kept.get("corpus", corpus), kept.get("shard", path.name)) != (
                corpus,
                path.name,
            ):
                raise ChecksumError("it is of another corpus or place")
        return datasets.Dataset.from_file(str(path))
    except Exception as error:  # what a damaged file raises is not defined
        raise CorpusError(f"cannot read {path}: {error}; {_REMAKE}") from error


def _check_rows(
    paths: Sequence[Path], shards: Sequence[datasets.Dataset], utterances: int
) -> None:
    for path, shard in zip(paths, shards):
        if shard.features != shards[0].features:
            raise CorpusError(
                f"{path} has other columns than {paths[0].name}; {_REMAKE}"
            )
    rows = sum(map(len, shards))
    if rows != utterances:
        raise CorpusError(
            f"{paths[0].parent} holds {rows} utterances, and its "
            f"{_DESCRIPTION} tells of {utterances}; tokenize it again, which "
            "makes the wrong shards anew"
        )


def _is_whole(path: Path, items: Mapping[str, Any], corpus: str) -> bool:
    """Tell whether a shard is what this corpus needs."""
    if not path.exists():
        return False
    try:
        kept = check_file(path, reread=True)
        rows = datasets.Dataset.from_file(str(path))
        rows.data.validate(full=True)
        found = rows["utterance"][:]
    except Exception as error:  # what a damaged file raises is not defined
        logger.warning("%s is made anew: %s", path, error)
        return False
    if kept.get("corpus", corpus) == corpus and found == list(items):
        return True
    logger.warning("%s is made anew: it is of another corpus", path)
    return False


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
) -> str:
    """Write what the corpus is made of, or compare with what is there.

    Returns what tells it from all others.
    """
    description = {
        "parts": dict(parts),
        "manifest": digest_values(items),
        "utterances": len(items),
        "seconds": sum(item["duration"] for item in items.values()),
        "shards": shards,
    }
    if changes:
        description["changes"] = dict(changes)
    digest = digest_values(description)
    path = folder / _DESCRIPTION
    if not path.is_file():
        _check_strangers(folder, digest)
        folder.mkdir(parents=True, exist_ok=True)
        write_file(path, json.dumps(description, indent=2))
        return digest
    found = _read_description(path)
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
            f"({len(items)} in {shards}), or the same with other texts, times "
            "or durations; delete it or name another folder"
        )
    return digest


def _check_strangers(folder: Path, corpus: str) -> None:
    """Refuse shards of which nothing says that they are of this corpus."""
    for path in sorted(folder.glob(_SHARDS)):
        try:
            known = check_file(path).get("corpus") == corpus
        except ChecksumError:
            continue  # to be made anew
        if not known:
            raise CorpusError(
                f"{path} is there without a {_DESCRIPTION} that says what it "
                "was made of; delete the shards or name another folder"
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
    row |= {key: item.get(key) for key in TEXT_KEYS}
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


def _write(rows: list[dict[str, Any]], path: Path, corpus: str) -> None:
    """Write a shard, which appears when it is complete."""
    text, seconds = Value("string"), Value("float64")
    features = {"utterance": text, "wav": text, "duration": seconds}
    features |= {key: text for key in TEXT_KEYS}
    for key, label in _ALIGNMENTS.items():
        features[key] = List({label: text, "start": seconds, "end": seconds})
    for stream in STREAMS:
        if f"{stream}_units" in rows[0]:
            features[f"{stream}_units"] = List(Value("uint16"))
    shard = datasets.Dataset.from_list(rows, datasets.Features(features))
    table = shard.with_format("arrow")[:]
    with writing(path) as partial:
        with pyarrow.OSFile(str(partial), "wb") as file:
            with pyarrow.ipc.new_stream(file, table.schema) as writer:
                writer.write_table(table)
        keep_checksum(partial, path, corpus=corpus, shard=path.name)
