"""SpeechBrain's checkpointer, safe against kills, full disks and damage."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from speechbrain.utils.checkpoints import (
    CKPT_PREFIX,
    METAFNAME,
    Checkpoint,
    Checkpointer,
)
from speechbrain.utils.distributed import if_main_process, run_on_main
from torch import nn

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
    Arguments are those of `Checkpointer`.

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

    def save_checkpoint(self, *args: Any, **kwargs: Any) -> Checkpoint:
        """Save a checkpoint; see `Checkpointer.save_checkpoint`."""
        if if_main_process():
            self._remove_partial()
        try:
            with naming_full_disk(Path(self.checkpoints_dir) / "checkpoint"):
                saved = super().save_checkpoint(*args, **kwargs)
        except DiskFullError:
            self._remove_partial()
            raise
        # All wait: who looked for checkpoints now would miss this one.
        return run_on_main(self._complete, args=[saved])

    def save_and_keep_only(
        self, *args: Any, importance_keys: Iterable[Any] = (), **kwargs: Any
    ) -> None:
        """Save a checkpoint; see `Checkpointer.save_and_keep_only`."""
        # The list that is its default grows with each call.
        super().save_and_keep_only(
            *args, importance_keys=list(importance_keys), **kwargs
        )

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


class _Files(dict[str, Path]):
    """Files by name, which know which one was asked for last."""

    last: Path | None = None

    def __getitem__(self, name: str) -> Path:
        self.last = super().__getitem__(name)
        return self.last
