"""Stores: the utterances of a split, with their units or without them.

A store is a folder of shards, ``shard-00000.arrow`` and on, and of
``corpus.json``, which says what it was made of. Where shards were merged it
names the files that are there instead; a union of stores names the others, which
lie beside it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow

from spiritlm_plugin.dataio.checkpoints import digest_values
from spiritlm_plugin.dataio.corpus.checksums import ChecksumError, check_file
from spiritlm_plugin.dataio.corpus.shards import (
    COLUMNS,
    follows,
    read_row,
    with_lengths,
)
from spiritlm_plugin.utils.files import read_json
from spiritlm_plugin.utils.processes import rank_and_world_size

logger = logging.getLogger(__name__)

DESCRIPTION = "corpus.json"
SHARDS = "shard-?????*.arrow"
# What stands for the folder that holds the store.
ROOT = "{data_root}"
REMEDY = "delete it and run again what made it"
# Of a description, what says nothing of the rows.
_PLACES = ("files", "file_bytes", "sources", "report")
# Files of rows, their checksums, and what was left of them in a kill.
_ROWS = ("shard-*", "merged-*", "records-*")


class CorpusError(ValueError):
    """A store that cannot be used."""


class Store:
    """Utterances of a split, memory-mapped.

    Opening reads the heads of the shards. Of each shard the size is compared
    with its checksum; the bytes are where its time of change is another, as
    after copying, once, and the processes of ``torchrun`` share that. Shards
    of versions that kept no checksum are read as they are.

    Arguments
    ---------
    folder : str or Path
        Such as ``manifests/train``.
    parts : dict of str to str, optional
        `fingerprints` of the tokenizer that the units must come from, or some
        of them.

    Attributes
    ----------
    description : dict
        What it was made of.
    rows : datasets.Dataset
        A row for each utterance: what the manifest says, ``phonetic_units``,
        ``pitch_units`` and ``style_units`` where they are, at full rate, as
        int64 tensors of shape (units,), and the columns of `lengths`.

    Raises
    ------
    FileNotFoundError
        If there is no such store.
    CorpusError
        If it is not complete, damaged, or of other parts.

    Example
    -------
    >>> from spiritlm_plugin.dataio.corpus.preparation import prepare
    >>> prepare({"train": [("a", {"wav": recording, "text": "boats"})]}, tmp)
    >>> store = Store(tmp / "train")
    >>> len(store), store.rows[0]["text"], store.lengths("text_bytes")
    (1, 'boats', array([5], dtype=int32))
    >>> list(store.items(0, 1)["a"])
    ['wav', 'duration', 'text']
    """

    def __init__(
        self, folder: str | Path, parts: Mapping[str, str] | None = None
    ):
        self.folder = Path(folder)
        self._parts = dict(parts or {})
        self.description = read_description(self.folder)
        self._union = [*_open_union(self.folder, self.description, parts)]
        if self._union:
            shards = {s.folder: s.rows.with_format(None) for s in self._union}
        else:
            check_parts(self.folder, self.description, self._parts)
            shards = dict(_open_shards(self.folder, self.description))
        _check_rows(self.folder, shards, self.description["utterances"])
        rows: datasets.Dataset = datasets.concatenate_datasets(
            [*shards.values()]
        )
        units = [n for n in rows.column_names if n.endswith("_units")]
        self.rows: datasets.Dataset = rows.with_format(
            "torch", units, output_all_columns=True
        )

    def __reduce__(self) -> tuple[type[Store], tuple[Path, dict[str, str]]]:
        """Return how another process opens it."""
        return type(self), (self.folder, self._parts)

    def __len__(self) -> int:
        """Return the number of utterances."""
        return len(self.rows)

    @property
    def digest(self) -> str:
        """What tells it from all others, whatever files it lies in."""
        if self._union:
            return digest_values([store.digest for store in self._union])
        return identity(self.description)

    @property
    def seconds(self) -> float:
        """Of all utterances."""
        return self.description["seconds"]

    @cached_property
    def durations(self) -> np.ndarray:
        """Seconds of each utterance, shape (utterances,)."""
        return self._column("duration").to_numpy()

    def lengths(self, name: str) -> np.ndarray:
        """Return a column of lengths; no other is read.

        Arguments
        ---------
        name : str
            One of `spiritlm_plugin.dataio.corpus.shards.LENGTHS`.

        Returns
        -------
        np.ndarray
            int32, shape (utterances,).

        Raises
        ------
        CorpusError
            If there is none, as without units.
        """
        if name not in self.rows.column_names:
            raise CorpusError(
                f"{self.folder} has no {name}; tokenize the corpus first, with "
                "the tokenizer of such a model"
            )
        return self._column(name).to_numpy()

    def follows(self) -> np.ndarray:
        """Tell which rows are the next ones in the group of the row before.

        Returns
        -------
        np.ndarray
            bool, shape (utterances,).
        """
        return follows(self.rows.data.table)

    def items(self, start: int, stop: int) -> dict[str, dict[str, Any]]:
        """Return utterances as `load_manifest` gives them, with their places.

        Arguments
        ---------
        start, stop : int
            Rows.
        """
        root = str(self.folder.parent.resolve())
        items = dict(map(read_row, self.raw(start, stop)))
        for item in items.values():
            item["wav"] = item["wav"].replace(ROOT, root)
        return items

    def raw(self, start: int, stop: int) -> list[dict[str, Any]]:
        """Return rows as they are stored, without units and lengths."""
        rows = self.rows.with_format("arrow").select_columns(list(COLUMNS))
        return rows[start:stop].to_pylist()

    def _column(self, name: str) -> pyarrow.ChunkedArray:
        return self.rows.data.column(name)


def load_corpus(
    folder: str | Path, parts: Mapping[str, str] | None = None
) -> datasets.Dataset:
    """Return the rows of a tokenized corpus.

    Arguments
    ---------
    folder, parts
        As of `Store`.

    Returns
    -------
    datasets.Dataset
        As of `Store`. `DynamicItemDataset.from_arrow_dataset` makes it
        SpeechBrain's.

    Raises
    ------
    FileNotFoundError, CorpusError
        As by `Store`; or if it has no units.
    """
    store = Store(folder, parts)
    if "phonetic_units" not in store.rows.column_names:
        raise CorpusError(
            f"{store.folder} holds utterances without units; tokenize the "
            "corpus first, and name the folder of the tokenized one"
        )
    return store.rows


def is_store(folder: str | Path) -> bool:
    """Tell whether a folder is a store.

    Example
    -------
    >>> is_store(tmp)
    False
    """
    return (Path(folder) / DESCRIPTION).is_file()


def has_units(folder: str | Path) -> bool:
    """Tell whether a folder is a store that was tokenized.

    Example
    -------
    >>> has_units(tmp)
    False
    """
    return is_store(folder) and "parts" in read_description(Path(folder))


def identity(description: Mapping[str, Any]) -> str:
    """Return what tells a store from all others.

    Example
    -------
    >>> identity({"shards": 2}) == identity({"shards": 2, "files": ["a.arrow"]})
    True
    """
    return digest_values(
        {k: v for k, v in description.items() if k not in _PLACES}
    )


def read_description(folder: Path) -> dict[str, Any]:
    """Return what a store says that it was made of.

    Raises
    ------
    FileNotFoundError
        If there is no such store.
    CorpusError
        If that is damaged.
    """
    path = folder / DESCRIPTION
    if not path.is_file():
        raise FileNotFoundError(
            f"no corpus in {folder}: there is no {DESCRIPTION}; prepare or "
            "tokenize the corpus first"
        )
    remedy = "delete it and run again what made it, which goes on from shards"
    if any(folder.glob("merged-*.arrow")):
        remedy = f"put a copy of it back, or delete {folder} and make it anew"
    found = read_json(path, remedy, CorpusError)
    kinds = {"utterances": int, "shards": int, "parts": dict}
    kinds |= {"files": list, "union": list}
    needed = {"utterances", "union" if "union" in found else "shards"}
    for key, kind in kinds.items():
        if key not in found and key not in needed:
            continue
        value = found.get(key)
        is_named = kind is not list or _are_names(value)
        if not isinstance(value, kind) or not value or not is_named:
            raise CorpusError(f"{path} says {value!r:.80} of {key}; {remedy}")
    return found


def _are_names(values: Any) -> bool:
    """Tell whether these name files in one folder."""
    return isinstance(values, list) and all(
        isinstance(name, str) and Path(name).name == name for name in values
    )


def shard_paths(folder: Path, description: Mapping[str, Any]) -> list[Path]:
    """Return where the rows of a store lie, in their order.

    Those of a union lie in its parts.
    """
    if "union" in description:
        return []
    if "files" in description:
        return [folder / name for name in description["files"]]
    return [shard_path(folder, i) for i in range(description["shards"])]


def shard_path(folder: Path, index: int) -> Path:
    """Return where a shard lies, or is going to be."""
    return folder / f"shard-{index:05d}.arrow"


def _open_union(
    folder: Path, description: Mapping[str, Any], parts: Mapping | None
) -> Iterator[Store]:
    for name in description.get("union", ()):
        if "union" in read_description(folder.parent / name):
            raise CorpusError(
                f"{folder} is the union of {name} and others, which is a union "
                "itself; name its parts"
            )
        yield Store(folder.parent / name, parts)


def _open_shards(
    folder: Path, description: Mapping[str, Any]
) -> Iterator[tuple[Path, datasets.Dataset]]:
    paths = shard_paths(folder, description)
    _check_shards(folder, paths, "files" in description)
    rank, processes = rank_and_world_size()
    digest, is_old = identity(description), False
    for index, path in enumerate(paths):
        shard = _open(path, digest, check=index % processes == rank)
        whole = with_lengths(shard.data.table)
        if whole is not shard.data.table:
            shard, is_old = datasets.Dataset(whole), True
        yield path, shard
    if is_old:
        logger.info(
            "%s was made by an earlier version: its lengths were counted now, "
            "and merging keeps them (spiritlm-prepare merge %s)",
            *(folder, folder),
        )


def _check_shards(folder: Path, paths: Sequence[Path], merged: bool) -> None:
    missing = [path.name for path in paths if not path.exists()]
    if missing:
        raise CorpusError(
            f"{folder} is not complete: {len(paths) - len(missing)} of "
            f"{len(paths)} shards are there, {missing[0]} is not; run again "
            "what made it, which goes on from these"
        )
    # Those that were merged may be left over.
    unknown = sorted(set(folder.glob(SHARDS)) - set(paths))
    if unknown and not merged:
        raise CorpusError(
            f"{folder / DESCRIPTION} tells of {len(paths)} shards, and there "
            f"is {unknown[0].name} as well; delete the folder, or what does "
            "not belong there"
        )


def _open(path: Path, corpus: str, check: bool) -> datasets.Dataset:
    try:
        if check:
            check_shard(path, corpus)
        return datasets.Dataset.from_file(str(path))
    except Exception as error:  # what a damaged file raises is not defined
        raise CorpusError(f"cannot read {path}: {error}; {REMEDY}") from error


def check_shard(path: Path, corpus: str, reread: bool = False) -> None:
    """Compare a shard with its checksum.

    Arguments
    ---------
    path : Path
        The shard.
    corpus : str
        `identity` of its store.
    reread : bool
        Whether to read it in any case.

    Raises
    ------
    ChecksumError
        If it is another.
    """
    kept = check_file(path, reread)
    expected = {"corpus": corpus, "shard": path.name}
    if any(kept.get(k, value) != value for k, value in expected.items()):
        raise ChecksumError("it is of another corpus or place")


def _check_rows(
    folder: Path, shards: Mapping[Path, datasets.Dataset], utterances: int
) -> None:
    first, *_ = shards
    for path, shard in shards.items():
        if shard.features != shards[first].features:
            raise CorpusError(
                f"{path} has other columns than {first.name}; {REMEDY}"
            )
    rows = sum(map(len, shards.values()))
    if rows != utterances:
        raise CorpusError(
            f"{folder} holds {rows} utterances, and its {DESCRIPTION} tells of "
            f"{utterances}; run again what made it, which makes the wrong "
            "shards anew"
        )


def check_parts(
    folder: Path,
    description: Mapping[str, Any],
    parts: Mapping[str, str],
    exactly: bool = False,
) -> None:
    """Compare the tokenizer that a store comes from with another.

    Raises
    ------
    CorpusError
        If a part is another one, or if `exactly`, if one is missing.
    """
    found = description.get("parts", {})
    for name in [*parts, *(found if exactly else ())]:
        if found.get(name) != parts.get(name):
            raise CorpusError(
                f"{folder} was tokenized with another {name} tokenizer "
                f"(fingerprint {found.get(name)}, now {parts.get(name)}); "
                "delete it and tokenize again, or name the tokenizer that it "
                "was made with"
            )


def clean_store(folder: Path, description: Mapping[str, Any]) -> None:
    """Delete files of rows that are not, or no longer, what a store is.

    Arguments
    ---------
    folder : Path
        Of the store.
    description : dict
        Of `read_description`.

    Example
    -------
    >>> (tmp / "shard-00001.arrow").touch()
    >>> clean_store(tmp, {"shards": 1})
    >>> list(tmp.iterdir())
    []
    """
    kept = {path.stem for path in shard_paths(folder, description)}
    for pattern in _ROWS:
        for path in folder.glob(pattern):
            name, *suffixes = path.name.split(".")
            if name not in kept or suffixes[-1] == "partial":
                path.unlink()
