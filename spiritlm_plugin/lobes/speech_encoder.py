"""HuBERT and wav2vec 2.0 encoders that are exact in batches."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from transformers import HubertModel, Wav2Vec2Model
from transformers.activations import GELUActivation

from spiritlm_plugin.lobes.channels_last import run_conv1d
from spiritlm_plugin.lobes.masking import frame_mask, standardize
from spiritlm_plugin.lobes.packed_linear import (
    PackedConv1d,
    PackedLinear,
    can_pack,
    can_quantize,
)
from spiritlm_plugin.lobes.ragged_transformer import (
    attend_at_once,
    attend_in_turn,
    has_kernel,
    run_activated,
    run_layers,
)
from spiritlm_plugin.lobes.spectral_convolution import SpectralConv1d

# How many layers behind the first one run in pieces, and in pieces of how many
# of their frames.
_FAST_LAYERS = 2
_PIECE = 400
FORMS = ("int8",)


class _Layer(Protocol):
    """A convolution of the models, as transformers has it."""

    conv: Any  # nn.Conv1d, or packed
    activation: nn.Module
    layer_norm: nn.GroupNorm  # of the first one


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
        self._prepared = False
        self._quantized = False

    def prepare_for_inference(self) -> None:
        """Fuse and lay out weights for speed; the results stay the same.

        From now on gradients reach waveforms, but no weights.
        """
        conv = self.model.encoder.pos_conv_embed.conv
        if parametrize.is_parametrized(conv):
            # In double precision, on the CPU, the weight, rounded, is the same
            # everywhere, and so is a corpus' fingerprint of it.
            device, dtype = conv.weight.device, conv.weight.dtype
            conv.to("cpu", torch.float64)
            parametrize.remove_parametrizations(conv, "weight")
            conv.to(device, dtype)
        embedding = self.model.encoder.pos_conv_embed
        embedding.conv = SpectralConv1d.share(conv)
        if conv.weight.device.type == "cpu" and can_pack():
            PackedLinear.replace_all(self.model)
            for layer in self._layers[1:]:
                if type(layer.conv) is nn.Conv1d:
                    layer.conv = PackedConv1d(layer.conv)
        self._prepared = True

    def quantize(self, form: str) -> None:
        """Trade exactness for speed, after `prepare_for_inference`.

        Arguments
        ---------
        form : str
            ``"int8"``: the products of the transformer's layers and of the two
            longest convolutions in integers of 8 bits, a scale for each row of
            both sides; the others, in which 8 bits would change more units, in
            bfloat16, where the processor has it. On a CPU; the weights that
            are saved stay what they are.

        Raises
        ------
        ValueError
            If there is no such form, or not on this machine.
        RuntimeError
            If the encoder is not prepared, or has been run for a gradient.
        """
        if form not in FORMS:
            raise ValueError(
                f"a speech encoder has no form {form!r}; it has "
                f"{', '.join(FORMS)}"
            )
        if not self._prepared:
            raise RuntimeError("call prepare_for_inference before quantize")
        if not (self._packed(torch.float32) and can_quantize()):
            raise ValueError(
                f"the form {form!r} needs a CPU with VNNI instructions and a "
                "PyTorch with oneDNN; leave it out here"
            )
        parts = [
            self.model.encoder.layers,
            *(layer.conv for layer in self._layers[1 : 1 + _FAST_LAYERS]),
        ]
        maps = [
            module
            for part in parts
            for module in part.modules()
            if isinstance(module, PackedLinear)
        ]
        for linear in maps:
            linear.quantize()
        if not all(linear.quantized for linear in maps):
            raise RuntimeError(
                "a gradient was asked of this encoder, whose weights are laid "
                "out plainly since; load it again"
            )
        self._quantized = True

    @property
    def _layers(self) -> Sequence[_Layer]:
        layers = self.model.feature_extractor.conv_layers
        return cast("Sequence[_Layer]", layers)

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """Return the number of frames for numbers of samples."""
        for layer in self._layers:
            lengths = _conv_lengths(lengths, layer.conv)
        return lengths

    def input_length(self, frames: int) -> int:
        """Return the number of samples that so many frames see."""
        field, hop = _field(self._layers)
        return (frames - 1) * hop + field

    def forward(
        self,
        wavs: Tensor,
        lengths: Tensor,
        masked: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return features of waveforms.

        In training, dropout and layers are dropped as the model's
        configuration says.

        Arguments
        ---------
        wavs : Tensor
            16 kHz, shape (batch, samples).
        lengths : Tensor
            Samples of each item, shape (batch,).
        masked : Tensor, optional
            Frames that the transformer sees the model's mask embedding for,
            shape (batch, frames).

        Returns
        -------
        features : Tensor
            Shape (batch, frames, hidden); what is behind an item has no
            meaning.
        lengths : Tensor
            Frames of each item, shape (batch,).
        """
        counts = self.output_lengths(lengths)
        inferring = self._prepared and not wavs.requires_grad
        if inferring and masked is None and wavs.device.type == "cpu":
            dtype = torch.float32
            if torch.is_autocast_enabled("cpu"):
                dtype = torch.get_autocast_dtype("cpu")
            elif self._quantized and can_pack(torch.bfloat16):
                dtype = torch.bfloat16
            if self._packed(dtype):
                return self._infer(wavs, lengths, dtype), counts
        features = self.convolve(wavs, lengths)
        return self.contextualize(features, counts, masked), counts

    def convolve(self, wavs: Tensor, lengths: Tensor) -> Tensor:
        """Return what the convolutions give.

        Arguments
        ---------
        wavs, lengths : Tensor
            As of `forward`.

        Returns
        -------
        Tensor
            Shape (batch, frames, channels).
        """
        if self.normalize_eps is not None:
            wavs = standardize(wavs, lengths, self.normalize_eps)
        return self._convolutions(wavs, lengths).squeeze(2).transpose(1, 2)

    def contextualize(
        self, features: Tensor, lengths: Tensor, masked: Tensor | None = None
    ) -> Tensor:
        """Return what the transformer makes of features.

        Arguments
        ---------
        features : Tensor
            Of `convolve`, shape (batch, frames, channels).
        lengths : Tensor
            Frames of each item, shape (batch,).
        masked : Tensor, optional
            As of `forward`.

        Returns
        -------
        Tensor
            Shape (batch, frames, hidden).
        """
        hidden = self.model.feature_projection(features)
        if isinstance(hidden, tuple):  # wav2vec 2.0 returns its input as well
            hidden = hidden[0]
        if masked is not None:
            mask = self.model.masked_spec_embed.to(hidden.dtype)
            hidden = torch.where(masked.unsqueeze(-1), mask, hidden)
        return self._transformer(hidden, lengths)

    @torch.no_grad()
    def _infer(
        self, wavs: Tensor, lengths: Tensor, dtype: torch.dtype
    ) -> Tensor:
        """Return features by packed weights, one item after the other.

        Padding costs nothing, and the first convolution, the norms and what
        is added up along the layers are of float32 in any case.
        """
        encoder = self.model.encoder
        with torch.autocast("cpu", enabled=False):
            items = [
                self._convolve_one(wav[:samples].float(), dtype)
                for wav, samples in zip(wavs, lengths.tolist())
            ]
            frames = [len(item) for item in items]
            rows = self._project(torch.cat(items), dtype)
            embedding = encoder.pos_conv_embed
            conv = cast("SpectralConv1d", embedding.conv)
            positions = conv.convolve(rows.split(frames))
            rows = rows + embedding.activation(torch.cat(positions))
            rows = encoder.layer_norm(rows)
            attend = attend_in_turn(frames)
            rows = run_layers(encoder.layers, rows, attend, dtype)
        return nn.utils.rnn.pad_sequence(rows.split(frames), batch_first=True)

    def _packed(self, dtype: torch.dtype) -> bool:
        """Return whether products in a type have weights that are packed."""
        return isinstance(self._layers[-1].conv, PackedConv1d) and can_pack(
            dtype
        )

    def _project(self, rows: Tensor, dtype: torch.dtype) -> Tensor:
        projection = self.model.feature_projection
        if getattr(projection, "feat_proj_layer_norm", True):
            rows = projection.layer_norm(rows.float())
        return projection.projection(rows.to(dtype)).float()

    def _convolve_one(self, wav: Tensor, dtype: torch.dtype) -> Tensor:
        """Return (frames, channels) of one waveform, by packed weights."""
        if self.normalize_eps is not None:
            variance, mean = torch.var_mean(wav, correction=0)
            wav = (wav - mean) * torch.rsqrt(variance + self.normalize_eps)
        first, *others = self._layers
        samples = torch.tensor([len(wav)])
        weight, bias = (
            x.squeeze(0)
            for x in _fold_norm(
                first.conv, first.layer_norm, wav[None], samples
            )
        )
        fast, slow = others[:_FAST_LAYERS], others[_FAST_LAYERS:]
        inner = torch.float32 if self._quantized else dtype
        pieces = []
        for piece in _pieces(wav[None], [first, *fast], _PIECE):
            windows = _windows(piece, first.conv).squeeze(0)
            x = torch.addmm(bias, windows, weight.T)
            x = _in_place(first.activation, x).to(inner)
            for layer in fast:
                x = run_activated(layer.conv, layer.activation, x)
            pieces.append(x.to(dtype))
        x = torch.cat(pieces)
        for layer in slow:
            x = run_activated(layer.conv, layer.activation, x)
        return x

    def _convolutions(self, wavs: Tensor, lengths: Tensor) -> Tensor:
        """Return (batch, channels, 1, frames), in pieces of time.

        On a CPU the first, fast layers work on pieces that stay in the cache.
        """
        first, *others = self._layers
        weight, bias = _fold_norm(first.conv, first.layer_norm, wavs, lengths)
        fast, slow = others[:_FAST_LAYERS], others[_FAST_LAYERS:]
        size = max(_PIECE // len(wavs), 50)
        pieces = []
        for samples in _pieces(
            wavs, [first, *fast], None if wavs.is_cuda else size
        ):
            windows = _windows(samples, first.conv)
            x = torch.baddbmm(bias[:, None], windows, weight.transpose(1, 2))
            # (batch, time, channels) is channels-last already.
            x = _in_place(first.activation, x).unsqueeze(1).permute(0, 3, 1, 2)
            pieces.append(_run_layers(fast, x))
        return _run_layers(slow, torch.cat(pieces, 3))

    def _transformer(self, hidden: Tensor, lengths: Tensor) -> Tensor:
        encoder = self.model.encoder
        mask = frame_mask(lengths, hidden.shape[1])
        if mask is not None:
            hidden = hidden * mask.unsqueeze(-1)
            mask = mask[:, None, None, :]
        hidden = hidden + self._positions(hidden)
        hidden = encoder.dropout(encoder.layer_norm(hidden))
        if self._by_kernel(hidden):
            return self._run_rows(hidden, lengths)
        dropped = self.model.config.layerdrop
        for layer in encoder.layers:
            if encoder.training and random.random() < dropped:
                continue
            hidden = layer(hidden, attention_mask=mask)
            if isinstance(hidden, tuple):
                hidden = hidden[0]
        return hidden

    def _by_kernel(self, hidden: Tensor) -> bool:
        """Return whether one kernel attends to items of any length."""
        if not self._prepared or torch.is_grad_enabled():
            return False
        if not torch.is_autocast_enabled(hidden.device.type):
            return False
        dtype = torch.get_autocast_dtype(hidden.device.type)
        config = self.model.config
        channels = config.hidden_size // config.num_attention_heads
        return has_kernel(hidden.device, dtype, channels)

    def _run_rows(self, hidden: Tensor, lengths: Tensor) -> Tensor:
        """Run the layers on a GPU, in half precision, without padding."""
        size = hidden.shape[1]
        steps = torch.arange(size, device=hidden.device)
        places = (steps < lengths[:, None]).flatten().nonzero().squeeze(1)
        rows = run_layers(
            self.model.encoder.layers,
            hidden.flatten(0, 1).index_select(0, places).float(),
            attend_at_once(lengths, size),
            torch.get_autocast_dtype(hidden.device.type),
        )
        padded = rows.new_zeros(len(hidden) * size, rows.shape[1])
        return padded.index_copy_(0, places, rows).view_as(hidden)

    def _positions(self, hidden: Tensor) -> Tensor:
        """Return the convolutional position embedding."""
        embedding = self.model.encoder.pos_conv_embed
        x = hidden.unsqueeze(1).permute(0, 3, 1, 2)
        x = run_conv1d(embedding.conv, x)[..., : hidden.shape[1]]
        return embedding.activation(x).permute(0, 2, 3, 1).squeeze(1)


def _fold_norm(
    conv: nn.Conv1d, norm: nn.GroupNorm, wavs: Tensor, lengths: Tensor
) -> tuple[Tensor, Tensor]:
    """Fold the norm behind the first convolution into its weights.

    Mean and variance over time of what the convolution gives follow from
    those of the windows that it reads, so each item gets weights and biases
    of its own and the norm costs nothing. A bias of the convolution would be
    taken off again by the norm.

    Returns
    -------
    weight : Tensor
        Shape (batch, channels, kernel).
    bias : Tensor
        Shape (batch, channels).
    """
    windows = _windows(wavs, conv).double()
    counts = _conv_lengths(lengths, conv)
    mask = frame_mask(counts, windows.shape[1])
    counts = counts[:, None, None]
    if mask is not None:
        windows = windows * mask.unsqueeze(-1)
    mean = windows.sum(1, keepdim=True) / counts
    windows = windows - mean
    if mask is not None:
        windows = windows * mask.unsqueeze(-1)
    covariance = windows.transpose(1, 2) @ windows / counts
    weight = conv.weight[:, 0].double()
    variance = ((weight @ covariance) * weight).sum(-1)
    scale = norm.weight.double() * torch.rsqrt(variance + norm.eps)
    weight = weight * scale.unsqueeze(-1)
    bias = norm.bias.double() - (weight * mean).sum(-1)
    return weight.to(wavs.dtype), bias.to(wavs.dtype)


def _windows(wavs: Tensor, conv: nn.Conv1d) -> Tensor:
    """Return what a convolution reads, (batch, frames, kernel), as a view."""
    return wavs.unfold(1, conv.kernel_size[0], conv.stride[0])


def _pieces(
    wavs: Tensor, layers: Sequence[_Layer], size: int | None
) -> Iterator[Tensor]:
    """Yield the samples that so many frames of the last layer see.

    All at once without a size.
    """
    field, hop = _field(layers)
    frames = (wavs.shape[1] - field) // hop + 1
    for start in range(0, frames, size or frames):
        end = min(start + (size or frames), frames)
        yield wavs[:, start * hop : (end - 1) * hop + field]


def _run_layers(layers: Sequence[_Layer], x: Tensor) -> Tensor:
    for layer in layers:
        x = _in_place(layer.activation, run_conv1d(layer.conv, x))
    return x


def _in_place(activation: nn.Module, x: Tensor) -> Tensor:
    """Apply an activation, overwriting its input where nobody needs it."""
    if torch.is_grad_enabled() or type(activation) is not GELUActivation:
        return activation(x)
    return torch.ops.aten.gelu_(x)


def _field(layers: Sequence[_Layer]) -> tuple[int, int]:
    """Return receptive field and hop of convolutions, in samples."""
    field, hop = 1, 1
    for layer in reversed(layers):
        [kernel], [stride] = layer.conv.kernel_size, layer.conv.stride
        field, hop = (field - 1) * stride + kernel, hop * stride
    return field, hop


def _conv_lengths(lengths: Tensor, conv: nn.Conv1d) -> Tensor:
    return (lengths - conv.kernel_size[0]) // conv.stride[0] + 1
