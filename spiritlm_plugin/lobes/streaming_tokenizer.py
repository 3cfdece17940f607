"""Units of audio that comes bit by bit."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from spiritlm_plugin.dataio.units.units import (
    MIN_SAMPLES,
    PHONETIC_RATE,
    RATES,
    SAMPLE_RATE,
    SpeechUnits,
)
from spiritlm_plugin.lobes.mfcc import MFCC
from spiritlm_plugin.lobes.speech_tokenizer import (
    WINDOW_SAMPLES,
    SpeechTokenizer,
)
from spiritlm_plugin.lobes.windowed_encoder import final_frames
from spiritlm_plugin.utils.arguments import number

# Seconds that are heard in front of new units.
PAST_SECONDS = 6
_SHORTEST = 0.1
# Of a time, so that all streams have a unit that begins with it.
_GRID = 2


class StreamingTokenizer:
    """The units of a recording that comes bit by bit.

    Without a latency the units are those of the whole recording. Those of
    each stream come when they cannot change any more: phonetic and style
    units a window after their audio where their encoders hear windows, and
    else, as pitch does, with the end of the 100 s that are tokenized at once.
    (Blanks in front of all units, which take the last one, take that of the
    first window.)

    With a latency, units come so many seconds after their audio, and up to so
    many more, since that is how often they are made. They are told from those
    seconds and a few in front, and so some differ from what the whole
    recording gives.

    Arguments
    ---------
    tokenizer : SpeechTokenizer
        Makes the units.
    latency_seconds : float, optional
        At least 0.1.

    Raises
    ------
    TypeError, ValueError
        Unless the latency is such a number.

    Example
    -------
    >>> lm = SpiritLM.from_release(checkpoints, "expressive")
    >>> stream = StreamingTokenizer(lm.mods.tokenizer, latency_seconds=0.5)
    >>> parts = [*stream.push(torch.randn(48000) / 9), *stream.finish()]
    >>> [len(part) for part in parts], sum(len(p.pitch) for p in parts)
    ([12, 13, 12, 13, 12, 12], 37)
    """

    def __init__(
        self, tokenizer: SpeechTokenizer, latency_seconds: float | None = None
    ):
        self.tokenizer = tokenizer
        self.latency: float | None = None
        self.step = SAMPLE_RATE
        if latency_seconds is not None:
            self.latency = number("latency_seconds", latency_seconds)
            if not _SHORTEST <= self.latency < WINDOW_SAMPLES / SAMPLE_RATE:
                raise ValueError(
                    f"latency_seconds must be at least {_SHORTEST:g} and less "
                    f"than 100, got {latency_seconds}"
                )
            self.step = round(self.latency * SAMPLE_RATE)
        self.audio = torch.zeros(0)
        self.new: list[Tensor] = []  # behind it, not joined to it yet
        self.samples = 0  # of both
        self.any = False
        self._begin()

    def _begin(self) -> None:
        """Begin with the next 100 s."""
        self.first = 0  # second of the audio that is kept
        self.heard = 0  # samples
        self.given = dict.fromkeys(RATES, 0)

    def push(self, wav: Tensor) -> Iterator[SpeechUnits]:
        """Take the next samples, and yield the units that are final.

        Arguments
        ---------
        wav : Tensor
            16 kHz, shape (samples,).

        Yields
        ------
        SpeechUnits
            Of each stream those that go on where the ones before them ended.
        """
        self.new.append(wav)
        self.samples += len(wav)
        while True:
            heard = min(self.heard + self.step, WINDOW_SAMPLES)
            if self.first * SAMPLE_RATE + self.samples < heard:
                return
            self.heard = heard
            final = heard == WINDOW_SAMPLES
            yield from self._units(final)
            if final:
                self._forget(heard - self.first * SAMPLE_RATE)
                self._begin()

    def finish(self) -> Iterator[SpeechUnits]:
        """Yield the units that are left when no more samples come.

        Raises
        ------
        ValueError
            If the recording is shorter than 80 ms.
        """
        self.heard = self.first * SAMPLE_RATE + self.samples
        if self.heard >= MIN_SAMPLES or not self.any:
            yield from self._units(True)

    @torch.inference_mode()
    def _units(self, final: bool) -> Iterator[SpeechUnits]:
        until = self._until()
        if not final and all(until[n] <= self.given[n] for n in RATES):
            return
        begin = self._listen_from()
        self._forget((begin - self.first) * SAMPLE_RATE)
        self.first = begin
        wav = self.audio[: self.heard - begin * SAMPLE_RATE]
        [units] = self.tokenizer([wav])
        self.any = True
        new: dict[str, Tensor | None] = {}
        for name, rate in RATES.items():
            stream, offset = getattr(units, name), int(begin * rate)
            new[name] = None
            if stream is None:
                continue
            end = offset + len(stream)
            if not final:
                end = max(min(until[name], end), self.given[name])
            new[name] = stream[self.given[name] - offset : end - offset]
            self.given[name] = end
        if any(stream is not None and len(stream) for stream in new.values()):
            assert new["phonetic"] is not None  # every tokenizer has these
            yield SpeechUnits(new["phonetic"], new["pitch"], new["style"])

    def _forget(self, samples: int) -> None:
        """Drop the first samples of the audio that is kept."""
        self.audio = torch.cat([self.audio, *self.new])[samples:]
        self.new, self.samples = [], self.samples - samples

    def _listen_from(self) -> int:
        """Return the second from which the next units are told."""
        if self.latency is None:
            return 0
        settled = int(self.given["phonetic"] / PHONETIC_RATE)
        begin = min(settled - PAST_SECONDS, self.given["style"])
        return max(begin - begin % _GRID, self.first)

    def _until(self) -> dict[str, int]:
        """Return how many units of each stream do not change any more."""
        if self.latency is not None:
            settled = (self.heard - self.step) / SAMPLE_RATE
            return {n: int(settled * r + 1e-6) for n, r in RATES.items()}
        until = dict.fromkeys(RATES, 0)
        phonetic, style = self.tokenizer.phonetic, self.tokenizer.style
        if not isinstance(phonetic.encoder, MFCC):
            frames = final_frames(
                phonetic.encoder, self.heard, phonetic.window_seconds
            )
            until["phonetic"] = frames // phonetic.pool
        if style is not None:
            frames = final_frames(
                style.encoder, self.heard, style.window_seconds
            )
            until["style"] = frames // style.frames
        return until
