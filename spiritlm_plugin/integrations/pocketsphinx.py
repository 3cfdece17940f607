"""Forced alignment by PocketSphinx: when each word and phone was said."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_RATE = 16000
_FRAMES_PER_SECOND = 100
# A frame is heard in a window of 410 samples: two meet between their middles.
_MEETING = (410 - _RATE / _FRAMES_PER_SECOND) / 2 / _RATE
# Silence put before and behind: without it texts are lost that begin or end
# with the recording.
_PADDING = 10
# Of the words "the(2)" is another pronunciation.
_VARIANT = re.compile(r"\(\d+\)$")

Span = tuple[str, float, float]


class AlignmentError(ValueError):
    """A text that was not found in its recording."""


class HeardWord(NamedTuple):
    """A word, or a pause with a name as ``<sil>``, and its phones.

    Arguments
    ---------
    name : str
        As it was looked for.
    start, end : float
        In seconds.
    frames : int
        Of 10 ms, in which it was heard.
    score : int
        The sum over these, a logarithm: the higher the better.
    phones : list of (name, start, end)
        Named as in the dictionary, in seconds.
    """

    name: str
    start: float
    end: float
    frames: int
    score: int
    phones: list[Span]

    @property
    def is_pause(self) -> bool:
        """Whether it is no word: silence, a breath, a noise."""
        return self.name.startswith(("<", "[", "+"))


class ForcedAligner:
    """PocketSphinx, with the English acoustic model and dictionary of its package.

    Nothing that it hears of one recording is kept for the next.

    Raises
    ------
    ImportError
        If PocketSphinx is not installed.

    Example
    -------
    >>> aligner = ForcedAligner()
    >>> aligner.unknown("the cat is a frumple")
    ['frumple']
    >>> aligner.pronounced(["F", "R", "AH", "M", "P", "AH", "L"])
    'F-R-AH-M-P-AH-L'
    """

    def __init__(self) -> None:
        from pocketsphinx import Decoder

        self._decoder = Decoder(
            lm=None, cmn="batch", remove_noise=False, loglevel="FATAL"
        )

    def unknown(self, text: str) -> list[str]:
        """Return the words of a text that the dictionary lacks."""
        look_up = self._decoder.lookup_word
        return [word for word in text.split() if look_up(word) is None]

    def pronounced(self, phones: Sequence[str]) -> str:
        """Return a word that is said with these phones of the dictionary."""
        word = "-".join(phones)
        if self._decoder.lookup_word(word) is None:
            self._decoder.add_word(word, " ".join(phones), True)
        return word

    def __call__(self, text: str, samples: np.ndarray) -> list[HeardWord]:
        """Return the words of a text, and the pauses between, with their times.

        Arguments
        ---------
        text : str
            Words of the dictionary, or of `pronounced`.
        samples : numpy.ndarray
            Of 16 bits, at 16 kHz, shape (time,).

        Raises
        ------
        AlignmentError
            If the words are not heard there.
        """
        try:
            heard = self._align(text, samples)
        except RuntimeError:  # a pass has not come to the end
            heard = []
        if [word.name for word in heard if not word.is_pause] != text.split():
            raise AlignmentError("its words are not heard in it")
        return heard

    def _align(self, text: str, samples: np.ndarray) -> list[HeardWord]:
        """Hear the words in a first pass, and then their phones."""
        self._decoder.set_align_text(text)
        self._listen(samples)
        if self._decoder.hyp() is None:
            return []
        self._decoder.set_alignment()
        self._listen(samples)
        seconds = len(samples) / _RATE
        # Its entries are its own memory: nothing of it is kept.
        return [
            HeardWord(
                _VARIANT.sub("", word.name),
                *_times(word.start, word.duration, seconds),
                word.duration,
                word.score,
                [(p.name, *_times(p.start, p.duration, seconds)) for p in word],
            )
            for word in self._decoder.get_alignment()
        ]

    def _listen(self, samples: np.ndarray) -> None:
        self._decoder.start_utt()
        padded = np.pad(samples, _PADDING * _RATE // _FRAMES_PER_SECOND)
        self._decoder.process_raw(padded.tobytes(), full_utt=True)
        self._decoder.end_utt()


def _times(start: int, frames: int, seconds: float) -> tuple[float, float]:
    """Return when what is so many frames long begins and ends."""
    first, last = (
        (frame - _PADDING) / _FRAMES_PER_SECOND + _MEETING
        for frame in (start, start + frames)
    )
    return round(max(first, 0.0), 4), round(min(last, seconds), 4)
