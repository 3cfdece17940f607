"""The VQ-VAE over F0 that trains a pitch quantizer."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F

from spiritlm_plugin.lobes.masking import frame_mask, zero_padding
from spiritlm_plugin.lobes.pitch import PitchQuantizer, ResidualBlock


class PitchDecoder(nn.Module):
    """Codes to F0 and voicing: the mirror of `PitchQuantizer`'s encoder.

    Arguments
    ---------
    width, output_width, downs, depth, block_ratio, dilation_growth
        As of the `PitchQuantizer`.

    Example
    -------
    >>> decoder = PitchDecoder(width=8, output_width=16)
    >>> decoder(torch.randn(1, 16, 3), torch.tensor([3])).shape
    torch.Size([1, 2, 48])
    """

    def __init__(
        self,
        width: int = 32,
        output_width: int = 128,
        downs: int = 4,
        depth: int = 4,
        block_ratio: float = 1.0,
        dilation_growth: int = 3,
    ):
        super().__init__()
        inner = int(width * block_ratio)
        self.input = nn.Conv1d(output_width, width, 3, 1, 1)
        self.stages = nn.ModuleList(
            nn.ModuleList(
                [
                    *(
                        ResidualBlock(width, inner, dilation_growth**j)
                        for j in reversed(range(depth))
                    ),
                    nn.ConvTranspose1d(width, width, 4, 2, 1),
                ]
            )
            for _ in range(downs)
        )
        self.output = nn.Conv1d(width, 2, 3, 1, 1)

    def forward(self, codes: Tensor, lengths: Tensor) -> Tensor:
        """Return F0 and a score of voicing.

        Arguments
        ---------
        codes : Tensor
            Shape (batch, output_width, frames).
        lengths : Tensor
            Frames of each item, shape (batch,).

        Returns
        -------
        Tensor
            Shape (batch, 2, frames * 2**downs).
        """
        mask = frame_mask(lengths, codes.shape[-1])
        x = zero_padding(self.input(zero_padding(codes, mask)), mask)
        for stage in self.stages:
            *blocks, doubling = stage.children()
            for block in blocks:
                x = block(x, mask)
            x, lengths = doubling(x), lengths * 2
            mask = frame_mask(lengths, x.shape[-1])
            x = zero_padding(x, mask)
        return self.output(x)


class Reconstruction(NamedTuple):
    """What a `PitchVQVAE` makes of F0.

    Attributes
    ----------
    f0 : Tensor
        In Hz, shape (batch, frames).
    voicing : Tensor
        Above 0 where voiced, a logit, shape (batch, frames).
    lengths : Tensor
        Frames of each item that were coded, shape (batch,).
    units : Tensor
        Shape (batch, codes), -1 behind an item.
    commitment : Tensor
        Mean squared distance of the encoder's vectors from their codes.
    """

    f0: Tensor
    voicing: Tensor
    lengths: Tensor
    units: Tensor
    commitment: Tensor


class PitchVQVAE(nn.Module):
    """A `PitchQuantizer` and what trains it.

    The codebook follows the encoder by moving averages; a code that is hardly
    used any more starts anew at a vector of the batch. Under
    DistributedDataParallel all processes share the averages.

    Source: Polyak et al., "Speech Resynthesis from Discrete Disentangled
    Self-Supervised Representations", Interspeech 2021; van den Oord et al.,
    "Neural Discrete Representation Learning", NeurIPS 2017, appendix A.1.

    Arguments
    ---------
    quantizer : dict
        Arguments of `PitchQuantizer`.
    f0_scale : float
        In Hz; the networks see F0 divided by it. `export` folds it into the
        encoder, whose input is in Hz.
    decay : float
        Of the moving averages.
    revive : float
        A code that is used less than this share of the average is hardly used.

    Example
    -------
    >>> vqvae = PitchVQVAE({"units": 8, "width": 4, "output_width": 4})
    >>> f0, voiced = 50 * torch.randn(1, 40), torch.ones(1, 40)
    >>> result = vqvae(torch.stack([f0, voiced], 1), torch.tensor([40]))
    >>> result.f0.shape, result.units.shape
    (torch.Size([1, 32]), torch.Size([1, 2]))
    >>> quantizer = vqvae.export()
    """

    counts: Tensor
    sums: Tensor

    def __init__(
        self,
        quantizer: dict[str, Any],
        f0_scale: float = 50.0,
        decay: float = 0.99,
        revive: float = 0.05,
    ):
        super().__init__()
        self.quantizer = PitchQuantizer(**quantizer)
        mirrored = {k: v for k, v in quantizer.items() if k != "units"}
        self.decoder = PitchDecoder(**mirrored)
        self.f0_scale = f0_scale
        self.decay = decay
        self.revive = revive
        codebook = self.quantizer.codebook
        self.register_buffer("counts", torch.zeros(len(codebook)))
        self.register_buffer("sums", torch.zeros_like(codebook))

    def forward(self, features: Tensor, lengths: Tensor) -> Reconstruction:
        """Code F0 and read it back; in training mode, move the codebook.

        Arguments
        ---------
        features : Tensor
            F0 in Hz and voicing, shape (batch, 2, frames), zero behind an
            item.
        lengths : Tensor
            Frames of each item, at least 2**downs; shape (batch,).
        """
        scale = features.new_tensor([self.f0_scale, 1.0])
        features = features / scale[:, None]
        x, code_lengths = self.quantizer.encode(features, lengths)
        x = x.transpose(1, 2).float()
        inside = frame_mask(code_lengths, x.shape[1])
        if inside is None:
            inside = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        vectors = x[inside]
        with (
            torch.no_grad(),
            torch.autocast(x.device.type, enabled=False),
        ):
            if self.training:
                self._revive(vectors)
            units = self.quantizer.nearest(x)
            codes = F.embedding(units, self.quantizer.codebook)
            if self.training:
                self._follow(vectors, units[inside])
        commitment = F.mse_loss(vectors, codes[inside])
        codes = x + (codes - x).detach()  # the gradient passes straight through
        y = self.decoder(codes.transpose(1, 2), code_lengths).float()
        return Reconstruction(
            y[:, 0] * self.f0_scale,
            y[:, 1],
            code_lengths * (y.shape[-1] // x.shape[1]),
            units.masked_fill(~inside, -1),
            commitment,
        )

    def export(self) -> PitchQuantizer:
        """Return the quantizer alone; its F0 input is in Hz."""
        quantizer = copy.deepcopy(self.quantizer)
        with torch.no_grad():
            quantizer.get_parameter("stages.0.0.weight")[:, 0] /= self.f0_scale
        return quantizer

    def _revive(self, vectors: Tensor) -> None:
        """Start codes that are hardly used anew at vectors of the batch."""
        unused = self.counts <= self.revive * self.counts.mean()
        if not bool(unused.any()):
            return
        drawn = torch.randint(len(vectors), (int(unused.sum()),))
        fresh = vectors[drawn.to(vectors.device)]
        count = vectors.new_tensor(len(vectors) / len(self.counts))
        if _distributed():
            distributed.broadcast(fresh, 0)
            distributed.all_reduce(count)
        # At first they weigh as much as the average code of a batch.
        self.counts[unused] = count
        self.sums[unused] = fresh * count
        self.quantizer.codebook[unused] = fresh

    def _follow(self, vectors: Tensor, units: Tensor) -> None:
        """Move each code towards the mean of the vectors that it stands for."""
        one_hot = F.one_hot(units, len(self.counts)).to(vectors.dtype)
        counts, sums = one_hot.sum(0), one_hot.T @ vectors
        if _distributed():
            distributed.all_reduce(counts)
            distributed.all_reduce(sums)
        self.counts.lerp_(counts, 1 - self.decay)
        self.sums.lerp_(sums, 1 - self.decay)
        self.quantizer.codebook.copy_(self.sums / self.counts.unsqueeze(1))


def _distributed() -> bool:
    return distributed.is_available() and distributed.is_initialized()
