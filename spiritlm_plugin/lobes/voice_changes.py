"""Recordings as if other people spoke, and what draws such changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from spiritlm_plugin.utils.arguments import shown

_FFT, _HOP = 512, 128
# Quefrencies that belong to the vocal tract, in samples at 16 kHz: those of a
# pitch of more than 320 Hz would be among them.
_TRACT = 50
_LEAST = 1e-5
# Of gains, natural logarithm: what is not there is not raised.
_MOST = 3.0


class FormantShift(nn.Module):
    """Shift the formants of each waveform, at equal pitch and duration.

    The envelope of the spectrum, from the low quefrencies of its cepstrum, is
    stretched along the frequency; the harmonics stay where they are. A
    vocal tract that is 10% shorter has formants 1.1 times as high.

    Arguments
    ---------
    least, most : float
        Of the factor, drawn for each waveform, as evenly in its logarithm.

    Raises
    ------
    ValueError
        Unless 0 < least <= most.

    Example
    -------
    >>> shift = FormantShift(0.85, 1.2)
    >>> shift(torch.randn(2, 16000)).shape
    torch.Size([2, 16000])
    """

    def __init__(self, least: float, most: float):
        super().__init__()
        if not 0 < least <= most:
            raise ValueError(
                f"formants are shifted by factors above 0, the least first, "
                f"got {shown(least)} and {shown(most)}"
            )
        self.bounds = least, most

    def forward(self, wavs: Tensor) -> Tensor:
        """Return changed waveforms, both of shape (batch, samples)."""
        least, most = self.bounds
        drawn = torch.rand(len(wavs), 1)
        factors = least * (most / least) ** drawn
        window = torch.hann_window(_FFT, device=wavs.device)
        # Of the same length whatever the hop, for the end to come back.
        padded = F.pad(wavs, (0, -wavs.shape[1] % _HOP))
        spectrum = torch.stft(
            padded, _FFT, _HOP, window=window, return_complex=True
        )
        envelope = _envelope(spectrum.abs())
        gains = _stretched(envelope, factors.to(wavs.device)) - envelope
        changed = spectrum * gains.clamp(max=_MOST).exp()
        shifted = torch.istft(changed, _FFT, _HOP, window=window)
        return shifted[:, : wavs.shape[1]]


def _envelope(magnitudes: Tensor) -> Tensor:
    """Return the logarithm of spectra without their harmonics.

    Shape (batch, frequencies, frames).
    """
    cepstrum = torch.fft.irfft(magnitudes.clamp(min=_LEAST).log(), dim=1)
    cepstrum[:, _TRACT : 1 - _TRACT] = 0
    return torch.fft.rfft(cepstrum, dim=1).real


def _stretched(envelope: Tensor, factors: Tensor) -> Tensor:
    """Return envelopes whose frequencies are so many times as high.

    Arguments
    ---------
    envelope : Tensor
        Shape (batch, frequencies, frames).
    factors : Tensor
        Shape (batch, 1).
    """
    bins = envelope.shape[1]
    places = torch.arange(bins, device=envelope.device) / factors
    below = places.floor().clamp(max=bins - 2)
    share = (places - below).clamp(max=1)[..., None]
    index = below.long()[..., None].expand(-1, -1, envelope.shape[2])
    low = envelope.gather(1, index)
    return low.lerp(envelope.gather(1, index + 1), share)


def change_in_float32(
    changes: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    wavs: Tensor,
    lengths: Tensor,
) -> tuple[Tensor, Tensor]:
    """Change waveforms by an augmenter, whatever the training's precision.

    Source of its form: SpeechBrain's `Augmenter`. Under autocast resampling
    would give bfloat16, of 8 bits, which is not what anybody records.

    Arguments
    ---------
    changes : callable
        Takes and gives waveforms and relative lengths.
    wavs : Tensor
        Shape (batch, samples).
    lengths : Tensor
        Shape (batch,).

    Example
    -------
    >>> shift = RandomChanges({"f": FormantShift(0.8, 1.2)}, {"f": 1.0})
    >>> with torch.autocast("cpu", torch.bfloat16):
    ...     changed, _ = change_in_float32(
    ...         shift, torch.randn(1, 8000), torch.ones(1)
    ...     )
    >>> changed.dtype
    torch.float32
    """
    with torch.autocast(wavs.device.type, enabled=False):
        return changes(wavs.float(), lengths)


class RandomChanges(nn.Module):
    """Change some waveforms of a batch, each by what is drawn for it alone.

    Takes and gives what SpeechBrain's `Augmenter` does, which draws changes
    for a whole batch. What is drawn is by torch's random numbers.

    Arguments
    ---------
    changes : mapping of str to nn.Module
        Each takes waveforms, (batch, samples), and gives as many samples; they
        are made in their order. One that is given lengths, too, such as
        SpeechBrain's `AddNoise`, gets full ones.
    shares : mapping of str to float
        How many of a hundred waveforms each changes, as a share of 1.

    Raises
    ------
    ValueError
        If the two do not name the same, or a share is not of 0 to 1.

    Example
    -------
    >>> changes = RandomChanges(
    ...     {"formants": FormantShift(0.8, 1.2)}, {"formants": 0.5}
    ... )
    >>> wavs, lengths = changes(torch.randn(4, 8000), torch.ones(4))
    >>> wavs.shape
    torch.Size([4, 8000])
    """

    def __init__(
        self, changes: Mapping[str, nn.Module], shares: Mapping[str, float]
    ):
        super().__init__()
        if set(changes) != set(shares):
            raise ValueError(
                f"each change needs its share: there are {sorted(changes)}, and "
                f"shares of {sorted(shares)}"
            )
        for name, share in shares.items():
            if not 0 <= share <= 1:
                raise ValueError(
                    f"the share of {name} must be 0 to 1, got {shown(share)}"
                )
        self.names = list(changes)
        self.changes = nn.ModuleList(changes.values())
        self.shares = [shares[name] for name in changes]

    def forward(
        self, wavs: Tensor, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Return changed waveforms, (batch, samples), and the lengths.

        Raises
        ------
        ValueError
            If a change gives another number of samples.
        """
        wavs = wavs.clone()
        for name, change, share in zip(self.names, self.changes, self.shares):
            rows = torch.rand(len(wavs)) < share
            if not rows.any():
                continue
            before = wavs[rows.to(wavs.device)]
            after = _call(change, before)
            if after.shape != before.shape:
                raise ValueError(
                    f"{name} makes {after.shape[1]} samples of "
                    f"{before.shape[1]}; changes of the duration go elsewhere"
                )
            wavs[rows.to(wavs.device)] = after
        return wavs, lengths


def _call(change: nn.Module, wavs: Tensor) -> Tensor:
    """Change waveforms by a module of ours, or one of SpeechBrain's."""
    if type(change).__module__.startswith("speechbrain."):
        return change(wavs, torch.ones(len(wavs), device=wavs.device))
    return change(wavs)
