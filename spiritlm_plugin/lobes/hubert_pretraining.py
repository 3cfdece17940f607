"""Training of a HuBERT: masked prediction of the units of a teacher."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import HubertConfig, HubertModel

from spiritlm_plugin.lobes.masking import frame_mask
from spiritlm_plugin.lobes.speech_encoder import SpeechEncoder

# What a part has to know of a HuBERT; the rest matters in training only.
_ARGUMENTS = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "hidden_act",
    "layer_norm_eps",
    "feat_extract_activation",
    "feat_proj_layer_norm",
    "conv_dim",
    "conv_kernel",
    "conv_stride",
    "conv_bias",
    "num_conv_pos_embeddings",
    "num_conv_pos_embedding_groups",
)


class MaskedUnitPrediction(nn.Module):
    """A HuBERT that predicts units where it does not hear.

    Spans of its input are masked. A frame's scores are the cosines of its
    projected output and of an embedding of each unit, over a temperature.

    Source: Hsu et al., "HuBERT", 2021, sections II-B and IV-C; gradients and
    penalty of features: Baevski et al., "wav2vec 2.0", 2020, section 4.2.

    Arguments
    ---------
    hubert : dict
        Arguments of `transformers.HubertConfig`.
    units : int
        Of the teacher.
    projection_dim : int
        Of the space where outputs and units are compared.
    mask_probability : float
        That a frame starts a masked span.
    mask_length : int
        Frames of a span.
    normalize : bool
        Bring waveforms to zero mean and unit variance first.
    temperature : float
        Of the scores.
    feature_gradient : float
        What gradients are multiplied by where they reach the convolutions.

    Example
    -------
    >>> model = MaskedUnitPrediction(
    ...     {"hidden_size": 16, "num_hidden_layers": 1,
    ...      "num_attention_heads": 2},
    ...     units=50, projection_dim=8, mask_probability=0.1, mask_length=5,
    ... )
    >>> scores, lengths, masked, penalty = model(
    ...     torch.randn(2, 16000), torch.tensor([16000, 8000])
    ... )
    >>> scores.shape, lengths.tolist(), masked.shape
    (torch.Size([2, 49, 50]), [49, 24], torch.Size([2, 49]))
    """

    def __init__(
        self,
        hubert: dict,
        units: int,
        projection_dim: int,
        mask_probability: float,
        mask_length: int,
        normalize: bool = False,
        temperature: float = 0.1,
        feature_gradient: float = 1.0,
    ):
        super().__init__()
        model = HubertModel(HubertConfig(**hubert))
        self.encoder = SpeechEncoder(model, 1e-5 if normalize else None)
        self.projection = nn.Linear(model.config.hidden_size, projection_dim)
        self.embeddings = nn.Parameter(torch.randn(units, projection_dim))
        self.mask_probability = mask_probability
        self.mask_length = mask_length
        self.temperature = temperature
        self.feature_gradient = feature_gradient

    def forward(
        self, wavs: Tensor, lengths: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return scores of units, with a random part of the input masked.

        Arguments
        ---------
        wavs : Tensor
            16 kHz, shape (batch, samples).
        lengths : Tensor
            Samples of each item, shape (batch,).

        Returns
        -------
        scores : Tensor
            Shape (batch, frames, units).
        lengths : Tensor
            Frames of each item, shape (batch,).
        masked : Tensor
            Which frames were masked, shape (batch, frames).
        penalty : Tensor
            Mean square of what the convolutions give, shape ().
        """
        samples = torch.tensor(wavs.shape[1], device=lengths.device)
        frames = int(self.encoder.output_lengths(samples))
        masked = span_mask(
            len(wavs),
            frames,
            self.mask_probability,
            self.mask_length,
            wavs.device,
        )
        convolved = self.encoder.convolve(wavs, lengths)
        lengths = self.encoder.output_lengths(lengths)
        inside = frame_mask(lengths, frames)
        heard = (
            convolved.float() if inside is None else convolved[inside].float()
        )
        features = self.encoder.contextualize(
            _scale_gradient(convolved, self.feature_gradient), lengths, masked
        )
        outputs = F.normalize(self.projection(features).float(), dim=-1)
        embeddings = F.normalize(self.embeddings, dim=-1)
        with torch.autocast(wavs.device.type, enabled=False):
            scores = outputs @ embeddings.T / self.temperature
        return scores, lengths, masked, heard.square().mean()


def _scale_gradient(features: Tensor, factor: float) -> Tensor:
    """Return the same features; their gradient is multiplied by a factor."""
    if factor == 1.0:
        return features
    return factor * features + (1 - factor) * features.detach()


def span_mask(
    batch: int,
    frames: int,
    probability: float,
    length: int,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Draw spans, which may overlap.

    Arguments
    ---------
    batch, frames : int
        Size of the mask.
    probability : float
        That a frame starts a span.
    length : int
        Frames of a span.
    device : torch.device or str
        Where to draw.

    Returns
    -------
    Tensor
        Of bool, shape (batch, frames).

    Example
    -------
    >>> span_mask(2, 1000, 0.16, 5).float().mean().round(decimals=1)
    tensor(0.6000)
    """
    # A span may start before the first frame, so that all are alike.
    shape = (batch, frames + length - 1)
    starts = torch.rand(shape, device=device) < probability
    return F.max_pool1d(starts.float(), length, 1) > 0


def hubert_arguments(config: HubertConfig, layer: int) -> dict:
    """Return the arguments of a part that quantizes a layer of a HuBERT.

    Arguments
    ---------
    config : transformers.HubertConfig
        Of the whole model.
    layer : int
        Counted from 1; those above it are left out.

    Raises
    ------
    ValueError
        If there is no such layer.

    Example
    -------
    >>> hubert_arguments(HubertConfig(), 11)["num_hidden_layers"]
    11
    """
    if not 1 <= layer <= config.num_hidden_layers:
        raise ValueError(
            f"layer must be from 1 to {config.num_hidden_layers}, the number "
            f"of layers of this HuBERT, got {layer}"
        )
    arguments = {name: getattr(config, name) for name in _ARGUMENTS}
    return arguments | {"num_hidden_layers": layer}
