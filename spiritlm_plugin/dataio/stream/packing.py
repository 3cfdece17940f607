"""Packing: documents side by side in rows of equal length.

A row holds whole documents. The position starts anew with each, which keeps
attention inside it: transformers' models read positions so where there is no
attention mask.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence

import numpy as np
from torch import Tensor


def best_fit(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Divide documents among rows.

    The longest first, each to the row that it fills best.

    Arguments
    ---------
    lengths : sequence of int
        Tokens of each document, at most ``size``.
    size : int
        Tokens of a row.

    Returns
    -------
    list of list of int
        The documents of each row, by index.

    Example
    -------
    >>> best_fit([3, 5, 2, 6], 8)
    [[3, 2], [1, 0]]
    """
    rows: list[list[int]] = []
    spaces: list[tuple[int, int]] = []  # what is left in a row, and which
    for index in np.argsort(-np.asarray(lengths), kind="stable").tolist():
        length = lengths[index]
        place = bisect_left(spaces, (length, -1))
        if place == len(spaces):
            space, row = size, len(rows)
            rows.append([])
        else:
            space, row = spaces.pop(place)
        rows[row].append(index)
        if space > length:
            insort(spaces, (space - length, row))
    return rows


def split_long(documents: Sequence[np.ndarray], size: int) -> list[np.ndarray]:
    """Cut documents that are longer than a row into pieces that are not."""
    pieces = []
    for ids in documents:
        pieces += np.split(ids, range(size, len(ids), size))
    return pieces


def pack(
    documents: Sequence[np.ndarray],
    size: int,
    filler: int,
    generator: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Put documents into rows, in random order.

    Arguments
    ---------
    documents : sequence of numpy.ndarray
        Ids of each; those longer than a row are cut.
    size : int
        Tokens of a row.
    filler : int
        Id of padding, each of which is a document of its own.
    generator : numpy.random.Generator
        Of the order of rows, and of the documents in each.

    Returns
    -------
    ids : numpy.ndarray
        int32, shape (rows, size).
    positions : numpy.ndarray
        Of each token in its document, int32, shape (rows, size).

    Example
    -------
    >>> documents = [np.array([5, 6, 7]), np.array([8, 9])]
    >>> ids, positions = pack(documents, 6, 0, np.random.default_rng(1))
    >>> ids.tolist(), positions.tolist()
    ([[5, 6, 7, 8, 9, 0]], [[0, 1, 2, 0, 1, 0]])
    """
    pieces = split_long(documents, size)
    rows = best_fit([len(ids) for ids in pieces], size)
    ids = np.full((len(rows), size), filler, np.int32)
    positions = np.zeros((len(rows), size), np.int32)
    for row, target in enumerate(generator.permutation(len(rows))):
        start = 0
        for index in generator.permutation(rows[target]):
            end = start + len(pieces[index])
            ids[row, start:end] = pieces[index]
            positions[row, start:end] = np.arange(end - start)
            start = end
    return ids, positions


def labels_of(ids: Tensor, positions: Tensor, ignored: int = -100) -> Tensor:
    """Return the token that each one predicts.

    Arguments
    ---------
    ids, positions : Tensor
        As of `pack`, shape (rows, size).
    ignored : int
        Stands where nothing is predicted: at the ends of documents.

    Returns
    -------
    Tensor
        Shape (rows, size).

    Example
    -------
    >>> ids = torch.tensor([[8, 9, 5, 6, 7, 0]])
    >>> positions = torch.tensor([[0, 1, 0, 1, 2, 0]])
    >>> labels_of(ids, positions)
    tensor([[   9, -100,    6,    7, -100, -100]])
    """
    labels = ids.roll(-1, 1)
    follows = positions.roll(-1, 1) > 0
    # What rolls in from the front begins a document: its position is 0.
    return labels.masked_fill(~follows, ignored)
