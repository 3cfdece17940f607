"""The stream of pretraining: documents of several sources, mixed and packed.

The stream is a sequence of chunks, each of one source, which are rows of
documents side by side. A chunk is made of the seed and its number alone:
processes and workers need not talk to each other, make nothing but their own
chunks, and a run that goes on, on as many processes as there are then, reads
on where it was.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from spiritlm_plugin.dataio.stream.documents import DocumentMaker
from spiritlm_plugin.dataio.stream.packing import pack
from spiritlm_plugin.dataio.stream.places import schedule
from spiritlm_plugin.dataio.stream.reading import Source, SourceReader
from spiritlm_plugin.dataio.units.vocabulary import Vocabulary
from spiritlm_plugin.utils.arguments import whole_number
from spiritlm_plugin.utils.seeds import derive_seed

# Tokens of a chunk, but if a row has more. Short rows are made some at a time,
# so that few documents are cut; sources take turns by chunks.
_CHUNK_TOKENS = 4096
# After so many chunks the sources take turns in the same order again.
_TURNS = 4096


class Mixture:
    """Chunks of packed rows.

    Sources take turns, each as often as its share asks for: all rows are
    full, so that shares are kept whatever the lengths of documents, and
    however many cannot be made. A source is read in a random order that is
    new in each of its epochs.

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
    attend_across : bool
        Whether documents in a row see those before them, as one text.

    Raises
    ------
    ValueError
        If there is no source, or no document can be made of one.

    Example
    -------
    >>> text = example_text_tokenizer()
    >>> source = Source([{"text": "the cat sat"}] * 100, "text")
    >>> mixture = Mixture(
    ...     {"text": source}, Vocabulary.extend(text, phonetic=4),
    ...     DocumentMaker(), size=1024, seed=1,
    ... )
    >>> ids, positions = mixture.chunk(0)
    >>> ids.shape, bool((mixture.chunk(0)[0] == ids).all())
    (torch.Size([4, 1024]), True)
    """

    def __init__(
        self,
        sources: Mapping[str, Source],
        vocabulary: Vocabulary,
        documents: DocumentMaker,
        size: int,
        seed: int,
        attend_across: bool = False,
    ):
        if not sources:
            raise ValueError("a mixture needs a source")
        size = whole_number("the tokens of a row", size, least=2)
        total = sum(source.share for source in sources.values())
        for name, source in sources.items():
            if source.share * _TURNS < total:
                raise ValueError(
                    f"the share of {name!r}, {source.share} of {total}, is less "
                    f"than one of {_TURNS} turns; raise it or leave it out"
                )
        self.vocabulary = vocabulary
        self.size = size
        self.seed = seed
        self.attend_across = attend_across
        self.chunk_rows = max(_CHUNK_TOKENS // size, 1)
        self._readers = [
            SourceReader(
                name,
                source,
                vocabulary,
                documents,
                self.chunk_rows * size,
                seed,
                size,
            )
            for name, source in sources.items()
        ]
        shares = [source.share for source in sources.values()]
        self._turns = schedule(shares, _TURNS)
        takes = self._turns == np.arange(len(shares))[:, None]
        # Of each source, the turns that it had before each turn, and in all.
        self._before = takes.cumsum(1) - takes
        self._counts = takes.sum(1)

    def chunk(self, number: int) -> tuple[Tensor, Tensor]:
        """Return a chunk.

        Returns
        -------
        ids, positions : Tensor
            As of `pack`, int32, shape (chunk_rows, size); ``~id`` where
            nothing is learned.
        """
        rounds, turn = divmod(number, _TURNS)
        source = self._turns[turn]
        before = rounds * self._counts[source] + self._before[source, turn]
        ids, positions = pack(
            self._readers[source].read(int(before)),
            self.chunk_rows,
            self.size,
            np.random.default_rng(derive_seed(self.seed, number)),
        )
        if self.attend_across:
            positions[:] = np.arange(self.size)
        return torch.from_numpy(ids), torch.from_numpy(positions)
