"""eSpeak NG."""

from __future__ import annotations

from functools import cache

from scipy.signal import resample_poly

from ..espeak import NATIVE_RATE, Espeak, Phone
from ..language import Language, Voice
from ..styles import STYLES, Style
from ..timing import align, without_links
from . import SAMPLE_RATE, Spoken


@cache
def library() -> Espeak:
    """Return the one of this process."""
    return Espeak()


def phones_of(text: str) -> list[Phone]:
    """Return how American eSpeak says a sentence."""
    neutral = STYLES["neutral"]
    _, phones = library().say(
        text, "gmw/en-US", neutral.rate, neutral.pitch, neutral.range
    )
    return phones


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
        phones = without_links(text, phones)
        words, sounds = align(text, phones, len(raw), language.same_phones)
        samples = resample_poly(
            raw / 2**15, SAMPLE_RATE // 50, NATIVE_RATE // 50
        )
        return Spoken(samples, words, sounds)
