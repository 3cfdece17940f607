"""Packed rows in batches: the share of each process, in epochs of steps."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import torch
from speechbrain.dataio.dataloader import LoopedLoader
from speechbrain.utils.checkpoints import (
    mark_as_loader,
    mark_as_saver,
    register_checkpoint_hooks,
)
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from spiritlm_plugin.dataio.stream.mixing import Mixture


@dataclass
class PackedBatch:
    """Rows that go through the model at a time.

    Arguments
    ---------
    ids, positions : Tensor
        As of `pack`, int64, shape (rows, size).
    step_targets : int
        Tokens that are predicted in the whole step, by all processes and all
        its batches.
    shares : int
        Batches of the step, of all processes.
    end : tuple of int
        Chunk and row that the stream goes on with after the step.
    """

    ids: Tensor
    positions: Tensor
    step_targets: int
    shares: int
    end: tuple[int, int] = (0, 0)


class _Chunks(Dataset[tuple[Tensor, Tensor]]):
    """A mixture as a dataset."""

    def __init__(self, mixture: Mixture):
        self.mixture = mixture

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        return self.mixture.chunk(number)


@register_checkpoint_hooks
class PackedLoader(LoopedLoader):
    """The share of a process in the stream, in epochs of so many steps.

    A step takes ``step_rows`` rows of the stream, whatever the number of
    processes: the first batch of the first process, that of the second, and
    so on, then their second batches.

    Arguments
    ---------
    mixture : Mixture
        The stream.
    step_rows : int
        Rows of an optimizer step.
    steps : int
        Optimizer steps of an epoch.
    accumulation : int
        Batches of a step, on each process.
    workers : int
        Processes that make chunks.
    rank, world_size : int
        This process, and how many there are.

    Raises
    ------
    ValueError
        If the rows of a step cannot be shared out evenly.

    Example
    -------
    >>> from spiritlm_plugin.dataio.stream.documents import DocumentMaker
    >>> from spiritlm_plugin.dataio.stream.mixing import Source
    >>> text = example_text_tokenizer()
    >>> source = Source([{"text": "the cat sat"}] * 100, "text")
    >>> mixture = Mixture(
    ...     {"text": source}, Vocabulary.extend(text, phonetic=4),
    ...     DocumentMaker(), size=64, seed=1, chunk_rows=4,
    ... )
    >>> batches = list(PackedLoader(mixture, step_rows=6, steps=3))
    >>> len(batches), batches[0].ids.shape, batches[2].end
    (3, torch.Size([6, 64]), (3, 3))
    """

    iterator: Iterator[PackedBatch] | None

    def __init__(
        self,
        mixture: Mixture,
        step_rows: int,
        steps: int,
        accumulation: int = 1,
        workers: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ):
        batches = accumulation * world_size
        if step_rows % batches:
            raise ValueError(
                f"{step_rows} rows a step cannot be shared by {world_size} "
                f"processes in {accumulation} batches each; choose a multiple "
                f"of {batches}"
            )
        super().__init__(None, steps * accumulation)
        self.mixture = mixture
        self.step_rows = step_rows
        self.batch_rows = step_rows // batches
        self.accumulation = accumulation
        self.workers = workers
        self.rank = rank
        self.world_size = world_size
        self.end = (0, 0)

    def __iter__(self) -> PackedLoader:
        """Go on with the stream."""
        if self.iterator is None:
            # It must not refer to this loader: what is left to the garbage
            # collector takes seconds to stop its workers.
            rows = self.batch_rows
            share = slice(self.rank, None, self.world_size)
            steps = _steps(self.mixture, self.step_rows, self.end, self.workers)
            self.iterator = (
                batch
                for ids, positions, end in steps
                for batch in divide(ids, positions, rows, end)[share]
            )
        return self

    def __next__(self) -> PackedBatch:
        """Return this process's next batch."""
        batch = super().__next__()
        self.end = batch.end
        return batch

    @mark_as_saver
    def save(self, path: str | Path) -> None:
        """Save where in the stream and in the epoch the loader is."""
        state = {"step": self.step, "total_steps": self.total_steps}
        text = json.dumps(state | {"end": self.end})
        Path(path).write_text(text, encoding="utf-8")

    @mark_as_loader
    def load(self, path: str | Path, end_of_epoch: bool = True) -> None:
        """Go on where a saved loader was."""
        state = json.loads(Path(path).read_text(encoding="utf-8"))
        self.step, self.total_steps = state["step"], state["total_steps"]
        self.end = tuple(state["end"])
        self.iterator = None


def _steps(
    mixture: Mixture, rows: int, end: tuple[int, int], workers: int
) -> Iterator[tuple[Tensor, Tensor, tuple[int, int]]]:
    """Yield so many rows at a time, from ``end`` on, and where they end."""
    number, offset = end
    chunks = iter(
        DataLoader(
            _Chunks(mixture),
            batch_size=None,
            sampler=count(number),
            num_workers=workers,
        )
    )
    chunk = next(chunks)
    while True:
        parts, missing = [], rows
        while missing:
            if offset == len(chunk[0]):
                chunk, number, offset = next(chunks), number + 1, 0
            taken = [x[offset : offset + missing] for x in chunk]
            parts.append(taken)
            offset += len(taken[0])
            missing -= len(taken[0])
        ids, positions = map(torch.cat, zip(*parts))
        yield ids, positions, (number, offset)


def divide(
    ids: Tensor,
    positions: Tensor,
    rows: int,
    end: tuple[int, int] = (0, 0),
) -> list[PackedBatch]:
    """Divide the rows of a step among batches.

    Arguments
    ---------
    ids, positions : Tensor
        As of `pack`, shape (rows, size).
    rows : int
        Of a batch.
    end : tuple of int
        See `PackedBatch`.

    Returns
    -------
    list of PackedBatch
    """
    targets = int((positions[:, 1:] > 0).sum())
    parts = list(zip(ids.split(rows), positions.split(rows)))
    return [
        PackedBatch(one.long(), other.long(), targets, len(parts), end)
        for one, other in parts
    ]
