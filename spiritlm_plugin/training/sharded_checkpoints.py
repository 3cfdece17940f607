"""Checkpoints that many processes write and read: data, never code."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.planner import ReadItem
from torch.distributed.checkpoint.staging import BlockingAsyncStager
from torch.distributed.tensor import DTensor

from spiritlm_plugin.dataio.checkpoints import CheckpointError, check_weights
from spiritlm_plugin.utils.files import naming_full_disk

_REMEDY = "delete the checkpoint to go on from the one before"
_DCP = "torch.distributed.checkpoint"
# What an index consists of, besides dtypes and plain values.
_INDEX_CLASSES = {
    ("torch", "Size"),
    ("torch.serialization", "_get_layout"),
    ("pathlib", "PosixPath"),
    ("pathlib._local", "PosixPath"),  # Python 3.13
    (f"{_DCP}.filesystem", "_StorageInfo"),
    (f"{_DCP}.metadata", "BytesStorageMetadata"),
    (f"{_DCP}.metadata", "ChunkStorageMetadata"),
    (f"{_DCP}.metadata", "Metadata"),
    (f"{_DCP}.metadata", "MetadataIndex"),
    (f"{_DCP}.metadata", "StorageMeta"),
    (f"{_DCP}.metadata", "TensorProperties"),
    (f"{_DCP}.metadata", "TensorStorageMetadata"),
    (f"{_DCP}.metadata", "_MEM_FORMAT_ENCODING"),
}


def staged(state: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of this process's part of a state dict, on the CPU.

    Example
    -------
    >>> state = {"weight": torch.ones(2), "lr": 0.1}
    >>> copied = staged(state)
    >>> state["weight"] += 1
    >>> copied
    {'weight': tensor([1., 1.]), 'lr': 0.1}
    """
    return BlockingAsyncStager().stage(state)


def save_sharded(
    state: dict[str, Any],
    folder: str | Path,
    group: dist.ProcessGroup | None = None,
) -> None:
    """Write a state dict, each process its part.

    Arguments
    ---------
    state : dict
        Of tensors, DTensors, plain values and dicts of them; the same names in
        all processes, which call this together.
    folder : str or Path
        That all processes see; is made. In it are a file of each process and
        ``.metadata``, the index, which is written last.
    group : ProcessGroup, optional
        Of all processes; one of its own, if they do something else meanwhile.

    Raises
    ------
    DiskFullError
        If there is no room.
    """
    with _one_process_is_fine(), naming_full_disk(folder):
        dcp.save(
            state,
            storage_writer=dcp.FileSystemWriter(folder),
            process_group=group,
        )


def load_sharded(state: dict[str, Any], folder: str | Path) -> None:
    """Read what `save_sharded` wrote, with any number of processes.

    torch.distributed.checkpoint unpickles its index, and what is not a tensor,
    as code. Here the index may consist of its own classes alone, and all else
    is read with PyTorch's ``weights_only``.

    Arguments
    ---------
    state : dict
        With the names that were saved; all processes call this together.
        Tensors are filled, other values replaced.
    folder : str or Path
        That all processes see.

    Raises
    ------
    CheckpointError
        If files are missing, are damaged, hold anything but data, do not fit,
        or weights are NaN or infinite.

    Example
    -------
    >>> save_sharded({"weight": torch.ones(2), "lr": 0.1}, tmp / "state")
    >>> state = {"weight": torch.zeros(2), "lr": None}
    >>> load_sharded(state, tmp / "state")
    >>> state
    {'weight': tensor([1., 1.]), 'lr': 0.1}
    """
    try:
        reader = _DataReader(folder)
        with _one_process_is_fine():
            dcp.load(state, storage_reader=reader, planner=_DataPlanner())
    except CheckpointException as error:  # which is no Exception
        reasons = {str(reason) for reason, _ in error.failures.values()}
        raise _refusal(folder, "; ".join(sorted(reasons))) from error
    except Exception as error:  # what a damaged file raises is not defined
        raise _refusal(folder, error) from error
    check_weights(dict(_tensors(state)), folder, _REMEDY)


def _tensors(
    state: dict[str, Any], place: str = ""
) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of nested values, of each this process's part."""
    for name, value in state.items():
        if isinstance(value, dict):
            yield from _tensors(value, f"{place}{name}.")
        elif isinstance(value, DTensor):
            yield f"{place}{name}", value.to_local()
        elif isinstance(value, Tensor):
            yield f"{place}{name}", value


def _refusal(folder: str | Path, reason: object) -> CheckpointError:
    return CheckpointError(
        f"cannot load {folder}: {reason}; use the configuration that it was "
        f"saved with, or {_REMEDY}"
    )


@contextmanager
def _one_process_is_fine() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")
        yield


class _IndexUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        is_dtype = module == "torch" and isinstance(
            getattr(torch, name, None), torch.dtype
        )
        if not is_dtype and (module, name) not in _INDEX_CLASSES:
            raise pickle.UnpicklingError(f"{module}.{name} is not data")
        return super().find_class(module, name)


class _DataReader(dcp.FileSystemReader):
    """Reads the index as data."""

    def __init__(self, folder: str | Path):
        super().__init__(folder)
        with open(Path(folder) / ".metadata", "rb") as file:
            self._index = _IndexUnpickler(file).load()
        if not isinstance(self._index, Metadata):
            raise TypeError(f"its index is a {type(self._index).__name__}")

    def read_metadata(self) -> Metadata:
        # DCP would take an error in here for a missing file.
        return self._index


class _DataPlanner(dcp.DefaultLoadPlanner):
    """Reads values as data, and leaves none out."""

    def set_up_planner(
        self,
        state_dict: dict[str, Any],
        metadata: Metadata | None = None,
        is_coordinator: bool = False,
    ) -> None:
        super().set_up_planner(state_dict, metadata, is_coordinator)
        assert metadata is not None  # which `_DataReader` has read
        saved = metadata.state_dict_metadata
        unknown = [name for name in saved if name not in self.state_dict]
        if unknown:
            raise ValueError(f"unknown {', '.join(unknown[:8])}")

    def load_bytes(self, read_item: ReadItem, value: BytesIO) -> None:
        # Raises where DCP, which reads it again, would run code.
        torch.load(value, weights_only=True)
        value.seek(0)
        super().load_bytes(read_item, value)
