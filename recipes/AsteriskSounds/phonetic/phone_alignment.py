"""Words and phones of a recording with their times, and whether they are said."""

from __future__ import annotations

import numpy as np

from spiritlm_plugin.integrations.pocketsphinx import (
    AlignmentError,
    ForcedAligner,
    HeardWord,
    Span,
)

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


class Aligner:
    """Forced alignment that refuses what does not sound like its text.

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
            self._aligner = ForcedAligner()
        except ImportError as error:
            raise ImportError(
                "no pocketsphinx; pip install -r extra_requirements.txt"
            ) from error
        self.unknown = self._aligner.unknown
        self.worst_score = worst_score
        self.longest_phone = longest_phone

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
        heard = self._aligner(text, samples)
        said = [one for one in heard if not one.is_pause]
        spans = [
            (PHONES[name], start, end)
            for one in heard
            for name, start, end in one.phones
        ]
        phones = [(n, s, e) for n, s, e in spans if n != "sil" or s < e]
        self._check(said, phones)
        return [(one.name, one.start, one.end) for one in said], phones

    def _check(self, said: list[HeardWord], phones: list[Span]) -> None:
        """Refuse what is not the text, by how it sounds and how long it is."""
        score = sum(one.score for one in said) / sum(one.frames for one in said)
        if score < self.worst_score:
            raise AlignmentError("it does not sound like its words")
        lengths = [end - start for name, start, end in phones if name != "sil"]
        if min(lengths) <= 0 or max(lengths) > self.longest_phone:
            raise AlignmentError("its phones are as long as none is")
