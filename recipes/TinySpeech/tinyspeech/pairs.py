"""Pairs of a right and a wrong item: words, and sentences."""

from __future__ import annotations

from collections.abc import Collection
from random import Random

from .grammar import Grammar
from .templates import transcript

SLIPS = (
    "agreement",
    "determiner",
    "participle",
    "order",
    "case",
    "infinitive",
)
# Each sounds unlike the others whatever is around it.
_CONSONANTS = "bdflmnprtv"
_SILENT = ("gn", "mb", "mn", "lk", "lm", "ps")


def sentence_pair(slip: str, rng: Random) -> tuple[str, str]:
    """Draw a short sentence, and the same one with a mistake."""
    while True:
        seed = rng.getrandbits(64)
        right = Grammar(Random(seed)).sentence()
        wrong = Grammar(Random(seed), slip).sentence()
        same = transcript(right) == transcript(wrong)
        if not same and 4 <= len(right.split()) <= 10:
            return right, wrong


def nonwords(words: Collection[str]) -> dict[str, list[str]]:
    """Return the plausible non-words next to each word.

    One consonant is another one, each three letters occur in some word, and
    the result is no word itself.

    Example
    -------
    >>> nonwords(["garden", "harder", "pardon", "marble"])["garden"]
    []
    """
    known = set(words)
    seen = {t for w in known for t in _trigrams(w)}
    return {word: _neighbors(word, known, seen) for word in sorted(known)}


def _neighbors(word: str, known: set[str], seen: set[str]) -> list[str]:
    found = []
    for i, letter in enumerate(word):
        near = word[max(i - 1, 0) : i + 2]
        if letter not in _CONSONANTS or 2 * letter in near:
            continue
        if any(cluster in word for cluster in _SILENT):
            continue
        for other in _CONSONANTS:
            new = word[:i] + other + word[i + 1 :]
            plausible = all(t in seen for t in _trigrams(new))
            if new not in known and plausible and 2 * other not in new:
                found.append(new)
    return found


def _trigrams(word: str) -> list[str]:
    padded = f"^{word}$"
    return [padded[i : i + 3] for i in range(len(padded) - 2)]
