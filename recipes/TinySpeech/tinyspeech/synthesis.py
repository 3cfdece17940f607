"""Utterances to recordings with word and phone times."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from random import Random

import numpy as np

from .engines import SAMPLE_RATE, Spoken, load_engine
from .language import Language, Voice
from .styles import STYLES, Style
from .timing import Span

_LEVEL = 0.07
_NOISE = 6e-5  # so that silence is not digital zero
_DECIMALS = 4


@dataclass(frozen=True)
class Recording:
    """Samples at 16 kHz, the times in seconds, and where each sentence is."""

    samples: np.ndarray
    words: list[Span]
    phones: list[Span]
    starts: list[float]


def record(
    sentences: tuple[str, ...],
    speaker: str,
    style: str,
    key: str,
    language: Language,
) -> Recording:
    """Speak sentences with pauses between them.

    Arguments
    ---------
    sentences : tuple of str
        As written, with punctuation.
    speaker : str
        Of the language.
    style : str
        Of `STYLES`.
    key : str
        Of the variations of rate, pitch and pauses.
    language : Language
        Of the sentences.
    """
    rng = Random(key)
    base = STYLES[style]
    rate = round(base.rate * rng.uniform(0.95, 1.05))
    voice = language.voices[speaker]
    pitch = round(base.pitch + voice.shift + rng.uniform(-3, 3))
    manner = replace(base, rate=rate, pitch=pitch)
    noise = np.random.default_rng(rng.getrandbits(64))
    parts = [np.zeros(_silence(rng, 0.08, 0.16))]
    words, phones, starts = [], [("sil", 0.0, _seconds(len(parts[0])))], []
    for sentence in sentences:
        begin = _seconds(sum(map(len, parts)))
        if starts:
            pause = _silence(rng, 0.3, 0.5)
            parts.append(np.zeros(pause))
            phones.append(("sil", begin, begin + _seconds(pause)))
            begin += _seconds(pause)
        starts.append(begin)
        spoken = _sentence(sentence, voice, manner, language)
        parts.append(spoken.samples)
        words += [(w, a + begin, b + begin) for w, a, b in spoken.words]
        phones += [(p, a + begin, b + begin) for p, a, b in spoken.phones]
    tail = _silence(rng, 0.08, 0.16)
    end = _seconds(sum(map(len, parts)))
    phones.append(("sil", end, end + _seconds(tail)))
    samples = np.concatenate([*parts, np.zeros(tail)])
    samples += _NOISE * noise.standard_normal(len(samples))
    starts = [round(s, _DECIMALS) for s in starts]
    return Recording(samples, _rounded(words), _merged(phones), starts)


def _silence(rng: Random, low: float, high: float) -> int:
    return round(rng.uniform(low, high) * SAMPLE_RATE)


def _seconds(samples: int) -> float:
    return samples / SAMPLE_RATE


@lru_cache(maxsize=32)  # the endings of a story share its context
def _sentence(
    text: str, voice: Voice, style: Style, language: Language
) -> Spoken:
    """Return a sentence as loud as its style."""
    spoken = load_engine(voice.engine).say(text, voice, style, language)
    samples = spoken.samples
    loud = style.gain * _LEVEL / np.sqrt(np.mean(samples**2))
    samples = samples * min(loud, 0.95 / np.abs(samples).max())
    return replace(spoken, samples=samples)


def _rounded(spans: list[Span]) -> list[Span]:
    return [(n, round(a, _DECIMALS), round(b, _DECIMALS)) for n, a, b in spans]


def _merged(spans: list[Span]) -> list[Span]:
    """Join neighboring pauses, and drop what has no length."""
    merged: list[Span] = []
    for name, start, end in _rounded(spans):
        if merged and name == merged[-1][0] == "sil":
            merged[-1] = (name, merged[-1][1], end)
        elif end > start:
            merged.append((name, start, end))
    return merged
