"""What a generation is made of, and the speech in it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

import torch
from torch import Tensor

from spiritlm_plugin.dataio.segments import Segment, Speech, Text
from spiritlm_plugin.dataio.units import Kind, SpeechStream, SpeechUnits

# Units of the prompt's speech that the vocoder hears before what continues
# it: more than its receptive field.
CONTEXT_UNITS = 64


class Generation(list):
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
        return "".join(s.text for s in self if isinstance(s, Text))

    @property
    def wav(self) -> Tensor | None:
        """The waveforms, joined, 16 kHz, shape (time,); None without any."""
        wavs = [s.wav for s in self if isinstance(s, Speech)]
        wavs = [wav for wav in wavs if wav is not None]
        return torch.cat(wavs) if wavs else None

    def __repr__(self) -> str:
        """Show segments and reason."""
        return f"Generation({super().__repr__()}, {self.end_reason!r})"


def speech_of(segments: list[Segment]) -> SpeechStream:
    """Return all speech of some segments as one stream."""
    speech = [s.stream for s in segments if isinstance(s, Speech)]
    return SpeechStream.concatenate([SpeechStream([], []), *speech])


def last_speech(prompt: list[Segment]) -> SpeechStream:
    """Return the speech that a prompt ends in."""
    last = takewhile(lambda s: isinstance(s, Speech), reversed(prompt))
    return speech_of(list(last)[::-1])


def first_units(stream: SpeechStream, count: int) -> SpeechStream:
    """Cut a stream before the phonetic unit after the first ``count``."""
    phonetic = (stream.kinds == int(Kind.PHONETIC)).cumsum(0)
    return stream[: int((phonetic <= count).sum())]


def cut_context(units: SpeechUnits, context: int) -> tuple[SpeechUnits, int]:
    """Leave as much of the context as the vocoder can hear.

    Returns the units and how many of them are context.
    """
    drop = max(context - CONTEXT_UNITS, 0)

    def part(values):
        return None if values is None else values[drop:]

    units = SpeechUnits(
        part(units.phonetic),
        part(units.pitch),
        part(units.style),
        full_rate=False,
    )
    return units, context - drop
