"""What a neural voice reads, and when it said each of it."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..espeak import Phone

_MARK = re.compile("[,.?!;:]")


def symbols(
    text: str, phones: Sequence[Phone], ids: Mapping[str, Sequence[int]]
) -> tuple[list[int], list[Phone], list[int | None]]:
    """Return what the voice reads: phones, spaces, and the marks of a text.

    Arguments
    ---------
    text : str
        The sentence.
    phones : sequence of Phone
        Of eSpeak NG; of their samples nothing is used.
    ids : mapping
        The symbols of the voice to their numbers.

    Returns
    -------
    tuple
        The numbers; the phones, with a nameless one at each mark; and for
        each number the index of its phone, None in a space between words.

    Example
    -------
    >>> ids = {symbol: [i] for i, symbol in enumerate("_^$ .nˈoʊ")}
    >>> numbers, phones, owners = symbols(
    ...     "No.", [Phone("n", 0, 0), Phone("ˈoʊ", 9, 0)], ids
    ... )
    >>> numbers
    [1, 0, 5, 0, 6, 0, 7, 0, 8, 0, 4, 0, 2]
    >>> [phone.name for phone in phones], owners
    (['', 'n', 'ˈoʊ', ''], [0, 0, 1, 1, 2, 2, 2, 2, 2, 2, 3, 3, 3])
    """
    numbers = [*ids["^"], *ids["_"]]
    kept = [Phone("", 0, 0)]
    owners: list[int | None] = [0] * len(numbers)

    def add(name: str, owner: int | None) -> None:
        for symbol in unicodedata.normalize("NFD", name):
            new = [*ids[symbol], *ids["_"]] if symbol in ids else []
            numbers.extend(new)
            owners.extend([owner] * len(new))

    named = [phone for phone in phones if phone.name]
    for phone, after in zip(named, [*named[1:], None]):
        kept.append(Phone(phone.name, 0, phone.character))
        add(phone.name, len(kept) - 1)
        if after and after.character == phone.character:
            continue
        rest = text[phone.character : after.character if after else None]
        mark = _MARK.search(rest)
        if mark:
            kept.append(Phone("", 0, phone.character + mark.start()))
            add(mark.group(), len(kept) - 1)
        if after:
            add(" ", len(kept) - 1 if mark else None)
    numbers += ids["$"]
    owners += [len(kept) - 1] * len(ids["$"])
    return numbers, kept, owners


def timed_phones(
    phones: Sequence[Phone],
    owners: Sequence[int | None],
    counts: Sequence[int],
) -> list[Phone]:
    """Return phones with the samples at which they begin.

    A space between words is half of the phone before it, half of the next.

    Example
    -------
    >>> phones = [Phone("", 0, 0), Phone("n", 0, 0), Phone("oʊ", 0, 3)]
    >>> timed = timed_phones(phones, [0, 1, 1, None, 2], [5, 10, 20, 8, 9])
    >>> [phone.sample for phone in timed]
    [0, 5, 39]
    """
    begins: dict[int, int] = {}
    position = space = 0
    for owner, count in zip(owners, map(int, counts)):
        if owner is None:
            space += count
        else:
            begins.setdefault(owner, position - space // 2)
            space = 0
        position += count
    return [replace(p, sample=begins[i]) for i, p in enumerate(phones)]
