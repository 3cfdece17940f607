"""Word times for corpora that have none, by an aligner."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from speechbrain.utils.distributed import (
    ddp_barrier,
    if_main_process,
    run_on_main,
)
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from spiritlm_plugin.dataio.audio.reading import read_audio
from spiritlm_plugin.dataio.batching import length_batches
from spiritlm_plugin.dataio.checkpoints import digest_values, digest_weights
from spiritlm_plugin.dataio.corpus.json_shards import JSONShards
from spiritlm_plugin.dataio.corpus.manifests import (
    load_manifest,
    read_manifest,
    write_manifest,
)
from spiritlm_plugin.utils.processes import rank_and_world_size

logger = logging.getLogger(__name__)

# As in "[Speech]", "[background noise]" and "<unk>".
_MARKUP = re.compile(r"\[[^\[\]]*\]|<[^<>\s]*>")
_UNUSABLE = {"problem": "the check of the manifest left it out"}
_Batch = Mapping[str, Mapping[str, Any]]


def spoken_words(text: str) -> list[str]:
    """Return the words of a transcript without what is not said.

    Arguments
    ---------
    text : str
        Words, and markup such as ``[Speech]``, ``[Hu3]`` and ``<unk>``.

    Returns
    -------
    list of str
        As many as ``text.split()`` has; empty where there is only markup.

    Example
    -------
    >>> spoken_words("[background noise] all <unk> day[Hu3]")
    ['', '', 'all', '', 'day']
    """
    masked = _MARKUP.sub(lambda m: re.sub(r"\S", "\0", m[0]), text)
    return [word.replace("\0", "") for word in masked.split()]


def align_manifest(
    manifest: str | Path,
    folder: str | Path,
    aligner: nn.Module,
    shard_utterances: int = 500,
    batch_seconds: float = 120.0,
    workers: int = 0,
) -> None:
    """Write a manifest with word times, or what is left to do of it.

    Utterances with a transcript and without words get them; all else stays as
    it is. What cannot be aligned is reported by name and goes without. Markup
    and words of unknown characters lie between their neighbours. Under
    ``torchrun`` all processes call this and share the work; a run that was
    killed goes on from the shards that it has completed.

    Arguments
    ---------
    manifest : str or Path
        ``<split>.json``, as for `load_manifest`.
    folder : str or Path
        For the manifest of the same name, and for ``shards``.
    aligner : CTCAligner
        On its device.
    shard_utterances : int
        Utterances in a shard.
    batch_seconds : float
        Audio in a batch, padding included.
    workers : int
        Processes that read audio.

    Raises
    ------
    FileNotFoundError
        If there is no such manifest.
    ManifestError
        If no utterance of it can be used.
    ShardError
        If there are shards of another manifest or aligner, or damaged ones.
    ValueError
        If the folder is that of the manifest, or shards have no utterances.

    Example
    -------
    >>> class Slow(torch.nn.Module):
    ...     characters = {letter: 1 for letter in "ady l"}
    ...     def forward(self, wavs, texts):
    ...         return [[(w, i, i + 1) for i, w in enumerate(words)]
    ...                 for words in texts]
    >>> items = {"a": {"wav": recording, "duration": 2.4, "text": "all day"}}
    >>> write_manifest(items, tmp / "train.json")
    >>> align_manifest(tmp / "train.json", tmp / "aligned", Slow())
    >>> load_manifest(tmp / "aligned" / "train.json")["a"]["words"]
    [['all', 0, 1], ['day', 1, 2]]
    """
    manifest, folder = Path(manifest), Path(folder)
    if folder.resolve() == manifest.parent.resolve():
        raise ValueError(
            f"{folder} is the folder of {manifest.name} itself, which would "
            "be lost; name another output_folder"
        )
    sharding = manifest, folder, shard_utterances
    missing = run_on_main(_prepare, args=[*sharding, aligner])
    rank, processes = rank_and_world_size()
    mine = dict(list(missing.items())[rank::processes])
    _align_shards(mine, aligner, batch_seconds, workers, manifest.stem)
    ddp_barrier()
    run_on_main(_join, args=[*sharding, aligner.characters])


def _prepare(
    manifest: Path, folder: Path, size: int, aligner: nn.Module
) -> dict[Path, dict[str, Mapping[str, Any] | None]]:
    """Return the missing shards' utterances; None for what is unusable."""
    usable = load_manifest(manifest)
    wanted = _wanted(read_manifest(manifest))
    keys = ("wav", "duration", "text")
    rows = [[name, *map(i.get, keys)] for name, i in wanted.items()]
    shards = _shards(manifest, folder, size, wanted)
    characters = cast("dict[str, int]", aligner.characters)
    shards.claim(
        {
            "manifest": digest_values(rows),
            "aligner": digest_weights(aligner),
            "characters": "".join(
                sorted(characters, key=characters.__getitem__)
            ),
            "shard_utterances": size,
        }
    )
    return {
        path: {name: usable.get(name) for name in names}
        for path, names in shards.missing().items()
    }


def _wanted(items: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the utterances with a transcript and without words."""
    return {
        name: item
        for name, item in items.items()
        if isinstance(item, dict)
        and item.get("words") is None
        and isinstance(item.get("text"), str)
        and item["text"].strip()
    }


def _shards(
    manifest: Path, folder: Path, size: int, wanted: Mapping
) -> JSONShards:
    return JSONShards(folder / "shards", manifest.stem, wanted, size)


def _read_audio(wavs: Sequence[str]) -> list[Tensor | str]:
    """Return each recording, or why it cannot be read."""
    found: list[Tensor | str] = []
    for wav in wavs:
        try:
            found.append(read_audio(wav))
        except (OSError, ValueError) as error:
            found.append(str(error))
    return found


def _align_shards(
    shards: Mapping[Path, Mapping[str, Mapping[str, Any] | None]],
    aligner: nn.Module,
    batch_seconds: float,
    workers: int,
    split: str,
) -> None:
    batches = {path: _divide(s, batch_seconds) for path, s in shards.items()}
    every = [batch for some in batches.values() for batch in some]
    wavs = [[item["wav"] for item in batch.values()] for batch in every]
    read = iter(
        DataLoader(
            cast("Dataset[list[str]]", wavs),  # which a list is as well
            batch_size=None,
            collate_fn=_read_audio,
            num_workers=workers,
        )
    )
    progress = tqdm(
        total=round(sum(map(_seconds, every))),
        desc=f"aligning {split}",
        unit="s of audio",
        disable=not if_main_process() or not shards,
    )
    with progress:
        for path, utterances in shards.items():
            rows = dict.fromkeys(utterances, _UNUSABLE)
            for batch in batches[path]:
                rows |= _align_batch(batch, next(read), aligner)
                progress.update(round(_seconds(batch)))
            write_manifest(rows, path)


def _divide(utterances: Mapping, seconds: float) -> list[_Batch]:
    """Return batches, by length, of what can be used."""
    usable = [(n, item) for n, item in utterances.items() if item is not None]
    durations = [item["duration"] for _, item in usable]
    return [
        dict(usable[i] for i in batch)
        for batch in length_batches(durations, seconds)
    ]


def _seconds(batch: _Batch) -> float:
    return sum(item["duration"] for item in batch.values())


def _align_batch(
    batch: _Batch, wavs: Sequence[Tensor | str], aligner: nn.Module
) -> dict[str, dict[str, Any]]:
    """Return the words of each utterance, or why it has none."""
    rows: dict[str, dict[str, Any]] = {
        n: {"problem": w} for n, w in zip(batch, wavs) if type(w) is str
    }
    texts = {n: item["text"] for n, item in batch.items() if n not in rows}
    if not texts:
        return rows
    found = aligner(
        [wav for wav in wavs if type(wav) is not str],
        [spoken_words(text) for text in texts.values()],
    )
    for (name, text), spans in zip(texts.items(), found):
        if isinstance(spans, Exception):
            rows[name] = {"problem": str(spans)}
        else:
            words = zip(text.split(), spans)
            rows[name] = {"words": [[w, *span[1:]] for w, span in words]}
    return rows


def _join(
    manifest: Path, folder: Path, size: int, characters: Mapping[str, int]
) -> None:
    """Write the manifest with what the shards hold."""
    items = read_manifest(manifest)
    rows = _shards(manifest, folder, size, _wanted(items)).read()
    # What the root of the manifest is, seen from the new one.
    place = os.path.relpath(manifest.parent.resolve(), folder.resolve())
    root = "{data_root}"
    for name, item in items.items():
        if isinstance(item, dict) and isinstance(item.get("wav"), str):
            item["wav"] = item["wav"].replace(root, f"{root}/{place}")
        if "words" in rows.get(name, ()):
            item["words"] = rows[name]["words"]
    write_manifest(items, folder / manifest.name)
    _report(manifest.name, items, rows, characters)


def _report(
    manifest: str, items: _Batch, rows: Mapping, characters: Mapping[str, int]
) -> None:
    """Say who has no words, and which words were not looked for."""
    aligned = [items[name]["text"] for name in rows if "words" in rows[name]]
    for name, row in rows.items():
        if "problem" in row:
            logger.warning(
                "%s: %s gets no word times: %s", manifest, name, row["problem"]
            )
    unknown = [
        word
        for text in aligned
        for word, spoken in zip(text.split(), spoken_words(text))
        if not any(
            c in characters or c.swapcase() in characters for c in spoken
        )
    ]
    if unknown:
        logger.warning(
            "%s: %d words are markup or have no character that the aligner "
            "knows, such as %r; they lie between their neighbours",
            manifest,
            len(unknown),
            unknown[0],
        )
    logger.info(
        "%s: %d of %d utterances got word times, %d could not",
        manifest,
        len(aligned),
        len(items),
        len(rows) - len(aligned),
    )
