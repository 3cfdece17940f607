"""Style tokenizer: a wav2vec 2.0 classifier that gives a unit a second."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import Wav2Vec2Config, Wav2Vec2Model

from spiritlm_plugin.lobes.speech_encoder import SpeechEncoder
from spiritlm_plugin.lobes.windowed_encoder import (
    checked_window,
    encode_in_windows,
)

# Of `transformers.Wav2Vec2Config`, what the layout depends on.
WAV2VEC2_KEYS = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "hidden_act",
    "layer_norm_eps",
    "feat_extract_norm",
    "feat_extract_activation",
    "do_stable_layer_norm",
    "conv_dim",
    "conv_kernel",
    "conv_stride",
    "conv_bias",
    "num_conv_pos_embeddings",
    "num_conv_pos_embedding_groups",
    "classifier_proj_size",
)


class StyleTokenizer(nn.Module):
    """Waveforms to style units.

    Source: Nguyen et al., "SpiRit-LM", TACL 2025, section 3.2. The layout is
    that of `transformers.Wav2Vec2ForSequenceClassification`, pooled over each
    second instead of over the utterance.

    Arguments
    ---------
    wav2vec2 : dict
        Arguments of `transformers.Wav2Vec2Config`.
    units : int
        Number of style units.
    frames : int
        Frames that are averaged for a unit (50 are a second).
    window_seconds : float, optional
        wav2vec 2.0 hears longer recordings in windows, see
        `encode_in_windows`.

    Raises
    ------
    ValueError
        If windows are too short.

    Example
    -------
    >>> tokenizer = StyleTokenizer(
    ...     {"hidden_size": 16, "num_hidden_layers": 1,
    ...      "num_attention_heads": 2},
    ...     units=10,
    ... )
    >>> units, lengths = tokenizer(
    ...     torch.randn(2, 20000), torch.tensor([20000, 8000])
    ... )
    >>> lengths.tolist()
    [2, 1]
    """

    def __init__(
        self,
        wav2vec2: dict,
        units: int = 100,
        frames: int = 50,
        window_seconds: float | None = None,
    ):
        super().__init__()
        config = Wav2Vec2Config(**wav2vec2)
        self.frames = frames
        self.window_seconds = checked_window(window_seconds)
        # The feature extractor of wav2vec2-base normalizes with 1e-7.
        self.encoder = SpeechEncoder(Wav2Vec2Model(config), 1e-7)
        self.projector = nn.Linear(
            config.hidden_size, config.classifier_proj_size
        )
        self.classifier = nn.Linear(config.classifier_proj_size, units)

    @classmethod
    def from_wav2vec2(
        cls,
        source: str,
        units: int,
        frames: int = 50,
        window_seconds: float | None = None,
        **options: Any,
    ) -> StyleTokenizer:
        """Start from a trained wav2vec 2.0; its convolutions stay as they are.

        Arguments
        ---------
        source : str
            A folder of transformers, or a name on the Hub, such as
            ``"facebook/wav2vec2-base"``.
        units, frames, window_seconds
            As of the class.
        **options
            Of `transformers.Wav2Vec2Config`, such as dropout.
        """
        model = Wav2Vec2Model.from_pretrained(source, **options)
        tokenizer = cls(model.config.to_dict(), units, frames, window_seconds)
        tokenizer.encoder.model = model
        model.feature_extractor.requires_grad_(False)
        return tokenizer

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments that make such a tokenizer, as plain values."""
        config = self.encoder.model.config.to_dict()
        return {
            "wav2vec2": {key: config[key] for key in WAV2VEC2_KEYS},
            "units": self.classifier.out_features,
            "frames": self.frames,
            "window_seconds": self.window_seconds,
        }

    def prepare_for_inference(self) -> None:
        """Fuse what can be fused."""
        self.encoder.prepare_for_inference()

    def quantize(self, form: str) -> None:
        """Trade exactness for speed; see `SpeechEncoder.quantize`."""
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
            Shape (batch, seconds).
        lengths : Tensor
            Units of each item, shape (batch,).
        """
        logits, lengths = self.logits(wavs, lengths)
        return logits.argmax(-1), lengths

    def logits(self, wavs: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return scores, shape (batch, seconds, units), and their lengths."""
        features, lengths = self.features(wavs, lengths)
        with torch.autocast(wavs.device.type, enabled=False):
            return self.classifier(features), lengths

    def features(self, wavs: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return what is classified, (batch, seconds, classifier_proj_size).

        Lengths are those of the units.
        """
        features, lengths = encode_in_windows(
            self.encoder, wavs, lengths, self.window_seconds
        )
        pooled, lengths = _pool(features.float(), lengths, self.frames)
        # Averaging before the linear map is the same and cheaper. The choice
        # between units is made in full precision.
        with torch.autocast(wavs.device.type, enabled=False):
            return self.projector(pooled), lengths


def _pool(
    features: Tensor, lengths: Tensor, frames: int
) -> tuple[Tensor, Tensor]:
    """Average each ``frames`` frames, and what is left at the end."""
    batch, total, dim = features.shape
    pooled_lengths = (lengths + frames - 1) // frames
    mask = torch.arange(total, device=lengths.device) < lengths[:, None]
    padding = -total % frames
    features = nn.functional.pad(
        features * mask.unsqueeze(-1), (0, 0, 0, padding)
    )
    sums = features.view(batch, -1, frames, dim).sum(2)
    starts = torch.arange(sums.shape[1], device=lengths.device) * frames
    counts = (lengths[:, None] - starts).clamp(1, frames)
    return sums / counts.unsqueeze(-1), pooled_lengths
