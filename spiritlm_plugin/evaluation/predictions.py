"""Predictions of a model, shared among processes and kept as they come."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from speechbrain.utils.distributed import ddp_barrier
from tqdm import tqdm

from spiritlm_plugin.utils.files import (
    naming_full_disk,
    read_json,
    write_file,
)
from spiritlm_plugin.utils.processes import rank_and_world_size

Rows = dict[str, dict[str, Any]]

# Batches that are asked together where that saves work. More would save little
# more, and lose more in a kill.
_JOINED = 8


class PredictionsError(ValueError):
    """Predictions that cannot be used."""


class Predictions:
    """What a model answers to each item, kept in files as it comes.

    Each process of ``torchrun`` writes ``predictions.<rank>.jsonl``, a line
    for each item; when all is predicted they become ``predictions.jsonl``, in
    the order of the ids. A run that was stopped goes on, also in another
    number of processes. ``settings.json`` says what was asked.

    Arguments
    ---------
    folder : str or Path
        Made if there is none.
    settings : dict
        All that decides what is predicted; plain values.
    ids : iterable of str
        Of all items.

    Raises
    ------
    PredictionsError
        If the folder has predictions of other settings, or damaged ones.

    Example
    -------
    >>> predictions = Predictions(tmp, {"shots": 10}, ["a", "b", "c"])
    >>> predictions.add([{"id": "a", "text": "all day"}])
    >>> predictions = Predictions(tmp, {"shots": 10}, ["a", "b", "c"])
    >>> predictions.missing()
    ['b', 'c']
    >>> for batch in predictions.batches(2):
    ...     predictions.add({"id": name, "text": ""} for name in batch)
    >>> list(predictions.gather())
    ['a', 'b', 'c']
    >>> Predictions(tmp, {"shots": 3}, ["a", "b", "c"])
    Traceback (most recent call last):
        ...
    spiritlm_plugin.evaluation.predictions.PredictionsError: ...with another shots (10,
    now 3)...
    """

    def __init__(
        self,
        folder: str | Path,
        settings: Mapping[str, Any],
        ids: Iterable[str],
    ):
        self.folder = Path(folder)
        self.ids = list(ids)
        self.rank, self.world_size = rank_and_world_size()
        if self.rank == 0:
            self._claim(settings)
        ddp_barrier()
        self._compare(settings)
        self._done = set(self._read())
        # Nobody writes before all have read.
        ddp_barrier()
        self._file = self.folder / f"predictions.{self.rank}.jsonl"
        _drop_broken_end(self._file)

    def missing(self, batch_size: int = 1) -> list[str]:
        """Return the ids that this process is to predict."""
        return [name for batch in self._share(batch_size) for name in batch]

    def batches(
        self, batch_size: int, joined: bool = False
    ) -> Iterator[list[str]]:
        """Yield the missing ids of this process in batches, with progress.

        What is batched together does not depend on the number of processes.

        Arguments
        ---------
        batch_size : int
            Ids of a batch.
        joined : bool
            Whether to join batches, eight at a time.
        """
        share, count = self._share(batch_size), _JOINED if joined else 1
        with tqdm(
            total=sum(map(len, share)),
            desc="predicting",
            unit="item",
            disable=self.rank != 0,
        ) as progress:
            while share:
                names = [name for batch in share[:count] for name in batch]
                share = share[count:]
                yield names
                progress.update(len(names))

    def add(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write what was predicted; each row has its ``id``.

        Raises
        ------
        DiskFullError
            If there is no room; what was written before is kept.
        """
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
        with naming_full_disk(self._file), open(self._file, "ab") as file:
            file.write("".join(lines).encode())

    def gather(self) -> Rows | None:
        """Join the files when all processes are done.

        Returns
        -------
        dict or None
            The rows by id on the main process, None on the others.

        Raises
        ------
        PredictionsError
            If an item was not predicted.
        """
        ddp_barrier()
        if self.rank != 0:
            return None
        rows = self._read()
        missing = [name for name in self.ids if name not in rows]
        if missing:
            raise PredictionsError(
                f"{len(missing)} of {len(self.ids)} items are not predicted, "
                f"such as {missing[0]}; start again to go on"
            )
        rows = {name: rows[name] for name in self.ids}
        joined = self.folder / "predictions.jsonl"
        lines = [json.dumps(row, ensure_ascii=False) for row in rows.values()]
        write_file(joined, "\n".join(lines) + "\n")
        for path in self.folder.glob("predictions.*.jsonl"):
            path.unlink()
        return rows

    def _share(self, batch_size: int) -> list[list[str]]:
        if batch_size < 1:
            raise ValueError(f"batch_size must be >= 1, got {batch_size}")
        batches = [
            [n for n in self.ids[i : i + batch_size] if n not in self._done]
            for i in range(0, len(self.ids), batch_size)
        ]
        return [b for b in batches if b][self.rank :: self.world_size]

    def _claim(self, settings: Mapping[str, Any]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        # Settings without predictions are of a run that failed at once.
        if not self._files():
            path = self.folder / "settings.json"
            write_file(path, json.dumps(settings, indent=2) + "\n")

    def _compare(self, settings: Mapping[str, Any]) -> None:
        path = self.folder / "settings.json"
        found = {}
        if path.exists():
            remedy = "delete the folder, or name another output_folder"
            found = read_json(path, remedy, PredictionsError)
        now = json.loads(json.dumps(settings))
        for name in sorted({*found, *now}):
            if found.get(name) != now.get(name):
                raise PredictionsError(
                    f"{self.folder} holds predictions with another {name} "
                    f"({found.get(name)}, now {now.get(name)}); name another "
                    "output_folder, or delete this one"
                )

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("predictions*.jsonl"))

    def _read(self) -> Rows:
        rows: Rows = {}
        for path in self._files():
            for row in _read_lines(path):
                rows.setdefault(row["id"], row)
        return rows


def _read_lines(path: Path) -> list[dict[str, Any]]:
    # What stands behind the last line's end was being written in a kill.
    *lines, _ = path.read_bytes().split(b"\n")
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            hash(row["id"])
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise PredictionsError(
                f"cannot read line {number} of {path}: {error}; delete the "
                "file to have its items predicted again"
            ) from error
        rows.append(row)
    return rows


def _drop_broken_end(path: Path) -> None:
    if path.exists():
        content = path.read_bytes()
        os.truncate(path, content.rfind(b"\n") + 1)
