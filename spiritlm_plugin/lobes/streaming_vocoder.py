"""Waveforms of units that come bit by bit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from functools import partial
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from spiritlm_plugin.dataio.units.frames import fill_blanks
from spiritlm_plugin.dataio.units.units import (
    RATES,
    SpeechUnits,
    _first_unit,
    unit_starts,
)
from spiritlm_plugin.lobes.vocoder import NO_PITCH, UnitVocoder

# Frames of the first chunk, and of the largest: each is twice the one before.
FIRST_FRAMES = 4
MOST_FRAMES = 64
# Of random units, from which is told what is heard.
_PROBES = 3
_AUDIBLE: MutableMapping[UnitVocoder, int] = WeakKeyDictionary()
_NONE = torch.zeros(0, dtype=torch.int64)


def audible_context(vocoder: UnitVocoder, tolerance: float = 1e-5) -> int:
    """Return how many frames on either side are heard in a frame's samples.

    A trained network makes little of the far ends of what it sees: here the
    frames are counted that change a sample by more than a tolerance, in
    random units. It is found once for a vocoder.

    Example
    -------
    >>> vocoder = SpeechCodec.from_hparams("tinyspeech").mods.vocoder
    >>> audible_context(vocoder) < vocoder.generator.context
    True
    """
    if vocoder not in _AUDIBLE:
        _AUDIBLE[vocoder] = _audible_context(vocoder, tolerance)
    return _AUDIBLE[vocoder]


@torch.inference_mode()
def _audible_context(vocoder: UnitVocoder, tolerance: float) -> int:
    seen = vocoder.generator.context
    generator = torch.Generator().manual_seed(0)
    heard = 0
    for probe in range(_PROBES):
        frames = {
            name: torch.randint(
                len(vocoder.embeddings[name].get_parameter("weight")),
                (3 * seen,),
                generator=generator,
            )
            for name in vocoder.embeddings
            if name in RATES
        }
        speaker = probe % max(len(vocoder.speakers), 1)
        samples = partial(_samples, vocoder, frames, speaker)
        whole = samples(0, 3 * seen)
        behind = whole[: 2 * seen] - samples(0, 2 * seen)
        in_front = whole[seen:] - samples(seen, 3 * seen)
        for change in (behind.flip(0), in_front):
            far = change[:seen].abs().amax(1) > tolerance
            heard = max(heard, int((far * torch.arange(1, seen + 1)).max()))
    return heard


def _samples(
    vocoder: UnitVocoder,
    frames: Mapping[str, Tensor],
    speaker: int,
    first: int,
    last: int,
) -> Tensor:
    """Return what some frames alone sound like, (frames, hop)."""
    part = {name: stream[first:last] for name, stream in frames.items()}
    wav = vocoder.waveform(part, speaker, vocoder.style_id(None))
    return wav.view(last - first, -1)


class StreamingDurations:
    """How many frames units last that come bit by bit.

    A duration is known when the units are that it depends on.

    Arguments
    ---------
    vocoder : UnitVocoder
        With a duration predictor.

    Example
    -------
    >>> vocoder = SpeechCodec.from_hparams("tinyspeech").mods.vocoder
    >>> units, durations = torch.arange(9), StreamingDurations(vocoder)
    >>> parts = [durations.push(units[:4]), durations.push(units[4:], True)]
    >>> [whole] = vocoder.predict_frames([units])
    >>> list(map(len, parts)), torch.equal(torch.cat(parts), whole)
    ([2, 7], True)
    """

    def __init__(self, vocoder: UnitVocoder):
        self.vocoder = vocoder
        self.context = vocoder.duration_context
        # The last ones that are known, and those that are not.
        self.recent = _NONE
        self.known = 0

    @torch.inference_mode()
    def push(self, phonetic: Tensor, final: bool = False) -> Tensor:
        """Return durations that have become known.

        Arguments
        ---------
        phonetic : Tensor
            The next units, without repeats, shape (units,).
        final : bool
            Whether these are the last.

        Returns
        -------
        Tensor
            Frames, shape (durations,), of the units that had none before.
        """
        self.recent = torch.cat([self.recent, phonetic])
        count = len(self.recent)
        end = count if final else max(count - self.context, self.known)
        if end == self.known:
            return _NONE
        [frames] = self.vocoder.predict_frames([self.recent])
        new = frames[self.known : end]
        self.known = min(end, self.context)
        self.recent = self.recent[end - self.known :]
        return new


class _Merged:
    """Frames of units of merged streams, of which durations are predicted."""

    def __init__(self, vocoder: UnitVocoder):
        self.durations = StreamingDurations(vocoder)
        self.waiting: dict[str, Tensor] = {}

    def push(
        self, streams: Mapping[str, Tensor], final: bool
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Return frames that are known, and how many each unit has."""
        self.waiting = _joined(self.waiting, streams)
        lasting = self.durations.push(streams["phonetic"], final)
        count = len(lasting)
        frames = {
            name: stream[:count].repeat_interleave(lasting)
            for name, stream in self.waiting.items()
        }
        self.waiting = _without(self.waiting, count)
        return frames, lasting


class _Timed:
    """Frames of units at full rate, in the order of their times."""

    def __init__(self, start: float):
        # Of each stream the number of the first unit that is kept.
        self.first = {n: _first_unit(start, r) for n, r in RATES.items()}
        self.waiting: dict[str, Tensor] = {}

    def push(
        self, streams: Mapping[str, Tensor], final: bool
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Return frames that are known, one for each unit."""
        self.waiting = _joined(self.waiting, streams)
        slow = [name for name in self.waiting if name != "phonetic"]
        times = self._starts("phonetic")
        count = len(times)
        for name in slow:
            if not final:
                ends = self.first[name] + len(self.waiting[name])
                known = np.searchsorted(times, unit_starts(ends, RATES[name]))
                count = min(count, int(known))
        frames = {"phonetic": self.waiting["phonetic"][:count]}
        used = {"phonetic": count}
        for name in slow:
            begun = self._starts(name).searchsorted(times[:count], "right")
            places = torch.from_numpy(begun - 1)
            frames[name] = self.waiting[name][places]
            used[name] = int(places[-1]) if count else 0
        for name, number in used.items():
            self.waiting[name] = self.waiting[name][number:]
            self.first[name] += number
        return frames, torch.ones(count, dtype=torch.int64)

    def _starts(self, name: str) -> np.ndarray:
        numbers = np.arange(len(self.waiting[name])) + self.first[name]
        return unit_starts(numbers, RATES[name])


class StreamingVocoder:
    """The waveform of units that come bit by bit, chunk by chunk.

    A chunk is made with as many frames on either side as can be heard in it,
    so that all chunks together are the waveform that the vocoder makes of all
    units. The first chunk is short, so that it is there early; others grow,
    so that few frames are made twice.

    Arguments
    ---------
    vocoder : UnitVocoder
        Speaks.
    speaker : int, optional
        By default the one that the units before the first chunk sound like.
    global_style : int or str, optional
        Of a Base vocoder.
    seed : int, optional
        Of the style that is drawn where units have none.
    skip : int
        Phonetic units at the start that are heard and left out.
    like : Tensor, optional
        Phonetic units that the speaker is told from as well, shape (units,).

    Attributes
    ----------
    speaker : int or None
        None until it is told.

    Example
    -------
    >>> vocoder = SpeechCodec.from_hparams("tinyspeech").mods.vocoder
    >>> units = SpeechUnits(range(50), pitch=[3] * 25, style=[5, 5])
    >>> stream = StreamingVocoder(vocoder, speaker=0)
    >>> chunks = [*stream.push(units), *stream.finish()]
    >>> [whole] = vocoder.synthesize([units], [0])
    >>> torch.allclose(torch.cat(chunks), whole, atol=1e-4)
    True
    """

    def __init__(
        self,
        vocoder: UnitVocoder,
        speaker: int | None = None,
        global_style: int | str | None = None,
        seed: int | None = None,
        skip: int = 0,
        like: Tensor | None = None,
    ):
        self.vocoder = vocoder
        self.speaker = speaker
        self.global_style = vocoder.style_id(global_style)
        self.seed = seed
        self.skip = skip
        self.like = _NONE if like is None else like
        self.context = audible_context(vocoder)
        self.size = FIRST_FRAMES
        self.source: _Merged | _Timed | None = None
        # What stands in front of the next phonetic units: the last one or,
        # before there is one, blanks.
        self.before, self.begun = _NONE, False
        self.style: Tensor | None = None
        self.frames: dict[str, Tensor] = {"phonetic": _NONE}
        self.spoken = 0  # of these frames
        self.final = False

    def push(self, units: SpeechUnits) -> Iterator[Tensor]:
        """Take the next units, and yield what can be said now.

        Arguments
        ---------
        units : SpeechUnits
            As of `UnitVocoder.synthesize`. Those at full rate go on, stream by
            stream, where those before them ended.

        Raises
        ------
        ValueError
            If a unit is out of range, pitch is missing, or the units are of
            another form than those before them.
        """
        if self.final:
            raise ValueError("a stream that is finished takes no more units")
        if self.source is None:
            self.source = (
                _Timed(units.start)
                if units.full_rate
                else _Merged(self.vocoder)
            )
        if units.full_rate != isinstance(self.source, _Timed):
            raise ValueError(
                "some units are at full rate and others have no durations; "
                "give all of them in one form"
            )
        streams = {"phonetic": units.phonetic}
        if self.vocoder.expressive:
            streams |= self._expression(units)
        self.vocoder.check_streams(streams)
        self._take({**streams, "phonetic": self._filled(units.phonetic)})
        return self._ready()

    def finish(self) -> Iterator[Tensor]:
        """Yield what is left when no more units come.

        Raises
        ------
        ValueError
            If pitch is missing.
        """
        self.final = True
        if self.source is not None and self.begun:
            waiting = self.source.waiting
            rest = dict.fromkeys(waiting, _NONE)
            if isinstance(self.source, _Timed) and self.vocoder.expressive:
                if not len(waiting["pitch"]):
                    raise ValueError(NO_PITCH)
                if "style" in waiting and not len(waiting["style"]):
                    rest["style"] = self._drawn_style()
            self._take(rest)
        return self._ready()

    @torch.inference_mode()
    def _take(self, streams: Mapping[str, Tensor]) -> None:
        assert self.source is not None
        frames, lasting = self.source.push(streams, self.final)
        if self.vocoder.expressive and "style" not in frames:
            count = len(frames["phonetic"])
            frames["style"] = self._drawn_style().expand(count)
        if len(frames) != len(self.frames):
            self.frames = dict.fromkeys(frames, _NONE)
        self.frames = _joined(self.frames, frames)
        skipped = lasting[: self.skip]
        self.skip -= len(skipped)
        self.spoken += int(skipped.sum())

    def _filled(self, phonetic: Tensor) -> Tensor:
        """Return units with their blanks filled; those in front have to wait."""
        both = torch.cat([self.before, phonetic])
        filled = fill_blanks(both, self.vocoder.blank)
        if not len(filled):
            self.before = both
            return filled
        new = filled[int(self.begun) :]
        self.before, self.begun = filled[-1:], True
        return new

    def _expression(self, units: SpeechUnits) -> dict[str, Tensor]:
        """Return the pitch of units, and the style if they have one."""
        assert self.source is not None
        if units.pitch is None:
            raise ValueError(NO_PITCH)
        had = self.source.waiting
        if had and ("style" in had) != (units.style is not None):
            raise ValueError(
                "some units have style and others have none; give it to all "
                "or to none of them"
            )
        if units.style is None:
            return {"pitch": units.pitch}
        return {"pitch": units.pitch, "style": units.style}

    def _drawn_style(self) -> Tensor:
        if self.style is None:
            self.style = self.vocoder.draw_style(self.seed)
        return self.style

    def _ready(self) -> Iterator[Tensor]:
        """Yield chunks whose frames are known, with those heard in them."""
        while True:
            waiting = len(self.frames["phonetic"]) - self.spoken
            if self.final:
                size = self.size if waiting >= 2 * self.size else waiting
            else:
                size = min(self.size, waiting - self.context)
            if size < self.size and not (self.final and size):
                return
            yield self._speak(self.spoken + size)
            self.size = min(2 * self.size, MOST_FRAMES)

    @torch.inference_mode()
    def _speak(self, end: int) -> Tensor:
        """Return the waveform up to a frame, and forget what is not heard."""
        if self.speaker is None:
            new = self.frames["phonetic"][self.spoken :]
            self.speaker = self.vocoder.speaker_of(torch.cat([self.like, new]))
        context = self.context
        first = max(self.spoken - context, 0)
        heard = {n: f[first : end + context] for n, f in self.frames.items()}
        wav = self.vocoder.waveform(heard, self.speaker, self.global_style)
        begin, hop = self.spoken - first, self.vocoder.hop
        chunk = wav[begin * hop : (end - first) * hop].clone()
        forgotten = max(end - context, 0)
        self.frames = _without(self.frames, forgotten)
        self.spoken = end - forgotten
        return chunk


def _joined(
    first: Mapping[str, Tensor], second: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return streams end to end; the first ones may not be there."""
    return {
        name: torch.cat([first.get(name, _NONE), stream])
        for name, stream in second.items()
    }


def _without(streams: Mapping[str, Tensor], count: int) -> dict[str, Tensor]:
    """Return streams without their first units."""
    return {name: stream[count:] for name, stream in streams.items()}
