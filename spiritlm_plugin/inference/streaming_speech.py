"""Speech that is said while its units come."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TypeVar

from torch import Tensor

from spiritlm_plugin.dataio.units.segments import Speech
from spiritlm_plugin.dataio.units.units import (
    Kind,
    SpeechStream,
    SpeechUnits,
)
from spiritlm_plugin.dataio.units.vocabulary import Vocabulary
from spiritlm_plugin.inference.generation import NO_SPEECH
from spiritlm_plugin.lobes.streaming_vocoder import StreamingVocoder
from spiritlm_plugin.lobes.vocoder import UnitVocoder

T = TypeVar("T")


class TokenVocoder:
    """The waveform of merged tokens that come bit by bit.

    Nothing is said before a token of each kind is there, since speech in front
    of the first one has its pitch or style.

    Arguments
    ---------
    kinds : sequence of Kind
        Pitch and style, where the voice depends on them.
    begin : callable
        Returns what says the units of the first tokens, and these units.
    context : SpeechStream
        Tokens in front that ``begin`` knows of.
    """

    def __init__(
        self,
        kinds: Sequence[Kind],
        begin: Callable[[SpeechStream], tuple[StreamingVocoder, SpeechUnits]],
        context: SpeechStream = NO_SPEECH,
    ):
        self.kinds = kinds
        self.begin = begin
        self.vocoder: StreamingVocoder | None = None
        self.held = NO_SPEECH
        self.in_force: dict[Kind, int] = {}
        self._remember(context)

    def push(self, stream: SpeechStream) -> Iterator[Tensor]:
        """Take the next tokens, and yield what can be said now."""
        force = SpeechStream([*self.in_force], [*self.in_force.values()])
        self._remember(stream)
        if self.vocoder is not None:
            whole = SpeechStream.concatenate([force, stream])
            return self.vocoder.push(whole.split())
        self.held = SpeechStream.concatenate([self.held, stream])
        if len(self.in_force) < len(self.kinds):
            return iter(())
        return self._start()

    def finish(self) -> Iterator[Tensor]:
        """Yield what is left when no more tokens come."""
        if self.held.count(Kind.PHONETIC):
            yield from self._start()
        if self.vocoder is not None:
            yield from self.vocoder.finish()

    def _start(self) -> Iterator[Tensor]:
        self.vocoder, units = self.begin(self.held)
        self.held = NO_SPEECH
        return self.vocoder.push(units)

    def _remember(self, stream: SpeechStream) -> None:
        for kind in self.kinds:
            values = stream.values[stream.kinds == int(kind)]
            if len(values):
                self.in_force[kind] = int(values[-1])


def spoken_kinds(
    vocoder: UnitVocoder, vocabulary: Vocabulary | None = None
) -> list[Kind]:
    """Return pitch and style, where a voice depends on them."""
    return [
        kind
        for kind in (Kind.STYLE, Kind.PITCH)
        if kind.name.lower() in vocoder.embeddings
        and (vocabulary is None or vocabulary.unit_count(kind))
    ]


def spoken(
    items: Iterable[SpeechUnits | SpeechStream | Speech],
    voice: StreamingVocoder,
    context: AbstractContextManager,
) -> Iterator[Tensor]:
    """Yield the waveform of units that come bit by bit.

    Arguments
    ---------
    items : iterable of SpeechUnits, SpeechStream or Speech
        All of one form.
    voice : StreamingVocoder
        Speaks them.
    context : context manager
        In which waveforms are made.

    Raises
    ------
    TypeError
        If an item is none of these.
    ValueError
        If items are of several forms, or as of `StreamingVocoder.push`.
    """
    tokens = TokenVocoder(
        spoken_kinds(voice.vocoder), lambda stream: (voice, stream.split())
    )
    form: type | None = None
    for item in items:
        if isinstance(item, Speech):
            item = item.content if item.has_units else item.stream
        if not isinstance(item, (SpeechUnits, SpeechStream)):
            raise TypeError(
                "speech units are SpeechUnits, SpeechStream or Speech, got "
                f"{type(item).__name__}"
            )
        if form not in (None, type(item)):
            raise ValueError(
                "some items are SpeechUnits and others SpeechStream; give all "
                "of them in one form"
            )
        form = type(item)
        said = _said(voice, tokens, item)
        yield from inside(context, said)
    rest = tokens.finish() if form is SpeechStream else voice.finish()
    yield from inside(context, rest)


def _said(
    voice: StreamingVocoder,
    tokens: TokenVocoder,
    item: SpeechUnits | SpeechStream,
) -> Iterator[Tensor]:
    if isinstance(item, SpeechStream):
        yield from tokens.push(item)
    else:
        yield from voice.push(item)


def inside(context: AbstractContextManager, items: Iterator[T]) -> Iterator[T]:
    """Yield items, each of which is made inside a context."""
    while True:
        with context:
            item = next(items, None)
        if item is None:
            return
        yield item
