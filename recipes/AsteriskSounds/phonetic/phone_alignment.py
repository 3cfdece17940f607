"""Words and phones of a recording with their times, by PocketSphinx."""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np

# The phones of PocketSphinx's dictionary, as the phones of TinySpeech are
# named. "AH" is both the vowel of "cut" and the first of "about".
PHONES = {
    "AA": "ɑ", "AE": "æ", "AH": "ʌ", "AO": "ɔ", "AW": "aʊ", "AY": "aɪ",
    "B": "b", "CH": "tʃ", "D": "d", "DH": "ð", "EH": "ɛ", "ER": "ɚ",
    "EY": "eɪ", "F": "f", "G": "ɡ", "HH": "h", "IH": "ɪ", "IY": "i",
    "JH": "dʒ", "K": "k", "L": "l", "M": "m", "N": "n", "NG": "ŋ",
    "OW": "oʊ", "OY": "ɔɪ", "P": "p", "R": "ɹ", "S": "s", "SH": "ʃ",
    "SIL": "sil", "T": "t", "TH": "θ", "UH": "ʊ", "UW": "u", "V": "v",
    "W": "w", "Y": "j", "Z": "z", "ZH": "ʒ",
}  # fmt: skip
RATE = 16000
_FRAMES_PER_SECOND = 100
# A frame is heard in a window of 410 samples: two meet between their middles.
_MEETING = (410 - RATE / _FRAMES_PER_SECOND) / 2 / RATE
# Silence put before and behind: without it texts are lost that begin or end
# with the recording.
_PADDING = 10
# Of the words "the(2)" is another pronunciation.
_VARIANT = re.compile(r"\(\d+\)$")
_UNHEARD = "its words are not heard in it"

Span = tuple[str, float, float]


class _Heard(NamedTuple):
    """A word or a pause, in frames, and its phones with start and length."""

    name: str
    start: int
    frames: int
    score: int
    phones: list[tuple[str, int, int]]


class AlignmentError(ValueError):
    """A text that was not found in its recording."""


class Aligner:
    """PocketSphinx, with the acoustic model and dictionary of its package.

    Arguments
    ---------
    worst_score : float
        Texts whose words have less, on average of their frames, are refused.
    longest_phone : float
        Texts with a longer one, in seconds, are refused.

    Raises
    ------
    ImportError
        If PocketSphinx is not installed.
    """

    def __init__(self, worst_score: float, longest_phone: float) -> None:
        try:
            from pocketsphinx import Decoder
        except ImportError as error:
            raise ImportError(
                "no pocketsphinx; pip install -r extra_requirements.txt"
            ) from error
        self.worst_score = worst_score
        self.longest_phone = longest_phone
        # Nothing that is heard of one recording is kept for the next.
        self._decoder = Decoder(
            lm=None, cmn="batch", remove_noise=False, loglevel="FATAL"
        )

    def unknown(self, text: str) -> list[str]:
        """Return the words of a text that the dictionary lacks."""
        look_up = self._decoder.lookup_word
        return [word for word in text.split() if look_up(word) is None]

    def __call__(
        self, text: str, samples: np.ndarray
    ) -> tuple[list[Span], list[Span]]:
        """Return words, and phones with the pauses between.

        Arguments
        ---------
        text : str
            Words of the dictionary.
        samples : numpy.ndarray
            Of 16 bits, at 16 kHz, shape (time,).

        Returns
        -------
        words, phones : list of (name, start, end)
            In seconds.

        Raises
        ------
        AlignmentError
            If the words are not heard there, or not well.
        """
        try:
            heard = self._align(text, samples)
        except RuntimeError as error:  # a pass has not come to the end
            raise AlignmentError(_UNHEARD) from error
        said = [one for one in heard if not one.name.startswith("<")]
        if [one.name for one in said] != text.split():
            raise AlignmentError(_UNHEARD)
        seconds = len(samples) / RATE
        spans = [
            (PHONES[name], *_times(start, frames, seconds))
            for one in heard
            for name, start, frames in one.phones
        ]
        phones = [(n, s, e) for n, s, e in spans if n != "sil" or s < e]
        self._check(said, phones)
        return [
            (one.name, *_times(one.start, one.frames, seconds)) for one in said
        ], phones

    def _align(self, text: str, samples: np.ndarray) -> list[_Heard]:
        """Return what is heard: words in a first pass, and then their phones."""
        self._decoder.set_align_text(text)
        self._listen(samples)
        if self._decoder.hyp() is None:
            return []
        self._decoder.set_alignment()
        self._listen(samples)
        # Its entries are its own memory: nothing of it is kept.
        alignment = self._decoder.get_alignment()
        return [
            _Heard(
                _VARIANT.sub("", word.name),
                word.start,
                word.duration,
                word.score,
                [(p.name, p.start, p.duration) for p in word],
            )
            for word in alignment
        ]

    def _listen(self, samples: np.ndarray) -> None:
        self._decoder.start_utt()
        padded = np.pad(samples, _PADDING * RATE // _FRAMES_PER_SECOND)
        self._decoder.process_raw(padded.tobytes(), full_utt=True)
        self._decoder.end_utt()

    def _check(self, said: list[_Heard], phones: list[Span]) -> None:
        """Refuse what is not the text, by how it sounds and how long it is."""
        score = sum(one.score for one in said) / sum(one.frames for one in said)
        if score < self.worst_score:
            raise AlignmentError("it does not sound like its words")
        lengths = [end - start for name, start, end in phones if name != "sil"]
        if min(lengths) <= 0 or max(lengths) > self.longest_phone:
            raise AlignmentError("its phones are as long as none is")


def _times(start: int, frames: int, seconds: float) -> tuple[float, float]:
    """Return when what is so many frames long begins and ends."""
    first, last = (
        (frame - _PADDING) / _FRAMES_PER_SECOND + _MEETING
        for frame in (start, start + frames)
    )
    return round(max(first, 0.0), 4), round(min(last, seconds), 4)
