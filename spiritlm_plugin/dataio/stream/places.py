"""Where in a source each chunk of the stream begins.

Any place can be found without those before it, so that a process makes its
own chunks only, and no order of all utterances is kept in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from spiritlm_plugin.utils.seeds import derive_seed

# Utterances that are shuffled among each other.
BLOCK = 1024
_ROUNDS = 4


def shuffled_place(place: int, count: int, seed: int) -> int:
    """Return what stands at a place in a random order, without the order.

    A Feistel network permutes the numbers of twice as many bits as half of
    the count has; what falls behind the count is permuted again.

    Source: Black and Rogaway, "Ciphers with Arbitrary Finite Domains", 2002.

    Arguments
    ---------
    place : int
        Below ``count``.
    count : int
        Of the items.
    seed : int
        Of the order.

    Example
    -------
    >>> sorted(shuffled_place(i, 5, 7) for i in range(5))
    [0, 1, 2, 3, 4]
    """
    bits = max((count - 1).bit_length() + 1, 2) // 2
    mask = (1 << bits) - 1
    while True:
        left, right = place >> bits, place & mask
        for turn in range(_ROUNDS):
            mixed = derive_seed(seed, turn, right) & mask
            left, right = right, left ^ mixed
        place = left << bits | right
        if place < count:
            return place


def schedule(shares: Sequence[float], turns: int) -> np.ndarray:
    """Divide turns among sources, as evenly as their shares allow.

    Arguments
    ---------
    shares : sequence of float
        Of each source, relative to the others.
    turns : int
        How many there are.

    Returns
    -------
    numpy.ndarray
        The source of each turn, shape (turns,). After any number of turns
        each source has had its share of them, to within two.

    Example
    -------
    >>> schedule([2, 1, 1], 8).tolist()
    [0, 1, 2, 0, 0, 1, 2, 0]
    """
    wanted = np.asarray(shares, np.float64) / sum(shares)
    had = np.zeros(len(wanted))
    order = np.zeros(turns, np.int64)
    for turn in range(turns):
        order[turn] = source = int((wanted * (turn + 1) - had).argmax())
        had[source] += 1
    return order


class Place(NamedTuple):
    """Where a chunk begins.

    Arguments
    ---------
    block : int
        Of so many utterances each; see `BLOCK`.
    offset : float
        Tokens of the block that come before.
    epoch : int
        Of the source.
    """

    block: int
    offset: float
    epoch: int


class Places:
    """The places of a source's chunks, each once in an epoch.

    The documents of a source, in their order, are divided into chunks of
    equal numbers of tokens, at other places in each epoch; the chunks come in
    random order.

    Arguments
    ---------
    lengths : numpy.ndarray
        Tokens of the documents of each utterance, roughly; none where it
        makes none.
    chunk_tokens : int
        Tokens of a chunk.
    seed : int
        Of all that is random.

    Raises
    ------
    ValueError
        If there are no tokens.

    Example
    -------
    >>> places = Places(np.full(100, 10), chunk_tokens=250, seed=1)
    >>> places.count, sorted(places[i].offset // 250 for i in range(4))
    (4, [0.0, 1.0, 2.0, 3.0])
    """

    def __init__(self, lengths: np.ndarray, chunk_tokens: int, seed: int):
        starts = np.arange(0, len(lengths), BLOCK)
        sums = np.add.reduceat(lengths, starts, dtype=np.float64)
        self._ends = sums.cumsum()
        self.tokens = float(self._ends[-1])
        if not self.tokens:
            raise ValueError("no document can be made of any utterance")
        self.count = max(round(self.tokens / chunk_tokens), 1)
        self.seed = seed

    def __getitem__(self, number: int) -> Place:
        """Return the place of a chunk; they never end."""
        epoch, turn = divmod(number, self.count)
        seed = derive_seed(self.seed, epoch)
        step = self.tokens / self.count
        phase = seed / 2**32
        token = (shuffled_place(turn, self.count, seed) + phase) * step
        token %= self.tokens
        block = int(self._ends.searchsorted(token, "right"))
        block = min(block, len(self._ends) - 1)
        before = float(self._ends[block - 1]) if block else 0.0
        return Place(block, token - before, epoch)
