"""Arguments as people give them, checked where they come in."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from math import isfinite
from numbers import Real
from typing import Any

# What can be iterated over and is no list: in parts, or in no order.
_NO_LISTS = (str, bytes, bytearray, os.PathLike, Mapping, set, frozenset)


def whole_number(name: str, value: Any, least: int = 1) -> int:
    """Return an argument that counts something.

    Arguments
    ---------
    name : str
        Of the argument.
    value : int
        NumPy's numbers and arrays without dimensions are numbers as well.
    least : int
        What it may be.

    Raises
    ------
    TypeError
        If it is no whole number; True and 1.0 are none.
    ValueError
        If it is less.

    Example
    -------
    >>> whole_number("batch_size", np.int64(16))
    16
    """
    plain = _plain(value)
    if isinstance(plain, bool) or not isinstance(plain, int):
        raise TypeError(f"{name} must be a whole number, got {shown(value)}")
    if plain < least:
        raise ValueError(f"{name} must be >= {least}, got {shown(value)}")
    return plain


def number(name: str, value: Any) -> float:
    """Return an argument that measures something.

    Arguments
    ---------
    name : str
        Of the argument.
    value : float
        NumPy's numbers and arrays without dimensions are numbers as well.

    Raises
    ------
    TypeError
        If it is no number; True is none.
    ValueError
        If it is NaN or infinite.

    Example
    -------
    >>> number("temperature", np.float64(0.8)), number("temperature", 1)
    (0.8, 1.0)
    """
    plain = _plain(value)
    if isinstance(plain, bool) or not isinstance(plain, Real):
        raise TypeError(f"{name} must be a number, got {shown(value)}")
    try:
        found = float(plain)
    except OverflowError:
        found = float("inf")
    if not isfinite(found):
        raise ValueError(f"{name} must be finite, got {shown(value)}")
    return found


def flag(name: str, value: Any) -> bool:
    """Return an argument that is True or False.

    Raises
    ------
    TypeError
        If it is neither, nor 1 or 0.

    Example
    -------
    >>> flag("stop", np.bool_(True))
    True
    """
    plain = _plain(value)
    if not isinstance(plain, int) or plain not in (0, 1):
        raise TypeError(f"{name} must be True or False, got {shown(value)}")
    return bool(plain)


def listed(value: Any) -> list[Any] | None:
    """Return the items of whatever has some in an order, None if it has none.

    Lists, tuples, arrays, generators, columns of tables; a text or a
    dictionary is no list, of its letters or of its keys.

    Example
    -------
    >>> listed(str(i) for i in range(2)), listed("ab")
    (['0', '1'], None)
    """
    if isinstance(value, _NO_LISTS) or not isinstance(value, Iterable):
        return None
    if getattr(value, "ndim", None) == 0:
        return None
    return list(value)


def as_list(name: str, value: Any, of: str) -> list[Any]:
    """Return an argument that is a list, or anything that can be made one.

    Arguments
    ---------
    name : str
        Of the argument.
    value : iterable
        As of `listed`.
    of : str
        What it is a list of, in the plural.

    Raises
    ------
    TypeError
        If it is no list.

    Example
    -------
    >>> as_list("labels", "cat", "texts")
    Traceback (most recent call last):
        ...
    TypeError: labels must be a list of texts, got 'cat'
    """
    items = listed(value)
    if items is None:
        raise TypeError(f"{name} must be a list of {of}, got {shown(value)}")
    return items


def as_texts(name: str, value: Any) -> list[str]:
    """Return an argument that is a list of texts.

    Raises
    ------
    TypeError
        If it is no list, or something in it is no text.

    Example
    -------
    >>> as_texts("texts", ("a", "b"))
    ['a', 'b']
    """
    texts = as_list(name, value, "texts")
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(
                f"{name}[{index}] must be a text, got {shown(text)}"
            )
    return texts


def shown(value: Any) -> str:
    """Return a value as errors show it, briefly.

    Example
    -------
    >>> shown("a" * 9), len(shown("a" * 99))
    ("'aaaaaaaaa'", 80)
    """
    return f"{value!r:.80}"


def _plain(value: Any) -> Any:
    """Return the number in a NumPy scalar or an array without dimensions."""
    return value.item() if getattr(value, "ndim", None) == 0 else value
