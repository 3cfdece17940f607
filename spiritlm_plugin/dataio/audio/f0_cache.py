"""F0 of a corpus, found once and kept on disk."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from speechbrain.utils.distributed import (
    ddp_barrier,
    if_main_process,
)
from torch import Tensor, nn
from tqdm import tqdm

from spiritlm_plugin.dataio.audio.recordings import map_recordings
from spiritlm_plugin.utils.files import writing
from spiritlm_plugin.utils.processes import rank_and_world_size

# Utterances in a file.
_SHARD = 256


class F0Cache:
    """F0 and voicing of utterances at 200 Hz.

    They stand in files of 256 utterances each; a file appears when it is
    complete, so that a run that was killed goes on where it was. A file is
    made anew when one of its recordings or the extractor has changed.

    Arguments
    ---------
    folder : str or Path
        For the files.
    items : dict
        Utterances by id, each with ``"wav"`` and ``"duration"``, as from
        `load_manifest`.
    extractor : nn.Module
        `FCPE` or one that is called as it is, and whose ``extra_repr`` says
        what the F0 depends on.

    Example
    -------
    >>> items = {"a": {"wav": recording, "duration": 2.4}}
    >>> cache = F0Cache(tmp, items, FCPE())
    >>> cache.fill()
    >>> f0, voiced = cache["a"]
    >>> f0.dtype, voiced.dtype, f0.shape == voiced.shape
    (torch.float32, torch.float32, True)
    """

    def __init__(
        self,
        folder: str | Path,
        items: Mapping[str, Mapping[str, Any]],
        extractor: nn.Module,
    ):
        self.folder = Path(folder)
        self.items = items
        self.extractor = extractor
        names = list(items)
        self._shards = [
            names[i : i + _SHARD] for i in range(0, len(names), _SHARD)
        ]
        self._shard_of = {
            name: number
            for number, shard in enumerate(self._shards)
            for name in shard
        }
        self._open_files: dict[int, Any] = {}

    def __getitem__(self, name: str) -> tuple[Tensor, Tensor]:
        """Return F0 in Hz and voicing of an utterance, (frames,) each."""
        number = self._shard_of[name]
        if number not in self._open_files:
            self._open_files[number] = safe_open(self._path(number), "pt")
        f0, voiced = self._open_files[number].get_tensor(name)
        return f0, voiced

    def __getstate__(self) -> dict[str, Any]:
        """Let each process that loads data open the files itself."""
        return self.__dict__ | {"_open_files": {}, "extractor": None}

    def fill(
        self,
        device: str | torch.device = "cpu",
        batch_seconds: float = 120.0,
    ) -> None:
        """Find the F0 that is missing; under ``torchrun`` share the work.

        Arguments
        ---------
        device : str or torch.device
            Where the extractor runs.
        batch_seconds : float
            Audio in a batch, padding included.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        rank, processes = rank_and_world_size()
        missing = [
            number
            for number in range(len(self._shards))[rank::processes]
            if not self._is_complete(number)
        ]
        if missing:
            self._fill(missing, device, batch_seconds)
        ddp_barrier()

    def _fill(
        self,
        missing: list[int],
        device: str | torch.device,
        batch_seconds: float,
    ) -> None:
        self.extractor.eval().to(device)
        bar = tqdm(
            total=sum(len(self._shards[number]) for number in missing),
            desc=f"F0 of {self.folder.name}",
            unit="utterance",
            disable=not if_main_process(),
        )
        with bar:
            for number in missing:
                names = self._shards[number]
                found = map_recordings(
                    self._extract,
                    {name: self.items[name] for name in names},
                    device,
                    batch_seconds,
                )
                contours = {}
                for name, contour in found:
                    contours[name] = contour.T.contiguous()
                    bar.update()
                self._write(number, contours)

    def _extract(self, wavs: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return F0 and voicing, (batch, frames, 2), and their lengths."""
        f0, voiced, lengths = self.extractor(wavs, lengths)
        return torch.stack([f0, voiced], -1), lengths

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:05d}.safetensors"

    def _stamp(self, number: int) -> dict[str, str]:
        """Say what the contours of a file depend on."""
        recordings = {}
        for name in self._shards[number]:
            status = os.stat(self.items[name]["wav"])
            recordings[name] = [status.st_size, status.st_mtime_ns]
        kind = type(self.extractor).__name__
        return {
            "extractor": f"{kind}({self.extractor.extra_repr()})",
            "recordings": json.dumps(recordings),
        }

    def _is_complete(self, number: int) -> bool:
        try:
            with safe_open(self._path(number), "pt") as file:
                return file.metadata() == self._stamp(number)
        except (OSError, SafetensorError):
            return False

    def _write(self, number: int, contours: dict[str, Tensor]) -> None:
        with writing(self._path(number)) as partial:
            save_file(contours, partial, self._stamp(number))
