"""Convolutions in the layout that is fast on a CPU.

A 1-D convolution over (batch, channels, time) runs at about half the speed
of the same convolution in two dimensions, with a height of one and the
channels last in memory. The arithmetic is the same. Activations have the shape
(batch, channels, 1, time).
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


def conv1d(
    channels_in: int,
    channels_out: int,
    kernel: int,
    stride: int = 1,
    dilation: int = 1,
    padding: int = 0,
) -> nn.Conv2d:
    """Return a 1-D convolution for such activations, padded with zeros.

    Example
    -------
    >>> conv1d(3, 4, 5, padding=2)(torch.randn(1, 3, 1, 9)).shape
    torch.Size([1, 4, 1, 9])
    """
    return nn.Conv2d(
        channels_in,
        channels_out,
        (1, kernel),
        (1, stride),
        (0, padding),
        (1, dilation),
    )


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
