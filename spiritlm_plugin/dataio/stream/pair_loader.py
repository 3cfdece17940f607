"""Preference pairs in batches: the share of each process, in epochs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from speechbrain.dataio.dataloader import LoopedLoader
from speechbrain.utils.checkpoints import (
    mark_as_loader,
    mark_as_saver,
    register_checkpoint_hooks,
)
from torch import Tensor
from torch.utils.data import Dataset

from spiritlm_plugin.dataio.stream.preferences import Tokens
from spiritlm_plugin.dataio.stream.resuming import (
    check_accumulation,
    warn_of_changes,
)
from spiritlm_plugin.utils.arguments import whole_number
from spiritlm_plugin.utils.seeds import derive_seed

# The label of what no answer has: the prompt, and padding.
_NOTHING = -100


@dataclass
class PairBatch:
    """Pairs that go through the model at a time, as rows padded at the end.

    A model that looks at nothing behind a token needs no mask for them.

    Arguments
    ---------
    ids : Tensor
        Of the prompts with the chosen answers, then with the rejected ones,
        int64, shape (2 * pairs, tokens).
    labels : Tensor
        The token of an answer that each one predicts, or else -100, shape
        (2 * pairs, tokens).
    numbers : Tensor
        Of the pairs, shape (pairs,).
    step_pairs : int
        What the loss of a step, summed over all processes and batches, is
        divided by.
    shares : int
        Batches of the step, of all processes.
    """

    ids: Tensor
    labels: Tensor
    numbers: Tensor
    step_pairs: int
    shares: int = 1

    @classmethod
    def of(
        cls,
        pairs: Sequence[Tokens],
        numbers: Sequence[int],
        filler: int,
        step_pairs: int,
        shares: int = 1,
    ) -> PairBatch:
        """Return a batch of some pairs.

        Arguments
        ---------
        pairs : sequence of Tokens
            All of them.
        numbers : sequence of int
            Those of the batch.
        filler : int
            The id of padding; any will do.
        step_pairs, shares : int
            See `PairBatch`.

        Example
        -------
        >>> pair = Tokens(*map(np.array, ([5, 6], [7], [8, 9])))
        >>> batch = PairBatch.of([pair], [0], filler=0, step_pairs=1)
        >>> batch.ids.tolist(), batch.labels.tolist()
        ([[5, 6, 7, 0], [5, 6, 8, 9]], [[-100, 7, -100, -100], [-100, 8, 9, -100]])
        """
        some = [pairs[i] for i in numbers]
        rows = [(pair.context, pair.chosen) for pair in some]
        rows += [(pair.context, pair.rejected) for pair in some]
        shape = len(rows), max(pair.longest for pair in some)
        ids = torch.full(shape, filler)
        labels = torch.full(shape, _NOTHING)
        for row, targets, (context, answer) in zip(ids, labels, rows):
            start, end = len(context), len(context) + len(answer)
            row[:start] = torch.from_numpy(context)
            row[start:end] = torch.from_numpy(answer)
            targets[start - 1 : end - 1] = row[start:end]
        return cls(ids, labels, torch.tensor(numbers), step_pairs, shares)

    @property
    def positions(self) -> Tensor:
        """Of each token in its row, shape (2 * pairs, tokens)."""
        return torch.arange(self.ids.shape[1]).expand_as(self.ids)


@register_checkpoint_hooks
class PairLoader(LoopedLoader):
    """The share of a process in the pairs, in epochs of so many steps.

    A step takes the next ``step_pairs`` pairs, whatever the number of
    processes; those of similar length share a batch. When all were there they
    come again in another order, which the seed decides; what does not fill a
    step is left out of the round.

    Arguments
    ---------
    pairs : sequence of Tokens
        All of them.
    step_pairs : int
        Pairs of an optimizer step.
    steps : int
        Optimizer steps of an epoch.
    filler : int
        As of `PairBatch.of`.
    seed : int
        Decides about the order.
    accumulation : int
        Batches of a step, on each process.
    rank, world_size : int
        This process, and how many there are.

    Raises
    ------
    ValueError
        If the pairs of a step cannot be shared out evenly, or there are fewer
        than a step has.

    Example
    -------
    >>> pairs = [Tokens(*map(np.array, ([5], [6], [7])))] * 7
    >>> loader = PairLoader(pairs, step_pairs=4, steps=3, filler=0, seed=1)
    >>> len(loader), next(iter(loader)).ids.shape
    (3, torch.Size([8, 2]))
    """

    step: int
    total_steps: int

    def __init__(
        self,
        pairs: Sequence[Tokens],
        step_pairs: int,
        steps: int,
        filler: int,
        seed: int,
        accumulation: int = 1,
        rank: int = 0,
        world_size: int = 1,
    ):
        whole_number("step_pairs", step_pairs)
        whole_number("accumulation", accumulation)
        whole_number("steps", steps)
        self.shares = accumulation * world_size
        if step_pairs % self.shares:
            raise ValueError(
                f"{step_pairs} pairs a step cannot be shared by {world_size} "
                f"processes in {accumulation} batches each; choose a multiple "
                f"of {self.shares}"
            )
        if len(pairs) < step_pairs:
            raise ValueError(
                f"{len(pairs)} pairs do not fill a step of {step_pairs}; make "
                "more pairs, or lower step_pairs"
            )
        super().__init__(None, steps * accumulation)
        self.pairs = pairs
        self.step_pairs = step_pairs
        self.filler = filler
        self.seed = seed
        self.accumulation = accumulation
        self.rank, self.world_size = rank, world_size
        self._order = lru_cache(1)(self._draw_order)

    def __iter__(self) -> PairLoader:
        """Go on where it is."""
        return self

    def __next__(self) -> PairBatch:
        """Return this process's next batch."""
        if self.step >= self.epoch_length:
            self.step = 0
            raise StopIteration
        step, turn = divmod(self.total_steps, self.accumulation)
        self.step += 1
        self.total_steps += 1
        groups = self._groups(step)
        chosen = groups[turn * self.world_size + self.rank]
        return PairBatch.of(
            self.pairs, chosen, self.filler, self.step_pairs, self.shares
        )

    @mark_as_saver
    def save(self, path: str | Path) -> None:
        """Save where in the pairs and in the epoch the loader is."""
        state = {"step": self.step, "total_steps": self.total_steps}
        state |= {"accumulation": self.accumulation, **self._settings()}
        Path(path).write_text(json.dumps(state), encoding="utf-8")

    @mark_as_loader
    def load(self, path: str | Path, end_of_epoch: bool = True) -> None:
        """Go on where a saved loader was.

        Raises
        ------
        CheckpointError
            As of `check_accumulation`.
        """
        state = json.loads(Path(path).read_text(encoding="utf-8"))
        check_accumulation(Path(path), state, self.accumulation)
        warn_of_changes(state, self._settings())
        steps = state["total_steps"] // state["accumulation"]
        self.step = state["step"]
        self.total_steps = steps * self.accumulation

    def _settings(self) -> dict[str, int]:
        return {"seed": self.seed, "step_pairs": self.step_pairs}

    def _groups(self, step: int) -> list[list[int]]:
        """Return the pairs of each batch of a step, in all processes."""
        turn, place = divmod(step, len(self.pairs) // self.step_pairs)
        start = place * self.step_pairs
        order = self._order(turn)[start : start + self.step_pairs]
        return length_groups(self.pairs, order.tolist(), self.shares)

    def _draw_order(self, turn: int) -> np.ndarray:
        seed = derive_seed(self.seed, "pairs", turn)
        return np.random.default_rng(seed).permutation(len(self.pairs))


def length_groups(
    pairs: Sequence[Tokens], numbers: Sequence[int], count: int
) -> list[list[int]]:
    """Divide pairs into groups of similar length, as even as can be.

    Arguments
    ---------
    pairs : sequence of Tokens
        All of them.
    numbers : sequence of int
        Those that are divided.
    count : int
        Of groups.

    Example
    -------
    >>> pairs = [Tokens(*map(np.zeros, (n, 1, 1))) for n in (9, 2, 5, 3)]
    >>> length_groups(pairs, [0, 1, 2, 3], 2)
    [[1, 3], [2, 0]]
    """
    order = sorted(numbers, key=lambda i: (pairs[i].longest, i))
    return [part.tolist() for part in np.array_split(np.array(order), count)]


class EvenBatches(Dataset[PairBatch]):
    """A process's share of all pairs, each once, in an order of their own.

    All processes get as many batches.

    Arguments
    ---------
    pairs : sequence of Tokens
        All of them.
    size : int
        Pairs of a batch, at most; of one, perhaps two.
    filler : int
        As of `PairBatch.of`.
    rank, world_size : int
        This process, and how many there are.

    Raises
    ------
    ValueError
        If there are fewer pairs than processes.

    Example
    -------
    >>> pairs = [Tokens(*map(np.array, ([5], [6], [7])))] * 5
    >>> batches = EvenBatches(pairs, 2, filler=0, rank=1, world_size=2)
    >>> [len(batches[i].numbers) for i in range(len(batches))]
    [1, 1]
    """

    def __init__(
        self,
        pairs: Sequence[Tokens],
        size: int,
        filler: int,
        rank: int = 0,
        world_size: int = 1,
    ):
        if len(pairs) < world_size:
            raise ValueError(
                f"{len(pairs)} pairs are too few for {world_size} processes; "
                "make more pairs, or start fewer processes"
            )
        self.pairs, self.filler = pairs, filler
        size = whole_number("batch_pairs", size)
        rounds = -(-len(pairs) // (size * world_size))
        rounds = min(rounds, len(pairs) // world_size)  # none is empty
        groups = length_groups(pairs, range(len(pairs)), rounds * world_size)
        self.groups = groups[rank::world_size]

    def __len__(self) -> int:
        """Return the number of batches."""
        return len(self.groups)

    def __getitem__(self, number: int) -> PairBatch:
        """Return a batch."""
        group = self.groups[number]
        return PairBatch.of(self.pairs, group, self.filler, len(group))
