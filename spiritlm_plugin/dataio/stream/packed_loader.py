"""Packed rows in batches: the share of each process, in epochs of steps."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import count, islice
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
from spiritlm_plugin.dataio.stream.packing import labels_of
from spiritlm_plugin.dataio.stream.resuming import (
    check_accumulation,
    warn_of_changes,
)
from spiritlm_plugin.utils.arguments import whole_number


@dataclass
class PackedBatch:
    """Rows that go through the model at a time.

    Arguments
    ---------
    ids, positions : Tensor
        As of `pack`, int64, shape (rows, size).
    step_targets : int
        What the loss of a step, summed over all processes and batches, is
        divided by: the tokens of all its rows but the first of each.
    shares : int
        Batches of the step, of all processes.
    end : int
        Rows that the stream has given when the step is done.
    learned : Tensor, optional
        Whether a token is learned, where questions are not, shape (rows, size).
    own_targets : int
        Tokens that the rows of this process have to predict in the step.
    """

    ids: Tensor
    positions: Tensor
    step_targets: int
    shares: int
    end: int = 0
    learned: Tensor | None = None
    own_targets: int = 0

    @property
    def labels(self) -> Tensor:
        """Return the token that each one is to predict, or -100.

        Returns
        -------
        Tensor
            Shape (rows, size).
        """
        labels = labels_of(self.ids, self.positions)
        if self.learned is None:
            return labels
        return labels.masked_fill(~self.learned.roll(-1, 1), -100)


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
    processes: each is the next row of another chunk. The chunks are shared
    out: the first batch of a step is the first process's, the next that of
    the second, and so on, then their second batches. A process makes its own
    chunks and no others.

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
    settings : dict, optional
        What the stream is made by. A saved loader that goes on with others
        warns of each.

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
    ...     DocumentMaker(), size=64, seed=1,
    ... )
    >>> batches = list(PackedLoader(mixture, step_rows=6, steps=3))
    >>> len(batches), batches[0].ids.shape, batches[2].end
    (3, torch.Size([6, 64]), 18)
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
        settings: Mapping[str, str] | None = None,
    ):
        whole_number("step_rows", step_rows)
        whole_number("steps", steps)
        whole_number("accumulation", accumulation)
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
        self.settings = dict(settings or {})
        self.end = 0

    def __iter__(self) -> PackedLoader:
        """Go on with the stream."""
        if self.iterator is None:
            rows = range(self.step_rows)
            mine = [
                row
                for row in rows
                if row // self.batch_rows % self.world_size == self.rank
            ]
            # It must not refer to this loader: what is left to the garbage
            # collector takes seconds to stop its workers.
            steps = _steps(
                self.mixture,
                self.step_rows,
                mine,
                self.end // self.step_rows,
                self.workers,
            )
            shape = self.step_rows, self.batch_rows
            self.iterator = (
                batch for step in steps for batch in divide(*step, *shape)
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
        state |= {"end": self.end, "step_rows": self.step_rows}
        state |= {"accumulation": self.accumulation}
        state |= {"settings": self.settings}
        text = json.dumps(state)
        Path(path).write_text(text, encoding="utf-8")

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
        self.step, self.total_steps = state["step"], state["total_steps"]
        if not isinstance(state["end"], int):
            raise ValueError(
                f"{path} is of a stream of another version; start the training "
                "anew, in another output_folder"
            )
        self.end = state["end"]
        warn_of_changes(state.get("settings", {}), self.settings)
        if state.get("step_rows", self.step_rows) != self.step_rows:
            # Other rows stand side by side: go on with chunks nobody began.
            turn = self.step_rows * self.mixture.chunk_rows
            self.end = -(-self.end // turn) * turn
        self.iterator = None


def _steps(
    mixture: Mixture, step_rows: int, mine: list[int], step: int, workers: int
) -> Iterator[tuple[Tensor, Tensor, int]]:
    """Yield the rows of a process in each step, from a step on, and its end.

    While the rows of a chunk last, a step has one of each of so many chunks
    as it has rows.
    """
    turn, first = divmod(step, mixture.chunk_rows)
    numbers = (
        turns * step_rows + chunk for turns in count(turn) for chunk in mine
    )
    # While a step is computed the workers make all chunks of the next one.
    ahead = 1 - -len(mine) // workers if workers else None
    chunks = iter(
        DataLoader(
            _Chunks(mixture),
            batch_size=None,
            sampler=numbers,
            num_workers=workers,
            prefetch_factor=ahead,
        )
    )
    while True:
        ids, positions = map(torch.stack, zip(*islice(chunks, len(mine))))
        for row in range(first, mixture.chunk_rows):
            step += 1
            yield ids[:, row], positions[:, row], step * step_rows
        first = 0


def divide(
    ids: Tensor, positions: Tensor, end: int, step_rows: int, batch_rows: int
) -> list[PackedBatch]:
    """Divide the rows that a process has of a step among batches.

    Arguments
    ---------
    ids, positions : Tensor
        As of `Mixture.chunk`, shape (rows, size).
    end : int
        See `PackedBatch`.
    step_rows, batch_rows : int
        Rows of the step, in all processes, and of a batch.

    Returns
    -------
    list of PackedBatch
    """
    targets = step_rows * (ids.shape[1] - 1)
    shares = step_rows // batch_rows
    learned = ids >= 0
    ids = torch.where(learned, ids, ~ids)
    parts = zip(*(x.split(batch_rows) for x in (ids, positions, learned)))
    batches = [
        PackedBatch(one.long(), other.long(), targets, shares, end, mask)
        for one, other, mask in parts
    ]
    own = sum(int((batch.labels >= 0).sum()) for batch in batches)
    return [replace(batch, own_targets=own) for batch in batches]
