"""Documents of a source, read from any place on."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from random import Random
from typing import Any

import datasets
import numpy as np
import pyarrow

from spiritlm_plugin.dataio.stream.documents import FORMS, NEEDS, DocumentMaker
from spiritlm_plugin.dataio.stream.lengths import LENGTH_COLUMNS, token_counts
from spiritlm_plugin.dataio.stream.places import BLOCK, Place, Places
from spiritlm_plugin.dataio.stream.utterances import (
    Utterance,
    UtteranceTable,
)
from spiritlm_plugin.dataio.units.vocabulary import Vocabulary
from spiritlm_plugin.utils.seeds import derive_seed

logger = logging.getLogger(__name__)

# Lengths are measured at so many places, on so many short documents at each.
_SAMPLE_PLACES, _SAMPLE_DOCUMENTS = 8, 16
# Rows whose lengths are looked up at a time.
_ROWS = 64 * BLOCK
# So many utterances that are left out are named.
_MOST_WARNINGS = 20
_NEEDED = {
    "text": "a text",
    "units": "speech units",
    "words": "words with times",
    "intent": "an intent",
}
# What is read beyond the end of a long document, whose length is an estimate.
_MARGIN = 1.05


@dataclass(frozen=True)
class Source:
    """Utterances or texts, and what documents are made of them.

    Arguments
    ---------
    rows : datasets.Dataset or sequence of dict
        Of a tokenized corpus, or texts, ``{"text": ...}``.
    form : str
        As of `DocumentMaker`.
    share : float
        Of the tokens of the stream, relative to the other sources.

    Raises
    ------
    ValueError
        If there is no such form, no row, or the share is not positive.

    Example
    -------
    >>> Source([{"text": "the cat sat"}], "text").rows.num_rows
    1
    """

    rows: datasets.Dataset | Sequence[Mapping[str, Any]]
    form: str
    share: float = 1.0

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise ValueError(
                f"no such form of documents: {self.form!r}; there are "
                f"{', '.join(FORMS)}"
            )
        if not self.share > 0:
            raise ValueError(f"a share must be positive, got {self.share}")
        if not len(self.rows):
            raise ValueError(f"the source of {self.form!r} has no rows")
        if not isinstance(self.rows, datasets.Dataset):
            rows = datasets.Dataset.from_list([*map(dict, self.rows)])
            object.__setattr__(self, "rows", rows)


class SourceReader:
    """Documents of a source, as ids, from any of its places on.

    Arguments
    ---------
    name : str
        Of the source, for messages and random numbers.
    source : Source
        Utterances and the form of documents.
    vocabulary : Vocabulary
        Of the model.
    documents : DocumentMaker
        Makes documents of utterances.
    chunk_tokens : int
        Tokens that are read at a time.
    seed : int
        Of all that is random.

    Raises
    ------
    ValueError
        If no document can be made.

    Example
    -------
    >>> text = example_text_tokenizer()
    >>> source = Source([{"text": "the cat sat"}] * 100, "text")
    >>> reader = SourceReader(
    ...     "text", source, Vocabulary.extend(text, phonetic=4),
    ...     DocumentMaker(), chunk_tokens=64, seed=1,
    ... )
    >>> sum(map(len, reader.read(0))) >= 64
    True
    """

    def __init__(
        self,
        name: str,
        source: Source,
        vocabulary: Vocabulary,
        documents: DocumentMaker,
        chunk_tokens: int,
        seed: int,
    ):
        self.name = name
        self.form = source.form
        self.vocabulary = vocabulary
        self.documents = documents
        self.chunk_tokens = chunk_tokens
        self.seed = derive_seed(seed, name)
        self.joins = documents.joins(source.form)
        assert isinstance(source.rows, datasets.Dataset)
        self._columns = _needed_columns(source.rows, source.form)
        self._rows = source.rows.select_columns(
            [
                name
                for name in source.rows.column_names
                if name in LENGTH_COLUMNS or name in self._columns
            ]
        ).with_format("arrow")
        self.blocks = -(-len(self._rows) // BLOCK)
        self._warned: set[str] = set()
        self._scale = 1.0
        lengths = self._all_lengths()
        unusable = int((lengths == 0).sum())
        if unusable == len(lengths):
            raise ValueError(self._complaint())
        if unusable:
            logger.warning(
                "%d of %d utterances (%s) are left out: they lack %s",
                unusable,
                len(lengths),
                name,
                self._wanted(),
            )
        self.places = Places(lengths, chunk_tokens, self.seed)
        self._scale = self._measure()
        lengths *= np.float32(self._scale)
        self.places = Places(lengths, chunk_tokens, self.seed)

    def read(self, number: int) -> list[np.ndarray]:
        """Return the documents of a chunk, which fill it.

        Arguments
        ---------
        number : int
            Of the chunk among those of the source; they never end.

        Returns
        -------
        list of numpy.ndarray
            Ids, int32, in all at least ``chunk_tokens``.

        Raises
        ------
        ValueError
            If no document can be made.
        """
        random = Random(derive_seed(self.seed, "documents", number))
        cursor = _Cursor(self, self.places[number])
        made: list[np.ndarray] = []
        missing = self.chunk_tokens
        while missing > 0:
            ids = self._next(cursor, missing, random)
            if ids is not None:
                made.append(ids[: self._limit(missing)])
                missing -= len(made[-1])
            elif not made and cursor.rows > 2 * len(self._rows):
                raise ValueError(self._complaint())
        return made

    def _limit(self, missing: int) -> int | None:
        """Return how long the next document may be, if there is a limit."""
        if not self.joins:
            return None
        return min(self.documents.document_tokens or missing, missing)

    def _next(
        self, cursor: _Cursor, missing: int, random: Random
    ) -> np.ndarray | None:
        """Return the next document, or None if it cannot be made."""
        limit = self._limit(missing)
        begin, before = cursor.begin, cursor.tokens
        if limit is None:
            rows = cursor.take(self.documents.draw_count(self.form, random))
        else:
            rows = cursor.follow(limit * _MARGIN)
        end = 1.0
        if self.form == "text" and len(rows) == 1:
            end = begin + missing * _MARGIN / (cursor.tokens - before)
        cursor.tokens -= (1 - min(end, 1.0) + begin) * (cursor.tokens - before)
        try:
            utterances = [table[row] for table, row in rows]
            if self.form == "text" and (begin or end < 1):
                utterances = [_clip(one, begin, end) for one in utterances]
                begin = 0.0
            segments = self.documents(self.form, utterances, random)
            ids = self.vocabulary.encode(segments)
        except ValueError as error:
            self._warn(rows, error)
            return None
        ended = end >= 1 and (limit is None or not cursor.goes_on)
        found = np.array([*ids, *[self.vocabulary.eos_id] * ended], np.int32)
        return found[int(begin * len(found)) :]

    def _warn(
        self, rows: Sequence[tuple[UtteranceTable, int]], error: Exception
    ) -> None:
        label = ", ".join(table.name(row) for table, row in rows) or "a text"
        if label in self._warned or len(self._warned) > _MOST_WARNINGS:
            return
        self._warned.add(label)
        logger.warning("%.300s (%s) is left out: %s", label, self.name, error)
        if len(self._warned) > _MOST_WARNINGS:
            logger.warning("(%s) others are left out as well", self.name)

    def _wanted(self) -> str:
        return " or ".join(_NEEDED[need] for need in NEEDS[self.form])

    def _complaint(self) -> str:
        return (
            f"no document can be made of the source {self.name!r}, of form "
            f"{self.form!r}: its utterances lack {self._wanted()}, or what the "
            "log says of them; leave the form out of shares, or name other "
            "corpora"
        )

    def _all_lengths(self) -> np.ndarray:
        return np.concatenate(
            [
                self.lengths(self._rows[start : start + _ROWS])
                for start in range(0, len(self._rows), _ROWS)
            ]
        )

    def lengths(self, table: pyarrow.Table) -> np.ndarray:
        """Return the tokens of the documents of rows, as measured."""
        counts = token_counts(table, self.form, self.vocabulary.expressive)
        return counts * np.float32(self._scale)

    def block(self, number: int) -> pyarrow.Table:
        """Return the rows of a block."""
        first = number * BLOCK
        return self._rows[first : first + BLOCK]

    def utterances(self, table: pyarrow.Table) -> UtteranceTable:
        """Return the utterances of rows, with what documents need of them."""
        return UtteranceTable(
            table.select(self._columns), self.vocabulary.expressive
        )

    def _measure(self) -> float:
        """Return how long documents are beside what `token_counts` says."""
        random = Random(self.seed)
        found = expected = 0.0
        for number in range(min(self.places.count, _SAMPLE_PLACES)):
            cursor = _Cursor(self, self.places[number])
            for _ in range(1 if self.joins else _SAMPLE_DOCUMENTS):
                before = cursor.tokens
                ids = self._next(cursor, self.chunk_tokens, random)
                if ids is not None:
                    found += len(ids)
                    expected += cursor.tokens - before
        if not found:
            raise ValueError(self._complaint())
        return found / expected


def _needed_columns(rows: datasets.Dataset, form: str) -> list[str]:
    """Return the columns that documents are made of."""
    read = {"utterance", "group", "position", *NEEDS[form]}
    return [
        name
        for name in rows.column_names
        if name in read or ("units" in read and name.endswith("_units"))
    ]


def _clip(utterance: Utterance, begin: float, end: float) -> Utterance:
    """Return a part of a text, between spaces."""
    text = utterance.transcript()
    first, last = (int(part * len(text)) for part in (begin, min(end, 1.0)))
    first = text.find(" ", first) + 1 if first else 0
    behind = text.find(" ", last)
    return replace(utterance, text=text[first : behind if behind > 0 else None])


class _Cursor:
    """Goes through the utterances of a source, from a place on.

    ``rows`` and ``tokens`` count what it has passed and what it has given.
    """

    def __init__(self, reader: SourceReader, place: Place):
        self.reader = reader
        self.epoch = place.epoch
        self.rows, self.tokens = 0, 0.0
        # What is left out of the first document, which is a long one.
        self.begin = 0.0
        self._open(place.block)
        lengths = self._lengths[self._order]
        starts = lengths.cumsum() - lengths
        self._at = int(starts.searchsorted(place.offset))
        if self._at:
            length, size = float(lengths[self._at - 1]), reader.chunk_tokens
            inside = place.offset - float(starts[self._at - 1])
            begin = ceil(inside / size) * size / length
            if begin < 1:
                self._at, self.begin = self._at - 1, begin

    def take(self, count: int) -> list[tuple[UtteranceTable, int]]:
        """Return the next utterances."""
        return [self._take() for _ in range(count)]

    def follow(self, tokens: float) -> list[tuple[UtteranceTable, int]]:
        """Return the next utterance, and those that go on where it ended."""
        rows = [self._take()]
        missing = tokens - self._lengths[rows[0][1]]
        while missing > 0 and self.goes_on:
            rows.append(self._take())
            missing -= self._lengths[rows[-1][1]]
        return rows

    @property
    def goes_on(self) -> bool:
        """Whether the next utterance begins where the last one ended."""
        if not 0 < self._at < len(self._order):
            return False
        before, row = self._order[self._at - 1 : self._at + 1]
        return bool(row == before + 1 and self._follows[row])

    def _take(self) -> tuple[UtteranceTable, int]:
        while self._at >= len(self._order):
            self._open(self._block + 1)
        row = int(self._order[self._at])
        self._at, self.begin = self._at + 1, 0.0
        self.tokens += float(self._lengths[row])
        return self._table, row

    def _open(self, block: int) -> None:
        """Look up what is in a block, and in which order it is read."""
        self._block = block % self.reader.blocks
        table = self.reader.block(self._block)
        self._lengths = self.reader.lengths(table)
        self._table = self.reader.utterances(table)
        self._order = np.flatnonzero(self._lengths)
        self._at = 0
        self.rows += len(self._table)
        if self.reader.joins:
            self._follows = self._table.follows()
        else:
            seed = derive_seed(self.reader.seed, self.epoch, self._block)
            np.random.default_rng(seed).shuffle(self._order)
