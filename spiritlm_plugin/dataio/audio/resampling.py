"""Any usual rate to 16 kHz, block by block."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import soxr
import torch
from torch import Tensor

from spiritlm_plugin.dataio.units.units import SAMPLE_RATE

# Below, half the rate has no room for a voice; no converter runs faster.
LOWEST_RATE = 1_000
HIGHEST_RATE = 768_000


def resampled_length(samples: int, rate: int) -> int:
    """Return how many samples at 16 kHz a recording has.

    Example
    -------
    >>> resampled_length(44101, 44101), resampled_length(3, 48000)
    (16000, 1)
    """
    return -(-samples * SAMPLE_RATE // rate)


def resample(blocks: Iterable[Tensor], rate: int) -> Iterator[Tensor]:
    """Resample consecutive blocks to 16 kHz as if they were one.

    What comes does not depend on where the blocks are cut. Rates need no
    common divisor: time and memory are by the samples alone.

    Arguments
    ---------
    blocks : iterable of Tensor
        Float32 on the CPU, each of shape (samples,).
    rate : int
        Of the samples, in Hz.

    Yields
    ------
    Tensor
        Float32; `resampled_length` samples in all.

    Example
    -------
    >>> blocks = torch.randn(44101).split(1000)
    >>> len(torch.cat(list(resample(blocks, 44101))))
    16000
    """
    if rate == SAMPLE_RATE:
        yield from blocks
        return
    stream = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32")
    taken = given = 0
    for block in blocks:
        taken += len(block)
        part = torch.from_numpy(stream.resample_chunk(block.numpy()))
        given += len(part)
        yield part
    rest = stream.resample_chunk(torch.empty(0).numpy(), last=True)
    # The filter's end may fall one sample short.
    missing = resampled_length(taken, rate) - given - len(rest)
    yield torch.cat([torch.from_numpy(rest), torch.zeros(missing)])
