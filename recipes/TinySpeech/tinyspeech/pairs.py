"""Pairs of a right and a wrong item: words, and sentences."""

from __future__ import annotations

from collections.abc import Collection
from random import Random

from .language import Sentences
from .templates import transcript


def sentence_pair(
    grammar: type[Sentences], slip: str, rng: Random
) -> tuple[str, str]:
    """Draw a short sentence, and the same one with a mistake."""
    while True:
        seed = rng.getrandbits(64)
        right = grammar(Random(seed)).sentence()
        wrong = grammar(Random(seed), slip).sentence()
        same = transcript(right) == transcript(wrong)
        if not same and 4 <= len(right.split()) <= 10:
            return right, wrong


def nonwords(
    words: Collection[str], consonants: str, silent: tuple[str, ...] = ()
) -> dict[str, list[str]]:
    """Return the plausible non-words next to each word.

    One consonant is another one, each three letters occur in some word, and
    the result is no word itself.

    Arguments
    ---------
    words : collection of str
        That there are.
    consonants : str
        Those that are exchanged.
    silent : tuple of str
        Words with one of these stay as they are.

    Example
    -------
    >>> words = ["garden", "harder", "pardon", "marble"]
    >>> nonwords(words, "bdflmnprtv")["garden"]
    ['garder']
    """
    known = set(words)
    seen = {t for w in known for t in _trigrams(w)}
    return {
        word: []
        if any(cluster in word for cluster in silent)
        else _neighbors(word, known, seen, consonants)
        for word in sorted(known)
    }


def _neighbors(
    word: str, known: set[str], seen: set[str], consonants: str
) -> list[str]:
    found = []
    for i, letter in enumerate(word):
        near = word[max(i - 1, 0) : i + 2]
        if letter not in consonants or 2 * letter in near:
            continue
        for other in consonants:
            new = word[:i] + other + word[i + 1 :]
            plausible = all(t in seen for t in _trigrams(new))
            if new not in known and plausible and 2 * other not in new:
                found.append(new)
    return found


def _trigrams(word: str) -> list[str]:
    padded = f"^{word}$"
    return [padded[i : i + 3] for i in range(len(padded) - 2)]
