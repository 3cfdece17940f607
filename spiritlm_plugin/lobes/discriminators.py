"""Small discriminators for training a vocoder on few processors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

_SLOPE = 0.1

Judgement = tuple[Tensor, list[Tensor]]


class SmallDiscriminator(nn.Module):
    """Multi-period and multi-resolution discriminators of any size.

    Source: Kong et al., "HiFi-GAN", NeurIPS 2020 (periods); Jang et al.,
    "UnivNet", Interspeech 2021 (resolutions). Called as SpeechBrain's
    `HifiganDiscriminator`, which has 71 million parameters.

    Arguments
    ---------
    periods : sequence of int
        Samples that are folded into one row; one discriminator for each.
    resolutions : sequence of int
        FFT sizes of magnitude spectrograms; one discriminator for each.
    channels : int
        Of the first layer.
    max_channels : int
        Of the last layers.

    Example
    -------
    >>> discriminator = SmallDiscriminator([2, 3], [256], channels=4)
    >>> scores, features = discriminator(torch.randn(2, 1, 4000))
    >>> len(scores), len(features[0])
    (3, 5)
    """

    def __init__(
        self,
        periods: Sequence[int] = (2, 3, 5, 7, 11),
        resolutions: Sequence[int] = (512, 1024),
        channels: int = 16,
        max_channels: int = 128,
    ):
        super().__init__()
        widths = [min(channels * 4**i, max_channels) for i in range(4)]
        self.judges = nn.ModuleList(
            [_PeriodJudge(period, widths) for period in periods]
            + [_SpectralJudge(size, channels) for size in resolutions]
        )

    def forward(self, wavs: Tensor) -> tuple[list[Tensor], list[list[Tensor]]]:
        """Return how real waveforms seem.

        Arguments
        ---------
        wavs : Tensor
            Shape (batch, 1, samples).

        Returns
        -------
        scores : list of Tensor
            Of each discriminator, shape (batch, positions).
        features : list of list of Tensor
            The activations of each discriminator's layers.
        """
        judgements = [judge(wavs) for judge in self.judges]
        scores, features = zip(*judgements)
        return list(scores), list(features)


class _PeriodJudge(nn.Module):
    """Convolutions over samples that lie a period apart."""

    def __init__(self, period: int, widths: Sequence[int]):
        super().__init__()
        self.period = period
        sizes = [1, *widths]
        self.convs = nn.ModuleList(
            weight_norm(nn.Conv2d(i, o, (5, 1), (3, 1), (2, 0)))
            for i, o in zip(sizes, sizes[1:])
        )
        self.output = weight_norm(nn.Conv2d(sizes[-1], 1, (3, 1), 1, (1, 0)))

    def forward(self, wavs: Tensor) -> Judgement:
        missing = -wavs.shape[-1] % self.period
        x = F.pad(wavs, (0, missing), "reflect")
        x = x.unflatten(-1, (-1, self.period))
        return _run(self.convs, self.output, x)


class _SpectralJudge(nn.Module):
    """Convolutions over a magnitude spectrogram."""

    window: Tensor

    def __init__(self, size: int, channels: int):
        super().__init__()
        self.size = size
        self.register_buffer("window", torch.hann_window(size), False)
        sizes = [1, channels, channels, channels, channels]
        self.convs = nn.ModuleList(
            weight_norm(nn.Conv2d(i, o, (7, 3), stride, (3, 1)))
            for i, o, stride in zip(
                sizes, sizes[1:], [(2, 1), (2, 1), (2, 2), (2, 2)]
            )
        )
        self.output = weight_norm(nn.Conv2d(channels, 1, 3, 1, 1))

    def forward(self, wavs: Tensor) -> Judgement:
        with torch.autocast(wavs.device.type, enabled=False):
            spectra = torch.stft(
                wavs.float().squeeze(1),
                self.size,
                self.size // 4,
                window=self.window,
                return_complex=True,
            )
            # The gradient of a norm at zero is not finite.
            power = torch.view_as_real(spectra).square().sum(-1)
            x = (power + 1e-8).sqrt().unsqueeze(1)
        return _run(self.convs, self.output, x)


def _run(convs: nn.ModuleList, output: nn.Module, x: Tensor) -> Judgement:
    x = x.contiguous(memory_format=torch.channels_last)
    features = []
    for conv in convs:
        x = F.leaky_relu(conv(x), _SLOPE)
        features.append(x)
    score = output(x)
    features.append(score)
    return score.flatten(1), features
