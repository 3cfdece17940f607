"""Words and phones with their times, of what an engine tells."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Mapping

from .espeak import NATIVE_RATE, Phone
from .templates import WORD

_MARKS = re.compile("[ˈˌː]")

Span = tuple[str, float, float]


def align(
    text: str, phones: list[Phone], length: int, same: Mapping[str, str]
) -> tuple[list[Span], list[Span]]:
    """Return the words and the phones of a sentence, with their times.

    Phones know the character of their word. Where eSpeak says two written
    words as one ("of the"), the phones are shared out. Phones are named as
    ``same`` has them.
    """
    found = list(WORD.finditer(text))
    begins = [m.start() for m in found]
    ends = [p.sample for p in phones[1:]] + [length]
    spans, owned = [], [[] for _ in found]
    for phone, end in zip(phones, ends):
        name = plain_name(phone.name, same)
        span = (name or "sil", phone.sample, max(end, phone.sample))
        spans.append(span)
        word = bisect_right(begins, phone.character) - 1
        if name and 0 <= word < len(owned):
            owned[word].append(span)
    _share([m.group().lower() for m in found], owned)
    words = [
        (m.group().lower(), own[0][1] / NATIVE_RATE, own[-1][2] / NATIVE_RATE)
        for m, own in zip(found, owned)
    ]
    sounds = [(n, a / NATIVE_RATE, b / NATIVE_RATE) for n, a, b in spans]
    return words, sounds


def plain_name(name: str, same: Mapping[str, str]) -> str:
    """Return the name of a phone without stress and length.

    Example
    -------
    >>> plain_name("ˈɐ", {"ɐ": "ə"})
    'ə'
    """
    name = _MARKS.sub("", name)
    return same.get(name, name)


def without_links(text: str, phones: list[Phone]) -> list[Phone]:
    """Drop eSpeak's nameless phones that link words: not at punctuation."""
    kept = []
    for phone, after in zip(phones, [*phones[1:], None]):
        between = text[phone.character : after.character] if after else "."
        if (
            phone.name
            or any(mark in between for mark in ",.?!")
            or after
            and after.name == ""
        ):
            kept.append(phone)
    return kept


def _share(words: list[str], owned: list[list]) -> None:
    """Give words without phones the last phones of the word before."""
    for i in range(len(words) - 1, 0, -1):
        if owned[i]:
            continue
        first = i - 1
        while not owned[first]:
            first -= 1
        pool, heads = owned[first], i - first
        names = [name for name, _, _ in pool]
        if words[i] == "the" and "ð" in names:
            cut = len(names) - 1 - names[::-1].index("ð")
        elif words[i] == "a":
            cut = len(pool) - 1
        else:
            total = sum(map(len, words[first : i + 1]))
            cut = round(len(pool) * (1 - len(words[i]) / total))
        cut = min(max(cut, heads), len(pool) - 1)
        if cut < 1:
            raise ValueError(f"no phones for {words[i]!r} in {words}")
        owned[first], owned[i] = pool[:cut], pool[cut:]
