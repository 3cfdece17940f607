"""Recordings for people to hear."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import soundfile
import torch

from spiritlm_plugin.dataio.units.units import SAMPLE_RATE
from spiritlm_plugin.utils.files import writing


def write_wav(path: str | Path, wav: Any) -> None:
    """Write a recording as a WAV file, which appears when it is complete.

    Arguments
    ---------
    path : str or Path
        Of the file.
    wav : Tensor or numpy.ndarray
        Samples at 16 kHz in [-1, 1], shape (time,), on any device.

    Raises
    ------
    DiskFullError
        If there is no room.

    Example
    -------
    >>> write_wav(tmp / "silence.wav", torch.zeros(16000))
    >>> soundfile.info(tmp / "silence.wav").duration
    1.0
    """
    samples = torch.as_tensor(wav).detach().float().cpu().numpy()
    with writing(path) as partial:
        soundfile.write(partial, samples, SAMPLE_RATE, format="WAV")
