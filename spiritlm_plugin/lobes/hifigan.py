"""HiFi-GAN's generator, exact in batches and in bounded memory."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import weight_norm

from spiritlm_plugin.lobes.channels_last import to_channels_last
from spiritlm_plugin.lobes.masking import Padding, zero_
from spiritlm_plugin.lobes.packed_convolution import PackedConvolution

_SLOPE = 0.1
_FRAME_KERNEL = 3
# Samples that late stages work on at a time, so that they stay in the cache.
_PIECE_SAMPLES = 256000


def _round_length(frames: int) -> int:
    """Return so many frames or a few more, of four lengths in each octave.

    oneDNN prepares each of its convolutions for each length that it meets,
    which takes as long as the convolution itself, in bfloat16 ten times.
    """
    step = 1 << max(frames.bit_length() - 3, 0)
    return -(-frames // step) * step


class HifiGanGenerator(nn.Module):
    """HiFi-GAN's generator (Kong et al., NeurIPS 2020).

    SpeechBrain's generator pads its convolutions by reflection; this one pads
    with zeros, as the original and the released vocoders do. Convolutions are
    two-dimensional with a height of one (see `channels_last`).

    Arguments
    ---------
    input_dim : int
        Channels of the input.
    channels : int
        Channels before the first upsampling, halved by each.
    upsample_rates, upsample_kernels : sequence of int
        Their product is the hop.
    resblock_kernels : sequence of int
        Of the residual blocks that are averaged after each upsampling.
    resblock_dilations : sequence of sequence of int
        Of each residual block's convolutions.
    frame_dilations : sequence of int
        Of a residual block of the frames, before the first upsampling, where
        convolutions cost least: what a unit sounds like depends on those
        around it. HiFi-GAN has none. It adds nothing before it is trained.

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
        upsample_rates: Sequence[int],
        upsample_kernels: Sequence[int],
        resblock_kernels: Sequence[int] = (3, 7, 11),
        resblock_dilations: Sequence[Sequence[int]] = ((1, 3, 5),) * 3,
        frame_dilations: Sequence[int] = (),
    ):
        super().__init__()
        self.input = weight_norm(
            PackedConvolution(input_dim, channels, 7, padding=3)
        )
        self.frames = None
        if frame_dilations:
            self.frames = _ResidualBlock(
                channels, _FRAME_KERNEL, frame_dilations
            )
            for name, values in self.frames.plain.named_parameters():
                if name.endswith(("weight.original0", "bias")):
                    nn.init.zeros_(values)
        self.stages = nn.ModuleList()
        self.hop = 1
        for rate, kernel in zip(upsample_rates, upsample_kernels):
            self.hop *= rate
            self.stages.append(
                _Stage(
                    channels, rate, kernel, resblock_kernels, resblock_dilations
                )
            )
            channels //= 2
        self.output = weight_norm(PackedConvolution(channels, 1, 7, padding=3))
        # Frames on either side that a frame's samples depend on.
        blocks = zip(resblock_kernels, resblock_dilations)
        in_blocks = max(
            sum((size - 1) * (dilation + 1) // 2 for dilation in dilations)
            for size, dilations in blocks
        )
        self.context = 3
        for rate, kernel in zip(upsample_rates[::-1], upsample_kernels[::-1]):
            reach = self.context + in_blocks + kernel
            self.context = -(-reach // rate)
        self.context += 3
        reaches = [(d + 1) * (_FRAME_KERNEL - 1) // 2 for d in frame_dilations]
        self.context += sum(reaches)

    def prepare_for_inference(self) -> None:
        """Fuse the weight norms and lay weights out for speed."""
        for module in list(self.modules()):
            if parametrize.is_parametrized(module):
                parametrize.remove_parametrizations(module, "weight")
        for module in self.modules():
            # Of frozen ones they are buffers by now.
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
                module.weight.data = module.weight.to(
                    memory_format=torch.channels_last
                )

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Return waveforms, shape (batch, 1, frames * hop).

        Arguments
        ---------
        x : Tensor
            Shape (batch, input_dim, frames).
        lengths : Tensor
            Frames of each item, shape (batch,); on the CPU they keep a GPU
            from being waited for.
        """
        frames = x.shape[-1]
        if x.device.type == "cpu" and not torch.is_grad_enabled():
            x = F.pad(x, (0, _round_length(frames) - frames))
        padding = None
        if bool((lengths < x.shape[-1]).any()):
            padding = Padding(lengths.cpu())
            x = x.clone()
        x = zero_(to_channels_last(x), padding)
        x = zero_(self.input(x), padding)
        if self.frames is not None:
            x = self.frames(x, padding)
        for stage in self.stages:
            x, padding = stage(x, padding)
        # Samples have more bits than numbers in reduced precision.
        with torch.autocast(x.device.type, enabled=False):
            y = self.output(F.leaky_relu(x).float())
        # The gradient of tanh needs its output: clear what goes in.
        return zero_(y, padding).tanh().squeeze(2)[..., : frames * self.hop]

    def synthesize(self, x: Tensor) -> Tensor:
        """Return the waveform of one item, in memory that does not grow.

        The item runs through the network in pieces that overlap by more than
        its receptive field.

        Arguments
        ---------
        x : Tensor
            Shape (input_dim, frames).

        Returns
        -------
        Tensor
            Shape (frames * hop,).
        """
        frames = x.shape[-1]
        size = max(_PIECE_SAMPLES // self.hop, 1)
        pieces = []
        for start in range(0, frames, size):
            end = min(start + size, frames)
            first = max(start - self.context, 0)
            last = min(end + self.context, frames)
            piece = x[None, :, first:last]
            wav = self(piece, torch.tensor([last - first]))
            before = (start - first) * self.hop
            pieces.append(wav[0, 0, before : before + (end - start) * self.hop])
        return torch.cat(pieces)


class _Stage(nn.Module):
    """Upsampling, and the mean of residual blocks."""

    def __init__(
        self,
        channels: int,
        rate: int,
        kernel: int,
        block_kernels: Sequence[int],
        block_dilations: Sequence[Sequence[int]],
    ):
        super().__init__()
        self.rate = rate
        self.upsampler = weight_norm(
            nn.ConvTranspose2d(
                channels,
                channels // 2,
                (1, kernel),
                (1, rate),
                (0, (kernel - rate) // 2),
            )
        )
        self.blocks = nn.ModuleList(
            _ResidualBlock(channels // 2, size, dilations)
            for size, dilations in zip(block_kernels, block_dilations)
        )

    def forward(
        self, x: Tensor, padding: Padding | None
    ) -> tuple[Tensor, Padding | None]:
        x = self.upsampler(F.leaky_relu(x, _SLOPE))
        x = x.contiguous(memory_format=torch.channels_last)
        if padding is not None:
            padding = padding.stretched(self.rate)
        x = zero_(x, padding)
        # New memory costs a CPU more than what is computed in it.
        space = None if torch.is_grad_enabled() else torch.empty_like(x)
        first, *others = self.blocks
        total = first(x, padding, space)
        for block in others:
            total = total.add_(block(x, padding, space))
        return total.div_(len(self.blocks)), padding


class _ResidualBlock(nn.Module):
    """Pairs of a dilated and a plain convolution, each pair added."""

    def __init__(self, channels: int, kernel: int, dilations: Sequence[int]):
        super().__init__()

        def conv(dilation: int) -> nn.Module:
            padding = (kernel - 1) * dilation // 2
            return weight_norm(
                PackedConvolution(channels, channels, kernel, dilation, padding)
            )

        self.dilated = nn.ModuleList(conv(dilation) for dilation in dilations)
        self.plain = nn.ModuleList(conv(1) for _ in dilations)

    def forward(
        self,
        x: Tensor,
        padding: Padding | None,
        space: Tensor | None = None,
    ) -> Tensor:
        if not torch.is_grad_enabled():
            x = x.clone()  # which the convolutions add to
        for dilated, plain in zip(self.dilated, self.plain):
            assert isinstance(dilated, PackedConvolution)
            assert isinstance(plain, PackedConvolution)
            y = dilated.activated(_rectified(x, space), _SLOPE, padding)
            x = zero_(plain.add_to(x, y), padding)
        return x


def _rectified(x: Tensor, space: Tensor | None) -> Tensor:
    """Return the leaky ReLU, in memory that is there if some is given."""
    if space is None:
        return F.leaky_relu(x, _SLOPE)
    result: Tensor = torch.ops.aten.leaky_relu.out(x, _SLOPE, out=space)
    return result
