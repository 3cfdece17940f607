"""F0 by pYAAPT, the tracker that the released pitch quantizer was trained on."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch import Tensor, nn

from spiritlm_plugin.dataio.units.units import SAMPLE_RATE
from spiritlm_plugin.lobes.pitch import F0_HOP

_HOP_MS = 1000 * F0_HOP / SAMPLE_RATE
_PADDING = SAMPLE_RATE // 10


class YAAPT(nn.Module):
    """F0 by YAAPT, on the CPU, one waveform at a time.

    Takes the package AMFM_decompy. Source: Zahorian and Hu, "A spectral/
    temporal method for robust fundamental frequency tracking", JASA 2008.

    Arguments
    ---------
    f0_min, f0_max : float
        Hz, the range that is searched.

    Raises
    ------
    ImportError
        If AMFM_decompy is not installed.

    Example
    -------
    >>> wav = torch.sin(torch.arange(16000) * 2 * torch.pi * 200 / 16000)
    >>> f0, voiced, lengths = YAAPT()(
    ...     wav[None], torch.tensor([16000])
    ... )  # doctest: +SKIP
    >>> f0.shape, round(float(f0[0, 100]), -1)  # doctest: +SKIP
    (torch.Size([1, 201]), 200.0)
    """

    def __init__(self, f0_min: float = 60.0, f0_max: float = 400.0):
        super().__init__()
        try:
            from amfm_decompy import basic_tools, pYAAPT
        except ImportError as error:
            raise ImportError(
                "F0 by YAAPT takes the package AMFM_decompy: "
                "pip install AMFM_decompy; or use FCPE"
            ) from error
        self._signal, self._track = basic_tools.SignalObj, pYAAPT.yaapt
        self.f0_min = f0_min
        self.f0_max = f0_max

    def extra_repr(self) -> str:
        """Say what the F0 depends on."""
        return f"f0_min={self.f0_min}, f0_max={self.f0_max}"

    def forward(
        self, wavs: Tensor, lengths: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the F0 of waveforms at 200 Hz; see `FCPE.forward`."""
        frames = lengths // F0_HOP + 1
        out = wavs.new_zeros(2, len(wavs), int(frames.max()))
        for i, (length, target) in enumerate(
            zip(lengths.tolist(), frames.tolist())
        ):
            contour = self._contour(wavs[i, :length].cpu().numpy(), target)
            out[:, i, :target] = torch.from_numpy(contour).to(out)
        return out[0], out[1], frames

    def _contour(self, wav: np.ndarray, frames: int) -> np.ndarray:
        """Return F0 and voicing, shape (2, frames)."""
        padded = np.pad(wav.astype(np.float64), _PADDING)
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it divides by silence
            pitch = self._track(
                self._signal(padded, SAMPLE_RATE),
                f0_min=self.f0_min,
                f0_max=self.f0_max,
                frame_space=_HOP_MS,
            )
        wanted = np.arange(frames) * F0_HOP + _PADDING
        first = pitch.frames_pos[0]
        nearest = np.rint((wanted - first) / F0_HOP).astype(int)
        nearest = nearest.clip(0, pitch.nframes - 1)
        voiced = pitch.samp_values[nearest] > 0
        known = voiced.nonzero()[0]
        if not len(known):
            return np.zeros((2, frames))
        # As FCPE's: linear between voiced frames, flat at the ends.
        f0 = pitch.samp_values[nearest]
        f0 = np.interp(np.arange(frames), known, f0[known])
        return np.stack([f0, voiced])
