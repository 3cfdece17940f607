"""Unit vocoder: HiFi-GAN on speech units, with a duration predictor."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import weight_norm

from spiritlm_plugin.lobes.masking import frame_mask, zero_padding

_SLOPE = 0.1


class UnitVocoder(nn.Module):
    """Speech units to waveforms.

    Source: Polyak et al., "Speech Resynthesis from Discrete Disentangled
    Self-Supervised Representations", Interspeech 2021, on the HiFi-GAN of
    Kong et al., NeurIPS 2020. Each item of a batch sounds as it does alone.

    Arguments
    ---------
    phonetic_units : int
        Number of phonetic units.
    embedding_dim : int
        Of each of the inputs.
    speakers : list of str
        Names of the voices; empty for a single voice.
    global_styles : int
        Number of styles that hold for a whole utterance (Base).
    pitch_units, style_units : int
        Numbers of units, 0 for Base.
    generator : dict
        Arguments of `HifiGanGenerator` but ``input_dim``.
    duration_dim : int
        Hidden width of the duration predictor.
    default_speaker, default_global_style : int
        What is used where none is asked for.

    Example
    -------
    >>> vocoder = UnitVocoder(
    ...     phonetic_units=50, embedding_dim=8, speakers=["ann", "bob"],
    ...     generator={"upsample_rates": [5, 4, 4, 4, 2],
    ...                "upsample_kernels": [11, 8, 8, 8, 4],
    ...                "channels": 32},
    ... )
    >>> wavs, lengths = vocoder(
    ...     {"phonetic": torch.zeros(1, 10, dtype=torch.int64)},
    ...     torch.tensor([10]), torch.tensor([vocoder.speaker_id("bob")]),
    ... )
    >>> wavs.shape
    torch.Size([1, 6400])
    """

    def __init__(
        self,
        phonetic_units: int,
        embedding_dim: int,
        speakers: list[str],
        generator: dict,
        global_styles: int = 0,
        pitch_units: int = 0,
        style_units: int = 0,
        duration_dim: int | None = None,
        default_speaker: int = 0,
        default_global_style: int = 0,
    ):
        super().__init__()
        self.speakers = list(speakers)
        self.default_speaker = default_speaker
        self.default_global_style = default_global_style
        # The order is that of the channels of the generator's input.
        sizes = {
            "phonetic": phonetic_units,
            "pitch": pitch_units,
            "style": style_units,
            "speaker": len(self.speakers),
            "global_style": global_styles,
        }
        self.embeddings = nn.ModuleDict(
            {
                name: nn.Embedding(size, embedding_dim)
                for name, size in sizes.items()
                if size
            }
        )
        self.duration_predictor = (
            DurationPredictor(embedding_dim, duration_dim)
            if duration_dim
            else None
        )
        self.generator = HifiGanGenerator(
            input_dim=embedding_dim * len(self.embeddings), **generator
        )

    @property
    def expressive(self) -> bool:
        """Whether pitch and style units are needed."""
        return "pitch" in self.embeddings

    @property
    def hop(self) -> int:
        """Samples for a phonetic unit at full rate."""
        return self.generator.hop

    def prepare_for_inference(self) -> None:
        """Fuse the weight norms, for speed."""
        for module in list(self.generator.modules()):
            if parametrize.is_parametrized(module):
                parametrize.remove_parametrizations(module, "weight")

    def speaker_id(self, speaker: int | str | None) -> int:
        """Return a speaker's number.

        Raises
        ------
        ValueError
            If there is no such speaker; the known ones are named.
        """
        if speaker is None:
            return self.default_speaker
        if isinstance(speaker, str) and speaker in self.speakers:
            return self.speakers.index(speaker)
        if isinstance(speaker, int) and 0 <= speaker < len(self.speakers):
            return speaker
        known = ", ".join(f"{i} ({s})" for i, s in enumerate(self.speakers))
        raise ValueError(f"unknown speaker {speaker!r}; known: {known}")

    def predict_durations(self, phonetic: Tensor, lengths: Tensor) -> Tensor:
        """Return how many frames each unit lasts.

        Arguments
        ---------
        phonetic : Tensor
            Units without repeats, shape (batch, units).
        lengths : Tensor
            Units of each item, shape (batch,).

        Returns
        -------
        Tensor
            Frames, at least 1 and 0 behind an item, shape (batch, units).

        Raises
        ------
        ValueError
            If the vocoder has no duration predictor.
        """
        if self.duration_predictor is None:
            raise ValueError(
                "this vocoder has no duration predictor; give it units at "
                "full rate"
            )
        mask = frame_mask(lengths, phonetic.shape[1])
        log_durations = self.duration_predictor(
            self.embeddings["phonetic"](phonetic), mask
        )
        durations = (log_durations.exp() - 1).round().clamp(min=1).long()
        return durations if mask is None else durations * mask

    def forward(
        self,
        units: dict[str, Tensor],
        lengths: Tensor,
        speakers: Tensor | None = None,
        global_styles: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return waveforms of frames.

        Arguments
        ---------
        units : dict of str to Tensor
            ``phonetic`` and, for Expressive, ``pitch`` and ``style``, all at
            25 Hz, shape (batch, frames).
        lengths : Tensor
            Frames of each item, shape (batch,).
        speakers, global_styles : Tensor, optional
            Shape (batch,).

        Returns
        -------
        wavs : Tensor
            Shape (batch, samples), zero behind an item.
        lengths : Tensor
            Samples of each item, shape (batch,).
        """
        batch, frames = units["phonetic"].shape
        constants = {
            "speaker": (speakers, self.default_speaker),
            "global_style": (global_styles, self.default_global_style),
        }
        inputs = []
        for name, embedding in self.embeddings.items():
            if name in constants:
                value, default = constants[name]
                if value is None:
                    value = lengths.new_full((batch,), default)
                embedded = embedding(value)[:, None].expand(-1, frames, -1)
            else:
                embedded = embedding(units[name])
            inputs.append(embedded)
        x = torch.cat(inputs, -1).transpose(1, 2)
        wavs = self.generator(x, lengths).squeeze(1)
        return wavs, lengths * self.hop


class DurationPredictor(nn.Module):
    """Two convolutions that predict log(frames + 1) of each unit.

    Arguments
    ---------
    input_dim, hidden_dim : int
        Widths.
    dropout : float
        In training.

    Example
    -------
    >>> DurationPredictor(8, 16)(torch.randn(2, 5, 8)).shape
    torch.Size([2, 5])
    """

    def __init__(self, input_dim: int, hidden_dim: int, dropout: float = 0.5):
        super().__init__()
        self.conv1 = nn.Conv1d(input_dim, hidden_dim, 3, padding=1)
        self.norm1 = nn.LayerNorm(hidden_dim)
        self.conv2 = nn.Conv1d(hidden_dim, hidden_dim, 3, padding=1)
        self.norm2 = nn.LayerNorm(hidden_dim)
        self.output = nn.Linear(hidden_dim, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return log durations, (batch, units), of (batch, units, dim)."""
        for conv, norm in (
            (self.conv1, self.norm1),
            (self.conv2, self.norm2),
        ):
            x = conv(zero_padding(x.transpose(1, 2), mask)).relu()
            x = self.dropout(norm(x.transpose(1, 2)))
        return self.output(x).squeeze(-1)


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
