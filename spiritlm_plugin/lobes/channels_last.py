"""Convolutions of activations whose channels are last in memory.

A 1-D convolution runs as one in two dimensions with a height of one. On some
processors PyTorch takes half of the time for that; on those with AVX-512 about
the same, and packed weights, matrix products and norms read this layout as it
is. The arithmetic is the same. Activations have the shape (batch, channels, 1,
time).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def to_channels_last(x: Tensor) -> Tensor:
    """Turn (batch, channels, time) into (batch, channels, 1, time).

    Example
    -------
    >>> to_channels_last(torch.randn(2, 3, 5)).shape
    torch.Size([2, 3, 1, 5])
    """
    return x.unsqueeze(2).contiguous(memory_format=torch.channels_last)


def run_conv1d(conv: nn.Conv1d, x: Tensor) -> Tensor:
    """Run a 1-D convolution's weights over such activations.

    Example
    -------
    >>> run_conv1d(nn.Conv1d(3, 4, 5), torch.randn(1, 3, 1, 9)).shape
    torch.Size([1, 4, 1, 5])
    """
    assert isinstance(conv.padding, tuple)  # of numbers, not "same"
    return F.conv2d(
        x,
        conv.weight.unsqueeze(2).contiguous(memory_format=torch.channels_last),
        conv.bias,
        (1, conv.stride[0]),
        (0, conv.padding[0]),
        (1, conv.dilation[0]),
        conv.groups,
    )
