"""Audio as people have it, to 16 kHz mono windows."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spiritlm_plugin.dataio.audio.containers import AudioFile
from spiritlm_plugin.dataio.audio.resampling import (
    HIGHEST_RATE,
    LOWEST_RATE,
    resample,
)
from spiritlm_plugin.dataio.units.units import (
    MIN_SAMPLES,
    SAMPLE_RATE,
    WINDOW_SECONDS,
)

logger = logging.getLogger(__name__)

_PATHS = (str, os.PathLike)
_FILES = (*_PATHS, bytes, bytearray)
# Samples of an array that are converted at once.
_BLOCK = 2**20
# Float samples beyond this are integers that were cast, not audio.
_LOUDEST = 100.0
# Of the power that independent channels would leave, what is left at least.
_LEAST_POWER = 0.01
_INTEGER_SCALES = {
    torch.uint8: 2**7,
    torch.int8: 2**7,
    torch.int16: 2**15,
    torch.int32: 2**31,
}


def read_audio(content: Any, sample_rate: int = SAMPLE_RATE) -> Tensor:
    """Return a recording as 16 kHz mono samples.

    What is missing of a file that is damaged or cut off is logged as a warning,
    as are channels that cancel each other.

    Arguments
    ---------
    content : path, bytes, numpy.ndarray, Tensor, dict or decoder
        A file in any format of libsndfile, whatever its name; or samples:
        integers at full scale or floats in [-1, 1], of shape (time,),
        (time, channels) or (channels, time); or an item of an audio column of
        ``datasets``: a dict of ``"array"`` and ``"sampling_rate"`` or of
        ``"bytes"`` and ``"path"``, or a decoder of torchcodec.
    sample_rate : int
        Of an array, in Hz; all others say their own.

    Returns
    -------
    Tensor
        Float32, shape (time,).

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    TypeError
        If the content is none of these.
    ValueError
        If the file cannot be read or the samples are not audio: none, fewer
        than 1280 at 16 kHz, NaN or infinite, or not scaled to [-1, 1]; or if
        the rate is below 1,000 or above 768,000 Hz.

    Example
    -------
    >>> read_audio(np.zeros((8000, 2), dtype=np.int16), sample_rate=8000).shape
    torch.Size([16000])
    >>> read_audio({"array": np.zeros(8000), "sampling_rate": 8000}).shape
    torch.Size([16000])
    """
    return torch.cat(list(read_windows(content, sample_rate)))


def read_windows(
    content: Any, sample_rate: int = SAMPLE_RATE
) -> Iterator[Tensor]:
    """Yield a recording in windows of 100 s, in bounded memory.

    The windows are those of the whole recording: resampling knows what is
    before and behind a window. The last one is shorter. Arguments and errors
    are those of `read_audio`.

    Example
    -------
    >>> [len(w) for w in read_windows(torch.zeros(1_600_001))]
    [1600000, 1]
    """
    content, sample_rate = _unpack(content, sample_rate)
    if isinstance(content, (np.ndarray, Tensor)):
        rate = _checked_rate(sample_rate)
        blocks = _array_blocks(content)
        yield from _windows(blocks, rate, "the waveform")
        return
    with AudioFile(content) as file:
        blocks = map(torch.from_numpy, file.blocks())
        yield from _windows(blocks, file.rate, file.name)


def audio_seconds(content: str | os.PathLike | bytes | bytearray) -> float:
    """Return the duration of a file, in seconds.

    It is read through where the header does not say, or states too much.

    Example
    -------
    >>> audio_seconds(recording)
    2.3999375
    """
    with AudioFile(content) as file:
        return file.count() / file.rate


def _unpack(content: Any, sample_rate: int) -> tuple[Any, int]:
    """Return what is in a dict or a decoder of ``datasets``."""
    if isinstance(content, Mapping):
        return _item(content, sample_rate)
    if hasattr(content, "get_all_samples"):
        return _decoded(content)
    if isinstance(content, (*_FILES, np.ndarray, Tensor)):
        return content, sample_rate
    raise TypeError(
        "a recording is a path, bytes, an array, a tensor, a dict or a decoder "
        f"of datasets, got {type(content).__name__}"
    )


def _item(item: Mapping[str, Any], sample_rate: int) -> tuple[Any, int]:
    array, rate = item.get("array"), item.get("sampling_rate")
    if isinstance(array, Tensor) and rate is not None:
        return array, rate
    if array is not None and rate is not None:
        try:
            return np.asarray(array), rate
        except ValueError as error:
            raise ValueError(
                f'"array" is no array of samples: {error}'
            ) from error
    for key, kinds in (("bytes", (bytes, bytearray)), ("path", _PATHS)):
        if isinstance(item.get(key), kinds):
            return item[key], sample_rate
    raise ValueError(
        'a recording as a dict holds "array" and "sampling_rate", or "bytes" '
        f'or "path", got {item!r:.200}'
    )


def _decoded(decoder: Any) -> tuple[Tensor, int]:
    """Return the samples of a decoder, (time, channels), and their rate.

    Source: the documentation of ``torchcodec.decoders.AudioDecoder``.
    """
    try:
        samples = decoder.get_all_samples()
    except RuntimeError as error:
        raise ValueError(
            f"cannot read the recording of a {type(decoder).__name__} "
            f"({error}); it may be damaged"
        ) from error
    return samples.data.T, samples.sample_rate


def _checked_rate(rate: Any) -> int:
    if isinstance(rate, Integral) and LOWEST_RATE <= int(rate) <= HIGHEST_RATE:
        return int(rate)
    raise ValueError(
        f"sample_rate must be a positive number of Hz, got {rate!r}; "
        f"{LOWEST_RATE} to {HIGHEST_RATE} Hz can be read"
    )


def _windows(
    blocks: Iterable[Tensor], rate: int, name: str
) -> Iterator[Tensor]:
    """Yield windows of 16 kHz of blocks of samples, (time, channels)."""
    total = 0
    samples = resample(_mix(blocks, rate, name), rate)
    for window in _cut(samples, WINDOW_SECONDS * SAMPLE_RATE):
        total += len(window)
        if total < MIN_SAMPLES:
            raise ValueError(
                f"{name} is too short: {total} samples at 16 kHz; at least "
                f"{MIN_SAMPLES} (80 ms) are needed"
            )
        yield window
    if not total:
        raise ValueError(f"{name} is empty: it holds no samples")


def _cut(blocks: Iterable[Tensor], size: int) -> Iterator[Tensor]:
    """Yield samples in pieces of a size; the last one is what is left."""
    parts: list[Tensor] = []
    missing = size
    for block in blocks:
        while len(block) >= missing:
            yield torch.cat([*parts, block[:missing]])
            block, parts, missing = block[missing:], [], size
        parts.append(block)
        missing -= len(block)
    if missing < size:
        yield torch.cat(parts)


def _mix(blocks: Iterable[Tensor], rate: int, name: str) -> Iterator[Tensor]:
    """Average the channels of blocks, and check what they hold."""
    start = 0
    power = wanted = 0.0
    for block in blocks:
        channels = block.shape[1]
        mono = block.mean(1)
        _check_samples(mono, name, start, rate)
        if channels > 1:
            power += float(mono.square().sum())
            # The mean of independent channels has 1 / channels ** 2 of this.
            wanted += float(block.square().sum()) / channels**2
        start += len(mono)
        yield mono
    if power < _LEAST_POWER * wanted:
        logger.warning(
            "the channels of %s cancel each other: little is left of their "
            "mean, which is used; pass one of them",
            name,
        )


def _array_blocks(content: np.ndarray | Tensor) -> Iterator[Tensor]:
    """Yield float samples of an array, (time, channels)."""
    if isinstance(content, np.ndarray):
        # Copied only where torch cannot use it as it is.
        native = content.dtype.newbyteorder("=")
        content = np.require(content, native, ["C", "W"])
    try:
        samples = torch.as_tensor(content).detach().cpu()
    except TypeError as error:
        raise ValueError(_unknown_scale(content.dtype)) from error
    if samples.dim() == 1:
        samples = samples[:, None]
    elif samples.dim() != 2:
        raise ValueError(
            "a waveform has shape (time,), (time, channels) or (channels, "
            f"time), got {tuple(samples.shape)}"
        )
    elif samples.shape[0] <= samples.shape[1]:
        # There are more samples than channels.
        samples = samples.T
    if not (samples.is_floating_point() or samples.dtype in _INTEGER_SCALES):
        raise ValueError(_unknown_scale(samples.dtype))
    if samples.numel():
        yield from map(_to_float, samples.split(_BLOCK))


def _unknown_scale(dtype: Any) -> str:
    return (
        f"cannot tell the scale of samples of {dtype}; use int16, int32 or "
        "floats in [-1, 1]"
    )


def _to_float(samples: Tensor) -> Tensor:
    scale = _INTEGER_SCALES.get(samples.dtype)
    floats = samples.to(torch.float32)
    if samples.dtype == torch.uint8:
        floats = floats - 128
    return floats if scale is None else floats / scale


def _check_samples(mono: Tensor, name: str, start: int, rate: int) -> None:
    loudest = float(mono.abs().max())
    if not np.isfinite(loudest):
        bad = int((~mono.isfinite()).nonzero()[0])
        raise ValueError(
            f"{name} has a sample that is {float(mono[bad])} at "
            f"{(start + bad) / rate:.3f} s; remove NaN and infinite samples"
        )
    if loudest > _LOUDEST:
        raise ValueError(
            f"{name} has samples as large as {loudest:.0f}; scale floats to "
            "[-1, 1] or pass integers as int16 or int32"
        )
