"""Splits of audio datasets as tables: parquet where it lies, or `datasets`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

# Rows of audio in memory at once, and rows of a `datasets` group.
_ROWS, _GROUP = 64, 1000


class Group(NamedTuple):
    """Rows that belong to one folder, and their audio when it is asked for."""

    name: str
    rows: pa.Table
    audio: Callable[[], Iterator[pa.Scalar]]


class ParquetSplit:
    """A split in files of parquet; a group is a row group.

    Arguments
    ---------
    paths : sequence of Path
        In order.

    Raises
    ------
    ValueError
        If a file is damaged; names it.
    """

    def __init__(self, paths: Sequence[Path]):
        self.paths = paths
        self.count = 0
        for path in reversed(paths):  # the schema is that of the first
            with _named(path):
                file = pq.ParquetFile(path)
                self.schema = file.schema_arrow
                self.count += file.metadata.num_rows

    def column(self, name: str) -> pa.ChunkedArray:
        """Return a column, or a field of one, such as ``"audio.path"``."""
        parts = []
        for path in self.paths:
            with _named(path):
                table = pq.ParquetFile(path).read(columns=[name])
            parts += _field(table, name).chunks
        return pa.chunked_array(parts, _type(self.schema, name))

    def groups(self, columns: Sequence[str], audio: str) -> Iterator[Group]:
        """Yield the rows, with some columns, in order."""
        for path in self.paths:
            prefix = f"{path.stem}-{_digest([path])}"
            with _named(path):
                file = pq.ParquetFile(path)
                for number in range(file.num_row_groups):
                    table = file.read_row_group(number, columns=list(columns))
                    yield Group(
                        f"{prefix}-{number:05d}",
                        _select(table, columns),
                        partial(_parquet_audio, path, number, audio),
                    )


def _parquet_audio(path: Path, group: int, column: str) -> Iterator[pa.Scalar]:
    with _named(path):
        for batch in pq.ParquetFile(path).iter_batches(
            _ROWS, row_groups=[group], columns=[column]
        ):
            yield from batch.column(0)


class DatasetSplit:
    """A split that `datasets` has loaded; a group is a thousand rows.

    Arguments
    ---------
    dataset : datasets.Dataset
        Its audio is not decoded.
    """

    def __init__(self, dataset: Any):
        self.dataset = dataset.with_format("arrow")
        self.schema = dataset.features.arrow_schema
        self.count = len(dataset)

    def column(self, name: str) -> pa.ChunkedArray:
        """Return a column, or a field of one, such as ``"audio.path"``."""
        return _field(self._read([name], 0, self.count), name)

    def groups(self, columns: Sequence[str], audio: str) -> Iterator[Group]:
        """Yield the rows, with some columns, in order."""
        files = [Path(file["filename"]) for file in self.dataset.cache_files]
        prefix = _digest(files)
        for start in range(0, self.count, _GROUP):
            end = min(start + _GROUP, self.count)
            table = self._read(columns, start, end)
            yield Group(
                f"{prefix}-{start // _GROUP:05d}",
                _select(table, columns),
                partial(self._audio, audio, start, end),
            )

    def _read(self, names: Sequence[str], start: int, end: int) -> pa.Table:
        columns = {_column(self.schema, name) for name in names}
        return self.dataset.select_columns(sorted(columns))[start:end]

    def _audio(self, column: str, start: int, end: int) -> Iterator[pa.Scalar]:
        for first in range(start, end, _ROWS):
            table = self._read([column], first, min(first + _ROWS, end))
            yield from table.column(column)


def _column(schema: pa.Schema, name: str) -> str:
    """Return the column that a name is of, or of a field of."""
    return name if name in schema.names else name.partition(".")[0]


def _type(schema: pa.Schema, name: str) -> pa.DataType:
    kind = schema.field(_column(schema, name)).type
    if name in schema.names:
        return kind
    return kind.field(name.partition(".")[2]).type


def _field(table: pa.Table, name: str) -> pa.ChunkedArray:
    """Return a column, or a field of one."""
    if name in table.column_names:
        return table.column(name)
    column, _, field = name.partition(".")
    return pc.struct_field(table.column(column), field)


def _select(table: pa.Table, names: Sequence[str]) -> pa.Table:
    return pa.table({name: _field(table, name) for name in names})


def _digest(paths: Sequence[Path]) -> str:
    """Return what changes when files do."""
    values = [
        (path.parts[-3:], path.stat().st_size, path.stat().st_mtime_ns)
        for path in paths
    ]
    return hashlib.sha256(repr(values).encode()).hexdigest()[:12]


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Say in errors of pyarrow which file they are about."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise ValueError(
            f"cannot read {path} ({error}); it may be damaged or a pointer of "
            "git-lfs: download it again"
        ) from error


class Hub(NamedTuple):
    """An audio dataset: where it is, and its splits by name."""

    source: Path
    splits: Mapping[str, ParquetSplit | DatasetSplit]


def open_hub(source: str | Path, config: str | None = None) -> Hub:
    """Find the splits of a dataset.

    Arguments
    ---------
    source : str or path
        A folder: a copy of a dataset's repository with parquet in it, what
        ``save_to_disk`` has written, or another that `datasets` can read; or
        the name of a dataset, which `datasets` downloads unless it has it.
    config : str, optional
        Of the dataset's configurations, where there are several.

    Raises
    ------
    FileNotFoundError
        If there is no such folder or dataset.
    ValueError
        If the configuration is missing or unknown, or the dataset cannot be
        read.

    Example
    -------
    >>> audio = [{"bytes": b"...", "path": "a.wav"}]
    >>> table = pa.table({"audio": audio, "text": ["two boats"]})
    >>> pq.write_table(table, tmp / "train-00000-of-00001.parquet")
    >>> list(open_hub(tmp).splits)
    ['train']
    """
    folder = Path(source).expanduser()
    if not folder.is_dir() and str(source).startswith((".", "/", "~")):
        raise FileNotFoundError(f"no folder {source}")
    try:
        files = sorted(folder.rglob("*.parquet")) if folder.is_dir() else []
        if files:
            found = _find_parquet(folder.absolute(), files, config)
            return Hub(folder, {s: ParquetSplit(p) for s, p in found.items()})
        return Hub(folder, _load(folder, str(source), config))
    except OSError as error:
        raise FileNotFoundError(
            f"cannot open the dataset {source}: {error}"
        ) from error
    except ValueError as error:
        raise ValueError(
            f"cannot open the dataset {source}: {error}"
        ) from error


def _load(
    folder: Path, source: str, config: str | None
) -> dict[str, DatasetSplit]:
    import datasets

    saved = ("dataset_dict.json", "state.json")
    if any((folder / name).is_file() for name in saved):
        loaded = datasets.load_from_disk(str(folder))
    else:
        try:
            loaded = datasets.load_dataset(source, config)
        except datasets.exceptions.DatasetGenerationError as error:
            raise ValueError(
                f"{error.__cause__ or error}; a folder of recordings is read "
                "by `spiritlm-prepare folder`"
            ) from error
    if not isinstance(loaded, dict):
        loaded = {loaded.split or "train": loaded}
    return {str(name): DatasetSplit(split) for name, split in loaded.items()}


def _find_parquet(
    folder: Path, files: Sequence[Path], config: str | None
) -> dict[str, list[Path]]:
    """Return the files of each split, as `datasets` assigns them.

    It takes brackets and the like in a folder's name for a pattern, so it is
    shown links in a folder of another name.
    """
    import datasets

    with TemporaryDirectory() as name:
        copy = Path(name).resolve()
        for path in [*files, *folder.glob("README.md")]:
            link = copy / path.absolute().relative_to(folder)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path.resolve())
        builder = datasets.load_dataset_builder(str(copy), config)
        return {
            str(split): sorted(
                folder / Path(path).relative_to(copy) for path in paths
            )
            for split, paths in builder.config.data_files.items()
        }
