"""Utterances to recordings with word and phone times."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from random import Random

import numpy as np
from scipy.signal import resample_poly

from .espeak import NATIVE_RATE, Espeak, Phone
from .language import Language
from .templates import WORD

SAMPLE_RATE = 16000
_LEVEL = 0.07
_NOISE = 6e-5  # so that silence is not digital zero
_DECIMALS = 4


@dataclass(frozen=True)
class Style:
    """How a style differs: words per minute, pitch, range, and loudness."""

    rate: int
    pitch: int
    range: int
    gain: float


STYLES = {
    "neutral": Style(155, 50, 50, 1.0),
    "happy": Style(172, 74, 80, 1.25),
    "sad": Style(132, 27, 25, 0.7),
}
_MARKS = re.compile("[ˈˌː]")

Span = tuple[str, float, float]


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
        samples, spoken, sounds = _sentence(
            sentence, voice.name, rate, pitch, base, language
        )
        parts.append(samples)
        words += [(w, a + begin, b + begin) for w, a, b in spoken]
        phones += [(p, a + begin, b + begin) for p, a, b in sounds]
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


@lru_cache(maxsize=1)
def _espeak() -> Espeak:
    return Espeak()


@lru_cache(maxsize=32)  # the endings of a story share its context
def _sentence(
    text: str,
    voice: str,
    rate: int,
    pitch: int,
    style: Style,
    language: Language,
) -> tuple[np.ndarray, list[Span], list[Span]]:
    raw, phones = _espeak().say(text, voice, rate, pitch, style.range)
    words, sounds = align(text, phones, len(raw), language.same_phones)
    samples = resample_poly(raw / 2**15, SAMPLE_RATE // 50, NATIVE_RATE // 50)
    loud = style.gain * _LEVEL / np.sqrt(np.mean(samples**2))
    samples = samples * min(loud, 0.95 / np.abs(samples).max())
    return samples, words, sounds


def align(
    text: str, phones: list[Phone], length: int, same: Mapping[str, str]
) -> tuple[list[Span], list[Span]]:
    """Return the words and the phones of a sentence, with their times.

    Phones know the character of their word. Where eSpeak says two written
    words as one ("of the"), the phones are shared out. Phones are named as
    ``same`` has them.
    """
    found = list(WORD.finditer(text))
    begins = [m.start() for m in found]
    phones = _without_links(text, phones)
    ends = [p.sample for p in phones[1:]] + [length]
    spans, owned = [], [[] for _ in found]
    for phone, end in zip(phones, ends):
        name = _MARKS.sub("", phone.name)
        name = same.get(name, name)
        span = (name or "sil", phone.sample, max(end, phone.sample))
        spans.append(span)
        word = bisect_right(begins, phone.character) - 1
        if name and 0 <= word < len(owned):
            owned[word].append(span)
    _share([m.group().lower() for m in found], owned)
    words = [
        (m.group().lower(), own[0][1] / NATIVE_RATE, own[-1][2] / NATIVE_RATE)
        for m, own in zip(found, owned)
    ]
    sounds = [(n, a / NATIVE_RATE, b / NATIVE_RATE) for n, a, b in spans]
    return words, sounds


def _without_links(text: str, phones: list[Phone]) -> list[Phone]:
    """Drop the nameless phones that link words: not at punctuation."""
    kept = []
    for phone, after in zip(phones, [*phones[1:], None]):
        between = text[phone.character : after.character] if after else "."
        if (
            phone.name
            or any(mark in between for mark in ",.?!")
            or after
            and after.name == ""
        ):
            kept.append(phone)
    return kept


def _share(words: list[str], owned: list[list]) -> None:
    """Give words without phones the last phones of the word before."""
    for i in range(len(words) - 1, 0, -1):
        if owned[i]:
            continue
        first = i - 1
        while not owned[first]:
            first -= 1
        pool, heads = owned[first], i - first
        names = [name for name, _, _ in pool]
        if words[i] == "the" and "ð" in names:
            cut = len(names) - 1 - names[::-1].index("ð")
        elif words[i] == "a":
            cut = len(pool) - 1
        else:
            total = sum(map(len, words[first : i + 1]))
            cut = round(len(pool) * (1 - len(words[i]) / total))
        cut = min(max(cut, heads), len(pool) - 1)
        if cut < 1:
            raise ValueError(f"no phones for {words[i]!r} in {words}")
        owned[first], owned[i] = pool[:cut], pool[cut:]


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
