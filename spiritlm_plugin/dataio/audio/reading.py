"""Audio as people have it, to 16 kHz mono windows."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator
from itertools import chain
from math import ceil, gcd
from numbers import Integral
from typing import Any

import numpy as np
import soundfile
import torch
import torchaudio
from torch import Tensor

from spiritlm_plugin.dataio.units.units import MIN_SAMPLES, SAMPLE_RATE

WINDOW_SECONDS = 100
# Float samples beyond this are integers that were cast, not audio.
_LOUDEST = 100.0
_INTEGER_SCALES = {
    torch.uint8: 2**7,
    torch.int8: 2**7,
    torch.int16: 2**15,
    torch.int32: 2**31,
}


def read_audio(content: Any, sample_rate: int = SAMPLE_RATE) -> Tensor:
    """Return a recording as 16 kHz mono samples.

    Arguments
    ---------
    content : path, bytes, numpy.ndarray or Tensor
        A file in any format of libsndfile, or samples: integers at full
        scale or floats in [-1, 1], of shape (time,), (time, channels) or
        (channels, time).
    sample_rate : int
        Of an array, in Hz; files say their own.

    Returns
    -------
    Tensor
        Float32, shape (time,).

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file cannot be read or the samples are not audio: none, fewer
        than 1280 at 16 kHz, NaN or infinite, or not scaled to [-1, 1].

    Example
    -------
    >>> read_audio(np.zeros((8000, 2), dtype=np.int16), sample_rate=8000).shape
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
    if isinstance(content, (np.ndarray, Tensor)):
        name, blocks = "the waveform", _array_blocks(content, sample_rate)
    else:
        name, blocks = _file_name(content), _file_blocks(content)
    total = 0
    for window in _resample(blocks):
        _check_samples(window, name, total)
        total += len(window)
        if len(window) == total and total < MIN_SAMPLES:
            raise ValueError(
                f"{name} is too short: {total} samples at 16 kHz; at least "
                f"{MIN_SAMPLES} (80 ms) are needed"
            )
        yield window
    if not total:
        raise ValueError(f"{name} is empty: it holds no samples")


def audio_seconds(content: str | os.PathLike) -> float:
    """Return the duration that a file states, in seconds."""
    with _open(content) as file:
        return file.frames / file.samplerate


def _file_name(content: Any) -> str:
    if isinstance(content, (bytes, bytearray)):
        return f"the file of {len(content)} bytes"
    return os.fspath(content)


def _open(content: Any) -> soundfile.SoundFile:
    name = _file_name(content)
    if isinstance(content, (bytes, bytearray)):
        content = io.BytesIO(content)
    elif not os.path.exists(content):
        raise FileNotFoundError(f"no such audio file: {name}")
    try:
        return soundfile.SoundFile(content)
    except (soundfile.LibsndfileError, TypeError) as error:
        raise ValueError(
            f"cannot read {name} as audio ({error}); it may be empty, "
            "damaged, or in a format that libsndfile does not know: convert "
            "it to wav or flac"
        ) from error


def _file_blocks(content: Any) -> Iterator[tuple[int, Tensor]]:
    with _open(content) as file:
        size = WINDOW_SECONDS * file.samplerate
        while True:
            try:
                block = file.read(size, dtype="float32", always_2d=True)
            except soundfile.LibsndfileError as error:
                raise ValueError(
                    f"{_file_name(content)} is damaged ({error}); repair or "
                    "convert it"
                ) from error
            if not len(block):
                return
            yield file.samplerate, torch.from_numpy(block).mean(1)


def _array_blocks(
    content: np.ndarray | Tensor, sample_rate: int
) -> Iterator[tuple[int, Tensor]]:
    if not isinstance(sample_rate, Integral) or sample_rate < 1:
        raise ValueError(
            f"sample_rate must be a positive number of Hz, got {sample_rate!r}"
        )
    sample_rate = int(sample_rate)
    if isinstance(content, np.ndarray):
        # Copied only where torch cannot use it as it is.
        native = content.dtype.newbyteorder("=")
        content = np.require(content, native, ["C", "W"])
    samples = torch.as_tensor(content).detach()
    if samples.dim() == 2:
        # There are more samples than channels.
        samples = samples if samples.shape[0] > samples.shape[1] else samples.T
    elif samples.dim() != 1:
        raise ValueError(
            "a waveform has shape (time,), (time, channels) or (channels, "
            f"time), got {tuple(samples.shape)}"
        )
    if not (samples.is_floating_point() or samples.dtype in _INTEGER_SCALES):
        raise ValueError(
            f"cannot tell the scale of samples of {samples.dtype}; use int16, "
            "int32 or floats in [-1, 1]"
        )
    for block in samples.split(WINDOW_SECONDS * sample_rate):
        if len(block):
            yield sample_rate, _to_float_mono(block)


def _to_float_mono(samples: Tensor) -> Tensor:
    scale = _INTEGER_SCALES.get(samples.dtype)
    mono = samples.to(torch.float32)
    if samples.dtype == torch.uint8:
        mono = mono - 128
    if scale is not None:
        mono = mono / scale
    return mono.mean(1) if mono.dim() == 2 else mono


def _check_samples(window: Tensor, name: str, start: int) -> None:
    loudest = float(window.abs().max())
    if not np.isfinite(loudest):
        bad = int((~window.isfinite()).nonzero()[0])
        raise ValueError(
            f"{name} has a sample that is {float(window[bad])} at "
            f"{(start + bad) / SAMPLE_RATE:.3f} s; remove NaN and infinite "
            "samples"
        )
    if loudest > _LOUDEST:
        raise ValueError(
            f"{name} has samples as large as {loudest:.0f}; scale floats to "
            "[-1, 1] or pass integers as int16 or int32"
        )


def _resample(blocks: Iterable[tuple[int, Tensor]]) -> Iterator[Tensor]:
    """Resample blocks to 16 kHz as if they were one."""
    blocks = iter(blocks)
    first = next(blocks, None)
    if first is None:
        return
    rate, block = first
    if rate == SAMPLE_RATE:
        yield block
        yield from (block for _, block in blocks)
        return
    divisor = gcd(rate, SAMPLE_RATE)
    old, new = rate // divisor, SAMPLE_RATE // divisor
    # The filter spans 6 zero crossings of the lower rate on either side; the
    # context is a whole number of periods, so that phases stay.
    context = old * ceil(8 * max(old / new, 1.0) / old + 1)
    before = block[:0]
    for _, following in chain(blocks, [(rate, block[:0])]):
        padded = torch.cat([before, block, following[:context]])
        resampled = torchaudio.functional.resample(padded, rate, SAMPLE_RATE)
        start = len(before) * new // old
        yield resampled[start : start + ceil(len(block) * new / old)]
        before, block = block[-context:], following
