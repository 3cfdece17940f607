"""HuBERT and wav2vec 2.0 encoders that are exact in batches."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize
from transformers import HubertModel, Wav2Vec2Model

from spiritlm_plugin.lobes.masking import (
    frame_mask,
    standardize,
    zero_padding,
)


class SpeechEncoder(nn.Module):
    """Run a HuBERT or wav2vec 2.0 model so that padding changes nothing.

    The first convolution of these models is normalized over time. Padding
    would change its statistics, attention mask or not; here they are taken
    over each item's own frames.

    Arguments
    ---------
    model : transformers.HubertModel or transformers.Wav2Vec2Model
        With group norm in its first convolution and post-norm layers, as the
        base sizes have it. All of its layers are run.
    normalize_eps : float, optional
        Bring waveforms to zero mean and unit variance first, with this much
        added to the variance.

    Raises
    ------
    ValueError
        If the model is of the other kind (layer norm in each convolution).

    Example
    -------
    >>> from transformers import HubertConfig
    >>> encoder = SpeechEncoder(
    ...     HubertModel(
    ...         HubertConfig(
    ...             hidden_size=16, num_hidden_layers=1, num_attention_heads=2
    ...         )
    ...     )
    ... )
    >>> features, lengths = encoder(
    ...     torch.randn(2, 1600), torch.tensor([1600, 800])
    ... )
    >>> features.shape, lengths.tolist()
    (torch.Size([2, 4, 16]), [4, 2])
    """

    def __init__(
        self,
        model: HubertModel | Wav2Vec2Model,
        normalize_eps: float | None = None,
    ):
        super().__init__()
        config = model.config
        if config.do_stable_layer_norm or config.feat_extract_norm != "group":
            raise ValueError(
                "the encoder must have group norm in its first convolution "
                "and post-norm layers (feat_extract_norm='group', "
                "do_stable_layer_norm=False), as HuBERT base has"
            )
        self.model = model
        self.normalize_eps = normalize_eps

    def prepare_for_inference(self) -> None:
        """Fuse the weight norm of the positional convolution, for speed."""
        conv = self.model.encoder.pos_conv_embed.conv
        if parametrize.is_parametrized(conv):
            parametrize.remove_parametrizations(conv, "weight")

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """Return the number of frames for numbers of samples."""
        for layer in self.model.feature_extractor.conv_layers:
            lengths = _conv_lengths(lengths, layer.conv)
        return lengths

    def forward(self, wavs: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return features of waveforms.

        Arguments
        ---------
        wavs : Tensor
            16 kHz, shape (batch, samples).
        lengths : Tensor
            Samples of each item, shape (batch,).

        Returns
        -------
        features : Tensor
            Shape (batch, frames, hidden); what is behind an item has no
            meaning.
        lengths : Tensor
            Frames of each item, shape (batch,).
        """
        if self.normalize_eps is not None:
            wavs = standardize(wavs, lengths, self.normalize_eps)
        features, lengths = self._convolutions(wavs, lengths)
        hidden = self.model.feature_projection(features.transpose(1, 2))
        if isinstance(hidden, tuple):  # wav2vec 2.0 returns its input as well
            hidden = hidden[0]
        return self._transformer(hidden, lengths), lengths

    def _convolutions(self, wavs, lengths) -> tuple[Tensor, Tensor]:
        first, *others = self.model.feature_extractor.conv_layers
        x = first.conv(wavs.unsqueeze(1))
        lengths = _conv_lengths(lengths, first.conv)
        x = first.activation(_time_norm(x, lengths, first.layer_norm))
        for layer in others:
            x = layer.activation(layer.conv(x))
            lengths = _conv_lengths(lengths, layer.conv)
        return x, lengths

    def _transformer(self, hidden: Tensor, lengths: Tensor) -> Tensor:
        encoder = self.model.encoder
        mask = frame_mask(lengths, hidden.shape[1])
        if mask is not None:
            hidden = zero_padding(hidden.transpose(1, 2), mask).transpose(1, 2)
            mask = mask[:, None, None, :]
        hidden = hidden + encoder.pos_conv_embed(hidden)
        hidden = encoder.dropout(encoder.layer_norm(hidden))
        for layer in encoder.layers:
            hidden = layer(hidden, attention_mask=mask)
            if isinstance(hidden, tuple):
                hidden = hidden[0]
        return hidden


def _conv_lengths(lengths: Tensor, conv: nn.Conv1d) -> Tensor:
    return (lengths - conv.kernel_size[0]) // conv.stride[0] + 1


def _time_norm(x: Tensor, lengths: Tensor, norm: nn.GroupNorm) -> Tensor:
    """Normalize each channel over the item's own frames."""
    if frame_mask(lengths, x.shape[-1]) is None:
        return F.group_norm(
            x, norm.num_groups, norm.weight, norm.bias, norm.eps
        )
    x = standardize(x, lengths, norm.eps)
    return torch.addcmul(norm.bias[:, None], x, norm.weight[:, None])
