"""Distance of waveforms in magnitude spectrograms of several resolutions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Of a magnitude, where the logarithm would run away.
_FLOOR = 1e-4


class MultiResolutionSTFTLoss(nn.Module):
    """Log magnitude and spectral convergence at several resolutions.

    Source: Yamamoto et al., "Parallel WaveGAN", ICASSP 2020. It is called as
    SpeechBrain's `MultiScaleSTFTLoss`, which asks PyTorch for real-valued
    STFTs that it no longer gives, and serves as ``stft_loss`` of SpeechBrain's
    `GeneratorLoss`.

    Arguments
    ---------
    sizes : sequence of int
        Of the windows, in samples; they overlap by three quarters.

    Example
    -------
    >>> wav = torch.randn(1, 4000)
    >>> magnitude, convergence = MultiResolutionSTFTLoss([256])(wav, wav)
    >>> float(magnitude), float(convergence)
    (0.0, 0.0)
    """

    def __init__(self, sizes: Sequence[int] = (512, 1024, 2048)):
        super().__init__()
        self.sizes = list(sizes)

    def forward(self, wavs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean distances over the resolutions.

        Arguments
        ---------
        wavs, targets : Tensor
            Shape (batch, samples).

        Returns
        -------
        magnitude : Tensor
            Mean absolute difference of log magnitudes.
        convergence : Tensor
            Frobenius norm of the difference over the target's.
        """
        magnitude = convergence = wavs.new_zeros(())
        for size in self.sizes:
            made, true = _spectra(torch.stack([wavs, targets]), size)
            magnitude = magnitude + F.l1_loss(made.log(), true.log())
            convergence = convergence + (made - true).norm() / true.norm()
        count = len(self.sizes)
        return magnitude / count, convergence / count


def _spectra(wavs: Tensor, size: int) -> Tensor:
    """Return magnitudes, (2, batch, frequencies, frames)."""
    spectra = torch.stft(
        wavs.flatten(0, 1),
        size,
        size // 4,
        window=torch.hann_window(size, device=wavs.device),
        return_complex=True,
    )
    power = torch.view_as_real(spectra).square().sum(-1)
    # The gradient of a norm at zero is not finite.
    return (power + _FLOOR**2).sqrt().unflatten(0, wavs.shape[:2])
