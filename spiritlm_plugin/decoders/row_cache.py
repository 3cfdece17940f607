"""Keys and values of rows that come and go."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from spiritlm_plugin.decoders.llama_steps import Pair, Past

# Columns that are added at least, so that they are not added often.
_MORE = 64


class RowCache:
    """Keys and values of rows that all end in the same column.

    A row that begins later has columns in front of it that are masked. Rows
    in use are the first ones; columns that none of them uses are not looked
    at, and given up when there is no room left.

    Arguments
    ---------
    rows : int
        That it has at most.
    device : torch.device
        Where they are.

    Example
    -------
    >>> past = Past([(torch.ones(1, 1, 3, 2),) * 2], torch.ones(1, 3).bool())
    >>> cache = RowCache(2, torch.device("cpu"))
    >>> cache.place(past, [3])
    >>> cache.begin_step()
    >>> keys, _ = cache.store(0, torch.zeros(1, 1, 1, 2), torch.zeros(1, 1, 1, 2))
    >>> keys[0, 0, :, 0]
    tensor([1., 1., 1., 0.])
    """

    def __init__(self, rows: int, device: torch.device):
        self.rows = rows
        self.starts: list[int] = []
        self.end = 0
        self._first = 0
        # Of each layer, shape (2, rows, heads, columns, channels).
        self._kept: list[Tensor] = []
        self._seen = torch.zeros(rows, 0, dtype=torch.bool, device=device)

    def __len__(self) -> int:
        """Return how many rows are in use."""
        return len(self.starts)

    def place(self, past: Past, lengths: Sequence[int]) -> None:
        """Add rows.

        Arguments
        ---------
        past : Past
            Of their tokens, padded in front.
        lengths : sequence of int
            Tokens of each.
        """
        if not self._kept:
            self._kept = [
                key.new_empty(2, 1, key.shape[1], 0, key.shape[3])
                for key, _ in past.pairs
            ]
        tokens = past.tokens
        if self.end < tokens:
            front = tokens - (self.end - min(self.starts, default=self.end))
            self._resize(front, tokens + _MORE)
        new = slice(len(self), len(self) + len(lengths))
        columns = slice(self.end - tokens, self.end)
        for kept, pair in zip(self._kept, past.pairs):
            for own, x in zip(kept, pair):
                own[new, :, columns] = x
        self._seen[new] = False
        self._seen[new, columns] = past.mask
        self.starts += [self.end - length for length in lengths]

    def drop(self, row: int) -> None:
        """Give up a row; the last one takes its place."""
        last = len(self) - 1
        self.starts[row] = self.starts[last]
        if row != last:
            columns = slice(self.starts[last], self.end)
            for kept in self._kept:
                kept[:, row, :, columns] = kept[:, last, :, columns]
            self._seen[row] = self._seen[last]
        self.starts.pop()

    def begin_step(self) -> None:
        """Make room for a token more of each row."""
        self._first = min(self.starts)
        if self.end == self._seen.shape[1]:
            width = self.end - self._first
            self._resize(0, width + max(_MORE, width // 2))
        self._seen[: len(self), self.end] = True
        self.end += 1

    def store(self, number: int, key: Tensor, value: Tensor) -> Pair:
        """Keep keys and values of the new tokens; return those of all.

        Arguments
        ---------
        number : int
            Of the layer.
        key, value : Tensor
            Shape (rows, heads, 1, channels).

        Returns
        -------
        tuple of Tensor
            Shape (rows, heads, tokens, channels).
        """
        used = self._kept[number][:, : len(self), :, self._first : self.end]
        keys, values = used.unbind()
        keys[:, :, -1:] = key
        values[:, :, -1:] = value
        return keys, values

    @property
    def mask(self) -> Tensor | None:
        """True where there are tokens; None if they are everywhere."""
        if max(self.starts) == self._first:
            return None
        return self._seen[: len(self), self._first : self.end]

    def _resize(self, front: int, columns: int) -> None:
        """Move what is in use behind so many columns, of a number in all."""
        first = min(self.starts, default=self.end)
        shift = front - first
        used, moved = slice(first, self.end), slice(front, self.end + shift)
        rows = slice(len(self))
        for number, kept in enumerate(self._kept):
            _, _, heads, _, channels = kept.shape
            new = kept.new_zeros(2, self.rows, heads, columns, channels)
            new[:, rows, :, moved] = kept[:, rows, :, used]
            self._kept[number] = new
        seen = self._seen.new_zeros(self.rows, columns)
        seen[rows, moved] = self._seen[rows, used]
        self._seen = seen
        self.starts = [start + shift for start in self.starts]
        self.end += shift
        self._first = front
