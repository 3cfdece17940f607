"""Continuing prompts that come while others are continued."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from weakref import proxy

import torch

from spiritlm_plugin.decoders.continuous import Continuous, Piece, _Rows
from spiritlm_plugin.decoders.shared_prefix import Group
from spiritlm_plugin.lobes.language_model import LanguageModel


class Joining(Continuous):
    """New tokens of prompts that come and go.

    What a prompt gives is what it gives in `Continuous`.

    Arguments
    ---------
    lm, output, temperature, top_p, stop, style_units
        As of `Continuous`.
    rows : int
        Prompts to continue at a time; those that come then have to wait.

    Example
    -------
    >>> lm = load_language_model(
    ...     f"{checkpoints}/spiritlm_model/spirit-lm-base-7b"
    ... )
    >>> prompt = lm.vocabulary.encode([("text", "the cat")])
    >>> batch = Joining(lm, "text", temperature=0)
    >>> first = batch.add(prompt, max_new_tokens=3)
    >>> pieces = batch.step()
    >>> second = batch.add(prompt, max_new_tokens=2)
    >>> while batch:
    ...     pieces += batch.step()
    >>> [sum(len(p.ids) for p in pieces if p.prompt == i) for i in range(2)]
    [3, 2]
    """

    def __init__(
        self,
        lm: LanguageModel,
        output: str,
        temperature: float = 0.8,
        top_p: float = 0.95,
        stop: bool = True,
        rows: int = 16,
        style_units: Sequence[int] | None = None,
    ):
        super().__init__(
            lm,
            (),
            output,
            lm.context,
            temperature,
            top_p,
            (),
            stop,
            style_units=style_units,
        )
        self._prompts: dict[int, list[int]] = {}
        self._seeds: dict[int, int] = {}
        self._limits: dict[int, int] = {}
        self._next = 0
        self.prompts = self._prompts
        if self.seeds is not None:
            self.seeds = self._seeds
        # Without a circle, keys and values go at once with this.
        self._rows = _Rows(proxy(self), Group(0, []), rows)

    def __len__(self) -> int:
        """Return how many prompts have not ended."""
        return len(self._prompts)

    def add(
        self, prompt: Sequence[int], seed: int = 0, max_new_tokens: int = 200
    ) -> int:
        """Add a prompt, and return its number.

        Raises
        ------
        ValueError
            If it fills the model's context, or there is nothing to make.
        """
        if max_new_tokens < 1:
            raise ValueError(
                f"max_new_tokens is {max_new_tokens}; it must be at least 1"
            )
        if not 0 < len(prompt) < self.lm.context:
            raise ValueError(
                f"a prompt of {len(prompt)} tokens leaves no room in the "
                f"model's context of {self.lm.context}; shorten it"
            )
        index, self._next = self._next, self._next + 1
        self._prompts[index] = list(prompt)
        self._seeds[index] = seed
        self._limits[index] = max_new_tokens
        longest_first = sorted(
            [*self._rows.queue, index], key=lambda i: -len(self._prompts[i])
        )
        self._rows.queue = deque(longest_first)
        return index

    def limit(self, index: int) -> int:
        """Return how many tokens a prompt gets at most."""
        return self._limits[index]

    @torch.inference_mode()
    def step(self) -> list[Piece]:
        """Read prompts that came, or make the next tokens of those read."""
        if not self:
            return []
        pieces = list(self._rows.go_on())
        for piece in pieces:
            if piece.end_reason:
                self._forget(piece.prompt)
        return pieces

    @torch.inference_mode()
    def drop(self, index: int) -> None:
        """Give up a prompt that has not ended."""
        if index not in self._prompts:
            return
        if index in self._rows.queue:
            self._rows.queue.remove(index)
        for place, row in enumerate(self._rows.rows):
            if row.index == index:
                self._rows.drop(place)
                break
        self._forget(index)

    def _forget(self, index: int) -> None:
        for kept in (self._prompts, self._seeds, self._limits):
            del kept[index]
