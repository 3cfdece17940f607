"""Samples that come bit by bit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from torch import Tensor

from spiritlm_plugin.dataio.audio.reading import (
    _array_blocks,
    _checked_rate,
    _mix,
)
from spiritlm_plugin.dataio.audio.resampling import resample
from spiritlm_plugin.dataio.units.units import SAMPLE_RATE


def read_chunks(
    chunks: Iterable[Any], sample_rate: int = SAMPLE_RATE
) -> Iterator[Tensor]:
    """Return an iterator of 16 kHz samples of chunks, as these come.

    Arguments
    ---------
    chunks : iterable of Tensor or numpy.ndarray
        Consecutive samples of one channel, each of shape (time,), integer or
        float.
    sample_rate : int
        Of all of them, in Hz.

    Raises
    ------
    TypeError, ValueError
        If the rate is out of range or, when it comes, a chunk cannot be used.

    Example
    -------
    >>> chunks = [torch.zeros(480), torch.zeros(960)]
    >>> sum(map(len, read_chunks(chunks, 48000)))
    480
    """
    rate = _checked_rate(sample_rate)
    blocks = (block for chunk in chunks for block in _blocks(chunk))
    return resample(_mix(blocks, rate, "the stream"), rate)


def _blocks(chunk: Any) -> Iterator[Tensor]:
    if not isinstance(chunk, (np.ndarray, Tensor)):
        raise TypeError(
            "chunks are tensors or arrays of samples, got "
            f"{type(chunk).__name__}"
        )
    if chunk.ndim != 1:
        raise ValueError(
            "a chunk has one channel and shape (time,), got "
            f"{tuple(chunk.shape)}"
        )
    return _array_blocks(chunk)
