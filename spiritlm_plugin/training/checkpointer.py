"""SpeechBrain's checkpointer, safe against being killed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from speechbrain.utils.checkpoints import Checkpoint, Checkpointer
from speechbrain.utils.distributed import if_main_process, run_on_main

_PARTIAL = "PARTIAL_"


class AtomicCheckpointer(Checkpointer):
    """SpeechBrain's checkpointer, safe against being killed.

    A checkpoint gets its name when it is complete. Arguments are those of
    `Checkpointer`.

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
        saved = super().save_checkpoint(*args, **kwargs)
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
            shutil.rmtree(path)
