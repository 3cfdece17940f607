"""Documents of pretraining: what the model reads of an utterance.

An utterance with its words becomes a document in one of several forms, of
which the interleaved one is the method: the modality changes at random word
boundaries, anew whenever the document is made.

Source: Nguyen et al., "SpiRit-LM", TACL 2025, section 3.1 and table 6.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from spiritlm_plugin.dataio.segments import (
    Reading,
    Segment,
    Speech,
    Text,
    Transcript,
)
from spiritlm_plugin.dataio.units import SpeechUnits

# What words may lie behind the last unit, seconds: units end up to one frame
# early, and times of words are not exact.
_TOLERANCE = 0.1


class DocumentError(ValueError):
    """An utterance that a document cannot be made of."""


@dataclass(frozen=True)
class Utterance:
    """Speech units with what is said.

    Arguments
    ---------
    units : SpeechUnits, optional
        At full rate; texts have none.
    text : str, optional
        The transcript.
    words : sequence of str
        As they are spoken.
    times : sequence of (float, float)
        Start and end of each word, seconds.
    """

    units: SpeechUnits | None = None
    text: str | None = None
    words: Sequence[str] = ()
    times: Sequence[tuple[float, float]] = ()

    @classmethod
    def from_row(
        cls, row: Mapping[str, Any], expressive: bool = False
    ) -> Utterance:
        """Read a row of a tokenized corpus, or one that has just a text.

        Arguments
        ---------
        row : dict
            As of `spiritlm_plugin.dataio.corpus.load_corpus`.
        expressive : bool
            Whether pitch and style are wanted.

        Raises
        ------
        DocumentError
            If they are wanted and not there.
        """
        units = None
        if row.get("phonetic_units") is not None:
            streams = [row["phonetic_units"]]
            if expressive:
                streams += [row.get("pitch_units"), row.get("style_units")]
                if any(stream is None for stream in streams):
                    raise DocumentError("it has no pitch or style units")
            units = SpeechUnits(*streams)
        words = row.get("words") or ()
        return cls(
            units,
            row.get("text"),
            [word["word"] for word in words],
            [(word["start"], word["end"]) for word in words],
        )

    def spoken(self) -> SpeechUnits:
        """Return the units.

        Raises
        ------
        DocumentError
            If there are none.
        """
        if self.units is None or not len(self.units):
            raise DocumentError("it has no speech units")
        return self.units

    def transcript(self) -> str:
        """Return the text.

        Raises
        ------
        DocumentError
            If it is missing or empty.
        """
        if not self.text or not self.text.strip():
            raise DocumentError("it has no text")
        return self.text

    def boundaries(self) -> list[float | None]:
        """Return where words can be parted: before, between and behind them.

        Two words are parted in the middle of what lies between them.

        Returns
        -------
        list of float
            Seconds; the last, None, is the end of the utterance.

        Raises
        ------
        DocumentError
            If there are no words, or they are not in order, or they end
            behind the speech.

        Example
        -------
        >>> units = SpeechUnits([1] * 50)
        >>> words, times = ["a", "cat"], [(0.1, 0.4), (0.6, 1.5)]
        >>> Utterance(units, "a cat", words, times).boundaries()
        [0.0, 0.5, None]
        """
        if not self.words:
            raise DocumentError("it has no words with times")
        duration = self.spoken().duration + _TOLERANCE
        starts, ends = zip(*self.times)
        middles = [(end + start) / 2 for end, start in zip(ends, starts[1:])]
        if any(
            list(times) != sorted(times)
            for times in ([0.0, *starts], [0.0, *middles], *self.times)
        ):
            raise DocumentError("its words are not in the order of their times")
        if max(ends) > duration:
            raise DocumentError(
                f"its words end at {max(ends):.2f} s and its speech at "
                f"{self.spoken().duration:.2f} s"
            )
        return [0.0, *middles, None]


def draw_spans(
    words: int,
    text_words: tuple[int, int],
    speech_words: tuple[int, int],
    random: Random,
) -> list[tuple[bool, int, int]]:
    """Divide words into spans of text and of speech, in turns.

    Arguments
    ---------
    words : int
        How many there are.
    text_words, speech_words : tuple of int
        The fewest and the most words of a span; the last one may be shorter.
    random : random.Random
        Decides on the modality that comes first, and on the lengths.

    Returns
    -------
    list of (bool, int, int)
        Of each span, whether it is text, its first word and the one behind
        its last.

    Example
    -------
    >>> draw_spans(9, (4, 4), (3, 3), Random(1))
    [(True, 0, 4), (False, 4, 7), (True, 7, 9)]
    """
    spans = []
    is_text, first = random.random() < 0.5, 0
    while first < words:
        length = random.randint(*(text_words if is_text else speech_words))
        end = min(first + length, words)
        spans.append((is_text, first, end))
        is_text, first = not is_text, end
    return spans


def interleave(
    utterance: Utterance, spans: Sequence[tuple[bool, int, int]]
) -> list[Segment]:
    """Write spans of words as text or as speech.

    Speech is cut between words and deduplicated inside its span. A span too
    short for a unit is written as text.

    Arguments
    ---------
    utterance : Utterance
        With words and units.
    spans : sequence of (bool, int, int)
        As of `draw_spans`.

    Raises
    ------
    DocumentError
        As of `Utterance.boundaries`.

    Example
    -------
    >>> units = SpeechUnits([7] * 20 + [8] * 30)
    >>> words, times = ["a", "cat"], [(0.1, 0.4), (0.6, 1.5)]
    >>> utterance = Utterance(units, "a cat", words, times)
    >>> interleave(utterance, [(True, 0, 1), (False, 1, 2)])
    [Text(text='a'), Speech(2 phonetic units)]
    """
    boundaries = utterance.boundaries()
    segments: list[Segment] = []
    for is_text, first, end in spans:
        text = Text(" ".join(utterance.words[first:end]))
        if not is_text:
            units = utterance.units.cut(boundaries[first], boundaries[end])
            if len(units):
                segments.append(Speech(units.merge()))
                continue
        segments.append(text)
    return segments


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
        As of `Utterance.boundaries`.

    Example
    -------
    >>> units = SpeechUnits([7] * 20 + [8] * 30)
    >>> words, times = ["a", "cat"], [(0.1, 0.4), (0.6, 1.5)]
    >>> utterance = Utterance(units, "a cat", words, times)
    >>> part = draw_part(utterance, Random(4))
    >>> part.text, len(part.units)
    ('cat', 37)
    """
    boundaries = utterance.boundaries()
    count = random.randint(1, len(utterance.words))
    first = random.randint(0, len(utterance.words) - count)
    end = first + count
    units = utterance.units.cut(boundaries[first], boundaries[end])
    return Utterance(units, " ".join(utterance.words[first:end]))


class DocumentMaker:
    """Makes documents of utterances, in the forms that the paper compares.

    Arguments
    ---------
    text_words, speech_words : tuple of int
        The fewest and the most words of a span where text and speech are
        interleaved.

    Example
    -------
    >>> make = DocumentMaker()
    >>> utterance = Utterance(SpeechUnits([7] * 50), "a cat")
    >>> make("asr", utterance, Random(0))
    [Speech(50 phonetic units), Transcript(text='a cat')]
    """

    def __init__(
        self,
        text_words: Sequence[int] = (10, 30),
        speech_words: Sequence[int] = (5, 15),
    ):
        for name, words in (
            ("text_words", text_words),
            ("speech_words", speech_words),
        ):
            if len(words) != 2 or not 1 <= words[0] <= words[1]:
                raise ValueError(
                    f"{name} are the fewest and the most words of a span, as "
                    f"in [5, 15]; got {words!r}"
                )
        self.text_words = tuple(text_words)
        self.speech_words = tuple(speech_words)

    def __call__(
        self, form: str, utterance: Utterance, random: Random
    ) -> list[Segment]:
        """Return the segments of a document.

        Arguments
        ---------
        form : str
            ``text``, ``speech``, ``interleaved``, ``words`` (each word as
            text and as speech, in an order that is drawn), ``asr`` or
            ``tts``; ``asr_span`` and ``tts_span`` are the same of a few words
            of the utterance: what comes next cannot be guessed from text, so
            that a model learns sooner to attend to the other modality.
        utterance : Utterance
            What it is made of.
        random : random.Random
            Decides what is up to chance.

        Raises
        ------
        DocumentError
            If the utterance lacks what the form needs.
        """
        return FORMS[form](self, utterance, random)

    def _text(self, utterance, random):
        return [Text(utterance.transcript())]

    def _speech(self, utterance, random):
        return [Speech(utterance.spoken())]

    def _interleaved(self, utterance, random):
        spans = draw_spans(
            len(utterance.words), self.text_words, self.speech_words, random
        )
        return interleave(utterance, spans)

    def _words(self, utterance, random):
        text_first = random.random() < 0.5
        spans = [
            (is_text, word, word + 1)
            for word in range(len(utterance.words))
            for is_text in (text_first, not text_first)
        ]
        return interleave(utterance, spans)

    def _asr(self, utterance, random):
        return [Speech(utterance.spoken()), Transcript(utterance.transcript())]

    def _asr_span(self, utterance, random):
        return self._asr(draw_part(utterance, random), random)

    def _tts(self, utterance, random):
        return [Text(utterance.transcript()), Reading(utterance.spoken())]

    def _tts_span(self, utterance, random):
        return self._tts(draw_part(utterance, random), random)


FORMS: Mapping[str, Callable] = {
    "text": DocumentMaker._text,
    "speech": DocumentMaker._speech,
    "interleaved": DocumentMaker._interleaved,
    "words": DocumentMaker._words,
    "asr": DocumentMaker._asr,
    "asr_span": DocumentMaker._asr_span,
    "tts": DocumentMaker._tts,
    "tts_span": DocumentMaker._tts_span,
}
