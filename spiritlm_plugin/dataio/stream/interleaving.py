"""Interleaving: speech whose modality changes at word boundaries.

Source: Nguyen et al., "SpiRit-LM", TACL 2025, section 3.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from random import Random

import numpy as np

from spiritlm_plugin.dataio.stream.utterances import Utterance
from spiritlm_plugin.dataio.units.segments import Segment, Speech, Text
from spiritlm_plugin.dataio.units.units import Kind, SpeechStream


class SpokenWords:
    """The words of utterances that follow each other, to be read or heard.

    Arguments
    ---------
    utterances : sequence of Utterance
        With words and units.

    Raises
    ------
    DocumentError
        As of `Utterance.starts`.

    Example
    -------
    >>> units = SpeechUnits([7] * 20 + [8] * 30)
    >>> words, times = ["a", "cat"], [(0.1, 0.4), (0.6, 1.5)]
    >>> words = SpokenWords([Utterance(units, "a cat", words, times)] * 2)
    >>> len(words), words.text(1, 3), words.speech(1, 3).to_string()
    (4, 'cat a', '[Hu7][Hu8][Hu7]')
    """

    def __init__(self, utterances: Sequence[Utterance]):
        self.utterances = utterances
        self._bounds = [utterance.boundaries() for utterance in utterances]
        self._words = [word for u in utterances for word in u.words]
        # Of each utterance its first word, and the end.
        self._firsts = [0, *accumulate(len(u.words) for u in utterances)]

    def __len__(self) -> int:
        """Return the number of words."""
        return len(self._words)

    def text(self, first: int, end: int) -> str:
        """Return what words say."""
        return " ".join(self._words[first:end])

    def speech(self, first: int, end: int) -> SpeechStream:
        """Return how words sound, deduplicated; it may be empty."""
        low, high = np.searchsorted(self._firsts, [first, end - 1], "right")
        streams = []
        for index in range(int(low) - 1, int(high)):
            begin, bounds = self._firsts[index], self._bounds[index]
            units = self.utterances[index].spoken()
            part = units.cut(
                bounds[max(first - begin, 0)] or 0.0,
                bounds[min(end - begin, len(bounds) - 1)],
            )
            if len(part):
                streams.append(part.merge())
        return join_speech(streams)


def join_speech(streams: Sequence[SpeechStream]) -> SpeechStream:
    """Join streams that follow each other in a recording.

    A phonetic unit that one ends and the next begins with is one run.

    Arguments
    ---------
    streams : sequence of SpeechStream
        May be none.

    Example
    -------
    >>> stream = SpeechStream.from_string("[Hu1][Hu2][Hu1]")
    >>> join_speech([stream, stream]).to_string()
    '[Hu1][Hu2][Hu1][Hu2][Hu1]'
    """
    parts = [*streams[:1]]
    for before, stream in zip(streams, streams[1:]):
        same = (
            before.kinds[-1] == stream.kinds[0] == int(Kind.PHONETIC)
            and before.values[-1] == stream.values[0]
        )
        parts.append(stream[1:] if same else stream)
    return SpeechStream.concatenate(parts or [SpeechStream([], [])])


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
    words: SpokenWords, spans: Sequence[tuple[bool, int, int]]
) -> list[Segment]:
    """Write spans of words as text or as speech.

    Speech is cut between words and deduplicated inside its span. A span too
    short for a unit is written as text, unless a span of its own does that.

    Arguments
    ---------
    words : SpokenWords
        Of one utterance or several.
    spans : sequence of (bool, int, int)
        As of `draw_spans`.

    Example
    -------
    >>> units = SpeechUnits([7] * 20 + [8] * 30)
    >>> words, times = ["a", "cat"], [(0.1, 0.4), (0.6, 1.5)]
    >>> words = SpokenWords([Utterance(units, "a cat", words, times)])
    >>> interleave(words, [(True, 0, 1), (False, 1, 2)])
    [Text(text='a'), Speech(2 phonetic units)]
    """
    segments: list[Segment] = []
    written = {(first, end) for is_text, first, end in spans if is_text}
    for is_text, first, end in spans:
        stream = None if is_text else words.speech(first, end)
        if stream:
            segments.append(Speech(stream))
        elif is_text or (first, end) not in written:
            text = words.text(first, end)
            before = segments[-1] if segments else None
            if isinstance(before, Text):
                segments[-1] = Text(f"{before.text} {text}")
            else:
                segments.append(Text(text))
    return segments
