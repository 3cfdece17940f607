"""Making one store of another, shard by shard, in many processes."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import datasets
import numpy as np
from speechbrain.utils.distributed import run_on_main

from spiritlm_plugin.dataio.checkpoints import digest_values
from spiritlm_plugin.dataio.corpus.checksums import ChecksumError, check_file
from spiritlm_plugin.dataio.corpus.shards import make_table, write_shard
from spiritlm_plugin.dataio.corpus.stores import (
    DESCRIPTION,
    SHARDS,
    CorpusError,
    check_parts,
    check_shard,
    identity,
    is_store,
    read_description,
    shard_path,
    shard_paths,
)
from spiritlm_plugin.utils.engines import Engine, run
from spiritlm_plugin.utils.files import write_file

logger = logging.getLogger(__name__)

Items = Mapping[str, Mapping[str, Any]]
# Entries of manifests to rows of `make_row`, as many and in their order.
Work = Callable[[Items], Iterable[Mapping[str, Any]]]


class Source(Protocol):
    """What a store can be made of, such as another `Store`."""

    @property
    def digest(self) -> str:
        """What tells it from all others."""

    @property
    def seconds(self) -> float:
        """Of all utterances."""

    @property
    def durations(self) -> np.ndarray:
        """Seconds of each utterance, shape (utterances,)."""

    def items(self, start: int, stop: int) -> Items:
        """Return the entries of some utterances."""


class Listed:
    """The entries of a manifest, as what a store can be made of.

    Arguments
    ---------
    items : dict
        As from `load_manifest`.

    Example
    -------
    >>> listed = Listed({"a": {"duration": 1.0}, "b": {"duration": 0.5}})
    >>> listed.seconds, list(listed.items(1, 2))
    (1.5, ['b'])
    """

    def __init__(self, items: Items):
        self._items = list(items.items())
        self.digest = digest_values(items)
        self.durations = np.array([i["duration"] for i in items.values()])
        self.seconds = sum(item["duration"] for item in items.values())

    def items(self, start: int, stop: int) -> Items:
        """Return the entries of some utterances."""
        return dict(self._items[start:stop])


def map_shards(
    source: Source,
    folder: str | Path,
    make_work: Callable[[], Work],
    description: Mapping[str, Any],
    shard_seconds: float = 3600.0,
    name: str | None = None,
    engine: Engine = "torchrun",
    device: str | None = None,
    cpus: int = 1,
) -> None:
    """Make a store of another, or what is left to do of it.

    Its shards are ``shard_seconds`` long, whatever those of the source are,
    and depend on nothing else. Each is there when it is complete. Those that
    are there are read and compared with their checksums; damaged ones are made
    anew. A store whose shards were merged is complete.

    Arguments
    ---------
    source : Source
        A `Store`, or a `Listed` manifest.
    folder : str or Path
        Of the store to make.
    make_work : callable
        Called once in each process that has something to do; returns what
        makes rows of entries.
    description : dict
        What the store depends on besides, as JSON can hold it; ``parts`` are
        `fingerprints` of a tokenizer.
    shard_seconds : float
        Audio in a shard.
    name : str, optional
        Of what is done, for the progress bar.
    engine, device, cpus
        As of `spiritlm_plugin.utils.engines.run`.

    Raises
    ------
    CorpusError
        If the folder holds a store of other utterances or another
        description, or shards of an unknown one.
    DiskFullError
        If there is no room for a shard.

    Example
    -------
    >>> from spiritlm_plugin.dataio.corpus.shards import make_row
    >>> def make_work():
    ...     return lambda items: [
    ...         make_row(name, {**item, "text": item["text"].upper()})
    ...         for name, item in items.items()
    ...     ]
    >>> source = Listed({"a": {"wav": "a", "duration": 1.0, "text": "all day"}})
    >>> map_shards(source, tmp / "loud", make_work, {"case": "upper"})
    >>> from spiritlm_plugin.dataio.corpus.stores import Store
    >>> Store(tmp / "loud").rows[0]["text"]
    'ALL DAY'
    """
    folder = Path(folder)
    pieces = divide(source.durations.tolist(), shard_seconds)
    whole = {
        **description,
        "manifest": source.digest,
        "utterances": len(source.durations),
        "seconds": source.seconds,
        "shards": len(pieces),
    }
    if run_on_main(_claim, args=[folder, whole]):
        return
    sizes = {
        index: float(source.durations[slice(*piece)].sum())
        for index, piece in enumerate(pieces)
    }
    make = partial(
        _make_worker, source, folder, pieces, identity(whole), make_work
    )
    run(
        sizes,
        make,
        name=name or f"making {folder.name}",
        engine=engine,
        device=device,
        cpus=cpus,
    )


def divide(durations: Iterable[float], seconds: float) -> list[tuple[int, int]]:
    """Return rows from and to, in groups of so many seconds.

    Example
    -------
    >>> divide([2.0, 2.0, 1.0], 3.0)
    [(0, 2), (2, 3)]
    """
    starts, total, row = [], seconds, -1
    for row, duration in enumerate(durations):
        if total >= seconds:
            starts.append(row)
            total = 0.0
        total += duration
    return [*zip(starts, [*starts[1:], row + 1])]


def _make_worker(
    source: Source,
    folder: Path,
    pieces: list[tuple[int, int]],
    corpus: str,
    make_work: Callable[[], Work],
) -> Callable[[int], None]:
    made: list[Work] = []

    def make(index: int) -> None:
        path, (first, behind) = shard_path(folder, index), pieces[index]
        items = source.items(first, behind)
        if len(items) != behind - first:
            raise CorpusError(
                f"of the utterances {first} to {behind} of what {folder} is "
                "made of, some have the same id; prepare all its splits "
                "together, which leaves one of each"
            )
        if _is_whole(path, list(items), corpus):
            return
        if not made:
            made.append(make_work())
        [work] = made
        table = make_table(work(items))
        write_shard(table, path, corpus=corpus, shard=path.name)

    return make


def _is_whole(path: Path, names: list[str], corpus: str) -> bool:
    """Tell whether a shard is what a store needs."""
    if not path.exists():
        return False
    try:
        check_shard(path, corpus, reread=True)
        rows = datasets.Dataset.from_file(str(path))
        rows.data.validate(full=True)
        if rows["utterance"][:] != names:
            raise ChecksumError("it is of another corpus")
    except Exception as error:  # what a damaged file raises is not defined
        logger.warning("%s is made anew: %s", path, error)
        return False
    return True


def _claim(folder: Path, description: Mapping[str, Any]) -> bool:
    """Write what a store is made of, or compare with what is there.

    Removes what processes that were killed have not completed. Returns whether it is complete, its shards being merged.
    """
    for left in folder.glob("shard-*.partial"):
        left.unlink()
    if not is_store(folder):
        _check_strangers(folder, identity(description))
        folder.mkdir(parents=True, exist_ok=True)
        _write_description(folder, description)
        return False
    found = read_description(folder)
    _compare(folder, found, description)
    if "files" not in found:
        return False
    for path in shard_paths(folder, found):
        try:
            check_shard(path, identity(found), reread=True)
        except ChecksumError as error:
            raise CorpusError(
                f"cannot read {path}: {error}; put a copy of it back, or delete "
                f"{folder} to make all of it anew"
            ) from error
    return True


def _write_description(folder: Path, description: Mapping[str, Any]) -> None:
    write_file(folder / DESCRIPTION, json.dumps(description, indent=2))


def _compare(
    folder: Path, found: Mapping[str, Any], description: Mapping[str, Any]
) -> None:
    """Refuse another description, by what is other."""
    check_parts(folder, found, description.get("parts", {}), exactly=True)
    rows = ("manifest", "utterances", "seconds", "shards")
    for key in sorted({*found, *description} - {*rows, "files", "file_bytes"}):
        before, now = (d.get(key, "none") for d in (found, description))
        if before != now:
            raise CorpusError(
                f"{folder} was made with other {key} ({before}; now {now}); "
                "delete it or name another folder"
            )
    if identity(found) != identity(description):
        raise CorpusError(
            f"{folder} holds a corpus of {found['utterances']} utterances in "
            f"{found.get('shards')} shards, and other ones are to be made "
            f"({description['utterances']} in {description['shards']}), or the "
            "same with other texts, times or durations; delete it or name "
            "another folder"
        )


def _check_strangers(folder: Path, corpus: str) -> None:
    """Refuse shards of which nothing says that they are of this corpus."""
    for path in sorted(folder.glob(SHARDS)):
        try:
            known = check_file(path).get("corpus") == corpus
        except ChecksumError:
            continue  # to be made anew
        if not known:
            raise CorpusError(
                f"{path} is there without a {DESCRIPTION} that says what it "
                "was made of; delete the shards or name another folder"
            )
