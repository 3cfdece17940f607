"""Pitch changed by WORLD, for engines that cannot change it."""

from __future__ import annotations

import warnings

import numpy as np
from scipy.signal import butter, sosfiltfilt

from .styles import Style

with warnings.catch_warnings():
    # It imports pkg_resources, which warns that it will be gone.
    warnings.simplefilter("ignore", UserWarning)
    import pyworld

_NEAR = 0.05
_LOWEST, _HIGHEST = 60.0, 400.0
_HARMONICS = (200, 1500)


def repitch(samples: np.ndarray, rate: int, style: Style) -> np.ndarray:
    """Give a sentence the pitch of a style; the spectral envelope stays.

    Speech whose height would change by less than 5%, as all neutral speech,
    stays as it is: WORLD can be heard.

    Arguments
    ---------
    samples : array
        Of shape (time,).
    rate : int
        Samples a second.
    style : Style
        Gives the mean F0 as a ratio, and its deviation as another.

    Returns
    -------
    array
        Of the same shape.
    """
    if abs(style.height - 1) < _NEAR:
        return samples
    samples = np.ascontiguousarray(samples, dtype=np.float64)
    f0, times = measured_f0(samples, rate)
    envelope = pyworld.cheaptrick(samples, f0, times, rate)
    noise = pyworld.d4c(samples, f0, times, rate)
    voiced = f0 > 0
    if not voiced.any():
        return samples
    logs = np.log(f0[voiced])
    center = logs.mean()
    f0[voiced] = style.height * np.exp(center + style.spread * (logs - center))
    changed = pyworld.synthesize(f0, envelope, noise, rate)[: len(samples)]
    return np.pad(changed, (0, len(samples) - len(changed)))


def measured_f0(
    samples: np.ndarray, rate: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return F0 in Hz, 0 where there is none, and the times of its frames.

    DIO looks for the first harmonic, which a voice that was recorded without
    low frequencies does not have; half of the wave of the harmonics above has
    it again.

    Arguments
    ---------
    samples : array
        Of shape (time,).
    rate : int
        Samples a second.

    Example
    -------
    >>> times = np.arange(16000) / 16000
    >>> wave = sum(np.sin(2 * np.pi * 90 * i * times) for i in range(2, 12))
    >>> f0, _ = measured_f0(wave, 16000)
    >>> round(float(np.median(f0[f0 > 0])))
    90
    """
    band = butter(2, _HARMONICS, "bandpass", fs=rate, output="sos")
    half = np.maximum(sosfiltfilt(band, samples), 0)
    slow = butter(2, 2 * _LOWEST / 3, fs=rate, output="sos")
    half = np.ascontiguousarray(half - sosfiltfilt(slow, half))
    f0, times = pyworld.dio(half, rate, f0_floor=_LOWEST, f0_ceil=_HIGHEST)
    return pyworld.stonemask(half, f0, times, rate), times
