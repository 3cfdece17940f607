"""When each phone was said, for engines that do not tell: PocketSphinx hears it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby

import numpy as np

from spiritlm_plugin.integrations.pocketsphinx import (
    AlignmentError,
    ForcedAligner,
)

from ..espeak import NATIVE_RATE, Phone
from ..language import Language
from ..timing import Span, align, plain_name
from . import SAMPLE_RATE

# Parts of phones as TinySpeech names them, to the phones of PocketSphinx.
_PARTS = {
    "aɪ": "AY", "aʊ": "AW", "b": "B", "d": "D", "dʒ": "JH", "e": "EH",
    "eɪ": "EY", "f": "F", "h": "HH", "i": "IY", "j": "Y", "k": "K", "l": "L",
    "m": "M", "n": "N", "n̩": "AH N", "oʊ": "OW", "p": "P", "s": "S", "t": "T",
    "tʃ": "CH", "u": "UW", "v": "V", "w": "W", "z": "Z", "æ": "AE", "ð": "DH",
    "ŋ": "NG", "ɑ": "AA", "ɒ": "AA", "ɔ": "AO", "ɔɪ": "OY", "ə": "AH",
    "ɚ": "ER", "ɛ": "EH", "ɜ": "ER", "ɡ": "G", "ɪ": "IH", "ɹ": "R", "ʃ": "SH",
    "ʊ": "UH", "ʌ": "AH", "ʒ": "ZH", "θ": "TH",
}  # fmt: skip
_LONGEST_FIRST = sorted(_PARTS, key=len, reverse=True)
_PART = re.compile("|".join(map(re.escape, _LONGEST_FIRST)))


class PhoneListener:
    """Finds the phones of a sentence in its sound."""

    def __init__(self) -> None:
        self._aligner = ForcedAligner()

    def __call__(
        self,
        text: str,
        samples: np.ndarray,
        phones: Sequence[Phone],
        language: Language,
    ) -> tuple[list[Span], list[Span]]:
        """Return the words, and the phones and pauses, with their times.

        Arguments
        ---------
        text : str
            The sentence.
        samples : array
            Of its sound at 16 kHz, from -1 to 1, shape (time,).
        phones : sequence of Phone
            Of eSpeak NG; of their samples nothing is used.
        language : Language
            Knows what eSpeak's phones are called.

        Raises
        ------
        AlignmentError
            If they are not heard there.
        """
        sound = np.int16(32767 * np.clip(samples, -1, 1))
        words = list(spoken_words(phones))
        try:
            found = self._find(words, sound, language)
        except AlignmentError:  # its second pass lost a way of its first one
            found = self._find([sum(words, [])], sound, language)
        length = len(samples) * NATIVE_RATE // SAMPLE_RATE
        return align(text, found, length, language.same_phones)

    def _find(
        self, words: list[list[Phone]], sound: np.ndarray, language: Language
    ) -> list[Phone]:
        """Return phones with the samples at which they begin, and the pauses."""
        parts = [[arpabet(p, language) for p in word] for word in words]
        said = " ".join(
            self._aligner.pronounced([name for phone in word for name in phone])
            for word in parts
        )
        found, remaining = [], iter(zip(words, parts))
        for word in self._aligner(said, sound):
            if word.is_pause:
                found.append(_at(Phone("", 0, 0), word.start))
                continue
            begins = iter([start for _, start, _ in word.phones])
            for phone, names in zip(*next(remaining)):
                found.append(_at(phone, [next(begins) for _ in names][0]))
        return found


def _at(phone: Phone, seconds: float) -> Phone:
    return replace(phone, sample=round(seconds * NATIVE_RATE))


def spoken_words(phones: Sequence[Phone]) -> Iterator[list[Phone]]:
    """Yield the phones of each word, without the nameless ones between.

    Example
    -------
    >>> phones = [Phone("n", 0, 0), Phone("oʊ", 9, 0), Phone("", 12, 3)]
    >>> [[p.name for p in word] for word in spoken_words(phones)]
    [['n', 'oʊ']]
    """
    named = [phone for phone in phones if phone.name]
    for _, word in groupby(named, key=lambda phone: phone.character):
        yield list(word)


def arpabet(phone: Phone, language: Language) -> list[str]:
    """Return what the phones of PocketSphinx are that make up one of eSpeak.

    Raises
    ------
    ValueError
        If it has a part that is not known.

    Example
    -------
    >>> from ..language import load_language
    >>> arpabet(Phone("ˈɑːɹ", 0, 0), load_language("en"))
    ['AA', 'R']
    """
    name = plain_name(phone.name, language.same_phones)
    parts = _PART.findall(name)
    if "".join(parts) != name:
        raise ValueError(f"no phones for {name!r}")
    return [code for part in parts for code in _PARTS[part].split()]
