"""Shards of a store: what is kept of an utterance, a row each, in Arrow files.

A shard is a stream of Arrow's IPC format in batches of `ROWS` rows, as
`datasets` maps it into memory. Beside ``<shard>.arrow`` lies ``<shard>.json``,
its checksum.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow
from datasets import List, Value
from pyarrow import compute

from spiritlm_plugin.dataio.corpus.checksums import keep_checksum
from spiritlm_plugin.dataio.units.units import SpeechUnits
from spiritlm_plugin.utils.files import writing

# What is said of an utterance in words.
TEXT_KEYS = ("speaker", "style", "sentiment", "intent", "kind", "text")
STREAMS = ("phonetic", "pitch", "style")
# Columns of lengths, in what documents are made of. Those of units are there
# where the units are.
LENGTHS = ("text_bytes", "word_count", "phonetic_tokens", "expressive_tokens")
# In a batch of records: who opens a shard reads the head of each.
ROWS = 10_000

_ALIGNMENTS = {"words": "word", "phones": "phone"}
# Of a row, in this order; what else is known of an utterance is JSON in `more`.
_TEXT, _SECONDS, _COUNT = Value("string"), Value("float64"), Value("int32")
COLUMNS = {
    "utterance": _TEXT,
    "wav": _TEXT,
    "duration": _SECONDS,
    **dict.fromkeys(TEXT_KEYS, _TEXT),
    **{
        key: List({label: _TEXT, "start": _SECONDS, "end": _SECONDS})
        for key, label in _ALIGNMENTS.items()
    },
    "group": _TEXT,
    "position": _COUNT,
    "more": _TEXT,
}
_PLAIN = [
    name for name in COLUMNS if name not in ("utterance", "more", *_ALIGNMENTS)
]


def make_row(
    name: str, item: Mapping[str, Any], units: SpeechUnits | None = None
) -> dict[str, Any]:
    """Return the row of an utterance.

    Arguments
    ---------
    name : str
        Its id.
    item : dict
        As of a manifest.
    units : SpeechUnits, optional
        What was said, at full rate.

    Example
    -------
    >>> row = make_row("a", {"wav": "a.wav", "words": [["all", 0, 0.2]]})
    >>> row["words"]
    [{'word': 'all', 'start': 0, 'end': 0.2}]
    """
    row = {"utterance": name} | {key: item.get(key) for key in _PLAIN}
    for key, label in _ALIGNMENTS.items():
        row[key] = [
            {label: content, "start": start, "end": end}
            for content, start, end in item.get(key) or ()
        ]
    more = {k: v for k, v in item.items() if k not in row}
    row["more"] = json.dumps(more) if more else None
    for stream in STREAMS if units is not None else ():
        values = getattr(units, stream)
        if values is not None:
            row[f"{stream}_units"] = values.numpy()
    return row


def read_row(row: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return id and entry of the manifest of a row, without its units.

    Example
    -------
    >>> item = {"wav": "a.wav", "duration": 1.0, "words": [["all", 0, 0.2]]}
    >>> read_row(make_row("a", item | {"pair": 3}))
    ('a', {'wav': 'a.wav', 'duration': 1.0, 'words': [['all', 0, 0.2]], 'pair': 3})
    """
    item = {k: row[k] for k in _PLAIN if row.get(k) is not None}
    for key, label in _ALIGNMENTS.items():
        if row.get(key):
            item[key] = [[s[label], s["start"], s["end"]] for s in row[key]]
    return row["utterance"], item | json.loads(row.get("more") or "{}")


def make_table(rows: Iterable[Mapping[str, Any]]) -> pyarrow.Table:
    """Return rows of `make_row` as a table, with their lengths.

    Example
    -------
    >>> row = make_row("a", {"text": "all day"}, SpeechUnits([7, 7, 9]))
    >>> table = make_table([row])
    >>> table["text_bytes"].to_pylist(), table["phonetic_tokens"].to_pylist()
    ([7], [2])
    """
    rows = list(rows)
    features = dict(COLUMNS)
    for stream in STREAMS:
        if rows and f"{stream}_units" in rows[0]:
            features[f"{stream}_units"] = List(Value("uint16"))
    schema = datasets.Features(features).arrow_schema
    return with_lengths(pyarrow.Table.from_pylist(rows, schema=schema))


def with_lengths(table: pyarrow.Table) -> pyarrow.Table:
    """Return the rows of a shard of any version with the columns of today.

    Lengths that are not there are counted: UTF-8 bytes of the text, words,
    runs of phonetic units, and tokens of all streams merged. What else is not
    there is empty.

    Arguments
    ---------
    table : pyarrow.Table
        As it was written.

    Returns
    -------
    pyarrow.Table
        The table itself where it has them all.
    """
    if {*COLUMNS, "word_count"}.issubset(table.column_names):
        return table
    features = datasets.Features.from_arrow_schema(table.schema)
    units = {n: features[n] for n in features if n.endswith("_units")}
    counts = _count(table, units)
    columns = {**COLUMNS, **units, **dict.fromkeys(counts, _COUNT)}
    schema = datasets.Features(columns).arrow_schema
    arrays = []
    for name in columns:
        if name in features:
            arrays.append(table[name])
        elif name in counts:
            arrays.append(pyarrow.array(counts[name], pyarrow.int32()))
        else:
            arrays.append(pyarrow.nulls(len(table), schema.field(name).type))
    return pyarrow.table(arrays, schema=schema)


def follows(table: pyarrow.Table) -> np.ndarray:
    """Tell which rows are the next ones in the group of the row before.

    Arguments
    ---------
    table : pyarrow.Table
        Of a store, or of anything else, in which no row is.

    Returns
    -------
    np.ndarray
        bool, shape (rows,).

    Example
    -------
    >>> follows(pyarrow.table({"group": ["a", "a"], "position": [3, 4]}))
    array([False,  True])
    """
    found = np.zeros(len(table), bool)
    if len(table) and {"group", "position"} <= {*table.column_names}:
        group = table["group"].cast(pyarrow.string())
        position = table["position"].cast(pyarrow.int64())
        steps = compute.subtract(position[1:], position[:-1])
        is_next = compute.and_(
            compute.equal(group[1:], group[:-1]), compute.equal(steps, 1)
        )
        found[1:] = compute.fill_null(is_next, False).to_numpy()
    return found


def _count(table: pyarrow.Table, units: Iterable[str]) -> dict[str, np.ndarray]:
    """Return lengths by column; of those that are there, nothing is read."""
    counters = {
        "text_bytes": lambda: _lengths(table["text"], compute.binary_length),
        "word_count": lambda: _lengths(
            table["words"], compute.list_value_length
        ),
    }
    if "phonetic_units" in units:
        counters["phonetic_tokens"] = lambda: _runs(table["phonetic_units"])
    if {"pitch_units", "style_units"} & set(units):
        counters["expressive_tokens"] = lambda: _merged(table)
    return {
        name: table[name] if name in table.column_names else count()
        for name, count in counters.items()
    }


def _lengths(
    column: pyarrow.ChunkedArray,
    count: Callable[[pyarrow.ChunkedArray], pyarrow.ChunkedArray],
) -> np.ndarray:
    return compute.fill_null(count(column), 0).to_numpy()


def _runs(column: pyarrow.ChunkedArray) -> np.ndarray:
    """Return how many runs of equal units each row has."""
    counts = [np.zeros(0, np.int64)]
    for chunk in filter(len, column.chunks):
        units = chunk.flatten().to_numpy()
        offsets = chunk.offsets.to_numpy()
        offsets = offsets - offsets[0]
        starts = np.ones(len(units), bool)
        np.not_equal(units[1:], units[:-1], out=starts[1:])
        starts[offsets[:-1][np.diff(offsets) > 0]] = True
        before = np.concatenate([[0], np.cumsum(starts)])
        counts.append(np.diff(before[offsets]))
    return np.concatenate(counts)


def _merged(table: pyarrow.Table) -> np.ndarray:
    """Return as many tokens as `SpeechUnits.merge` gives of each row."""
    tokens = _runs(table["phonetic_units"])
    if "pitch_units" in table.column_names:
        tokens = tokens + _runs(table["pitch_units"])
    if "style_units" in table.column_names:
        tokens = tokens + _lengths(
            table["style_units"], compute.list_value_length
        )
    return tokens


def write_shard(table: pyarrow.Table, path: Path, **values: Any) -> None:
    """Write a shard, which appears when it is complete.

    Arguments
    ---------
    table : pyarrow.Table
        Of `make_table`.
    path : Path
        Where it is going to be.
    **values : Any
        What is to be kept with its checksum.

    Raises
    ------
    DiskFullError
        If there is no room for it.

    Example
    -------
    >>> table = make_table([make_row("a", {"text": "all day"})])
    >>> write_shard(table, tmp / "shard-00000.arrow", shard="shard-00000.arrow")
    >>> datasets.Dataset.from_file(str(tmp / "shard-00000.arrow"))["text"][0]
    'all day'
    """
    write_tables([table], path, **values)


def write_tables(
    tables: Iterable[pyarrow.Table], path: Path, **values: Any
) -> None:
    """Write a shard of rows that come in parts, one of which is in memory.

    Arguments
    ---------
    tables : iterable of pyarrow.Table
        One at least, of the same columns.
    path, **values
        As of `write_shard`.

    Raises
    ------
    DiskFullError
        If there is no room for it.
    """
    tables = iter(tables)
    table = next(tables)
    with writing(path, shared=True) as partial:
        with (
            pyarrow.OSFile(str(partial), "wb") as file,
            pyarrow.ipc.new_stream(file, table.schema) as writer,
        ):
            for part in chain([table], tables):
                writer.write_table(part.combine_chunks(), max_chunksize=ROWS)
        keep_checksum(partial, path, **values)
