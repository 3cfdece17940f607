"""Cepstral features on the clock of the phonetic units."""

from __future__ import annotations

import torch
import torchaudio
from torch import Tensor, nn
from torch.nn import functional as F

from spiritlm_plugin.dataio.units.units import SAMPLE_RATE

_COEFFICIENTS = 13
_WINDOW = 400
_HOP = 160


class MFCC(nn.Module):
    """Mel cepstra with first and second differences, 25 times a second.

    Cepstra of 25 ms are taken each 10 ms. A frame is the mean of three, which
    see the 720 samples that a frame of a HuBERT with a hop of 640 sees; the
    next frame is four of them later. The mean over an utterance is taken off,
    and much of its speaker with it.

    Source: Hsu et al., "HuBERT", 2021, section IV-B: clusters of such features
    are the first targets.

    Example
    -------
    >>> features, lengths = MFCC()(
    ...     torch.randn(2, 3200), torch.tensor([3200, 1360])
    ... )
    >>> features.shape, lengths.tolist()
    (torch.Size([2, 4, 39]), [4, 2])
    """

    dim = 3 * _COEFFICIENTS

    def __init__(self) -> None:
        super().__init__()
        self.cepstra = torchaudio.transforms.MFCC(
            SAMPLE_RATE,
            _COEFFICIENTS,
            log_mels=True,
            melkwargs={
                "n_fft": _WINDOW,
                "hop_length": _HOP,
                "n_mels": 26,
                "center": False,
            },
        )

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """Return the number of frames for numbers of samples."""
        return ((lengths - _WINDOW) // _HOP + 1 - 3) // 4 + 1

    def forward(self, wavs: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return features of waveforms.

        Arguments
        ---------
        wavs : Tensor
            16 kHz, shape (batch, samples).
        lengths : Tensor
            Samples of each item, at least 720, shape (batch,).

        Returns
        -------
        features : Tensor
            Shape (batch, frames, 39), zero behind an item.
        lengths : Tensor
            Frames of each item, shape (batch,).
        """
        # Differences at an item's end must not see the padding.
        with torch.autocast(wavs.device.type, enabled=False):
            features = [
                self._one(wav[:n]) for wav, n in zip(wavs, lengths.tolist())
            ]
        return (
            nn.utils.rnn.pad_sequence(features, batch_first=True),
            self.output_lengths(lengths),
        )

    def _one(self, wav: Tensor) -> Tensor:
        """Return the features of one waveform, (frames, 39)."""
        cepstra = self.cepstra(wav.float())
        slopes = torchaudio.functional.compute_deltas(cepstra)
        curvatures = torchaudio.functional.compute_deltas(slopes)
        stacked = torch.cat([cepstra, slopes, curvatures])
        frames = F.avg_pool1d(stacked[None], 3, 4)[0].T
        return frames - frames.mean(0)
