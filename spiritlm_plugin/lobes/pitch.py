"""Pitch tokenizer: F0, quantized by a VQ-VAE to units 12.5 times a second."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from spiritlm_plugin.lobes.channels_last import run_conv1d, to_channels_last
from spiritlm_plugin.lobes.masking import frame_mask, standardize, zero_padding
from spiritlm_plugin.lobes.packed_linear import PackedConv1d

F0_HOP = 80
# What torchfcpe adds to the power of a frequency.
_POWER = 1e-9
# Of the convolutions of a module of torchfcpe's that see one frame.
_WIDEN, _NARROW = 2, 6


class FCPE(nn.Module):
    """F0 by FCPE, exact in batches.

    The network and its weights are those of the package torchfcpe; its group
    norm runs over time and is taken here over each item's own frames.

    Arguments
    ---------
    threshold : float
        Frames with less confidence are unvoiced.
    f0_min, f0_max : float
        Hz; frames below are unvoiced, frames above are clipped.

    Example
    -------
    >>> wav = torch.sin(torch.arange(16000) * 2 * torch.pi * 200 / 16000)
    >>> f0, voiced, lengths = FCPE()(wav[None], torch.tensor([16000]))
    >>> f0.shape, lengths.tolist(), round(float(f0[0, 100]), -1)
    (torch.Size([1, 201]), [201], 200.0)
    """

    def __init__(
        self,
        threshold: float = 0.05,
        f0_min: float = 50.0,
        f0_max: float = 1100.0,
    ):
        super().__init__()
        # torchfcpe reports its defaults on the standard output.
        with contextlib.redirect_stdout(io.StringIO()):
            import torchfcpe

            bundled = torchfcpe.spawn_bundled_infer_model("cpu")
        self.network = bundled.model
        for layer in self.network.net.encoder_layers:
            if layer.attn is not None:
                raise ValueError(
                    "this FCPE model has attention layers; only the "
                    "convolutional model of torchfcpe is supported"
                )
            for place in (_WIDEN, _NARROW):
                net = layer.conformer.net
                net[place] = PackedConv1d(net[place])
        self._mel = bundled.wav2mel.mel_extractor
        self.threshold = threshold
        self.f0_min = f0_min
        self.f0_max = f0_max

    def extra_repr(self) -> str:
        """Say what the F0 depends on."""
        return (
            f"threshold={self.threshold}, f0_min={self.f0_min}, "
            f"f0_max={self.f0_max}"
        )

    @torch.no_grad()
    def forward(
        self, wavs: Tensor, lengths: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the F0 of waveforms at 200 Hz.

        Arguments
        ---------
        wavs : Tensor
            16 kHz, shape (batch, samples).
        lengths : Tensor
            Samples of each item, shape (batch,); on the CPU they keep a GPU
            from being waited for.

        Returns
        -------
        f0 : Tensor
            In Hz, interpolated where unvoiced, 0 behind an item and where
            nothing is voiced; shape (batch, frames).
        voiced : Tensor
            1 where voiced, else 0, shape (batch, frames).
        lengths : Tensor
            Frames of each item, ``samples // 80 + 1``, shape (batch,).
        """
        mels, counts = self._mels(wavs, lengths)
        cents = self.network.latent2cents_local_decoder(
            self._salience(mels, counts), threshold=self.threshold
        )
        f0 = self.network.cent_to_f0(cents).squeeze(-1)
        is_voiced = (f0 >= self.f0_min) & _inside(
            counts.to(f0.device), f0.shape[1]
        )
        f0 = _interpolate(f0, is_voiced).clamp(max=self.f0_max)
        # A frame of the network's stands for two.
        lengths = lengths // F0_HOP + 1
        frames = int(lengths.max())
        doubled = torch.stack([f0, is_voiced.to(f0)]).repeat_interleave(2, -1)
        f0, voiced = doubled[..., :frames] * _inside(
            lengths.to(f0.device), frames
        )
        return f0, voiced, lengths

    def _mels(self, wavs: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return log mels, (batch, frames, mels), and the frames of each item.

        torchfcpe continues a waveform with its reflection, and gives the last
        frame twice; here each item of a batch has its own.
        """
        mel = self._mel
        before = (mel.win_size - mel.hop_length) // 2
        frames = lengths // mel.hop_length
        total = int(frames.max()) + 1
        lengths = lengths.to(wavs.device)[:, None]
        size = (total - 2) * mel.hop_length + mel.win_size
        places = torch.arange(size, device=wavs.device) - before
        last = lengths - 1
        reflected = (last - (last - places.abs()).abs()).clamp(min=0)
        spectrum = torch.stft(
            wavs.gather(1, reflected),
            mel.n_fft,
            mel.hop_length,
            mel.win_size,
            torch.hann_window(mel.win_size, device=wavs.device),
            center=False,
            return_complex=True,
        )
        power = spectrum.real.square() + spectrum.imag.square()
        mels = (mel.mel_basis @ (power + _POWER).sqrt()).clamp(mel.clip_val)
        mels = mels.log().transpose(1, 2)
        places = torch.arange(total, device=wavs.device)
        last = lengths // mel.hop_length - 1
        source = torch.minimum(places, last)[..., None]
        mels = mels.gather(1, source.expand(-1, -1, mels.shape[2]))
        return mels * (places <= last + 1)[..., None], frames + 1

    def _salience(self, mels: Tensor, lengths: Tensor) -> Tensor:
        """Run the network with padding that changes nothing."""
        network = self.network
        mask = _mask(lengths, mels.shape[1], mels.device)
        first, norm, activation, second = network.input_stack
        x = run_conv1d(first, to_channels_last(mels.transpose(1, 2)))
        x = activation(_group_norm(x.squeeze(2), lengths, norm))
        x = to_channels_last(zero_padding(x, mask))
        x = run_conv1d(second, x).permute(0, 2, 3, 1).squeeze(1)
        for layer in network.net.encoder_layers:
            x += _conformer(layer.conformer.net, x, mask)
        return network.output_proj(network.norm(x)).sigmoid()


def _conformer(net: Any, x: Tensor, mask: Tensor | None) -> Tensor:
    """Run a convolution module of torchfcpe on (batch, frames, channels)."""
    norm, _, widen, _, depthwise, _, narrow, *_ = net
    y = F.glu(widen(norm(x).flatten(0, 1))).view(*x.shape[:2], -1)
    if mask is not None:
        y = y.mul_(mask[..., None])
    y = run_conv1d(depthwise.conv, y.unsqueeze(1).permute(0, 3, 1, 2))
    y = F.silu(y, inplace=True).permute(0, 2, 3, 1)
    return narrow(y.flatten(0, 2)).view_as(x)


class PitchQuantizer(nn.Module):
    """The encoder and codebook of a VQ-VAE over F0.

    Source: Polyak et al., "Speech Resynthesis from Discrete Disentangled
    Self-Supervised Representations", Interspeech 2021.

    Arguments
    ---------
    units : int
        Rows of the codebook.
    width, output_width : int
        Channels inside, and of the codes.
    downs : int
        Halvings of the frame rate; 4 turn 200 Hz into 12.5 Hz.
    depth : int
        Residual blocks after each halving.
    block_ratio : float
        Channels inside a residual block, over ``width``.
    dilation_growth : int
        Dilation of block i is this to the power of i.

    Example
    -------
    >>> quantizer = PitchQuantizer(units=64, width=8, output_width=8)
    >>> quantizer(torch.randn(1, 2, 200), torch.tensor([200]))[0].shape
    torch.Size([1, 12])
    """

    codebook: Tensor

    def __init__(
        self,
        units: int = 64,
        width: int = 32,
        output_width: int = 128,
        downs: int = 4,
        depth: int = 4,
        block_ratio: float = 1.0,
        dilation_growth: int = 3,
    ):
        super().__init__()
        inner = int(width * block_ratio)
        self.stages = nn.ModuleList(
            nn.ModuleList(
                [
                    nn.Conv1d(2 if i == 0 else width, width, 4, 2, 1),
                    *(
                        ResidualBlock(width, inner, dilation_growth**j)
                        for j in range(depth)
                    ),
                ]
            )
            for i in range(downs)
        )
        self.output = nn.Conv1d(width, output_width, 3, 1, 1)
        self.register_buffer("codebook", torch.zeros(units, output_width))

    def forward(
        self, features: Tensor, lengths: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the nearest code of each frame.

        Arguments
        ---------
        features : Tensor
            F0 and voicing, shape (batch, 2, frames), zero behind an item.
        lengths : Tensor
            Frames of each item, shape (batch,).

        Returns
        -------
        units : Tensor
            Shape (batch, frames // 2**downs).
        lengths : Tensor
            Units of each item, shape (batch,).
        """
        x, lengths = self.encode(features, lengths)
        return self.nearest(x.transpose(1, 2)), lengths

    def nearest(self, x: Tensor) -> Tensor:
        """Return the nearest code of vectors, (..., output_width)."""
        # Of |x - k|^2 the part that depends on the code k.
        score = self.codebook.square().sum(1) - 2 * (x @ self.codebook.T)
        return score.argmin(-1)

    def encode(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return what is quantized, (batch, output_width, frames)."""
        for stage in self.stages:
            halving, *blocks = stage.children()
            lengths = lengths // 2
            x = halving(x)
            mask = _mask(lengths, x.shape[-1], x.device)
            x = zero_padding(x, mask)
            for block in blocks:
                x = block(x, mask)
        return self.output(x), lengths


class ResidualBlock(nn.Module):
    """A dilated convolution, added to its input; padding changes nothing.

    Arguments
    ---------
    width, inner : int
        Channels outside and inside.
    dilation : int
        Of the 3-tap convolution.

    Example
    -------
    >>> ResidualBlock(8, 4, dilation=3)(torch.randn(1, 8, 20), None).shape
    torch.Size([1, 8, 20])
    """

    def __init__(self, width: int, inner: int, dilation: int):
        super().__init__()
        self.dilated = nn.Conv1d(width, inner, 3, 1, dilation, dilation)
        self.pointwise = nn.Conv1d(inner, width, 1)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Return (batch, width, frames); the mask says where frames are."""
        y = self.pointwise(F.relu(self.dilated(F.relu(x))))
        return x + zero_padding(y, mask)


class PitchTokenizer(nn.Module):
    """Waveforms to pitch units.

    Source: Nguyen et al., "SpiRit-LM", TACL 2025, section 3.2.

    Arguments
    ---------
    f0 : nn.Module
        Such as `FCPE`.
    quantizer : PitchQuantizer
        Its F0 input is in Hz.
    center : bool
        Whether the mean over voiced frames is taken off the F0.

    Example
    -------
    >>> tokenizer = PitchTokenizer(FCPE(), PitchQuantizer())
    >>> units, lengths = tokenizer(
    ...     torch.randn(2, 16000), torch.tensor([16000, 8000])
    ... )
    >>> lengths.tolist()
    [12, 6]
    """

    def __init__(
        self, f0: nn.Module, quantizer: PitchQuantizer, center: bool = True
    ):
        super().__init__()
        self.f0 = f0
        self.quantizer = quantizer
        self.center = center

    def forward(self, wavs: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return units of waveforms.

        Arguments
        ---------
        wavs : Tensor
            16 kHz, shape (batch, samples).
        lengths : Tensor
            Samples of each item, shape (batch,).

        Returns
        -------
        units : Tensor
            Shape (batch, frames).
        lengths : Tensor
            Units of each item, shape (batch,).
        """
        # F0 in Hz does not survive reduced precision.
        with torch.autocast(wavs.device.type, enabled=False):
            return self._tokenize(wavs, lengths)

    def _tokenize(self, wavs: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        f0, voiced, lengths = self.f0(wavs, lengths)
        if self.center:
            f0, _ = center_f0(f0, voiced)
        return self.quantizer(torch.stack([f0, voiced], 1), lengths)


def center_f0(f0: Tensor, voiced: Tensor) -> tuple[Tensor, Tensor]:
    """Take off each item's mean F0 over its voiced frames.

    Arguments
    ---------
    f0, voiced : Tensor
        As `FCPE` gives them, shape (batch, frames).

    Returns
    -------
    f0 : Tensor
        Frames of 0 Hz stay 0.
    mean : Tensor
        In Hz, shape (batch, 1).

    Example
    -------
    >>> center_f0(torch.tensor([[90.0, 110.0, 0.0]]),
    ...           torch.tensor([[1.0, 1.0, 0.0]]))
    (tensor([[-10.,  10.,   0.]]), tensor([[100.]]))
    """
    count = voiced.sum(1, keepdim=True).clamp(min=1)
    mean = (f0 * voiced).sum(1, keepdim=True) / count
    return torch.where(f0 != 0, f0 - mean, f0), mean


def _group_norm(x: Tensor, lengths: Tensor, norm: nn.GroupNorm) -> Tensor:
    """Apply group norm over each item's own frames."""
    if frame_mask(lengths, x.shape[-1]) is None:
        return norm(x)
    lengths = lengths.to(x.device)
    batch, channels, frames = x.shape
    # Statistics over (channels of a group x frames): put the frames first so
    # that what is behind an item is at the end of each group.
    grouped = x.view(batch, norm.num_groups, -1, frames).transpose(2, 3)
    per_group = channels // norm.num_groups
    flat = grouped.reshape(batch, norm.num_groups, -1)
    flat = standardize(flat, lengths * per_group, norm.eps)
    x = flat.view(batch, norm.num_groups, frames, per_group)
    x = x.transpose(2, 3).reshape(batch, channels, frames)
    return x * norm.weight[:, None] + norm.bias[:, None]


def _mask(lengths: Tensor, frames: int, device: torch.device) -> Tensor | None:
    """Return `frame_mask` on a device that need not be that of lengths."""
    mask = frame_mask(lengths, frames)
    return None if mask is None else mask.to(device)


def _inside(lengths: Tensor, frames: int) -> Tensor:
    """Return where items have frames, of bool, shape (batch, frames)."""
    return torch.arange(frames, device=lengths.device) < lengths[:, None]


def _interpolate(f0: Tensor, voiced: Tensor) -> Tensor:
    """Fill unvoiced frames linearly between voiced ones, flat at the ends.

    What has no voiced frame is 0. All is of shape (batch, frames).
    """
    frames = f0.shape[1]
    places = torch.arange(frames, device=f0.device)
    left = places.where(voiced, -1).cummax(1).values
    right = places.where(voiced, frames).flip(1).cummin(1).values.flip(1)
    first = left.where(left >= 0, right).clamp(max=frames - 1)
    second = right.where(right < frames, left).clamp(min=0)
    low, high = f0.gather(1, first), f0.gather(1, second)
    share = (places - first) / (second - first).clamp(min=1)
    filled = (low + share * (high - low)).where(~voiced, f0)
    return filled * voiced.any(1, keepdim=True)
