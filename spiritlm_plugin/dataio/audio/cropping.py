"""Pieces of recordings, read from the file without the rest."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from spiritlm_plugin.dataio.audio.containers import AudioFile
from spiritlm_plugin.dataio.audio.resampling import resample
from spiritlm_plugin.dataio.units.units import SAMPLE_RATE


def draw_start(length: int, size: int, generator: torch.Generator) -> int:
    """Draw where a piece starts, each place being as likely.

    Arguments
    ---------
    length, size : int
        Of the whole and of the piece; a piece longer than the whole starts
        at 0.
    generator : torch.Generator
        Of the draw.

    Example
    -------
    >>> draw_start(16, 16, torch.Generator())
    0
    """
    places = max(length - size, 0) + 1
    return int(torch.randint(places, (1,), generator=generator))


def read_piece(path: str | Path, start: int, samples: int) -> Tensor:
    """Read a piece of a recording as 16 kHz mono.

    Arguments
    ---------
    path : str or Path
        Any format of libsndfile; other rates are resampled.
    start, samples : int
        Of the piece, counted at 16 kHz.

    Returns
    -------
    Tensor
        Float32, shape (samples,), with zeros behind the recording's end.

    Raises
    ------
    ValueError
        If the file cannot be read.

    Example
    -------
    >>> read_piece(recording, 8000, 4000).shape
    torch.Size([4000])
    """
    try:
        with AudioFile(path) as file:
            rate = file.rate
            file.seek(start * rate // SAMPLE_RATE)
            piece = file.read(-(-samples * rate // SAMPLE_RATE))
    except (OSError, ValueError) as error:
        raise ValueError(f"{error}; prepare the corpus again") from error
    mono = torch.from_numpy(piece).mean(1)
    wav = torch.cat(list(resample([mono], rate)))
    return F.pad(wav[:samples], (0, max(samples - len(wav), 0)))
