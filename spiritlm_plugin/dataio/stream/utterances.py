"""Utterances as documents are made of them, read from Arrow."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow

from spiritlm_plugin.dataio.corpus.shards import TEXT_KEYS, follows
from spiritlm_plugin.dataio.units.units import SpeechUnits

# What words may lie behind the last unit, seconds: units end up to one frame
# early, and times of words are not exact.
_TOLERANCE = 0.1
# What is said of an utterance beside its text.
LABELS = tuple(key for key in TEXT_KEYS if key != "text")
_SPACE = re.compile(r"\s+")
# Characters within which a space is looked for.
_FAR = 100


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
    times : sequence of (float, float) or numpy.ndarray
        Start and end of each word, seconds, shape (words, 2).
    labels : dict of str to str
        What is known of it, of `LABELS`: who speaks, what a command wants.
    """

    units: SpeechUnits | None = None
    text: str | None = None
    words: Sequence[str] = ()
    times: Sequence[tuple[float, float]] | np.ndarray = ()
    labels: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_row(
        cls, row: Mapping[str, Any], expressive: bool = False
    ) -> Utterance:
        """Read a row of a tokenized corpus, or one that has just a text.

        Arguments
        ---------
        row : dict
            As of `spiritlm_plugin.dataio.corpus.stores.load_corpus`.
        expressive : bool
            Whether pitch and style are wanted.

        Raises
        ------
        DocumentError
            If they are wanted and not there.
        """
        words = row.get("words") or ()
        return cls(
            _units([row.get(f"{name}_units") for name in _streams(expressive)]),
            row.get("text"),
            [word["word"] for word in words],
            [(word["start"], word["end"]) for word in words],
            {name: row[name] for name in LABELS if row.get(name)},
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

    def label(self, name: str) -> str:
        """Return what is known of it.

        Raises
        ------
        DocumentError
            If it is not.
        """
        if name not in self.labels:
            raise DocumentError(f"it has no {name}")
        return self.labels[name]

    def rest(self, begin: float) -> Utterance:
        """Return what follows a part of it.

        Arguments
        ---------
        begin : float
            The part that is left out, from 0 to 1. What follows begins with a
            word, if there is one not far away, and with a unit.

        Raises
        ------
        DocumentError
            As of `starts`.

        Example
        -------
        >>> Utterance(text="the cat sat").rest(0.5).text
        'sat'
        """
        if not begin:
            return self
        units, words, times, text = self.units, self.words, self.times, None
        if self.text is not None:
            text = self.text[_parting(self.text, int(begin * len(self.text))) :]
        start = begin * units.duration if units is not None else 0.0
        if len(words):
            first = min(round(begin * len(words)), len(words) - 1)
            start = self.starts()[first]
            words = words[first:]
            times = np.maximum(np.asarray(times)[first:] - start, 0.0)
            text = None if text is None else " ".join(words)
        if units is not None:
            units = units.cut(start)
        return replace(self, units=units, words=words, times=times, text=text)

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
        return self._starts

    @cached_property
    def _starts(self) -> list[float]:
        if not self.words:
            raise DocumentError("it has no words with times")
        spoken = self.spoken().duration
        begins, ends = np.asarray(self.times, np.float64).T
        middles = (ends[:-1] + begins[1:]) / 2
        steps = [begins[:1], np.diff(begins), np.diff(middles), ends - begins]
        if np.concatenate(steps).min() < 0:
            raise DocumentError("its words are not in the order of their times")
        last = float(ends.max())
        if last > spoken + _TOLERANCE:
            raise DocumentError(
                f"its words end at {last:.2f} s and its speech at "
                f"{spoken:.2f} s"
            )
        return [0.0, *np.minimum(middles, spoken).tolist()]

    def boundaries(self) -> list[float | None]:
        """Return `starts`, or its errors, and None for the utterance's end."""
        return [*self.starts(), None]


def clipped(text: str, end: float) -> str:
    """Return the beginning of a text, to a part of it, and a space at best."""
    if end >= 1:
        return text
    return text[: _parting(text, int(end * len(text)))]


def _parting(text: str, place: int) -> int:
    """Return where the next word begins, if that is not far away."""
    found = _SPACE.search(text, place, place + _FAR)
    return found.end() if found else place


def _streams(expressive: bool) -> tuple[str, ...]:
    return ("phonetic", "pitch", "style") if expressive else ("phonetic",)


def _units(streams: Sequence[Any]) -> SpeechUnits | None:
    if streams[0] is None:
        return None
    if any(stream is None for stream in streams):
        raise DocumentError("it has no pitch or style units")
    return SpeechUnits(*streams)


class UtteranceTable:
    """Consecutive rows of a tokenized corpus, or of texts.

    Nothing but what is asked for is read.

    Arguments
    ---------
    table : pyarrow.Table
        With columns of `load_corpus`, or just ``text``.
    expressive : bool
        Whether pitch and style are wanted.

    Example
    -------
    >>> table = pyarrow.table({"text": ["a cat", "a boat"]})
    >>> UtteranceTable(table)[1].transcript()
    'a boat'
    """

    def __init__(self, table: pyarrow.Table, expressive: bool = False):
        self.table = table
        self.expressive = expressive

    def __len__(self) -> int:
        """Return the number of rows."""
        return self.table.num_rows

    def __getitem__(self, row: int) -> Utterance:
        """Return an utterance.

        Raises
        ------
        DocumentError
            As of `Utterance.from_row`.
        """
        words, times = self._words_of(row)
        return Utterance(
            _units([stream(row) for stream in self._units]),
            self._value("text", row),
            words,
            times,
            {
                name: label
                for name in LABELS
                if (label := self._value(name, row))
            },
        )

    def name(self, row: int) -> str:
        """Return what an utterance is called, or its text."""
        return str(self._value("utterance", row) or self._value("text", row))

    def follows(self) -> np.ndarray:
        """Return which rows go on where the row before them ended.

        Returns
        -------
        numpy.ndarray
            Of bool, shape (rows,): those of the same group, and of the next
            position in it.
        """
        return follows(self.table)

    def _value(self, name: str, row: int) -> str | None:
        if name not in self.table.column_names:
            return None
        value: str | None = self.table[name][row].as_py()
        return value

    @cached_property
    def _units(self) -> list[_Lists]:
        return [
            _Lists(self.table, f"{name}_units")
            for name in _streams(self.expressive)
        ]

    @cached_property
    def _words(self) -> _Lists:
        return _Lists(self.table, "words")

    def _words_of(self, row: int) -> tuple[list[str], np.ndarray]:
        spans = self._words(row)
        if spans is None or not len(spans):
            return [], np.empty((0, 2))
        times = [spans.field(end).to_numpy() for end in ("start", "end")]
        return spans.field("word").to_pylist(), np.stack(times, axis=1)


class _Lists:
    """A column of lists, which need not be there."""

    def __init__(self, table: pyarrow.Table, name: str):
        self.offsets: np.ndarray | None = None
        if name in table.column_names:
            column = _array(table, name)
            self.values = column.values
            if not pyarrow.types.is_struct(self.values.type):
                self.values = self.values.to_numpy(False)
            self.offsets = column.offsets.to_numpy()
            self.known = column.is_valid().to_numpy(False)

    def __call__(self, row: int) -> Any:
        """Return the list of a row, as an array, or None."""
        if self.offsets is None or not self.known[row]:
            return None
        values = self.values[self.offsets[row] : self.offsets[row + 1]]
        # What is mapped into memory cannot be written, which torch dislikes.
        is_array = isinstance(values, np.ndarray)
        return values.astype(np.int64) if is_array else values


def _array(table: pyarrow.Table, name: str) -> Any:
    """Return a column as one array; it is copied if it is in pieces."""
    column = table[name]
    return (
        column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    )
