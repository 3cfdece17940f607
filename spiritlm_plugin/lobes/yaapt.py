"""F0 by pYAAPT, as the released pitch quantizer was trained on it."""

from __future__ import annotations

import os
import warnings
from importlib.metadata import version

import numpy as np
import torch
from torch import Tensor, nn

from spiritlm_plugin.dataio.units.units import SAMPLE_RATE
from spiritlm_plugin.lobes.pitch import F0_HOP

_PEAK = 0.95
_PADDING = SAMPLE_RATE // 100
# All others are the package's own, the range of F0 too.
_SETTINGS = {
    "frame_length": 20.0,
    "frame_space": 1000 * F0_HOP / SAMPLE_RATE,
    "tda_frame_length": 25.0,
    "nccf_thresh1": 0.25,
}


class YAAPT(nn.Module):
    """F0 by YAAPT, on the CPU, with the settings of the released extractor.

    Takes the package AMFM_decompy, and joblib where there is more than one
    worker. Recordings are scaled to a peak of 0.95. Source: Zahorian and Hu,
    "A spectral/temporal method for robust fundamental frequency tracking",
    JASA 2008.

    Arguments
    ---------
    workers : int, optional
        Processes that the recordings of a batch are shared among; by default
        one for each core, divided among the processes that ``torchrun`` has
        started on the machine.

    Raises
    ------
    ImportError
        If AMFM_decompy is not installed.
    ValueError
        If there is to be no worker.

    Example
    -------
    >>> wav = torch.sin(torch.arange(16000) * 2 * torch.pi * 200 / 16000)
    >>> f0, voiced, lengths = YAAPT(workers=1)(
    ...     wav[None], torch.tensor([16000])
    ... )  # doctest: +SKIP
    >>> f0.shape, round(float(f0[0, 100]), -1)  # doctest: +SKIP
    (torch.Size([1, 200]), 200.0)
    """

    def __init__(self, workers: int | None = None):
        super().__init__()
        try:
            import amfm_decompy  # noqa: F401
        except ImportError as error:
            raise ImportError(
                "F0 by YAAPT takes the package AMFM_decompy: "
                "pip install AMFM_decompy; or use FCPE"
            ) from error
        if workers is not None and workers < 1:
            raise ValueError(f"workers must be at least 1, got {workers}")
        self.workers = workers or _share_of_cores()

    def extra_repr(self) -> str:
        """Say what the F0 depends on."""
        settings = _SETTINGS | {
            "peak": _PEAK,
            "padding": _PADDING,
            "AMFM_decompy": version("AMFM_decompy"),
        }
        return ", ".join(f"{name}={value}" for name, value in settings.items())

    def forward(
        self, wavs: Tensor, lengths: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the F0 of waveforms at 200 Hz; see `FCPE.forward`.

        There is no frame behind the last whole hop: ``samples // 80`` frames.
        """
        frames = lengths // F0_HOP
        items = [
            wav[:length].cpu().numpy()
            for wav, length in zip(wavs, lengths.tolist())
        ]
        out = wavs.new_zeros(2, len(wavs), int(frames.max()))
        for i, found in enumerate(self._track(items)):
            out[:, i, : found.shape[1]] = torch.from_numpy(found).to(out)
        return out[0], out[1], frames

    def _track(self, wavs: list[np.ndarray]) -> list[np.ndarray]:
        if self.workers == 1 or len(wavs) == 1:
            return [contour(wav) for wav in wavs]
        from joblib import Parallel, delayed  # type: ignore[import-untyped]

        # The processes stay from batch to batch.
        pool = Parallel(self.workers, max_nbytes=None)
        return pool(delayed(contour)(wav) for wav in wavs)


def contour(wav: np.ndarray) -> np.ndarray:
    """Return the F0 of a waveform by YAAPT, and where it is voiced.

    Arguments
    ---------
    wav : numpy.ndarray
        16 kHz, shape (samples,), 1,280 at least.

    Returns
    -------
    numpy.ndarray
        F0 in Hz, linear between voiced frames, flat at the ends, and 0 where
        nothing is voiced; and voicing, 1 or 0; shape (2, samples // 80).

    Example
    -------
    >>> wav = np.sin(np.arange(16000) * 2 * np.pi * 200 / 16000)
    >>> contour(wav).shape  # doctest: +SKIP
    (2, 200)
    """
    from amfm_decompy import basic_tools, pYAAPT

    samples = len(wav) // F0_HOP * F0_HOP
    wav = wav.astype(np.float64)
    wav = wav * (_PEAK / max(np.abs(wav).max(), np.finfo(np.float32).tiny))
    padded = np.pad(wav[:samples], _PADDING)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it divides by silence
        signal = basic_tools.SignalObj(padded, SAMPLE_RATE)
        f0 = pYAAPT.yaapt(signal, **_SETTINGS).samp_values
    known = (f0 > 0).nonzero()[0]
    if not len(known):
        return np.zeros((2, len(f0)))
    filled = np.interp(np.arange(len(f0)), known, f0[known])
    return np.stack([filled, f0 > 0])


def _share_of_cores() -> int:
    """Return how many cores there are for this process."""
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    return max((os.cpu_count() or 1) // processes, 1)
