"""What a model says and writes, while it does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import groupby
from math import inf
from typing import Any, NamedTuple

import torch
from torch import Tensor

from spiritlm_plugin.dataio.units.segments import Speech
from spiritlm_plugin.dataio.units.units import (
    PHONETIC_RATE,
    SAMPLE_RATE,
    Kind,
    SpeechStream,
    SpeechUnits,
)
from spiritlm_plugin.dataio.units.vocabulary import (
    CONTROL_KIND,
    TEXT_KIND,
)
from spiritlm_plugin.decoders.continuous import Continuous, Piece
from spiritlm_plugin.decoders.engines import Engine, TransformersEngine
from spiritlm_plugin.decoders.llama_steps import is_llama
from spiritlm_plugin.inference.generation import (
    NO_SPEECH,
    Turn,
    first_units,
    phonetic_of,
)
from spiritlm_plugin.inference.streaming_speech import (
    TokenVocoder,
    inside,
    spoken_kinds,
)
from spiritlm_plugin.lobes.streaming_vocoder import (
    StreamingDurations,
    StreamingVocoder,
)

# What stands in a text for bytes of which no character is known yet.
_NO_CHARACTER = "\ufffd"


class StreamPiece(NamedTuple):
    """Something of an output, when it is known.

    Arguments
    ---------
    prompt : int
        The number of the prompt.
    kind : str
        ``"text"``, ``"speech"``, or ``"end"``, the last of each prompt.
    text : str
        Of a text: what it goes on with, whole characters.
    wav : Tensor, optional
        Of speech: 16 kHz samples, shape (time,).
    units : SpeechStream, optional
        Of speech: the tokens that it goes on with. They come before their
        waveform, in pieces of their own.
    end_reason : str, optional
        At the end, as of `Generation`.

    Example
    -------
    >>> StreamPiece(0, "text", " cat").text
    ' cat'
    """

    prompt: int
    kind: str
    text: str = ""
    wav: Tensor | None = None
    units: SpeechStream | None = None
    end_reason: str | None = None


class Output:
    """One output, from its token ids to pieces of text and speech.

    Arguments
    ---------
    prompt : int
        The number of the prompt.
    turn : Turn
        What its speech goes on from.
    speaker, seed : int, optional
        As of `StreamingVocoder`.
    min_speech_units : int
        Speech of fewer phonetic units is left out.
    max_seconds : float, optional
        Limit on the speech.
    vocode : bool
        Whether to make waveforms.
    """

    def __init__(
        self,
        prompt: int,
        turn: Turn,
        speaker: int | None = None,
        seed: int | None = None,
        min_speech_units: int = 0,
        max_seconds: float | None = None,
        vocode: bool = True,
    ):
        self.prompt = prompt
        self.turn = turn
        self.vocabulary = turn.speaking.vocabulary
        self.speaker = speaker
        self.seed = seed
        self.min_speech_units = min_speech_units
        self.vocode = vocode
        self.frames = self.samples = inf
        if max_seconds is not None:
            self.frames = int(max_seconds * PHONETIC_RATE)
            self.samples = int(max_seconds * SAMPLE_RATE)
        self.part: _TextPart | _SpeechPart | None = None
        self.ended = False
        bos = self.vocabulary.text.bos_id
        self.control = {self.vocabulary.eos_id, bos}

    def push(self, ids: Sequence[int]) -> Iterator[StreamPiece]:
        """Take the next ids, and yield what is known with them."""
        kinds = self.vocabulary.kinds
        kept = [
            (index, int(kinds[index]) == TEXT_KIND)
            for index in ids
            if index not in self.control and int(kinds[index]) > CONTROL_KIND
        ]
        for is_text, run in groupby(kept, lambda item: item[1]):
            new = _TextPart if is_text else _SpeechPart
            if not isinstance(self.part, new):
                yield from self._close()
                if self.ended:
                    return
                self.part = new(self)
            yield from self.part.push([index for index, _ in run])
            if self.ended:
                return

    def finish(self, end_reason: str) -> Iterator[StreamPiece]:
        """Yield what is left, and the end."""
        if self.ended:
            return
        yield from self._close()
        if not self.ended:
            yield self.end(end_reason)

    def end(self, reason: str) -> StreamPiece:
        """Return the last piece."""
        self.ended = True
        self.part = None
        return StreamPiece(self.prompt, "end", end_reason=reason)

    def _close(self) -> Iterator[StreamPiece]:
        if self.part is not None:
            yield from self.part.close()
        self.part = None


class _TextPart:
    """Text of an output, which shows no character before it is whole."""

    def __init__(self, output: Output):
        self.output = output
        self.ids: list[int] = []
        self.shown = 0

    def push(self, ids: Sequence[int]) -> Iterator[StreamPiece]:
        """Take the next ids, and yield what they add."""
        self.ids += ids
        yield from self._show(self._text().rstrip(_NO_CHARACTER))

    def close(self) -> Iterator[StreamPiece]:
        """Yield what is left."""
        yield from self._show(self._text())

    def _text(self) -> str:
        return self.output.vocabulary.text.decode(self.ids)

    def _show(self, text: str) -> Iterator[StreamPiece]:
        if new := text[self.shown :]:
            self.shown = len(text)
            yield StreamPiece(self.output.prompt, "text", new)


class _SpeechPart:
    """Speech of an output: what fits, is long enough, and can be said."""

    def __init__(self, output: Output):
        self.output = output
        self.limit = _Limit(output)
        self.held: SpeechStream | None = NO_SPEECH  # None when long enough
        self.kept: list[SpeechStream] = []
        self.voice = TokenVocoder(
            spoken_kinds(output.turn.speaking.vocoder, output.vocabulary),
            self._begin,
            output.turn.context,
        )

    def push(self, ids: Sequence[int]) -> Iterator[StreamPiece]:
        """Take the next ids, and yield units and waveforms."""
        [speech] = self.output.vocabulary.decode(ids)
        assert isinstance(speech, Speech)
        yield from self._keep(self.limit.push(speech.stream))
        if self.limit.reached:
            yield from self._finish()

    def close(self) -> Iterator[StreamPiece]:
        """Yield what is left."""
        yield from self._keep(self.limit.push(NO_SPEECH, final=True))
        yield from self._finish()

    def _keep(self, stream: SpeechStream) -> Iterator[StreamPiece]:
        """Yield speech, held back for as long as it may be too short."""
        if self.held is not None:
            stream = SpeechStream.concatenate([self.held, stream])
            if stream.count(Kind.PHONETIC) < self.output.min_speech_units:
                self.held = stream
                return
            self.held = None
        if len(stream):
            self.kept.append(stream)
            yield StreamPiece(self.output.prompt, "speech", units=stream)
            if self.output.vocode:
                yield from self._heard(self.voice.push(stream))

    def _finish(self) -> Iterator[StreamPiece]:
        """Yield the rest of the waveform, and the end at the limit."""
        output = self.output
        if output.vocode:
            yield from self._heard(self.voice.finish())
        if self.voice.vocoder is not None:
            output.speaker = self.voice.vocoder.speaker
        output.turn.end(SpeechStream.concatenate([NO_SPEECH, *self.kept]))
        if self.limit.reached:
            yield output.end("max_seconds")

    def _heard(self, wavs: Iterator[Tensor]) -> Iterator[StreamPiece]:
        output = self.output
        for wav in wavs:
            wav = wav[: int(min(output.samples, len(wav)))]
            output.samples -= len(wav)
            if len(wav):
                yield StreamPiece(output.prompt, "speech", wav=wav)

    def _begin(
        self, stream: SpeechStream
    ) -> tuple[StreamingVocoder, SpeechUnits]:
        turn = self.output.turn
        units, skip = turn.units_of(stream)
        vocoder = StreamingVocoder(
            turn.speaking.vocoder,
            self.output.speaker,
            turn.speaking.global_style,
            seed=self.output.seed,
            skip=skip,
            like=phonetic_of(turn.context),
        )
        return vocoder, units


class _Limit:
    """Lets through the speech that fits into what is left of an output."""

    def __init__(self, output: Output):
        self.output = output
        self.durations: StreamingDurations | None = None
        if output.frames < inf:
            self.durations = StreamingDurations(output.turn.speaking.vocoder)
        self.waiting = NO_SPEECH
        self.fitted = 0
        self.reached = False

    def push(self, stream: SpeechStream, final: bool = False) -> SpeechStream:
        """Take the next speech, and return what is known to fit."""
        if self.durations is None:
            return stream
        waiting = SpeechStream.concatenate([self.waiting, stream])
        lasting = self.durations.push(phonetic_of(stream), final)
        fits = int((lasting.cumsum(0) <= self.output.frames).sum())
        self.fitted += fits
        self.output.frames -= int(lasting[:fits].sum())
        self.reached = fits < len(lasting)
        through = NO_SPEECH
        if final and not self.reached:
            through = waiting
        elif fits or (self.reached and self.fitted):
            through = first_units(waiting, fits)
        self.waiting = waiting[len(through) :]
        return through


def output_pieces(
    tokens: Iterable[Piece],
    begin: Callable[[int, Sequence[int]], Output],
    count: int,
    context: AbstractContextManager,
) -> Iterator[StreamPiece]:
    """Yield what token ids of outputs say, as they come.

    Arguments
    ---------
    tokens : iterable of Piece
        Of so many prompts.
    begin : callable
        Returns the output of a prompt, told its first ids.
    count : int
        Of prompts; when all outputs have ended no more tokens are asked for.
    context : context manager
        In which waveforms are made.
    """
    outputs: dict[int, Output] = {}
    for prompt, ids, end_reason in tokens:
        if prompt not in outputs:
            outputs[prompt] = begin(prompt, ids)
        output = outputs[prompt]
        if output.ended:
            continue
        yield from inside(context, output.push(ids))
        if end_reason:
            yield from inside(context, output.finish(end_reason))
        count -= output.ended
        if not count:
            return


def new_tokens(
    engine: Engine,
    prompts: Sequence[Sequence[int]],
    output: str,
    batch_size: int,
    **options: Any,
) -> Iterator[Piece]:
    """Return token ids as an engine makes them.

    An engine that gives whole outputs alone gives one piece of each.

    Arguments
    ---------
    engine, prompts, output, batch_size, **options
        As of `Engine.decode`.
    """
    if isinstance(engine, TransformersEngine) and is_llama(engine.lm):
        rows = {**options, "rows": batch_size}
        return iter(Continuous(engine.lm, prompts, output, **rows))
    return _whole(engine, prompts, output, batch_size=batch_size, **options)


def _whole(
    engine: Engine,
    prompts: Sequence[Sequence[int]],
    output: str,
    **options: Any,
) -> Iterator[Piece]:
    with torch.inference_mode():
        decoded = engine.decode(prompts, output, **options)
    for index, result in enumerate(decoded):
        yield Piece(index, result.ids.tolist(), result.end_reason)
