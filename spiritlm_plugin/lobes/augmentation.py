"""Changes of a recording that leave its words as they are."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torchaudio
from torch import Tensor, nn
from torch.nn import functional as F

from spiritlm_plugin.dataio.units.units import SAMPLE_RATE


class PitchShift(nn.Module):
    """Shift the pitch of a batch, and the formants with it, at equal duration.

    A phase vocoder stretches, resampling brings the duration back. The factors
    are simple ratios, for which resampling is cheap.

    Arguments
    ---------
    ratios : sequence of (int, int)
        Of new pitch to old, such as (9, 8); one is drawn for each batch.

    Example
    -------
    >>> shift = PitchShift([(5, 4)])
    >>> tone = torch.sin(torch.arange(16000) * 2 * torch.pi * 400 / 16000)
    >>> spectrum = torch.fft.rfft(shift(tone[None])[0])
    >>> int(spectrum.abs().argmax())
    500
    """

    _FFT = 512
    _HOP = 128

    def __init__(self, ratios: Sequence[tuple[int, int]]):
        super().__init__()
        self.ratios = [tuple(ratio) for ratio in ratios]

    def forward(self, wavs: Tensor) -> Tensor:
        """Return changed waveforms, both of shape (batch, samples)."""
        new, old = self.ratios[int(torch.randint(len(self.ratios), ()))]
        window = torch.hann_window(self._FFT, device=wavs.device)
        spectrum = torch.stft(
            wavs, self._FFT, self._HOP, window=window, return_complex=True
        )
        advance = torch.linspace(
            0, torch.pi * self._HOP, spectrum.shape[1], device=wavs.device
        )
        stretched = torchaudio.functional.phase_vocoder(
            spectrum, old / new, advance[:, None]
        )
        longer = torch.istft(stretched, self._FFT, self._HOP, window=window)
        shifted = torchaudio.functional.resample(longer, new, old)
        missing = wavs.shape[1] - shifted.shape[1]
        return F.pad(shifted, (0, max(missing, 0)))[:, : wavs.shape[1]]


class Reverberation(nn.Module):
    """Put each waveform of a batch into a room of its own.

    A room is a direct sound and a tail of noise that decays exponentially,
    the simplest model of late reverberation.

    Arguments
    ---------
    decay_seconds : (float, float)
        Least and most time in which the tail falls by 60 dB.
    direct_to_tail_db : (float, float)
        Least and most energy of the direct sound over that of the tail.

    Example
    -------
    >>> room = Reverberation((0.2, 0.8), (0.0, 10.0))
    >>> room(torch.randn(2, 8000)).shape
    torch.Size([2, 8000])
    """

    def __init__(
        self,
        decay_seconds: tuple[float, float],
        direct_to_tail_db: tuple[float, float],
    ):
        super().__init__()
        self.decay_seconds = decay_seconds
        self.direct_to_tail_db = direct_to_tail_db

    def forward(self, wavs: Tensor) -> Tensor:
        """Return changed waveforms, both of shape (batch, samples)."""
        response = self._responses(len(wavs), wavs.device)
        size = wavs.shape[1] + response.shape[1] - 1
        product = torch.fft.rfft(wavs, size) * torch.fft.rfft(response, size)
        wet = torch.fft.irfft(product, size)[:, : wavs.shape[1]]
        return _as_loud(wet, wavs)

    def _responses(self, count: int, device: torch.device) -> Tensor:
        decay = _uniform(count, self.decay_seconds, device)
        decibels = _uniform(count, self.direct_to_tail_db, device)
        samples = int(self.decay_seconds[1] * SAMPLE_RATE)
        time = torch.arange(samples, device=device) / SAMPLE_RATE
        tail = torch.randn(count, samples, device=device)
        tail = tail * 10 ** (-3 * time / decay)
        tail = tail / tail.norm(dim=1, keepdim=True) * 10 ** (-decibels / 20)
        tail[:, 0] = 1.0
        return tail


class Equalizer(nn.Module):
    """Filter each waveform of a batch by a smooth curve of its own.

    Microphones, rooms and voices differ in the tilt of their spectra. Gains
    are drawn for each octave from 125 Hz on; between these they follow the
    logarithm of the frequency.

    Arguments
    ---------
    decibels : float
        The most that an octave is raised or lowered by.

    Example
    -------
    >>> equalizer = Equalizer(12.0)
    >>> equalizer(torch.randn(2, 8000)).shape
    torch.Size([2, 8000])
    """

    _LOWEST = 125
    _OCTAVES = 6
    _SILENCE = 1024  # behind the samples, for the filter to ring out

    def __init__(self, decibels: float):
        super().__init__()
        self.decibels = decibels

    def forward(self, wavs: Tensor) -> Tensor:
        """Return changed waveforms, both of shape (batch, samples)."""
        samples = wavs.shape[1]
        size = samples + self._SILENCE
        frequency = torch.fft.rfftfreq(size, 1 / SAMPLE_RATE)
        place = (frequency / self._LOWEST).log2().clamp(0, self._OCTAVES)
        below = place.floor().clamp(max=self._OCTAVES - 1).long()
        gains = torch.rand(len(wavs), self._OCTAVES + 1) * 2 - 1
        curve = gains[:, below].lerp(gains[:, below + 1], place - below)
        factor = 10 ** (curve * self.decibels / 20)
        spectrum = torch.fft.rfft(wavs, size) * factor.to(wavs.device)
        return _as_loud(torch.fft.irfft(spectrum, size)[:, :samples], wavs)


def _as_loud(wavs: Tensor, as_these: Tensor) -> Tensor:
    """Scale waveforms to the energy of others."""
    energy, target = (
        x.square().mean(1, keepdim=True) for x in (wavs, as_these)
    )
    return wavs * (target / energy.clamp(min=1e-12)).sqrt()


def _uniform(
    count: int, bounds: tuple[float, float], device: torch.device
) -> Tensor:
    """Draw a column of numbers."""
    least, most = bounds
    return least + (most - least) * torch.rand(count, 1, device=device)
