"""What a generation is made of, and the speech in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile
from math import inf

import torch
from torch import Tensor

from spiritlm_plugin.dataio.units.segments import Segment, Speech, Text, text_of
from spiritlm_plugin.dataio.units.units import (
    PHONETIC_RATE,
    SAMPLE_RATE,
    Kind,
    SpeechStream,
    SpeechUnits,
)
from spiritlm_plugin.dataio.units.vocabulary import Vocabulary
from spiritlm_plugin.lobes.vocoder import UnitVocoder

NO_SPEECH = SpeechStream([], [])


class Generation(list[Segment]):
    """The segments of one output, and why it ended.

    Arguments
    ---------
    segments : list of Text or Speech
        In order; speech has its waveform in ``wav``.
    end_reason : str
        ``"end_of_sequence"``, ``"max_new_tokens"``, ``"max_seconds"`` or
        ``"context_full"``.

    Example
    -------
    >>> output = Generation([Text("hello")], "end_of_sequence")
    >>> output.text, output.wav is None
    ('hello', True)
    """

    def __init__(self, segments: Sequence[Segment], end_reason: str):
        super().__init__(segments)
        self.end_reason = end_reason

    @property
    def text(self) -> str:
        """The text segments, joined."""
        return text_of(self)

    @property
    def wav(self) -> Tensor | None:
        """The waveforms, joined, 16 kHz, shape (time,); None without any."""
        spoken = [s.wav for s in self if isinstance(s, Speech)]
        wavs = [wav for wav in spoken if wav is not None]
        return torch.cat(wavs) if wavs else None

    def __repr__(self) -> str:
        """Show segments and reason."""
        return f"Generation({super().__repr__()}, {self.end_reason!r})"


class Speaking:
    """What a model says, as durations and waveforms.

    Arguments
    ---------
    vocoder : UnitVocoder
        Speaks.
    vocabulary : Vocabulary
        Tells speech from text.
    style : int or str, optional
        How it is said, as of `SpiritLM.generate`.

    Attributes
    ----------
    style_units : list of int or None
        The only ones that the speech may have.

    Raises
    ------
    ValueError
        If there is no such style.

    Example
    -------
    >>> lm = SpiritLM.from_release(checkpoints, "base")
    >>> speaking = Speaking(lm.mods.vocoder, lm.vocabulary)
    >>> ids = lm.vocabulary.encode([Speech(SpeechUnits([1, 2, 3]))])
    >>> bool(speaking.seconds_of(torch.tensor([ids])) >= 3 / 25)
    True
    """

    def __init__(
        self,
        vocoder: UnitVocoder,
        vocabulary: Vocabulary,
        style: int | str | None = None,
    ):
        self.vocoder = vocoder
        self.vocabulary = vocabulary
        self.style_units = vocoder.style_units(style)
        self.global_style = None if vocoder.expressive else style

    def seconds_of(self, ids: Tensor) -> Tensor:
        """Return the seconds of speech in each row of new token ids."""
        streams = [speech_of(self.vocabulary.decode(row)) for row in ids]
        frames = self._frames_of(streams)
        return torch.tensor([float(f.sum()) for f in frames]) / PHONETIC_RATE

    def limit(
        self, segments: list[Segment], max_seconds: float
    ) -> tuple[list[Segment], bool]:
        """Cut speech where its total duration reaches a limit."""
        left = int(max_seconds * PHONETIC_RATE)
        kept: list[Segment] = []
        for segment in segments:
            if isinstance(segment, Text):
                kept.append(segment)
                continue
            [frames] = self._frames_of([segment.stream])
            fits = int((frames.cumsum(0) <= left).sum())
            if fits < len(frames):
                if fits:
                    cut = first_units(segment.stream, fits)
                    kept.append(replace(segment, content=cut))
                return kept, True
            left -= int(frames.sum())
            kept.append(segment)
        return kept, False

    def speak(
        self,
        generations: Sequence[Generation],
        prompts: Sequence[Sequence[Segment]],
        continued: Sequence[bool],
        voice: int | None,
        seeds: Sequence[int],
        max_seconds: float | None = None,
    ) -> None:
        """Give all generated speech its waveforms, in one batch.

        Arguments
        ---------
        generations : list of Generation
            Whose speech segments get their ``wav``.
        prompts : list of list of segments
            What they continue.
        continued : list of bool
            Whether an output starts with speech that goes on from its
            prompt's.
        voice : int, optional
            The speaker; by default the one that each output sounds like, with
            the speech that it goes on from.
        seeds : list of int
            Of the styles that are drawn, one for each generation.
        max_seconds : float, optional
            Limit on the speech of each generation.
        """
        places, items, skips, item_seeds, voices = [], [], [], [], []
        for generation, prompt, goes_on, seed in zip(
            generations, prompts, continued, seeds
        ):
            turn = Turn(self, prompt, goes_on)
            speaker = voice
            if speaker is None:
                said = [turn.context, speech_of(generation)]
                own = SpeechStream.concatenate(said)
                speaker = self.vocoder.speaker_of(phonetic_of(own))
            for index, segment in enumerate(generation):
                if isinstance(segment, Text):
                    turn.end(NO_SPEECH)
                    continue
                units, skip = turn.units_of(segment.stream)
                turn.end(segment.stream)
                places.append((generation, index, segment))
                items.append(units)
                skips.append(skip)
                item_seeds.append(seed)
                voices.append(speaker)
        wavs = self.vocoder.synthesize(
            items, voices, self.global_style, skips, item_seeds
        )
        limit = inf if max_seconds is None else max_seconds * SAMPLE_RATE
        left = {id(generation): limit for generation in generations}
        for (generation, index, segment), wav in zip(places, wavs):
            wav = wav[: int(min(left[id(generation)], len(wav)))]
            left[id(generation)] -= len(wav)
            generation[index] = replace(segment, wav=wav)

    def with_voice(
        self, stream: SpeechStream, said: SpeechStream
    ) -> SpeechStream:
        """Give speech without pitch or style those last heard.

        The style is the one that is asked for, if any. Where no pitch was
        heard it is the first one; the vocoder draws a style by itself.
        """
        voice = []
        for kind in (Kind.STYLE, Kind.PITCH):
            if not self.vocabulary.unit_count(kind) or stream.count(kind):
                continue
            heard = said.values[said.kinds == int(kind)].tolist()
            if kind is Kind.PITCH:
                heard = heard or [0]
            elif self.style_units:
                heard = self.style_units[:1]
            voice += [SpeechStream([int(kind)], [unit]) for unit in heard[-1:]]
        return SpeechStream.concatenate([*voice, stream])

    def _frames_of(self, streams: list[SpeechStream]) -> list[Tensor]:
        return self.vocoder.predict_frames(list(map(phonetic_of, streams)))


class Turn:
    """The speech of one output, spoken with what it goes on from.

    Arguments
    ---------
    speaking : Speaking
        Speaks.
    prompt : list of segments
        What the output continues.
    goes_on : bool
        Whether it starts with speech that goes on from the prompt's.

    Attributes
    ----------
    context : SpeechStream
        What the next speech goes on from.

    Example
    -------
    >>> lm = SpiritLM.from_release(checkpoints, "base")
    >>> speaking = Speaking(lm.mods.vocoder, lm.vocabulary)
    >>> prompt = [Speech(SpeechUnits([1, 2, 3]))]
    >>> turn = Turn(speaking, prompt, goes_on=True)
    >>> units, context = turn.units_of(SpeechStream.from_string("[Hu4]"))
    >>> units.phonetic.tolist(), context
    ([1, 2, 3, 4], 3)
    """

    def __init__(
        self, speaking: Speaking, prompt: Sequence[Segment], goes_on: bool
    ):
        self.speaking = speaking
        self.said = speech_of(prompt)
        self.context = last_speech(prompt) if goes_on else NO_SPEECH

    def units_of(self, stream: SpeechStream) -> tuple[SpeechUnits, int]:
        """Return units of the next speech, and how many in front are context.

        The context is as long as the vocoder can hear.
        """
        vocoder = self.speaking.vocoder
        whole = SpeechStream.concatenate([self.context, stream])
        units = self.speaking.with_voice(whole, self.said).split()
        # A unit lasts a frame or more.
        heard = vocoder.generator.context + vocoder.duration_context
        return cut_context(units, self.context.count(Kind.PHONETIC), heard)

    def end(self, stream: SpeechStream) -> None:
        """Remember speech that has been said; what follows stands apart."""
        self.said = SpeechStream.concatenate([self.said, stream])
        self.context = NO_SPEECH


def speech_of(segments: Sequence[Segment]) -> SpeechStream:
    """Return all speech of some segments as one stream."""
    speech = [s.stream for s in segments if isinstance(s, Speech)]
    return SpeechStream.concatenate([NO_SPEECH, *speech])


def phonetic_of(stream: SpeechStream) -> Tensor:
    """Return the phonetic units of a stream."""
    return stream.values[stream.kinds == int(Kind.PHONETIC)]


def last_speech(prompt: Sequence[Segment]) -> SpeechStream:
    """Return the speech that a prompt ends in."""
    last = takewhile(lambda s: isinstance(s, Speech), reversed(prompt))
    return speech_of(list(last)[::-1])


def first_units(stream: SpeechStream, count: int) -> SpeechStream:
    """Cut a stream before the phonetic unit after the first ``count``."""
    phonetic = (stream.kinds == int(Kind.PHONETIC)).cumsum(0)
    return stream[: int((phonetic <= count).sum())]


def cut_context(
    units: SpeechUnits, context: int, heard: int
) -> tuple[SpeechUnits, int]:
    """Leave as many units of the context as the vocoder can hear.

    Returns the units and how many of them are context.
    """
    drop = max(context - heard, 0)

    units = SpeechUnits(
        units.phonetic[drop:],
        None if units.pitch is None else units.pitch[drop:],
        None if units.style is None else units.style[drop:],
        full_rate=False,
    )
    return units, context - drop
