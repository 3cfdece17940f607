"""Convolutions with long kernels, by products of spectra."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Samples of a spectrum, in kernels.
_SPAN = 3


class SpectralConv1d(nn.Conv1d):
    """A convolution that is quick where its kernel is long.

    With 128 taps, as HuBERT's position embedding has them, it takes a fourth of
    the time. Its weights are those of the convolution, and stay where they are.

    Example
    -------
    >>> conv = nn.Conv1d(4, 4, 8, padding=4, groups=2)
    >>> fast = SpectralConv1d.share(conv)
    >>> x = torch.randn(30, 4)
    >>> [y] = fast.convolve([x])
    >>> torch.allclose(y, conv(x.T).T[:30], atol=1e-5)
    True
    """

    _spectrum: Tensor | None

    @classmethod
    def share(cls, conv: nn.Conv1d) -> SpectralConv1d:
        """Return such a convolution with the weights of another.

        Raises
        ------
        ValueError
            If it has a stride or a dilation, or pads by other than half of its
            kernel.
        """
        [kernel] = conv.kernel_size
        if (conv.stride, conv.dilation) != ((1,), (1,)) or conv.padding != (
            kernel // 2,
        ):
            raise ValueError(
                f"{conv} cannot run by spectra: it must have neither stride nor "
                "dilation and pad by half of its kernel"
            )
        shared = cls.__new__(cls)
        shared.__dict__ = conv.__dict__
        shared._spectrum = None
        return shared

    def convolve(self, items: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return what the convolution makes of items, of as many frames.

        Arguments
        ---------
        items : sequence of Tensor
            Of float32, shapes (frames, channels).

        Returns
        -------
        tuple of Tensor
            Shapes (frames, channels).
        """
        [kernel] = self.kernel_size
        size = _SPAN * kernel
        step = size - kernel + 1
        blocks = []
        for item in items:
            count = -(-len(item) // step)
            behind = (count - 1) * step + size - kernel // 2 - len(item)
            padded = F.pad(item, (0, 0, kernel // 2, behind))
            blocks.append(padded.unfold(0, size, step))
        counts = [len(block) for block in blocks]
        # (blocks, channels, frequencies) to (frequencies, groups, blocks, in)
        spectra = torch.fft.rfft(torch.cat(blocks))
        spectra = spectra.unflatten(1, (self.groups, -1)).permute(3, 1, 0, 2)
        found = torch.matmul(spectra, self._weights(size))
        found = found.permute(2, 0, 1, 3).flatten(2)
        waves = torch.fft.irfft(found, size, dim=1)[:, :step]
        if self.bias is not None:
            waves = waves + self.bias
        return tuple(
            wave.flatten(0, 1)[: len(item)]
            for wave, item in zip(waves.split(counts), items)
        )

    def _weights(self, size: int) -> Tensor:
        """Return (frequencies, groups, in, out), made once."""
        if self._spectrum is None:
            spectrum = torch.fft.rfft(self.weight.detach(), size).conj()
            spectrum = spectrum.unflatten(0, (self.groups, -1))
            self._spectrum = spectrum.permute(3, 0, 2, 1).contiguous()
        return self._spectrum

    def _apply(
        self, fn: Callable[[Tensor], Tensor], recurse: bool = True
    ) -> SpectralConv1d:
        self._spectrum = None
        return super()._apply(fn, recurse)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._spectrum = None
        super()._load_from_state_dict(*args, **kwargs)
