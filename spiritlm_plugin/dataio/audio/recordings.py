"""Recordings of a corpus through a module, in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from spiritlm_plugin.dataio.audio.reading import read_audio
from spiritlm_plugin.dataio.batching import length_batches


def map_recordings(
    function: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    items: Mapping[str, Mapping[str, Any]],
    device: str | torch.device = "cpu",
    batch_seconds: float = 120.0,
    progress: str | None = None,
) -> Iterator[tuple[str, Tensor]]:
    """Yield what a function makes of each recording, longest first.

    Arguments
    ---------
    function : callable
        Takes waveforms, (batch, samples), and their numbers of samples;
        returns results, (batch, frames, ...), and their numbers of frames.
    items : dict
        Utterances by id, each with ``"wav"`` and ``"duration"``, as from
        `load_manifest`.
    device : str or torch.device
        Where the function gets its input.
    batch_seconds : float
        Audio in a batch, padding included.
    progress : str, optional
        Shown beside a progress bar.

    Yields
    ------
    name : str
        Of the utterance.
    result : Tensor
        On the CPU, shape (frames, ...).

    Example
    -------
    >>> items = {"a": {"wav": recording, "duration": 2.4}}
    >>> def square(wavs, lengths):
    ...     return wavs.square(), lengths
    >>> [(name, r.shape) for name, r in map_recordings(square, items)]
    [('a', torch.Size([38399]))]
    """
    names = list(items)
    durations = [items[name]["duration"] for name in names]
    bar = tqdm(
        total=len(names),
        desc=progress,
        unit="utterance",
        disable=progress is None,
    )
    with bar:
        for batch in length_batches(durations, batch_seconds):
            wavs = [read_audio(items[names[i]]["wav"]) for i in batch]
            lengths = torch.tensor([len(wav) for wav in wavs], device=device)
            padded = nn.utils.rnn.pad_sequence(wavs, batch_first=True)
            with torch.inference_mode():
                results, lengths = function(padded.to(device), lengths)
            results = results.cpu()
            for i, result, n in zip(batch, results, lengths.tolist()):
                yield names[i], result[:n].clone()
                bar.update()
