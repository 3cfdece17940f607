"""Documents of pretraining: what the model reads of utterances.

Utterances become documents in several forms, of which the interleaved one is
the method: the modality changes at random word boundaries, anew whenever the
document is made.

Source: Nguyen et al., "SpiRit-LM", TACL 2025, section 3.1 and table 6.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from random import Random

from spiritlm_plugin.dataio.stream.interleaving import (
    DocumentError,
    Utterance,
    draw_spans,
    interleave,
)
from spiritlm_plugin.dataio.units.prompts import asr_shot, intent_shot
from spiritlm_plugin.dataio.units.segments import (
    Reading,
    Segment,
    Speech,
    Text,
    Transcript,
)
from spiritlm_plugin.dataio.units.units import SpeechStream


def draw_part(utterance: Utterance, random: Random) -> Utterance:
    """Draw consecutive words of an utterance, any number of them.

    Arguments
    ---------
    utterance : Utterance
        With words and units.
    random : random.Random
        Decides on the number of words, and then on the first.

    Returns
    -------
    Utterance
        The words as its text, and their units.

    Raises
    ------
    DocumentError
        As of `Utterance.starts`.

    Example
    -------
    >>> units = SpeechUnits([7] * 20 + [8] * 30)
    >>> words, times = ["a", "cat"], [(0.1, 0.4), (0.6, 1.5)]
    >>> utterance = Utterance(units, "a cat", words, times)
    >>> part = draw_part(utterance, Random(4))
    >>> part.text, len(part.units)
    ('cat', 37)
    """
    starts = utterance.starts()
    ends = [*starts[1:], None]
    count = random.randint(1, len(utterance.words))
    first = random.randint(0, len(utterance.words) - count)
    end = first + count
    units = utterance.spoken().cut(starts[first], ends[end - 1])
    return Utterance(units, " ".join(utterance.words[first:end]))


def shuffle_words(
    utterance: Utterance, random: Random
) -> tuple[SpeechStream, str]:
    """Bring the words of an utterance into random order.

    Arguments
    ---------
    utterance : Utterance
        With words and units.
    random : random.Random
        Decides on the order.

    Returns
    -------
    speech : SpeechStream
        The units of one word after the other; words too short for a unit are
        left out.
    text : str
        The words.

    Raises
    ------
    DocumentError
        As of `Utterance.starts`.

    Example
    -------
    >>> units = SpeechUnits([7] * 20 + [8] * 30)
    >>> words, times = ["a", "cat"], [(0.1, 0.4), (0.6, 1.5)]
    >>> utterance = Utterance(units, "a cat", words, times)
    >>> speech, text = shuffle_words(utterance, Random(0))
    >>> speech.to_string(), text
    ('[Hu7][Hu8][Hu7]', 'cat a')
    """
    starts = utterance.starts()
    spans = [*zip(utterance.words, starts, [*starts[1:], None])]
    pieces = [
        (word, utterance.spoken().cut(start, end).merge())
        for word, start, end in random.sample(spans, len(spans))
    ]
    pieces = [(word, stream) for word, stream in pieces if len(stream)]
    if not pieces:
        raise DocumentError("its words are too short for units")
    words, streams = zip(*pieces)
    return SpeechStream.concatenate(streams), " ".join(words)


class DocumentMaker:
    """Makes documents of utterances, in the forms that the paper compares.

    Arguments
    ---------
    text_words, speech_words : tuple of int
        The fewest and the most words of a span where text and speech are
        interleaved.
    shots : tuple of int
        The fewest and the most utterances of a document of few-shot prompts.

    Example
    -------
    >>> make = DocumentMaker()
    >>> utterance = Utterance(SpeechUnits([7] * 50), "a cat")
    >>> make("asr", [utterance], Random(0))
    [Speech(50 phonetic units), Transcript(text='a cat')]
    """

    def __init__(
        self,
        text_words: Sequence[int] = (10, 30),
        speech_words: Sequence[int] = (5, 15),
        shots: Sequence[int] = (2, 10),
    ):
        for name, numbers in (
            ("text_words", text_words),
            ("speech_words", speech_words),
            ("shots", shots),
        ):
            if len(numbers) != 2 or not 1 <= numbers[0] <= numbers[1]:
                raise ValueError(
                    f"{name} are the fewest and the most, as in [5, 15]; got "
                    f"{numbers!r}"
                )
        self.text_words = tuple(text_words)
        self.speech_words = tuple(speech_words)
        self.shots = tuple(shots)

    def draw_count(self, form: str, random: Random) -> int:
        """Return of how many utterances a document is made.

        Arguments
        ---------
        form : str
            As below.
        random : random.Random
            Decides on the number where it is up to chance.
        """
        return random.randint(*self.shots) if form in _SHOTS else 1

    def __call__(
        self, form: str, utterances: Sequence[Utterance], random: Random
    ) -> list[Segment]:
        """Return the segments of a document.

        Arguments
        ---------
        form : str
            ``text``, ``speech``, ``interleaved``, ``words`` (each word as
            text and as speech, in an order that is drawn), ``asr`` or
            ``tts``; ``asr_span`` and ``tts_span`` are the same of a few words
            of the utterance, and ``asr_shuffled`` and ``tts_shuffled`` of its
            words in random order: what comes next cannot be guessed from what
            was before in the same modality, so that a model learns sooner to
            attend to the other one.
            ``few_shot_asr`` and ``few_shot_intent`` are the prompts of the
            evaluations, which large models understand without having seen
            any, and small ones do not.
        utterances : sequence of Utterance
            What it is made of; one, but for few-shot prompts.
        random : random.Random
            Decides what is up to chance.

        Raises
        ------
        DocumentError
            If an utterance lacks what the form needs.
        """
        if form in _SHOTS:
            return [*chain.from_iterable(map(_SHOTS[form], utterances))]
        [utterance] = utterances
        return _SINGLE[form](self, utterance, random)

    def _text(self, utterance: Utterance, random: Random) -> list[Segment]:
        return [Text(utterance.transcript())]

    def _speech(self, utterance: Utterance, random: Random) -> list[Segment]:
        return [Speech(utterance.spoken())]

    def _interleaved(
        self, utterance: Utterance, random: Random
    ) -> list[Segment]:
        spans = draw_spans(
            len(utterance.words), self.text_words, self.speech_words, random
        )
        return interleave(utterance, spans)

    def _words(self, utterance: Utterance, random: Random) -> list[Segment]:
        text_first = random.random() < 0.5
        spans = [
            (is_text, word, word + 1)
            for word in range(len(utterance.words))
            for is_text in (text_first, not text_first)
        ]
        return interleave(utterance, spans)

    def _asr(self, utterance: Utterance, random: Random) -> list[Segment]:
        return [Speech(utterance.spoken()), Transcript(utterance.transcript())]

    def _asr_span(self, utterance: Utterance, random: Random) -> list[Segment]:
        return self._asr(draw_part(utterance, random), random)

    def _asr_shuffled(
        self, utterance: Utterance, random: Random
    ) -> list[Segment]:
        speech, text = shuffle_words(utterance, random)
        return [Speech(speech), Transcript(text)]

    def _tts(self, utterance: Utterance, random: Random) -> list[Segment]:
        return [Text(utterance.transcript()), Reading(utterance.spoken())]

    def _tts_span(self, utterance: Utterance, random: Random) -> list[Segment]:
        return self._tts(draw_part(utterance, random), random)

    def _tts_shuffled(
        self, utterance: Utterance, random: Random
    ) -> list[Segment]:
        speech, text = shuffle_words(utterance, random)
        return [Text(text), Reading(speech)]


def _asr_shot(utterance: Utterance) -> list[Segment]:
    return asr_shot(Speech(utterance.spoken()), utterance.transcript())


def _intent_shot(utterance: Utterance) -> list[Segment]:
    if not utterance.intent:
        raise DocumentError("it has no intent")
    return intent_shot(Speech(utterance.spoken()), utterance.intent)


_SINGLE: Mapping[str, Callable] = {
    "text": DocumentMaker._text,
    "speech": DocumentMaker._speech,
    "interleaved": DocumentMaker._interleaved,
    "words": DocumentMaker._words,
    "asr": DocumentMaker._asr,
    "asr_span": DocumentMaker._asr_span,
    "asr_shuffled": DocumentMaker._asr_shuffled,
    "tts": DocumentMaker._tts,
    "tts_span": DocumentMaker._tts_span,
    "tts_shuffled": DocumentMaker._tts_shuffled,
}
_SHOTS: Mapping[str, Callable] = {
    "few_shot_asr": _asr_shot,
    "few_shot_intent": _intent_shot,
}
FORMS = (*_SINGLE, *_SHOTS)
