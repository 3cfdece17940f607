"""Convolutions whose weights a CPU lays out once, with what follows fused.

PyTorch's library for CPUs, oneDNN, brings the weights of a convolution into a
layout of its own at each call, and writes the result before an activation or a
sum reads it again. The operators that `torch.compile` calls keep such weights,
and activate or add inside the convolution; here they are called without a
compiler. The arithmetic is the same. They are no public interface of PyTorch:
this is the only module that names them, and it tries them first.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from spiritlm_plugin.lobes.masking import Padding, zero_
from spiritlm_plugin.lobes.packed_linear import has_bfloat16

# What weights are laid out for; any other length runs with them as well.
_FRAMES = 4096
_OPERATORS = torch.ops.mkldnn


class PackedConvolution(nn.Conv2d):
    """A 1-D convolution over activations as of `channels_last`.

    Without gradients, on a CPU and after weight norms are fused its weights
    are laid out once for each type of activations, float32 or bfloat16. Its
    parameters, or the buffers that they are once they are frozen, stay what
    they are; what is written to them is seen, but for writes to their
    ``data`` in place.

    Arguments
    ---------
    channels_in, channels_out, kernel, dilation, padding : int
        As of ``nn.Conv1d``.

    Example
    -------
    >>> conv = PackedConvolution(3, 4, kernel=5, padding=2)
    >>> x = torch.randn(1, 3, 1, 9)
    >>> total = torch.zeros(1, 4, 1, 9)
    >>> with torch.no_grad():
    ...     y = conv.add_to(total, x)
    >>> torch.allclose(y, conv(x), atol=1e-6)
    True
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int,
        dilation: int = 1,
        padding: int = 0,
    ):
        super().__init__(
            channels_in,
            channels_out,
            (1, kernel),
            padding=(0, padding),
            dilation=(1, dilation),
        )
        self._laid_out: dict[torch.dtype, _Weights] = {}

    def activated(
        self, x: Tensor, slope: float, padding: Padding | None = None
    ) -> Tensor:
        """Return the leaky ReLU of what the convolution returns.

        Arguments
        ---------
        x : Tensor
            Shape (batch, channels_in, 1, time).
        slope : float
            Of what is below 0.
        padding : Padding, optional
            What becomes zero.
        """
        x = _autocast(x)
        weights = self._weights(x)
        if weights is None:
            return F.leaky_relu(zero_(self(x), padding), slope, inplace=True)
        return zero_(_convolve(x, weights, "leaky_relu", [slope]), padding)

    def add_to(self, total: Tensor, x: Tensor) -> Tensor:
        """Return the sum of a tensor and what the convolution returns.

        Arguments
        ---------
        total : Tensor
            Shape (batch, channels_out, 1, time); without gradients it may be
            overwritten.
        x : Tensor
            Shape (batch, channels_in, 1, time).
        """
        x = _autocast(x)
        weights = self._weights(x)
        if weights is None:
            return self(x).add_(total)
        return _convolve_add_(total, x, weights)

    def forward(self, x: Tensor) -> Tensor:
        """Return (batch, channels_out, 1, time)."""
        x = _autocast(x)
        weights = self._weights(x)
        if weights is None:
            return super().forward(x)
        return _convolve(x, weights, "none", [])

    def _load_from_state_dict(self, *args: Any) -> None:
        # Tensors of inference mode do not count how often they are written to.
        self._laid_out.clear()
        super()._load_from_state_dict(*args)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is laid out anew where it is needed."""
        return {**self.__dict__, "_laid_out": {}}

    def _weights(self, x: Tensor) -> _Weights | None:
        """Return the weights as the operators take them, if they do."""
        if (
            torch.is_grad_enabled()
            or x.device.type != "cpu"
            or parametrize.is_parametrized(self)
            or not _operators_work(x.dtype)
        ):
            return None
        weights = self._laid_out.get(x.dtype)
        if weights is None or weights.states != _states(self):
            weights = self._laid_out[x.dtype] = _lay_out(self, x.dtype)
        return weights


def _autocast(x: Tensor) -> Tensor:
    """Return what autocast gives to a convolution; it knows ours not."""
    if x.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
        return x.to(torch.get_autocast_dtype("cpu"))
    return x


class _Weights(NamedTuple):
    """Weights in oneDNN's layout, and how they are moved over the input."""

    weight: Tensor
    bias: Tensor | None
    padding: list[int]
    stride: list[int]
    dilation: list[int]
    sources: list[Tensor]
    states: list[tuple[int, int]]


def _sources(conv: nn.Conv2d) -> list[Tensor]:
    """Return weights and biases, parameters or not."""
    both = (conv.weight, conv.bias)
    return [tensor for tensor in both if tensor is not None]


def _states(conv: nn.Conv2d) -> list[tuple[int, int]]:
    """Return where weights are, and how often they were written to."""
    return [
        (t.data_ptr(), 0 if t.is_inference() else t._version)
        for t in _sources(conv)
    ]


def _lay_out(conv: nn.Conv2d, dtype: torch.dtype) -> _Weights:
    assert not isinstance(conv.padding, str)
    padding, dilation = list(conv.padding), list(conv.dilation)
    stride = list(conv.stride)
    weight = _OPERATORS._reorder_convolution_weight(
        conv.weight.detach()
        .to(dtype)
        .contiguous(memory_format=torch.channels_last),
        padding,
        stride,
        dilation,
        1,
        [1, conv.in_channels, 1, _FRAMES],
    )
    bias = None if conv.bias is None else conv.bias.detach().to(dtype)
    # Held, so that no others can come to their address.
    sources = [source.detach() for source in _sources(conv)]
    return _Weights(
        weight, bias, padding, stride, dilation, sources, _states(conv)
    )


def _convolve(
    x: Tensor, weights: _Weights, activation: str, scalars: list[float]
) -> Tensor:
    weight, bias, *geometry, _, _ = weights
    result: Tensor = _OPERATORS._convolution_pointwise(
        x, weight, bias, *geometry, 1, activation, scalars, ""
    )
    return result


def _convolve_add_(total: Tensor, x: Tensor, weights: _Weights) -> Tensor:
    weight, bias, *geometry, _, _ = weights
    result: Tensor = _OPERATORS._convolution_pointwise_.binary(
        total, x, weight, bias, *geometry, 1, "add", 1.0, None, [], None
    )
    return result


@cache
def _operators_work(dtype: torch.dtype) -> bool:
    """Say whether the operators are there and right for activations."""
    if dtype not in (torch.float32, torch.bfloat16):
        return False
    if not torch.backends.mkldnn.is_available():
        return False
    if not torch.backends.cpu.get_cpu_capability().startswith("AVX"):
        return False
    x = torch.linspace(-1, 1, 16 * 40).reshape(1, 16, 1, 40)
    x = x.contiguous(memory_format=torch.channels_last).to(dtype)
    with torch.random.fork_rng([]), torch.autocast("cpu", enabled=False):
        conv = nn.Conv2d(16, 16, (1, 3), padding=(0, 1)).requires_grad_(False)
        expected = conv(x.float())
    try:
        if dtype == torch.bfloat16 and not has_bfloat16():
            return False
        weights = _lay_out(conv, dtype)
        activated = _convolve(x, weights, "leaky_relu", [0.1])
        total = _convolve_add_(x.clone(), x, weights)
    except (AttributeError, NotImplementedError, RuntimeError):
        return False
    tolerance = 1e-5 if dtype == torch.float32 else 3e-2
    return torch.allclose(
        activated.float(), F.leaky_relu(expected, 0.1), atol=tolerance
    ) and torch.allclose(total.float(), expected + x.float(), atol=tolerance)
