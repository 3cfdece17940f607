"""Interleaving: an utterance whose modality changes at word boundaries.

Source: Nguyen et al., "SpiRit-LM", TACL 2025, section 3.1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from spiritlm_plugin.dataio.units.segments import Segment, Speech, Text
from spiritlm_plugin.dataio.units.units import SpeechUnits

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
    intent : str, optional
        What a command wants.
    """

    units: SpeechUnits | None = None
    text: str | None = None
    words: Sequence[str] = ()
    times: Sequence[tuple[float, float]] = ()
    intent: str | None = None

    @classmethod
    def from_row(
        cls, row: Mapping[str, Any], expressive: bool = False
    ) -> Utterance:
        """Read a row of a tokenized corpus, or one that has just a text.

        Arguments
        ---------
        row : dict
            As of `spiritlm_plugin.dataio.corpus.unit_store.load_corpus`.
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
            row.get("intent"),
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

    def starts(self) -> list[float]:
        """Return where words can be parted: before and between them.

        Two words are parted in the middle of what lies between them.

        Returns
        -------
        list of float
            Seconds.

        Raises
        ------
        DocumentError
            If there are no words, or they are not in order, or they end
            behind the speech.

        Example
        -------
        >>> units = SpeechUnits([1] * 50)
        >>> words, times = ["a", "cat"], [(0.1, 0.4), (0.6, 1.5)]
        >>> Utterance(units, "a cat", words, times).starts()
        [0.0, 0.5]
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
        return [0.0, *middles]

    def boundaries(self) -> list[float | None]:
        """Return `starts`, or its errors, and None for the utterance's end."""
        return [*self.starts(), None]


def draw_spans(
    words: int,
    text_words: Sequence[int],
    speech_words: Sequence[int],
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
        As of `Utterance.starts`.

    Example
    -------
    >>> units = SpeechUnits([7] * 20 + [8] * 30)
    >>> words, times = ["a", "cat"], [(0.1, 0.4), (0.6, 1.5)]
    >>> utterance = Utterance(units, "a cat", words, times)
    >>> interleave(utterance, [(True, 0, 1), (False, 1, 2)])
    [Text(text='a'), Speech(2 phonetic units)]
    """
    starts = utterance.starts()
    ends = [*starts[1:], None]
    segments: list[Segment] = []
    for is_text, first, end in spans:
        text = Text(" ".join(utterance.words[first:end]))
        if not is_text:
            units = utterance.spoken().cut(starts[first], ends[end - 1])
            if len(units):
                segments.append(Speech(units.merge()))
                continue
        segments.append(text)
    return segments
