"""What TinySpeech has of a language: its sentences, and its voices."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from random import Random
from typing import Protocol

from .stories import Story

LANGUAGES = {"en": "english", "es": "spanish"}

Intent = tuple[str, str, str]


class Sentences(Protocol):
    """Draws plain sentences."""

    def __init__(self, rng: Random, slip: str | None = None): ...

    def sentence(self) -> str:
        """Return a written sentence, with the slip if it gives occasion."""
        ...


@dataclass(frozen=True)
class Voice:
    """A voice of eSpeak NG with a variant, and a shift of its pitch."""

    name: str
    shift: int = 0


@dataclass(frozen=True, eq=False)
class Language:
    """A language of TinySpeech.

    Arguments
    ---------
    grammar : type
        Of plain sentences.
    slips : sequence of str
        The mistakes that its sentences can be asked for.
    opinion : callable
        "positive" or "negative" and a generator to a sentence.
    feelings : mapping
        The positive and the negative phrases of these sentences, in words of
        lower case.
    story : callable
        A generator to a story.
    command : callable
        An intent and a generator to a command.
    intents : sequence of tuple of str
        Action, object and location.
    consonants : str
        Each sounds unlike the others whatever is around it.
    silent : tuple of str
        Where one of them is not heard.
    speakers, unseen_speaker : mapping of str to Voice
        Who is in training, and who is not.
    same_phones : mapping of str
        What eSpeak tells apart by the dialect or the stress, to one phone.
    more_words : collection of str
        Words that are not said, and are no non-words either.
    """

    grammar: type[Sentences]
    slips: Sequence[str]
    opinion: Callable[[str, Random], str]
    feelings: Mapping[str, Sequence[Sequence[str]]]
    story: Callable[[Random], Story]
    command: Callable[[Intent, Random], str]
    intents: Sequence[Intent]
    consonants: str
    silent: tuple[str, ...]
    speakers: Mapping[str, Voice]
    unseen_speaker: Mapping[str, Voice]
    same_phones: Mapping[str, str]
    more_words: Collection[str] = ()

    @property
    def voices(self) -> dict[str, Voice]:
        """All speakers."""
        return {**self.speakers, **self.unseen_speaker}


def load_language(code: str) -> Language:
    """Return a language by its code.

    Raises
    ------
    ValueError
        If there is none.

    Example
    -------
    >>> len(load_language("es").speakers)
    6
    """
    if code not in LANGUAGES:
        raise ValueError(
            f"no language {code!r}; there are {', '.join(LANGUAGES)}"
        )
    module = import_module(f".{LANGUAGES[code]}", __package__)
    return module.LANGUAGE
