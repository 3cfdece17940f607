"""The stream of pretraining: documents of several sources, mixed and packed.

The stream is a sequence of chunks. A chunk is made of the seed and its number
alone, so that processes and workers need not talk to each other, and a run
that goes on, on as many processes as there are then, reads on where it was.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spiritlm_plugin.dataio.stream.documents import FORMS, DocumentMaker
from spiritlm_plugin.dataio.stream.interleaving import Utterance
from spiritlm_plugin.dataio.stream.packing import pack
from spiritlm_plugin.dataio.units.vocabulary import Vocabulary
from spiritlm_plugin.utils.seeds import derive_seed

logger = logging.getLogger(__name__)

# Documents that the mean length of a source is measured on.
_SAMPLE = 200


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
    """

    rows: Sequence[Mapping[str, Any]]
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


class Mixture:
    """Chunks of packed rows.

    Each source gives a chunk as many documents as its share asks for, taken
    in a random order that is new in each epoch of the source.

    Arguments
    ---------
    sources : dict of str to Source
        By names, which the random numbers depend on.
    vocabulary : Vocabulary
        Of the model.
    documents : DocumentMaker
        Makes documents of utterances.
    size : int
        Tokens of a row.
    seed : int
        Of all that is random.
    chunk_rows : int
        Rows of a chunk, roughly. The last row of a chunk may stay half empty:
        the more rows, the less of them is padding.

    Example
    -------
    >>> text = example_text_tokenizer()
    >>> source = Source([{"text": "the cat sat"}] * 100, "text")
    >>> mixture = Mixture(
    ...     {"text": source}, Vocabulary.extend(text, phonetic=4),
    ...     DocumentMaker(), size=64, seed=1, chunk_rows=4,
    ... )
    >>> ids, positions = mixture.chunk(0)
    >>> ids.shape[1], bool((mixture.chunk(0)[0] == ids).all())
    (64, True)
    """

    def __init__(
        self,
        sources: Mapping[str, Source],
        vocabulary: Vocabulary,
        documents: DocumentMaker,
        size: int,
        seed: int,
        chunk_rows: int = 128,
    ):
        if not sources:
            raise ValueError("a mixture needs a source")
        self.sources = dict(sources)
        self.vocabulary = vocabulary
        self.documents = documents
        self.size = size
        self.seed = seed
        # Of each source the epoch that is read, and its order.
        self._orders: dict[str, tuple[int, np.ndarray]] = {}
        total = sum(source.share for source in self.sources.values())
        self.counts = {}
        for name, source in self.sources.items():
            tokens = chunk_rows * size * source.share / total
            self.counts[name] = max(round(tokens / self.mean_length(name)), 1)

    def mean_length(self, name: str) -> float:
        """Return the mean number of tokens of a source's documents.

        Raises
        ------
        ValueError
            If no document can be made of the first utterances.
        """
        lengths = []
        for index in range(min(_SAMPLE, len(self.sources[name].rows))):
            ids = self._document(name, index)
            lengths += [] if ids is None else [len(ids)]
        if not lengths:
            raise ValueError(
                f"no document can be made of the source {name!r}: see what "
                "the log says of its utterances"
            )
        return float(np.mean(lengths))

    def chunk(self, number: int) -> tuple[Tensor, Tensor]:
        """Return a chunk.

        Returns
        -------
        ids, positions : Tensor
            As of `pack`, int32, shape (rows, size).
        """
        documents: list[np.ndarray] = []
        for name, wanted in self.counts.items():
            first = number * wanted
            made = (self._document(name, first + i) for i in range(wanted))
            documents += [ids for ids in made if ids is not None]
        generator = np.random.default_rng(derive_seed(self.seed, number))
        ids, positions = pack(
            documents, self.size, self.vocabulary.eos_id, generator
        )
        return torch.from_numpy(ids), torch.from_numpy(positions)

    def _document(self, name: str, index: int) -> np.ndarray | None:
        """Return the ids of the document at a place in a source's order."""
        source = self.sources[name]
        epoch, place = divmod(index, len(source.rows))
        random = Random(derive_seed(self.seed, name, index))
        count = self.documents.draw_count(source.form, random)
        places = range(place, place + count)
        rows = [
            source.rows[int(row)]
            for row in self._order(name, epoch).take(places, mode="wrap")
        ]
        try:
            utterances = [
                Utterance.from_row(row, self.vocabulary.expressive)
                for row in rows
            ]
            segments = self.documents(source.form, utterances, random)
            ids = self.vocabulary.encode(segments)
        except ValueError as error:
            if epoch == 0:
                labels = ", ".join(
                    str(row.get("utterance") or row.get("text")) for row in rows
                )
                logger.warning("%s (%s) is left out: %s", labels, name, error)
            return None
        return np.array([*ids, self.vocabulary.eos_id], np.int32)

    def _order(self, name: str, epoch: int) -> np.ndarray:
        """Return the order of a source's rows in an epoch."""
        if name not in self._orders or self._orders[name][0] != epoch:
            seed = derive_seed(self.seed, name, epoch, "order")
            rows = len(self.sources[name].rows)
            order = np.random.default_rng(seed).permutation(rows)
            self._orders[name] = epoch, order
        return self._orders[name][1]
