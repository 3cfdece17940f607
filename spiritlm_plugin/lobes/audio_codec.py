"""What lossy files leave of a recording."""

from __future__ import annotations

import io
from collections.abc import Sequence

import soundfile
import torch
from torch import Tensor, nn

from spiritlm_plugin.dataio.units.units import SAMPLE_RATE
from spiritlm_plugin.utils.arguments import shown

# Container and coding, as libsndfile names them.
_FORMS = {
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "opus": ("OGG", "OPUS"),
    "vorbis": ("OGG", "VORBIS"),
}


class LossyFile(nn.Module):
    """Write waveforms to lossy files, in memory, and read them again.

    Form and size are drawn for each waveform. What comes back is at its
    place, to the sample. On a CPU, whatever the device.

    Arguments
    ---------
    forms : sequence of str
        Of "mp3", "opus" and "vorbis".
    compression : (float, float)
        Least and most of libsndfile's level of compression, 0 to 1. At 0.7 to
        0.99 files of speech at 16 kHz have 29 to 21 kbit/s as MP3, 86 to 11
        as Opus and 45 to 34 as Vorbis.

    Raises
    ------
    ValueError
        If there is no such form, or a level is not of 0 to 1.

    Example
    -------
    >>> LossyFile(["mp3", "opus"], (0.7, 0.99))(torch.zeros(2, 8000)).shape
    torch.Size([2, 8000])
    """

    def __init__(self, forms: Sequence[str], compression: tuple[float, float]):
        super().__init__()
        unknown = [form for form in forms if form not in _FORMS]
        if unknown or not forms:
            raise ValueError(
                f"forms are of {', '.join(_FORMS)}, got {shown(list(forms))}"
            )
        least, most = compression
        if not 0 <= least <= most <= 1:
            raise ValueError(
                "levels of compression are of 0 to 1, the least first, got "
                f"{shown(compression)}"
            )
        self.forms = list(forms)
        self.compression = least, most

    def forward(self, wavs: Tensor) -> Tensor:
        """Return what is left of waveforms, both of shape (batch, samples)."""
        least, most = self.compression
        levels = least + (most - least) * torch.rand(len(wavs))
        chosen = torch.randint(len(self.forms), (len(wavs),))
        left = [
            _written(wav, *_FORMS[self.forms[form]], level)
            for wav, form, level in zip(
                wavs.cpu(), chosen.tolist(), levels.tolist()
            )
        ]
        return torch.stack(left).to(wavs)


def _written(wav: Tensor, container: str, coding: str, level: float) -> Tensor:
    """Return a waveform, (samples,), as it comes out of a file."""
    file = io.BytesIO()
    soundfile.write(
        file,
        wav.float().clamp(-1, 1).numpy(),
        SAMPLE_RATE,
        format=container,
        subtype=coding,
        compression_level=level,
    )
    file.seek(0)
    read, _ = soundfile.read(file, dtype="float32")
    return nn.functional.pad(
        torch.from_numpy(read), (0, max(len(wav) - len(read), 0))
    )[: len(wav)]
