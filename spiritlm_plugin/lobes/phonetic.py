"""Phonetic tokenizer: HuBERT features, quantized to units 25 times a second."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import HubertConfig, HubertModel

from spiritlm_plugin.lobes.mfcc import MFCC
from spiritlm_plugin.lobes.speech_encoder import SpeechEncoder
from spiritlm_plugin.lobes.windowed_encoder import (
    checked_window,
    encode_in_windows,
)


class LinearQuantizer(nn.Module):
    """Three linear layers to units and a CTC blank.

    Trained to give the same units under augmentation of the audio (Gat et
    al., "Augmentation Invariant Discrete Representation", 2023).

    Arguments
    ---------
    input_dim : int
        Of the features.
    units : int
        Without the blank, which is the class behind the last unit.
    hidden_dims : tuple of int
        Widths of the two hidden layers.

    Example
    -------
    >>> quantizer = LinearQuantizer(16, units=50, hidden_dims=(16, 32))
    >>> quantizer(torch.randn(2, 9, 16), torch.tensor([9, 5])).shape
    torch.Size([2, 9])
    """

    def __init__(
        self, input_dim: int, units: int, hidden_dims: tuple[int, int]
    ):
        super().__init__()
        first, second = hidden_dims
        self.units = units
        self.layers = nn.Sequential(
            nn.Linear(input_dim, first),
            nn.LeakyReLU(),
            nn.Linear(first, second),
            nn.LeakyReLU(),
            nn.Linear(second, units + 1),
        )

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Return units, shape (batch, frames), of (batch, frames, dim)."""
        units = self.logits(features).argmax(-1)
        return fill_blanks(units, lengths, self.units)

    def logits(self, features: Tensor) -> Tensor:
        """Return scores, shape (batch, frames, units + 1); the blank is last."""
        return self.layers(features)

    @staticmethod
    def released_dims(input_dim: int, units: int) -> tuple[int, int]:
        """Return the hidden widths that the released file form implies.

        They go evenly from the features' width to the number of classes.

        Example
        -------
        >>> LinearQuantizer.released_dims(768, 500)
        (702, 635)
        """
        step = input_dim - (units + 1)
        return input_dim - step // 4, input_dim - step // 2


class KMeansQuantizer(nn.Module):
    """Nearest of a set of centres.

    Arguments
    ---------
    input_dim : int
        Of the features.
    units : int
        Number of centres.

    Example
    -------
    >>> quantizer = KMeansQuantizer(16, units=50)
    >>> quantizer(torch.randn(2, 9, 16), torch.tensor([9, 5])).shape
    torch.Size([2, 9])
    """

    def __init__(self, input_dim: int, units: int):
        super().__init__()
        self.units = units
        self.centres = nn.Parameter(
            torch.zeros(units, input_dim), requires_grad=False
        )

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Return units, shape (batch, frames), of (batch, frames, dim)."""
        flat = features.flatten(0, 1)
        # Of |x - c|^2 the part that depends on c.
        half_norms = self.centres.square().sum(1) / 2
        score = torch.addmm(half_norms, flat, self.centres.T, alpha=-1)
        return score.argmin(1).view(features.shape[:2])


class PhoneticTokenizer(nn.Module):
    """Waveforms to phonetic units.

    Source: Nguyen et al., "SpiRit-LM", TACL 2025, section 3.1: HuBERT with a
    hop of 640 samples, its layer 11, 500 units.

    Arguments
    ---------
    hubert : dict or None
        Arguments of `transformers.HubertConfig`; ``num_hidden_layers`` is the
        layer whose output is quantized. None quantizes cepstra, see `MFCC`.
    quantizer : LinearQuantizer or KMeansQuantizer
    normalize : bool
        Whether the HuBERT was trained on normalized waveforms.
    pool : int
        Frames that are averaged: 2 makes 25 a second of a HuBERT with a hop
        of 320 samples.
    window_seconds : float, optional
        HuBERT hears longer recordings in windows, see `encode_in_windows`.

    Raises
    ------
    ValueError
        If windows are too short, or cepstra are to have some.

    Example
    -------
    >>> tokenizer = PhoneticTokenizer(
    ...     {"hidden_size": 16, "num_hidden_layers": 1,
    ...      "num_attention_heads": 2},
    ...     LinearQuantizer(16, 50, (16, 16)),
    ... )
    >>> units, lengths = tokenizer(
    ...     torch.randn(2, 1600), torch.tensor([1600, 800])
    ... )
    >>> lengths.tolist()
    [4, 2]
    """

    def __init__(
        self,
        hubert: dict | None,
        quantizer: LinearQuantizer | KMeansQuantizer,
        normalize: bool = False,
        pool: int = 1,
        window_seconds: float | None = None,
    ):
        super().__init__()
        if hubert is None and window_seconds is not None:
            raise ValueError(
                "cepstra are taken of whole recordings; leave out "
                f"window_seconds={window_seconds}"
            )
        self.encoder: MFCC | SpeechEncoder
        if hubert is None:
            self.encoder = MFCC()
        else:
            # fairseq normalizes with the epsilon of layer norm.
            self.encoder = SpeechEncoder(
                HubertModel(HubertConfig(**hubert)), 1e-5 if normalize else None
            )
        self.quantizer = quantizer
        self.pool = pool
        self.window_seconds = checked_window(window_seconds)

    @property
    def unit_count(self) -> int:
        """Number of units, the blank of a linear quantizer among them."""
        has_blank = isinstance(self.quantizer, LinearQuantizer)
        return self.quantizer.units + has_blank

    def prepare_for_inference(self) -> None:
        """Fuse what can be fused."""
        if isinstance(self.encoder, SpeechEncoder):
            self.encoder.prepare_for_inference()

    def quantize(self, form: str) -> None:
        """Trade exactness for speed; see `SpeechEncoder.quantize`.

        Raises
        ------
        ValueError
            If it hears cepstra, or as of `SpeechEncoder.quantize`.
        """
        if isinstance(self.encoder, MFCC):
            raise ValueError(
                f"cepstra have no form {form!r}; leave out quantize"
            )
        self.encoder.quantize(form)

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
            Frames of each item, shape (batch,).
        """
        features, lengths = self.features(wavs, lengths)
        # The choice between units is made in full precision.
        with torch.autocast(wavs.device.type, enabled=False):
            return self.quantizer(features.float(), lengths), lengths

    def features(self, wavs: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return what is quantized, shape (batch, frames, dim), and lengths."""
        features, lengths = self._encode(wavs, lengths)
        if self.pool > 1:
            features = F.avg_pool1d(features.mT, self.pool).mT
            lengths = lengths // self.pool
        return features, lengths

    def _encode(self, wavs: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        if isinstance(self.encoder, MFCC):
            return self.encoder(wavs, lengths)
        return encode_in_windows(
            self.encoder, wavs, lengths, self.window_seconds
        )


def fill_blanks(units: Tensor, lengths: Tensor, blank: int) -> Tensor:
    """Give each blank frame the nearest unit to its left.

    Blanks in front take the item's last unit, as if the item were a ring; an
    item that is all blank stays so.

    Arguments
    ---------
    units : Tensor
        Shape (batch, frames).
    lengths : Tensor
        Frames of each item, shape (batch,).
    blank : int
        The blank's class.

    Example
    -------
    >>> fill_blanks(torch.tensor([[9, 3, 9, 4, 7]]), torch.tensor([4]), 9)
    tensor([[4, 3, 3, 4, 7]])
    """
    positions = torch.arange(units.shape[1], device=units.device)
    inside = positions < lengths[:, None]
    source = torch.where((units != blank) & inside, positions, -1)
    last = source.amax(1, keepdim=True)
    source = source.cummax(1).values
    source = torch.where(source < 0, last, source).clamp(min=0)
    return torch.where(inside, units.gather(1, source), units)
