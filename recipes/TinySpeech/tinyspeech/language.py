"""What TinySpeech has of a language: its sentences, and its voices."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from random import Random
from typing import Protocol

from .stories import Story

LANGUAGES = {"en": "english", "es": "spanish"}
VOICES = ("espeak", "natural", "all")

Intent = tuple[str, str, str]


class Sentences(Protocol):
    """Draws plain sentences."""

    def __init__(self, rng: Random, slip: str | None = None): ...

    def sentence(self) -> str:
        """Return a written sentence, with the slip if it gives occasion."""
        ...


@dataclass(frozen=True)
class Voice:
    """A voice as its engine names it, and a shift of its pitch."""

    name: str
    shift: int = 0
    engine: str = "espeak"


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
    natural_speakers, unseen_natural : mapping of str to Voice
        The same of other engines than eSpeak.
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
    natural_speakers: Mapping[str, Voice] = field(default_factory=dict)
    unseen_natural: Mapping[str, Voice] = field(default_factory=dict)

    @property
    def voices(self) -> dict[str, Voice]:
        """All speakers."""
        return {
            **self.speakers,
            **self.unseen_speaker,
            **self.natural_speakers,
            **self.unseen_natural,
        }

    def cast(self, voices: str) -> dict[str, dict[str, Voice]]:
        """Return who speaks in training, and in the manifests of others.

        Arguments
        ---------
        voices : str
            Of `VOICES`.

        Returns
        -------
        dict
            From "" to the speakers of all manifests but those that it names.

        Raises
        ------
        ValueError
            If there are no such voices in this language.

        Example
        -------
        >>> cast = load_language("en").cast("natural")
        >>> {manifest: list(speakers) for manifest, speakers in cast.items()}
        {'': ['joe', 'rms', 'awb', 'kal16', 'ked', 'alan', 'bdl', 'clb', 'pia', \
'pam'], 'test_unseen_voice': ['gus'], 'test_unseen_natural': ['slt', 'slt_hts']}
        """
        if voices not in VOICES:
            raise ValueError(
                f"no voices {voices!r}; there are {', '.join(VOICES)}"
            )
        unseen = {"test_unseen_voice": dict(self.unseen_speaker)}
        if voices == "espeak":
            return {"": dict(self.speakers), **unseen}
        if not self.natural_speakers:
            raise ValueError("this language has voices of eSpeak only")
        unseen["test_unseen_natural"] = dict(self.unseen_natural)
        others = {} if voices == "natural" else self.speakers
        return {"": {**others, **self.natural_speakers}, **unseen}


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
