"""SpeechBrain's checkpointer, safe against kills, full disks and damage."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from copy import copy
from functools import partial
from pathlib import Path
from typing import Any

import torch
from speechbrain.utils.checkpoints import (
    CKPT_PREFIX,
    DEFAULT_SAVE_HOOKS,
    METAFNAME,
    Checkpoint,
    Checkpointer,
    ckpt_recency,
    get_default_hook,
    torch_save,
)
from speechbrain.utils.distributed import (
    ddp_barrier,
    ddp_broadcast,
    if_main_process,
)
from torch import Tensor, nn

from spiritlm_plugin.dataio.checkpoints import CheckpointError, check_weights
from spiritlm_plugin.utils.files import DiskFullError, naming_full_disk

logger = logging.getLogger(__name__)

_PARTIAL = "PARTIAL_"
_REMEDY = "delete the checkpoint's folder to go on from the one before"


class AtomicCheckpointer(Checkpointer):
    """SpeechBrain's checkpointer, safe against kills, full disks and damage.

    A checkpoint gets its name when it is complete. One that is damaged, or
    whose weights are NaN or infinite, is refused with a `CheckpointError` that
    names the file; one for which there is no room, with a `DiskFullError`.

    `save_and_keep_only`, with which a Brain saves, copies the weights to the
    CPU and returns; they are written while training goes on. What goes wrong
    then is raised by `check`, by `wait` or when something is saved again. That
    takes once more the memory of what is saved.

    Arguments
    ---------
    *args, **kwargs
        As of `Checkpointer`. What has a method ``stage``, as `ShardedState`
        has, is copied by it: called with a path, it returns what writes there.

    Example
    -------
    >>> model = torch.nn.Linear(2, 2)
    >>> checkpointer = AtomicCheckpointer(tmp, {"model": model})
    >>> checkpoint = checkpointer.save_checkpoint()
    >>> checkpoint.path.name.startswith("CKPT")
    True
    >>> checkpointer.recover_if_possible().path == checkpoint.path
    True
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._written: Future[Checkpoint | None] | None = None
        # What is still to be written of the checkpoint that is being saved.
        self._jobs: list[Callable[[], object]] = []

    def save_checkpoint(self, *args: Any, **kwargs: Any) -> Checkpoint:
        """Save a checkpoint; see `Checkpointer.save_checkpoint`."""
        self._begin(lambda: None, *args, **kwargs)
        # All wait: who looked for checkpoints now would miss this one.
        return ddp_broadcast(self.wait())

    def save_and_keep_only(
        self,
        meta: Mapping[str, Any] | None = None,
        end_of_epoch: bool = True,
        name: str | None = None,
        num_to_keep: int = 1,
        keep_recent: bool = True,
        importance_keys: Iterable[Any] = (),
        max_keys: Iterable[str] = (),
        min_keys: Iterable[str] = (),
        ckpt_predicate: Callable[[Checkpoint], bool] | None = None,
        verbosity: int = logging.INFO,
    ) -> None:
        """Save a checkpoint, and delete others when it is complete.

        Returns before that; see `Checkpointer.save_and_keep_only` for the
        arguments, and `wait`.
        """
        recent = [ckpt_recency] if keep_recent else []
        orders = [
            *({"min_key": key} for key in min_keys),
            *({"max_key": key} for key in max_keys),
            *({"importance_key": key} for key in [*importance_keys, *recent]),
        ]
        delete = partial(self._delete, orders, num_to_keep, ckpt_predicate)
        self._begin(delete, meta or {}, end_of_epoch, name, verbosity)

    def check(self) -> None:
        """Raise what went wrong in writing the last checkpoint, if it is over.

        Raises
        ------
        DiskFullError
            If there was no room.
        """
        if self._written is not None and self._written.done():
            self.wait()

    def wait(self) -> Checkpoint | None:
        """Wait until the last checkpoint is written, and raise what went wrong.

        Returns
        -------
        Checkpoint
            In the main process, if there was something to wait for.

        Raises
        ------
        DiskFullError
            If there was no room.

        Example
        -------
        >>> checkpointer = AtomicCheckpointer(tmp, {"m": torch.nn.Linear(2, 2)})
        >>> checkpointer.save_and_keep_only()
        >>> checkpointer.wait().path.name.startswith("CKPT")
        True
        """
        if self._written is None:
            return None
        written, self._written = self._written, None
        return written.result()

    def recover_if_possible(
        self, *args: Any, **kwargs: Any
    ) -> Checkpoint | None:
        """Load a checkpoint; see `Checkpointer.recover_if_possible`."""
        self.wait()
        ddp_barrier()
        return super().recover_if_possible(*args, **kwargs)

    def _begin(
        self, then: Callable[[], None], *args: Any, **kwargs: Any
    ) -> None:
        """Copy what is to be saved, and let it be written."""
        self.wait()
        if if_main_process():
            self._remove_partial()
        for name, found in self.recoverables.items():
            if (
                hasattr(found, "stage")
                or get_default_hook(found, DEFAULT_SAVE_HOOKS) is torch_save
            ):
                self.custom_save_hooks[name] = self._stage
        self._jobs = []
        with self._in_room():
            saved = super().save_checkpoint(*args, **kwargs)
        self._written = self._thread.submit(
            self._finish, saved, self._jobs, then
        )

    def _stage(self, found: Any, path: Path) -> None:
        if hasattr(found, "stage"):
            self._jobs.append(found.stage(path))
        elif if_main_process():
            state = _on_cpu(found.state_dict(), {})
            self._jobs.append(partial(torch.save, state, path))

    def _finish(
        self,
        saved: Checkpoint | None,
        jobs: list[Callable[[], object]],
        then: Callable[[], None],
    ) -> Checkpoint | None:
        """Write; in a thread, where processes cannot wait for each other."""
        with self._in_room():
            while jobs:  # a copy is given back when it is written
                jobs.pop(0)()
        if saved is None:  # in other processes than the main one
            return None
        saved = self._complete(saved)
        then()
        return saved

    @contextmanager
    def _in_room(self) -> Iterator[None]:
        try:
            with naming_full_disk(Path(self.checkpoints_dir) / "checkpoint"):
                yield
        except DiskFullError:
            self._remove_partial()
            raise

    def _delete(
        self,
        orders: list[dict[str, Any]],
        count: int,
        predicate: Callable[[Checkpoint], bool] | None,
    ) -> None:
        """Delete what is not among the first of any order."""
        known, kept = set(), set()
        for order in orders:
            found = self.find_checkpoints(**order, ckpt_predicate=predicate)
            known.update(found)
            kept.update(found[:count])
        for checkpoint in known - kept:
            shutil.rmtree(checkpoint.path)

    def list_checkpoints(self) -> list[Checkpoint]:
        """Return the checkpoints; see `Checkpointer.list_checkpoints`.

        Raises
        ------
        CheckpointError
            If none is whole, but there are remains of one: a training must not
            start from nothing where it was to go on.
        """
        found: list[Checkpoint] = super().list_checkpoints()
        lost = [
            path
            for path in Path(self.checkpoints_dir).glob(f"{CKPT_PREFIX}*")
            if path.is_dir() and not (path / METAFNAME).exists()
        ]
        if lost and not found:
            raise CheckpointError(
                f"{lost[0]} has no {METAFNAME}: it is damaged, or was being "
                "deleted; delete it to start from nothing"
            )
        for path in lost:
            logger.warning("%s is passed over: it has no %s", path, METAFNAME)
        return found

    def _complete(self, saved: Checkpoint) -> Checkpoint:
        path = saved.path.with_name(saved.path.name[len(_PARTIAL) :])
        os.replace(saved.path, path)
        files = {
            name: path / Path(file).name
            for name, file in saved.paramfiles.items()
        }
        return saved._replace(path=path, paramfiles=files)

    def _new_checkpoint_dirpath(self) -> Path:
        path = super()._new_checkpoint_dirpath()
        return path.with_name(_PARTIAL + path.name)

    def _remove_partial(self) -> None:
        for path in Path(self.checkpoints_dir).glob(f"{_PARTIAL}*"):
            shutil.rmtree(path, ignore_errors=True)

    @staticmethod
    def _construct_checkpoint_objects(folders: list[Path]) -> list[Checkpoint]:
        found = []
        for folder in folders:
            try:
                found += Checkpointer._construct_checkpoint_objects([folder])
                _ = found[-1].meta["unixtime"], found[-1].meta["end-of-epoch"]
            except Exception as error:  # of YAML, or of what is missing in it
                if not (folder / METAFNAME).exists():
                    continue  # deleted meanwhile, by a run that ends
                raise CheckpointError(
                    f"cannot read {folder / METAFNAME}: {error}; {_REMEDY}"
                ) from error
        return found

    def _call_load_hooks(self, checkpoint: Checkpoint) -> None:
        files = _Files(checkpoint.paramfiles)
        for name in self.recoverables:
            if name not in files and not self._may_lack(name):
                raise CheckpointError(
                    f"{checkpoint.path} lacks the file of {name}; {_REMEDY}"
                )
        try:
            super()._call_load_hooks(checkpoint._replace(paramfiles=files))
        except CheckpointError:
            raise
        except Exception as error:  # what a damaged file raises is not defined
            raise CheckpointError(
                f"cannot load {files.last or checkpoint.path}: {error}; use "
                f"the configuration that it was saved with, or {_REMEDY}"
            ) from error
        for name, module in self.recoverables.items():
            if isinstance(module, nn.Module) and name in files:
                weights = dict(module.named_parameters())
                check_weights(weights, files[name], _REMEDY)

    def _may_lack(self, name: str) -> bool:
        return (
            self.allow_partial_load
            or "dataloader" in name
            or self.optional_recoverables.get(name, False)
        )


def _on_cpu(value: Any, known: dict[Any, Tensor]) -> Any:
    """Return a copy of nested values; tensors that are one stay one."""
    if isinstance(value, Tensor):
        place = value.data_ptr(), value.shape, value.stride(), value.dtype
        if place not in known:
            known[place] = value.detach().to("cpu", copy=True)
        return known[place]
    if isinstance(value, dict):
        copied = copy(value)  # a state dict knows more than its items
        copied.update({n: _on_cpu(x, known) for n, x in value.items()})
        return copied
    if isinstance(value, (list, tuple)):
        items = [_on_cpu(x, known) for x in value]
        is_named = hasattr(value, "_fields")
        return type(value)(*items) if is_named else type(value)(items)
    return value


class _Files(dict[str, Path]):
    """Files by name, which know which one was asked for last."""

    last: Path | None = None

    def __getitem__(self, name: str) -> Path:
        self.last = super().__getitem__(name)
        return self.last
