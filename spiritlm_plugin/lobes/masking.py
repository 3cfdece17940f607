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


class Padding:
    """What lies behind the items of a batch whose channels are last.

    Where nothing is to be differentiated, a CPU writes zeros there alone; a
    product with a mask would read and write all of the batch.

    Arguments
    ---------
    lengths : Tensor
        Frames of each item, on the CPU, shape (batch,).

    Example
    -------
    >>> padding = Padding(torch.tensor([1, 3]))
    >>> padding.zero_(torch.ones(2, 1, 1, 3)).squeeze()
    tensor([[1., 0., 0.],
            [1., 1., 1.]])
    """

    def __init__(self, lengths: Tensor):
        self.lengths = lengths
        self._mask: Tensor | None = None

    def stretched(self, rate: int) -> Padding:
        """Return that of a batch whose frames have become so many each."""
        return Padding(self.lengths * rate)

    def zero_(self, x: Tensor) -> Tensor:
        """Set it to zero, in place.

        Arguments
        ---------
        x : Tensor
            Shape (batch, channels, 1, frames).
        """
        if x.device.type == "cpu" and not torch.is_grad_enabled():
            for item, length in zip(x, self.lengths.tolist()):
                item[..., length:].zero_()
            return x
        if self._mask is None:
            places = torch.arange(x.shape[-1]) < self.lengths[:, None]
            self._mask = places[:, None, None].to(x.device)
        return x.mul_(self._mask)


def zero_(x: Tensor, padding: Padding | None) -> Tensor:
    """Set padding to zero, if there is any; see `Padding.zero_`."""
    return x if padding is None else padding.zero_(x)


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
