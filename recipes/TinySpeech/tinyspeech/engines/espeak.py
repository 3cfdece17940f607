"""eSpeak NG."""

from __future__ import annotations

from functools import cache

from scipy.signal import resample_poly

from ..espeak import NATIVE_RATE, Espeak
from ..language import Language, Voice
from ..styles import Style
from ..timing import align
from . import SAMPLE_RATE, Spoken


@cache
def library() -> Espeak:
    """Return the one of this process."""
    return Espeak()


class EspeakEngine:
    """Formants: small, fast, and like no person."""

    def __init__(self) -> None:
        self._library = library()

    def say(
        self, text: str, voice: Voice, style: Style, language: Language
    ) -> Spoken:
        """Return a sentence."""
        raw, phones = self._library.say(
            text, voice.name, style.rate, style.pitch, style.range
        )
        words, sounds = align(text, phones, len(raw), language.same_phones)
        samples = resample_poly(
            raw / 2**15, SAMPLE_RATE // 50, NATIVE_RATE // 50
        )
        return Spoken(samples, words, sounds)
