"""Changes of a recording that leave its words as they are."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch
import torchaudio
from torch import Tensor, nn
from torch.nn import functional as F

from spiritlm_plugin.dataio.audio.containers import AudioFile
from spiritlm_plugin.dataio.audio.resampling import resample
from spiritlm_plugin.dataio.units.units import SAMPLE_RATE

_SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3")
# Of the phase vocoder.
_FFT, _HOP = 512, 128


class PitchShift(nn.Module):
    """Shift the pitch of each waveform, and its formants, at equal duration.

    A phase vocoder stretches, resampling brings the duration back. The factors
    are simple ratios, for which resampling is cheap.

    Arguments
    ---------
    ratios : sequence of (int, int)
        Of new pitch to old, such as (9, 8); one is drawn for each waveform.

    Example
    -------
    >>> shift = PitchShift([(5, 4)])
    >>> tone = torch.sin(torch.arange(16000) * 2 * torch.pi * 400 / 16000)
    >>> spectrum = torch.fft.rfft(shift(tone[None])[0])
    >>> int(spectrum.abs().argmax())
    500
    """

    def __init__(self, ratios: Sequence[tuple[int, int]]):
        super().__init__()
        self.ratios = [tuple(ratio) for ratio in ratios]

    def forward(self, wavs: Tensor) -> Tensor:
        """Return changed waveforms, both of shape (batch, samples)."""
        drawn = torch.randint(len(self.ratios), (len(wavs),))
        changed = torch.empty_like(wavs)
        for choice in drawn.unique().tolist():
            rows = (drawn == choice).to(wavs.device)
            changed[rows] = _shifted(wavs[rows], *self.ratios[choice])
        return changed


class TimeStretch(nn.Module):
    """Change the tempo of a batch, at equal pitch, by a phase vocoder.

    Arguments
    ---------
    tempos : sequence of float
        Of new tempo to old; one is drawn for each batch.

    Example
    -------
    >>> TimeStretch([1.25])(torch.randn(2, 16000)).shape
    torch.Size([2, 12800])
    """

    def __init__(self, tempos: Sequence[float]):
        super().__init__()
        self.tempos = list(tempos)

    def forward(self, wavs: Tensor) -> Tensor:
        """Return changed waveforms, shape (batch, samples / tempo)."""
        tempo = self.tempos[int(torch.randint(len(self.tempos), ()))]
        stretched = _stretch(wavs, tempo)
        samples = round(wavs.shape[1] / tempo)
        missing = samples - stretched.shape[1]
        return F.pad(stretched, (0, max(missing, 0)))[:, :samples]


class Noise(nn.Module):
    """Noise for a batch: pieces of recordings, or white.

    It is what SpeechBrain's `AddNoise` calls as its ``noise_funct``. What is
    drawn depends on torch's random numbers and the names of the files alone;
    pieces that are too short are repeated, channels averaged, and other rates
    resampled.

    Arguments
    ---------
    folder : str or Path, optional
        Of recordings, folders in it too, such as MUSAN; white noise without.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    ValueError
        If there is no recording in it.

    Example
    -------
    >>> Noise()(torch.zeros(2, 8000)).shape
    torch.Size([2, 8000])
    """

    def __init__(self, folder: str | Path | None = None):
        super().__init__()
        self.recordings = None if folder is None else _recordings(folder)

    def forward(self, wavs: Tensor) -> Tensor:
        """Return noise of the same shape, (batch, samples).

        Raises
        ------
        ValueError
            If a recording cannot be used; names it.
        """
        if self.recordings is None:
            return torch.randn_like(wavs)
        pieces = [
            _piece(_draw(self.recordings), wavs.shape[1]).mean(1) for _ in wavs
        ]
        return torch.stack([_repeat(p, wavs.shape[1]) for p in pieces]).to(wavs)


class Reverberation(nn.Module):
    """Put each waveform of a batch into a room of its own.

    Rooms are those of recorded or simulated impulse responses, of which one
    channel is drawn, from the direct sound on. Without these a room is a
    direct sound and a tail of noise that decays exponentially, the simplest
    model of late reverberation.

    Arguments
    ---------
    decay_seconds : (float, float)
        Least and most time in which the tail falls by 60 dB.
    direct_to_tail_db : (float, float)
        Least and most energy of the direct sound over that of the tail.
    folder : str or Path, optional
        Of impulse responses, folders in it too, such as RIRS_NOISES; files
        with "noise" in their names are none. Decay and energy do not matter
        then.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    ValueError
        If there is no impulse response in it.

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
        folder: str | Path | None = None,
    ):
        super().__init__()
        self.decay_seconds = decay_seconds
        self.direct_to_tail_db = direct_to_tail_db
        self.rooms = None if folder is None else _recordings(folder, "noise")

    def forward(self, wavs: Tensor) -> Tensor:
        """Return changed waveforms, both of shape (batch, samples).

        Raises
        ------
        ValueError
            If an impulse response cannot be used; names it.
        """
        if self.rooms is None:
            response = self._simplest(len(wavs), wavs.device)
        else:
            rooms = [_response(_draw(self.rooms)) for _ in wavs]
            response = nn.utils.rnn.pad_sequence(rooms, True).to(wavs)
        size = wavs.shape[1] + response.shape[1] - 1
        product = torch.fft.rfft(wavs, size) * torch.fft.rfft(response, size)
        wet = torch.fft.irfft(product, size)[:, : wavs.shape[1]]
        return _as_loud(wet, wavs)

    def _simplest(self, count: int, device: torch.device) -> Tensor:
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


class Telephone(nn.Module):
    """Send a batch through a telephone: 300 to 3,400 Hz, 8 bits by mu-law.

    Source: ITU-T G.711 (mu-law at 8 kHz) and G.712 (the band).

    Example
    -------
    >>> Telephone()(torch.randn(2, 8001)).shape
    torch.Size([2, 8001])
    """

    _RATE = 8000
    _BAND = (300, 3400)
    _LEVELS = 256

    def forward(self, wavs: Tensor) -> Tensor:
        """Return changed waveforms, both of shape (batch, samples)."""
        spectrum = torch.fft.rfft(wavs)
        hertz = torch.fft.rfftfreq(wavs.shape[1], 1 / SAMPLE_RATE)
        low, high = self._BAND
        inside = ((hertz >= low) & (hertz <= high)).to(wavs.device)
        narrow = torch.fft.irfft(spectrum * inside, wavs.shape[1])
        functional = torchaudio.functional
        sampled = functional.resample(narrow, SAMPLE_RATE, self._RATE)
        codes = functional.mu_law_encoding(sampled.clamp(-1, 1), self._LEVELS)
        heard = functional.mu_law_decoding(codes, self._LEVELS).to(wavs)
        wide = functional.resample(heard, self._RATE, SAMPLE_RATE)
        return wide[:, : wavs.shape[1]]


def _shifted(wavs: Tensor, new: int, old: int) -> Tensor:
    """Return waveforms whose pitch is new / old times as high."""
    if new == old:
        return wavs
    longer = _stretch(wavs, old / new)
    shifted = torchaudio.functional.resample(longer, new, old)
    missing = wavs.shape[1] - shifted.shape[1]
    return F.pad(shifted, (0, max(missing, 0)))[:, : wavs.shape[1]]


def _stretch(wavs: Tensor, tempo: float) -> Tensor:
    """Return about 1 / tempo times as many samples, of the same pitch."""
    window = torch.hann_window(_FFT, device=wavs.device)
    spectrum = torch.stft(wavs, _FFT, _HOP, window=window, return_complex=True)
    advance = torch.linspace(
        0, torch.pi * _HOP, spectrum.shape[1], device=wavs.device
    )
    stretched = torchaudio.functional.phase_vocoder(
        spectrum, tempo, advance[:, None]
    )
    return torch.istft(stretched, _FFT, _HOP, window=window)


def _recordings(folder: str | Path, without: str | None = None) -> list[str]:
    """Return the audio files in a folder, in the order of their names.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    ValueError
        If there is none.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"no such folder of recordings: {folder}")
    found = [
        os.path.join(place, name)
        for place, _, names in os.walk(folder, followlinks=True)
        for name in names
        if name.lower().endswith(_SUFFIXES) and not name.startswith(".")
        if without is None or without not in name.lower()
    ]
    if not found:
        but = f' without "{without}" in its name' if without else ""
        raise ValueError(
            f"{folder} holds no recording{but}; unpack the corpus there, as "
            f"files of {', '.join(_SUFFIXES)}"
        )
    return sorted(found)


def _draw(paths: Sequence[str]) -> str:
    return paths[int(torch.randint(len(paths), ()))]


def _piece(path: str, samples: int | None = None) -> Tensor:
    """Read a recording at 16 kHz, or a piece of it that begins anywhere.

    Arguments
    ---------
    path : str
        Of the recording.
    samples : int, optional
        The most that is read.

    Returns
    -------
    Tensor
        Shape (samples, channels).

    Raises
    ------
    ValueError
        If it cannot be read, is empty, or holds what is no number.
    """
    with AudioFile(path) as file:
        rate, count = file.rate, file.count()
        wanted = count
        if samples is not None:
            wanted = min(-(-samples * rate // SAMPLE_RATE), count)
        file.seek(int(torch.randint(count - wanted + 1, ())))
        read = torch.from_numpy(file.read(wanted).copy())
    if not len(read) or not read.isfinite().all():
        raise ValueError(
            f"{path} is empty, damaged, or has samples that are no numbers; "
            "remove or repair it"
        )
    channels = [
        torch.cat(list(resample([channel.contiguous()], rate)))
        for channel in read.T
    ]
    return torch.stack(channels, 1)


def _repeat(piece: Tensor, samples: int) -> Tensor:
    """Return so many samples of a piece that begins anew where it ends."""
    return piece.repeat(-(-samples // len(piece)))[:samples]


def _response(path: str) -> Tensor:
    """Return a channel of an impulse response, from the direct sound on."""
    channels = _piece(path)
    channel = channels[:, int(torch.randint(channels.shape[1], ()))]
    direct = int(channel.abs().argmax())
    if not channel[direct]:
        raise ValueError(f"{path} holds no sound; remove it")
    return channel[direct:] / channel[direct]


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
