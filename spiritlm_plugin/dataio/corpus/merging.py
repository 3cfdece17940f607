"""Merging of small shards into few large files."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import pyarrow

from spiritlm_plugin.dataio.corpus.shards import (
    ROWS,
    with_lengths,
    write_tables,
)
from spiritlm_plugin.dataio.corpus.stores import (
    DESCRIPTION,
    REMEDY,
    CorpusError,
    check_shard,
    clean_store,
    identity,
    read_description,
    shard_paths,
)
from spiritlm_plugin.utils.files import write_file

logger = logging.getLogger(__name__)

FILE_BYTES = 10**9
_MERGED = "merged-*.arrow"


def merge_shards(folder: str | Path, file_bytes: int = FILE_BYTES) -> None:
    """Merge the shards of a store into files of so many bytes.

    The rows stay in their order. The shards are what the store is until the
    files are complete, and are deleted then; until then both need room. A run
    that was killed starts anew. One process calls this; who has the store open
    reads on.

    Arguments
    ---------
    folder : str or Path
        Of the store. A union of others has no shards of its own.
    file_bytes : int
        Most bytes of a file, but for one batch of rows.

    Raises
    ------
    FileNotFoundError, CorpusError
        If there is no store, or it is not complete or damaged.
    DiskFullError
        If there is no room; the store stays as it was.

    Example
    -------
    >>> from spiritlm_plugin.dataio.corpus.preparation import prepare
    >>> prepare({"train": [("a", {"wav": recording, "text": "boats"})]}, tmp)
    >>> merge_shards(tmp / "train")
    >>> [path.name for path in (tmp / "train").glob("*.arrow")]
    ['merged-00000.arrow']
    """
    folder = Path(folder)
    found = read_description(folder)
    if "union" in found:
        raise CorpusError(
            f"{folder} is the union of {', '.join(found['union'])}; merge these"
        )
    if found.get("file_bytes") != file_bytes:
        files = _merge(folder, found, file_bytes)
        found |= {"files": files, "file_bytes": file_bytes}
        write_file(folder / DESCRIPTION, json.dumps(found, indent=2))
        logger.info("%s: merged into %d files", folder, len(files))
    clean_store(folder, found)


def _merge(
    folder: Path, description: Mapping[str, Any], file_bytes: int
) -> list[str]:
    """Write the files, and return their names."""
    clean_store(folder, description)
    paths, corpus = shard_paths(folder, description), identity(description)
    # Other names than those of files that are merged again.
    numbers = [_number(path) for path in paths if path.match(_MERGED)]
    first, names = max(numbers, default=-1) + 1, []
    batches = _numbered(_gather(_read(paths, corpus)), first, file_bytes)
    for number, group in groupby(batches, itemgetter(0)):
        names.append(f"merged-{number:05d}.arrow")
        tables = (table for _, table in group)
        write_tables(tables, folder / names[-1], corpus=corpus, shard=names[-1])
    return names


def _number(path: Path) -> int:
    return int(path.stem.rpartition("-")[2])


def _read(paths: Iterable[Path], corpus: str) -> Iterator[pyarrow.Table]:
    """Yield what shards hold, a batch at a time."""
    for path in paths:
        try:
            check_shard(path, corpus, reread=True)
            with pyarrow.memory_map(str(path)) as file:
                for batch in pyarrow.ipc.open_stream(file):
                    yield with_lengths(pyarrow.Table.from_batches([batch]))
        except (OSError, ValueError) as error:
            raise CorpusError(
                f"cannot read {path}: {error}; {REMEDY}"
            ) from error


def _gather(tables: Iterable[pyarrow.Table]) -> Iterator[pyarrow.Table]:
    """Yield the same rows, `ROWS` at a time."""
    rest = None
    for table in tables:
        rest = pyarrow.concat_tables([rest, table]) if rest else table
        while len(rest) >= ROWS:
            yield rest[:ROWS]
            rest = rest[ROWS:]
    if rest:
        yield rest


def _numbered(
    tables: Iterable[pyarrow.Table], number: int, file_bytes: int
) -> Iterator[tuple[int, pyarrow.Table]]:
    """Say in which file each belongs."""
    size = 0
    for table in tables:
        size += table.nbytes
        if size > file_bytes and size > table.nbytes:
            number, size = number + 1, table.nbytes
        yield number, table
