"""Documents as ids, of which some are read and not learned.

A token that is not learned, such as those of a question, is written as ``~id``,
which is negative: so documents are packed and batched as all others are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from spiritlm_plugin.dataio.units.segments import Segment
from spiritlm_plugin.dataio.units.vocabulary import Vocabulary


class Part(NamedTuple):
    """A part of a document.

    Arguments
    ---------
    segments : sequence of segments
        A whole document; or a question or an answer, of one modality, perhaps
        with a `Break` behind it.
    learned : bool
        Whether the model learns to say it.
    """

    segments: Sequence[Segment]
    learned: bool


def encode_parts(
    vocabulary: Vocabulary, parts: Sequence[Part]
) -> tuple[list[int], int]:
    """Return the ids of a document, and the one that ends it.

    Arguments
    ---------
    vocabulary : Vocabulary
        Of the model.
    parts : sequence of Part
        In their order. Of several, each is behind a marker of its own, which
        is not learned: who asks gives it.

    Returns
    -------
    ids : list of int
        As of `Vocabulary.encode`; ``~id`` where nothing is learned.
    end : int
        The end of the document, learned where an answer stands before it.

    Example
    -------
    >>> from spiritlm_plugin.dataio.units.segments import Text, Transcript
    >>> vocabulary = Vocabulary.extend(example_text_tokenizer(), phonetic=4)
    >>> parts = [Part([Text("a")], False), Part([Transcript("b")], True)]
    >>> ids, end = encode_parts(vocabulary, parts)
    >>> [id for id in ids if id >= 0] == vocabulary.encode_text("b")
    True
    >>> [max(id, ~id) for id in ids] == vocabulary.encode(
    ...     [Text("a"), Transcript("b")]
    ... )
    True
    """
    start = vocabulary.text.prompt_start
    if len(parts) == 1:
        return vocabulary.encode(parts[0].segments), vocabulary.eos_id
    ids = [~index for index in start]
    for segments, learned in parts:
        marker, *content = vocabulary.encode(segments)[len(start) :]
        ids.append(~marker)
        ids += content if learned else [~index for index in content]
    end = vocabulary.eos_id
    return ids, end if parts[-1].learned else ~end


def unlearned(ids: np.ndarray) -> np.ndarray:
    """Mark all ids as not learned.

    Example
    -------
    >>> unlearned(np.array([5, ~5])).tolist()
    [-6, -6]
    """
    return np.minimum(ids, ~ids)
