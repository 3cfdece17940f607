"""Sentences written as patterns of alternatives and slots."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from random import Random

_CHOICE = re.compile(r"\[([^\[\]]*)\]")
# Letters of any script, and apostrophes.
WORD = re.compile(r"(?:[^\W\d_]|')+")


def expand(
    pattern: str,
    slots: Mapping[str, str],
    rng: Random,
    finish: Callable[[str], str],
) -> str:
    """Fill in ``{slots}`` and choose of ``[one|other|]``, which may nest.

    ``finish`` makes a written sentence of the words.

    Example
    -------
    >>> pattern = "{who} [sat|sat] [down|down]."
    >>> expand(pattern, {"who": "Tom"}, Random(0), str.upper)
    'TOM SAT DOWN.'
    """
    while choice := _CHOICE.search(pattern):
        option = rng.choice(choice.group(1).split("|"))
        pattern = pattern[: choice.start()] + option + pattern[choice.end() :]
    return finish(pattern.format_map(slots))


def transcript(sentence: str) -> str:
    """Return the words of a sentence: lower case letters and apostrophes.

    Example
    -------
    >>> transcript("Does Tom's cat sleep?"), transcript("¿Dormirá el niño?")
    ("does tom's cat sleep", 'dormirá el niño')
    """
    return " ".join(WORD.findall(sentence.lower()))
