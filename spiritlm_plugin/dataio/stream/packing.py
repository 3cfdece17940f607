"""Packing: documents side by side in rows of equal length.

The position starts anew with each document, which keeps attention inside it:
transformers' models read positions so where there is no attention mask.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from spiritlm_plugin.dataio.stream.marking import unlearned


def best_fit(
    lengths: Sequence[int], rows: int, size: int
) -> tuple[list[list[int]], list[int]]:
    """Divide documents among rows.

    The longest first, each to the row that it fills best.

    Arguments
    ---------
    lengths : sequence of int
        Tokens of each document.
    rows, size : int
        How many rows there are, and the tokens of each.

    Returns
    -------
    rows : list of list of int
        The documents of each row, by index.
    left : list of int
        Those that fit into none.

    Example
    -------
    >>> best_fit([3, 5, 2, 6], 2, 8)
    ([[3, 2], [1, 0]], [])
    """
    places: list[list[int]] = [[] for _ in range(rows)]
    spaces = [(size, row) for row in range(rows)]  # what is left in each row
    left = []
    for index in np.argsort(-np.asarray(lengths), kind="stable").tolist():
        length = lengths[index]
        place = bisect_left(spaces, (length, -1))
        if place == len(spaces):
            left.append(index)
            continue
        space, row = spaces.pop(place)
        places[row].append(index)
        if space > length:
            insort(spaces, (space - length, row))
    return places, left


def pack(
    documents: Sequence[np.ndarray],
    rows: int,
    size: int,
    generator: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Fill rows with documents, in random order.

    Documents that fit into no row are cut into what is left of the rows; what
    is too much is dropped. Nothing is learned of the rest of an answer, whose
    question is in another row.

    Arguments
    ---------
    documents : sequence of numpy.ndarray
        Ids of each, in all as many as the rows hold at least; ``~id`` where
        nothing is learned, as at the beginning of questions.
    rows, size : int
        How many rows there are, and the tokens of each.
    generator : numpy.random.Generator
        Of the order of rows, and of the documents in each.

    Returns
    -------
    ids : numpy.ndarray
        As in the documents, int32, shape (rows, size).
    positions : numpy.ndarray
        Of each token in its document, int32, shape (rows, size).

    Raises
    ------
    ValueError
        If the documents do not fill the rows.

    Example
    -------
    >>> documents = [np.array([5, 6, 7]), np.array([8, 9, 4, 3])]
    >>> ids, positions = pack(documents, 1, 6, np.random.default_rng(1))
    >>> ids.tolist(), positions.tolist()
    ([[8, 9, 4, 3, 5, 6]], [[0, 1, 2, 3, 0, 1]])
    """
    lengths = [len(ids) for ids in documents]
    if sum(lengths) < rows * size:
        raise ValueError(
            f"{sum(lengths)} tokens do not fill {rows} rows of {size}"
        )
    places, left = best_fit(lengths, rows, size)
    rest = np.concatenate([documents[i] for i in left or [0]])
    bounds = {*np.cumsum([lengths[i] for i in left]).tolist()}
    ids = np.empty((rows, size), np.int32)
    positions = np.empty((rows, size), np.int32)
    taken = 0
    for row, target in enumerate(generator.permutation(rows)):
        pieces = [documents[i] for i in places[target]]
        while (space := size - sum(map(len, pieces))) > 0:
            ends = [end for end in bounds if end > taken]
            end = min([taken + space, *ends])
            start = max([0, *(bound for bound in bounds if bound <= taken)])
            asks = rest[start] < 0 and start < taken
            piece = rest[taken:end]
            pieces.append(unlearned(piece) if asks else piece)
            taken = end
        order = generator.permutation(len(pieces))
        ids[row] = np.concatenate([pieces[i] for i in order])
        positions[row] = np.concatenate(
            [np.arange(len(pieces[i])) for i in order]
        )
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
