"""Sentences written as patterns of alternatives and slots."""

from __future__ import annotations

import re
from collections.abc import Mapping
from random import Random

_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_ARTICLE = re.compile(r"\b([Aa]) (?=[aeiou])")


def expand(pattern: str, slots: Mapping[str, str], rng: Random) -> str:
    """Fill in ``{slots}`` and choose of ``[one|other|]``, which may nest.

    Example
    -------
    >>> expand("{who} [sat|sat] [down|down].", {"who": "Tom"}, Random(0))
    'Tom sat down.'
    """
    while choice := _CHOICE.search(pattern):
        option = rng.choice(choice.group(1).split("|"))
        pattern = pattern[: choice.start()] + option + pattern[choice.end() :]
    return finish(pattern.format_map(slots))


def finish(sentence: str) -> str:
    """Return a sentence with its articles, spaces and first capital right."""
    sentence = _ARTICLE.sub(r"\1n ", " ".join(sentence.split()))
    sentence = re.sub(r" ([,.?!])", r"\1", sentence)
    return sentence[:1].upper() + sentence[1:]


def transcript(sentence: str) -> str:
    """Return the words of a sentence: lower case letters and apostrophes.

    Example
    -------
    >>> transcript("Does Tom's cat sleep?")
    "does tom's cat sleep"
    """
    return " ".join(re.findall(r"[a-z']+", sentence.lower()))
