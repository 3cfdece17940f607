"""Documents of a source, read from any place on."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from random import Random
from typing import Any

import datasets
import numpy as np
import pyarrow

from spiritlm_plugin.dataio.stream.documents import (
    FORMS,
    JOINED,
    NEEDS,
    DocumentMaker,
)
from spiritlm_plugin.dataio.stream.lengths import LENGTH_COLUMNS, token_counts
from spiritlm_plugin.dataio.stream.marking import encode_parts
from spiritlm_plugin.dataio.stream.places import BLOCK, Place, Places
from spiritlm_plugin.dataio.stream.turns import SIDES
from spiritlm_plugin.dataio.stream.utterances import (
    LABELS,
    DocumentError,
    Utterance,
    UtteranceTable,
    clipped,
)
from spiritlm_plugin.dataio.units.vocabulary import Vocabulary
from spiritlm_plugin.utils.arguments import number
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
    "group": "a group in which they follow each other",
    **{name: f"the label {name!r}" for name in LABELS},
}
# How much is read of what is going to be cut, since lengths are estimates; of
# long texts more.
_MARGIN, _MUCH = 1.02, 1.3
# Tokens of a document that another chunk may begin inside of.
_LONG = 512
# Tokens of an utterance's rest that is read on.
_LEAST = 4


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
        if not 0 < number("share", self.share) < inf:
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
    row_tokens : int, optional
        Tokens of a row. Questions and answers that do not fit into one are
        left out: what is cut off would not be asked.

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
        row_tokens: int | None = None,
    ):
        self.name = name
        self.form = source.form
        self.vocabulary = vocabulary
        self.documents = documents
        self.chunk_tokens = chunk_tokens
        self.row_tokens = row_tokens or chunk_tokens
        self.seed = derive_seed(seed, name)
        self.joins = documents.joins(source.form)
        assert isinstance(source.rows, datasets.Dataset)
        self._columns = _needed_columns(source.rows, source.form)
        if not self._columns:
            raise ValueError(self._complaint())
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
            Ids, int32, in all at least ``chunk_tokens``; ``~id`` where nothing
            is learned.

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
            made.append(self._next(cursor, missing, random))
            missing -= len(made[-1])
        return made

    def _next(
        self, cursor: _Cursor, missing: int, random: Random
    ) -> np.ndarray:
        """Return the next document that can be made."""
        cursor.passed = 0
        while True:
            if self.form in SIDES:
                count = self.documents.draw_count(self.form, random)
                found = self._conversation(cursor, count, random)
            elif self.joins:
                limit = min(self.documents.document_tokens or missing, missing)
                found = self._long(cursor, limit, random)
            else:
                count = self.documents.draw_count(self.form, random)
                found = self._short(cursor, count, missing, random)
            if found is not None and len(found):
                return found

    def _short(
        self, cursor: _Cursor, count: int, missing: int, random: Random
    ) -> np.ndarray | None:
        """Return a document of utterances that need not follow each other."""
        utterances = [self._usable(cursor) for _ in range(count)]
        if self.form in JOINED and cursor.lengths[-1] > missing:
            return self._cut(cursor, utterances, missing, random)
        ids = self._encode(cursor, utterances, random, ends=True)
        if ids is None or len(ids) <= self.row_tokens:
            return ids
        if not self.documents.asks(self.form):
            return ids
        fault = f"its {len(ids)} tokens do not fit into a row; raise row_tokens"
        self._leave_out(cursor, DocumentError(fault))
        return None

    def _long(
        self, cursor: _Cursor, limit: int, random: Random
    ) -> np.ndarray | None:
        """Return a document of utterances that follow each other."""
        utterances = [self._usable(cursor)]
        missing = limit * _MARGIN - cursor.lengths[-1]
        while missing > 0 and cursor.goes_on():
            following = self._taken(cursor)
            if following is None:
                # It is left out, and the document ends before it.
                ids = self._encode(cursor, utterances, random, ends=False)
                return None if ids is None else ids[:limit]
            utterances.append(following)
            missing -= cursor.lengths[-1]
        return self._cut(cursor, utterances, limit, random)

    def _conversation(
        self, cursor: _Cursor, count: int, random: Random
    ) -> np.ndarray | None:
        """Return a document of turns, as many as a row has room for."""
        utterances = [self._usable(cursor)]
        while len(utterances) < count and cursor.goes_on():
            following = self._taken(cursor)
            if following is None:
                break
            utterances.append(following)
        for end in range(len(utterances), 1, -1):
            ids = self._encode(cursor, utterances[:end], random, ends=True)
            if ids is None or len(ids) <= self.row_tokens:
                return ids
        return None

    def _cut(
        self,
        cursor: _Cursor,
        utterances: list[Utterance],
        limit: int,
        random: Random,
    ) -> np.ndarray | None:
        """Return a document up to its limit, and leave the rest for the next."""
        lengths = cursor.lengths[-len(utterances) :]
        unread = 0.0  # tokens of the last one
        if self.form == "text" and lengths[-1] > limit * _MUCH:
            unread = lengths[-1] - limit * _MUCH
            last = utterances[-1]
            text = clipped(last.transcript(), 1 - unread / lengths[-1])
            utterances = [*utterances[:-1], replace(last, text=text)]
        ends = not unread and not cursor.goes_on()
        ids = self._encode(cursor, utterances, random, ends)
        if ids is None:
            return None
        beyond = max(len(ids) - limit, 0) / len(ids)
        cursor.put_back(beyond * (sum(lengths) - unread) + unread, len(lengths))
        return ids[:limit]

    def _encode(
        self,
        cursor: _Cursor,
        utterances: Sequence[Utterance],
        random: Random,
        ends: bool,
    ) -> np.ndarray | None:
        try:
            parts = self.documents.parts(self.form, utterances, random)
            if not parts:
                return None
            ids, end = encode_parts(self.vocabulary, parts)
        except ValueError as error:
            self._leave_out(cursor, error)
            return None
        return np.array([*ids, *[end] * ends], np.int32)

    def _usable(self, cursor: _Cursor) -> Utterance:
        """Return the next utterance that has what documents need."""
        while (found := self._taken(cursor)) is None:
            pass
        return found

    def _taken(self, cursor: _Cursor) -> Utterance | None:
        """Return the next utterance, or None if it lacks something."""
        cursor.take()
        if cursor.passed > 2 * len(self._rows) + BLOCK:
            raise ValueError(self._complaint())
        try:
            utterance = cursor.utterance()
            self._check(utterance)
            return utterance.rest(cursor.begin)
        except ValueError as error:
            self._leave_out(cursor, error)
            return None

    def _check(self, utterance: Utterance) -> None:
        """Raise DocumentError if documents cannot be made of an utterance."""
        needs = NEEDS[self.form]
        if "text" in needs:
            utterance.transcript()
        if "units" in needs:
            self.vocabulary.check_units(utterance.spoken())
        if "words" in needs:
            utterance.starts()
        for name in set(needs).intersection(LABELS):
            utterance.label(name)

    def _leave_out(self, cursor: _Cursor, error: Exception) -> None:
        label = cursor.name()
        if label in self._warned or len(self._warned) > _MOST_WARNINGS:
            return
        self._warned.add(label)
        logger.warning("%.300s (%s) is left out: %s", label, self.name, error)
        if len(self._warned) > _MOST_WARNINGS:
            logger.warning("(%s) others are left out as well", self.name)

    def _wanted(self) -> str:
        return " or ".join(_NEEDED[need] for need in NEEDS[self.form])

    def _complaint(self) -> str:
        remedy = "choose a mode without this form, or name other corpora"
        if "words" in NEEDS[self.form]:
            remedy = f"align the corpus (align.py), tokenize it again, {remedy}"
        return (
            f"no document can be made of the source {self.name!r}, of form "
            f"{self.form!r}: its utterances lack {self._wanted()}, or have "
            f"what the log says; {remedy}"
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
        """Return the rows of a block, and the one behind it."""
        first = number * BLOCK
        return self._rows[first : first + BLOCK + 1]

    def utterances(self, table: pyarrow.Table) -> UtteranceTable:
        """Return the utterances of rows, with what documents need of them."""
        return UtteranceTable(
            table.select(self._columns), self.vocabulary.expressive
        )

    def _measure(self) -> float:
        """Return how long documents are beside what `token_counts` says."""
        random = Random(self.seed)
        found = expected = 0.0
        for chunk in range(min(self.places.count, _SAMPLE_PLACES)):
            cursor = _Cursor(self, self.places[chunk])
            for _ in range(1 if self.joins else _SAMPLE_DOCUMENTS):
                found += len(self._next(cursor, self.chunk_tokens, random))
            expected += sum(cursor.lengths)
        return found / expected


def _needed_columns(rows: datasets.Dataset, form: str) -> list[str]:
    """Return the columns that documents are made of."""
    read = {"utterance", "group", "position", *NEEDS[form]}
    if form in SIDES:
        read.add("speaker")
    return [
        name
        for name in rows.column_names
        if name in read or ("units" in read and name.endswith("_units"))
    ]


class _Cursor:
    """Goes through the utterances of a source, from a place on.

    Arguments
    ---------
    reader : SourceReader
        Of the source.
    place : Place
        Where to begin.

    Attributes
    ----------
    begin : float
        The part of the utterance taken last that others have read.
    lengths : list of float
        Tokens, roughly, of what there was to read of each that was taken.
    passed : int
        Rows that were taken.
    """

    def __init__(self, reader: SourceReader, place: Place):
        self.reader = reader
        self.epoch = place.epoch
        self.begin, self.passed = 0.0, 0
        self.lengths: list[float] = []
        self._next = 0.0  # what `begin` is going to be
        self._open(place.block)
        lengths = self._lengths[self._order]
        starts = lengths.cumsum() - lengths
        self._at = int(starts.searchsorted(place.offset))
        if self._at and reader.form in JOINED:
            inside = place.offset - float(starts[self._at - 1])
            length = float(lengths[self._at - 1])
            if length > _LONG and inside < length:
                self._at -= 1
                self._next = inside / length

    def take(self) -> None:
        """Go on to the next utterance, or to the rest of this one."""
        while self._at >= len(self._order):
            self._open(self._block + 1)
            self.passed += len(self._table)
        self._row = int(self._order[self._at])
        self.begin, self._next = self._next, 0.0
        length = float(self._lengths[self._row])
        self.lengths.append(length * (1 - self.begin))
        self._at += 1
        self.passed += 1

    def put_back(self, tokens: float, most: int) -> None:
        """Let the last tokens, of so many utterances at most, be taken again."""
        most = min(most, self._at)
        while most and tokens > _LEAST:
            left = min(tokens, self.lengths[-1])
            tokens -= left
            most -= 1
            self._at -= 1
            whole = float(self._lengths[self._order[self._at]])
            self._next = 1 - left / whole
            self.lengths[-1] -= left
            if not most or tokens <= _LEAST:
                break
            self.lengths.pop()

    def utterance(self) -> Utterance:
        """Return the utterance that was taken last."""
        return self._table[self._row]

    def name(self) -> str:
        """Return what it is called."""
        return self._table.name(self._row)

    def goes_on(self) -> bool:
        """Tell whether the next utterance begins where this one ended."""
        if self._row + 1 == len(self._table) and self._onward:
            self._open(self._block + 1)
            return bool(len(self._order)) and self._order[0] == 0
        if self._at >= len(self._order):
            return False
        row = self._order[self._at]
        return bool(row == self._row + 1 and self._follows[row])

    def _open(self, block: int) -> None:
        """Look up what is in a block, and in which order it is read."""
        self._block = block % self.reader.blocks
        table = self.reader.block(self._block)
        here = table[:BLOCK]
        self._lengths = self.reader.lengths(here)
        self._table = self.reader.utterances(here)
        self._order = np.flatnonzero(self._lengths)
        self._at, self._row = 0, -1
        if self.reader.joins:
            follows = self.reader.utterances(table).follows()
            self._follows = follows[:BLOCK]
            self._onward = len(follows) > BLOCK and bool(follows[BLOCK])
        else:
            self._follows, self._onward = np.zeros(len(here), bool), False
            seed = derive_seed(self.reader.seed, self.epoch, self._block)
            np.random.default_rng(seed).shuffle(self._order)
