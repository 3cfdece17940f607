"""Outputs in which some tokens are given and the model speaks in between."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import LogitsProcessor

# Where the model speaks, in a script.
SPEAK = -1


class ScriptedTokens(LogitsProcessor):
    """Force the tokens of a script, and let the model speak where it says so.

    Arguments
    ---------
    scripts : sequence of sequences of int
        For each row the ids to come, with `SPEAK` where the model speaks: it
        may add speech until it chooses the id behind, and the script goes on
        behind that one. The last id ends the row.
    speech : Tensor
        The ids of speech, of bool, shape (rows,).

    Example
    -------
    >>> speech = torch.tensor([False, False, True, True])
    >>> scripted = ScriptedTokens([[SPEAK, 1, 0]], speech)
    >>> ids, scores = torch.tensor([[1]]), torch.zeros(1, 4)
    >>> scripted(ids, scores)  # speech, or 1
    tensor([[-inf, 0., 0., 0.]])
    >>> scripted(torch.tensor([[1, 1]]), scores)  # 1 was chosen
    tensor([[0., -inf, -inf, -inf]])
    """

    def __init__(self, scripts: Sequence[Sequence[int]], speech: Tensor):
        # Twice the last id, so that there is one behind each place.
        self.scripts = pad_sequence(
            [torch.tensor([*script, script[-1]]) for script in scripts],
            batch_first=True,
        ).to(speech.device)
        last = torch.tensor([len(script) - 1 for script in scripts])
        self.last = last.to(speech.device)
        self.speech = speech
        self.places: Tensor | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return scores with tokens that the script forbids at -infinity."""
        if self.places is None:
            self.places = torch.zeros_like(self.last)
        else:
            here, behind = self._at(0), self._at(1)
            chosen = (here == SPEAK) & (input_ids[:, -1] == behind)
            steps = (here != SPEAK).long() + 2 * chosen
            self.places = torch.minimum(self.places + steps, self.last)
        here, behind = self._at(0), self._at(1)
        speaks = here == SPEAK
        allowed = self.speech & speaks[:, None]
        allowed.scatter_(1, torch.where(speaks, behind, here)[:, None], True)
        return scores.masked_fill(~allowed, -torch.inf)

    def _at(self, offset: int) -> Tensor:
        places = (self.places + offset)[:, None]
        return self.scripts.gather(1, places).squeeze(1)
