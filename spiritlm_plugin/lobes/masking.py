"""Exact batches of unequal length: padding that changes no result."""

from __future__ import annotations

import torch
from torch import Tensor


def frame_mask(lengths: Tensor, frames: int) -> Tensor | None:
    """Return where items have frames, or None if all are full.

    Arguments
    ---------
    lengths : Tensor
        Frames of each item, shape (batch,).
    frames : int
        Frames of the padded batch.

    Returns
    -------
    Tensor or None
        Of bool, shape (batch, frames).

    Example
    -------
    >>> frame_mask(torch.tensor([1, 2]), 2)
    tensor([[ True, False],
            [ True,  True]])
    """
    if bool((lengths >= frames).all()):
        return None
    return torch.arange(frames, device=lengths.device) < lengths[:, None]


def zero_padding(x: Tensor, mask: Tensor | None) -> Tensor:
    """Set what lies behind each item to zero, as a convolution pads it.

    Arguments
    ---------
    x : Tensor
        Shape (batch, channels, frames).
    mask : Tensor or None
        As from `frame_mask`.
    """
    return x if mask is None else x * mask.unsqueeze(1)


def standardize(x: Tensor, lengths: Tensor, eps: float) -> Tensor:
    """Bring each item to zero mean and unit variance over its own frames.

    Arguments
    ---------
    x : Tensor
        Shape (batch, ..., frames); statistics are taken over the last axis.
    lengths : Tensor
        Frames of each item, shape (batch,).
    eps : float
        Added to the variance.

    Returns
    -------
    Tensor
        With zeros behind each item.

    Example
    -------
    >>> x = torch.tensor([[1.0, 3.0, 9.0]])
    >>> standardize(x, torch.tensor([2]), 0.0)
    tensor([[-1.,  1.,  0.]])
    """
    mask = frame_mask(lengths, x.shape[-1])
    if mask is None:
        variance, mean = torch.var_mean(x, -1, correction=0, keepdim=True)
        return (x - mean) * torch.rsqrt(variance + eps)
    middle = [1] * (x.dim() - 2)
    mask = mask.view(len(x), *middle, -1)
    count = lengths.view(len(x), *middle, 1)
    mean = (x * mask).sum(-1, keepdim=True) / count
    centred = (x - mean) * mask
    variance = centred.square().sum(-1, keepdim=True) / count
    return centred * torch.rsqrt(variance + eps)
