"""HiFi-GAN's generator, exact in batches."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import weight_norm

from spiritlm_plugin.lobes.masking import frame_mask, zero_padding

_SLOPE = 0.1


class HifiGanGenerator(nn.Module):
    """HiFi-GAN's generator, exact in batches of unequal length.

    SpeechBrain's generator pads its convolutions by reflection; this one pads
    with zeros, as the original and the released vocoders do.

    Arguments
    ---------
    input_dim : int
        Channels of the input.
    channels : int
        Channels before the first upsampling, halved by each.
    upsample_rates, upsample_kernels : list of int
        Their product is the hop.
    resblock_kernels : list of int
        Of the residual blocks that are averaged after each upsampling.
    resblock_dilations : list of list of int
        Of each residual block's convolutions.

    Example
    -------
    >>> generator = HifiGanGenerator(8, 16, [4, 2], [8, 4], [3], [[1, 3]])
    >>> generator(torch.randn(2, 8, 5), torch.tensor([5, 3])).shape
    torch.Size([2, 1, 40])
    """

    def __init__(
        self,
        input_dim: int,
        channels: int,
        upsample_rates: list[int],
        upsample_kernels: list[int],
        resblock_kernels: list[int] = (3, 7, 11),
        resblock_dilations: list[list[int]] = ((1, 3, 5),) * 3,
    ):
        super().__init__()
        self.rates = list(upsample_rates)
        self.hop = 1
        self.input = weight_norm(nn.Conv1d(input_dim, channels, 7, padding=3))
        self.upsamplers = nn.ModuleList()
        self.blocks = nn.ModuleList()
        for rate, kernel in zip(upsample_rates, upsample_kernels):
            self.hop *= rate
            self.upsamplers.append(
                weight_norm(
                    nn.ConvTranspose1d(
                        channels,
                        channels // 2,
                        kernel,
                        rate,
                        padding=(kernel - rate) // 2,
                    )
                )
            )
            channels //= 2
            self.blocks.append(
                nn.ModuleList(
                    _ResidualBlock(channels, size, dilations)
                    for size, dilations in zip(
                        resblock_kernels, resblock_dilations
                    )
                )
            )
        self.output = weight_norm(nn.Conv1d(channels, 1, 7, padding=3))

    def prepare_for_inference(self) -> None:
        """Fuse the weight norms, for speed."""
        for module in list(self.modules()):
            if parametrize.is_parametrized(module):
                parametrize.remove_parametrizations(module, "weight")

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Return waveforms, shape (batch, 1, frames * hop).

        Arguments
        ---------
        x : Tensor
            Shape (batch, input_dim, frames).
        lengths : Tensor
            Frames of each item, shape (batch,).
        """
        mask = frame_mask(lengths, x.shape[-1])
        x = self.input(zero_padding(x, mask))
        for rate, upsampler, blocks in zip(
            self.rates, self.upsamplers, self.blocks
        ):
            x = upsampler(F.leaky_relu(zero_padding(x, mask), _SLOPE))
            if mask is not None:
                mask = mask.repeat_interleave(rate, dim=1)
            x = zero_padding(x, mask)
            x = sum(block(x, mask) for block in blocks) / len(blocks)
        x = self.output(F.leaky_relu(x)).tanh()
        return zero_padding(x, mask)


class _ResidualBlock(nn.Module):
    """Pairs of a dilated and a plain convolution, each pair added."""

    def __init__(self, channels: int, kernel: int, dilations: list[int]):
        super().__init__()

        def conv(dilation):
            return weight_norm(
                nn.Conv1d(
                    channels,
                    channels,
                    kernel,
                    dilation=dilation,
                    padding=(kernel - 1) * dilation // 2,
                )
            )

        self.dilated = nn.ModuleList(conv(dilation) for dilation in dilations)
        self.plain = nn.ModuleList(conv(1) for _ in dilations)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        for dilated, plain in zip(self.dilated, self.plain):
            y = zero_padding(dilated(F.leaky_relu(x, _SLOPE)), mask)
            y = plain(F.leaky_relu(y, _SLOPE))
            x = x + zero_padding(y, mask)
        return x
