"""How long documents are going to be, before they are made."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np
import pyarrow
import pyarrow.compute as pc

from spiritlm_plugin.dataio.stream.documents import NEEDS
from spiritlm_plugin.dataio.stream.utterances import LABELS

# Where the lengths of what utterances have are found, the exact ones first.
_LENGTHS = {
    "text": ("text_bytes", "text"),
    "units": ("phonetic_tokens", "phonetic_units"),
    "words": ("word_count", "words"),
    "group": ("group",),
    **{name: (name,) for name in LABELS},
}
_EXPRESSIVE = ("expressive_tokens", "phonetic_units")
LENGTH_COLUMNS = {*chain(*_LENGTHS.values(), _EXPRESSIVE)}
# Bytes of a token of text, roughly.
_TOKEN_BYTES = 4


def token_counts(
    table: pyarrow.Table, form: str, expressive: bool = False
) -> np.ndarray:
    """Return how long the documents of utterances are, roughly.

    Nothing is read but columns of lengths, or where lists and texts begin.

    Arguments
    ---------
    table : pyarrow.Table
        As of `UtteranceTable`.
    form : str
        As of `DocumentMaker`.
    expressive : bool
        Whether there are pitch and style units in documents.

    Returns
    -------
    numpy.ndarray
        In something like tokens, float32, shape (rows,); none where no
        document can be made of a row.

    Example
    -------
    >>> table = pyarrow.table({"text": ["a cat", None, "the cat sat"]})
    >>> token_counts(table, "text").tolist()
    [1.25, 0.0, 2.75]
    """
    columns = _lengths_of(table, form, expressive)
    usable = np.logical_and.reduce([columns[n] > 0 for n in NEEDS[form]])
    counts = np.zeros(len(usable), np.float32)
    if {"text", "words"} & {*NEEDS[form]}:
        counts += columns["text"] / np.float32(_TOKEN_BYTES)
    if "units" in NEEDS[form]:
        counts += columns["units"]
    return counts * usable


def _lengths_of(
    table: pyarrow.Table, form: str, expressive: bool
) -> dict[str, np.ndarray]:
    columns = _LENGTHS | ({"units": _EXPRESSIVE} if expressive else {})
    wanted = {"text", *NEEDS[form]}
    return {n: _column(table, columns[n]) for n in columns if n in wanted}


def _column(table: pyarrow.Table, names: Sequence[str]) -> np.ndarray:
    """Return the first of these columns that is there; else zeros."""
    for name in names:
        if name not in table.column_names:
            continue
        column = table[name]
        if pyarrow.types.is_list(column.type):
            column = pc.list_value_length(column)
        elif not pyarrow.types.is_integer(column.type):
            if pyarrow.types.is_null(column.type):
                continue
            column = pc.binary_length(column)
        return column.fill_null(0).to_numpy().astype(np.float32)
    return np.zeros(table.num_rows, np.float32)
