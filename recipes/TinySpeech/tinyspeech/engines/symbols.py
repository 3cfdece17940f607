"""What a neural voice reads."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence

from ..espeak import Phone

_MARK = re.compile("[,.?!;:]")


def symbols(
    text: str, phones: Sequence[Phone], ids: Mapping[str, Sequence[int]]
) -> list[int]:
    """Return what the voice reads: phones, spaces, and the marks of a text.

    Arguments
    ---------
    text : str
        The sentence.
    phones : sequence of Phone
        Of eSpeak NG; of their samples nothing is used.
    ids : mapping
        The symbols of the voice to their numbers.

    Example
    -------
    >>> ids = {symbol: [i] for i, symbol in enumerate("_^$ .nˈoʊ")}
    >>> symbols("No.", [Phone("n", 0, 0), Phone("ˈoʊ", 9, 0)], ids)
    [1, 0, 5, 0, 6, 0, 7, 0, 8, 0, 4, 0, 2]
    """
    names = ["^"]
    named = [phone for phone in phones if phone.name]
    for phone, after in zip(named, [*named[1:], None]):
        names += unicodedata.normalize("NFD", phone.name)
        if after and after.character == phone.character:
            continue
        rest = text[phone.character : after.character if after else None]
        names += _MARK.findall(rest)[:1]
        names += [" "] if after else []
    known = [number for name in names for number in ids.get(name, ())]
    # A blank follows each.
    return [n for number in known for n in (number, *ids["_"])] + [*ids["$"]]
