"""Batches of items of similar length, and samples of items."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from spiritlm_plugin.utils.arguments import whole_number

T = TypeVar("T")


def spread(items: Iterable[T], count: int | None) -> list[T]:
    """Return so many of some items, evenly spread; all if None.

    Raises
    ------
    ValueError
        If the count is not positive.

    Example
    -------
    >>> spread("abcdef", 3)
    ['a', 'c', 'e']
    """
    items = list(items)
    if count is None:
        return items
    if count < 1:
        raise ValueError(f"at least 1 utterance is evaluated, got {count}")
    count = min(count, len(items))
    return [items[i * len(items) // count] for i in range(count)]


def length_batches(
    lengths: Sequence[float], limit: float, max_padding: float = 0.25
) -> list[list[int]]:
    """Group items of similar length, longest first.

    Arguments
    ---------
    lengths : sequence of float
        Of the items.
    limit : float
        On the padded size of a group; a longer item stands alone.
    max_padding : float
        An item joins a group if less than this share of it would be padding.

    Returns
    -------
    list of list of int
        Indices; each item is in one group.

    Example
    -------
    >>> length_batches([1, 9, 10, 2], 20)
    [[2, 1], [3], [0]]
    """
    batches: list[list[int]] = []
    longest = 0.0
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        fits = batches and (len(batches[-1]) + 1) * longest <= limit
        if fits and lengths[index] >= (1 - max_padding) * longest:
            batches[-1].append(index)
        else:
            batches.append([index])
            longest = lengths[index]
    return batches


def sized_batches(lengths: Sequence[float], size: int) -> list[list[int]]:
    """Group items of similar length, longest first, so many at a time.

    Arguments
    ---------
    lengths : sequence of float
        Of the items.
    size : int
        Items in a group.

    Returns
    -------
    list of list of int
        Indices; each item is in one group.

    Raises
    ------
    ValueError
        If ``size`` is not positive.

    Example
    -------
    >>> sized_batches([1, 9, 10], 2)
    [[2, 1], [0]]
    """
    size = whole_number("batch_size", size)
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    return [order[i : i + size] for i in range(0, len(order), size)]
