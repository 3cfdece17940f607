"""Speech that is heard while it is said."""

from __future__ import annotations

import numpy as np
import soxr
import torch
from torch import Tensor

from spiritlm_plugin.dataio.units.units import SAMPLE_RATE, SpeechUnits
from spiritlm_plugin.inference.spiritlm import SpiritLM
from spiritlm_plugin.lobes.speech_tokenizer import join_windows
from spiritlm_plugin.lobes.streaming_tokenizer import StreamingTokenizer
from spiritlm_plugin.serving.errors import RequestError

# As `SpiritLM.encode_stream` has it by default.
LATENCY_SECONDS = 1.0
# Of new samples, for which it is worth to ask the model's thread.
_LEAST_SECONDS = 0.5
_FULL_SCALE = 2**15


class Listener:
    """The units of a recording that comes as samples of 16 bits.

    They are those of `SpiritLM.encode_stream`.

    Arguments
    ---------
    lm : SpiritLM
        Whose units they are.
    rate : int
        Of the samples, in Hz.
    most_seconds : float
        That they may last.

    Example
    -------
    >>> lm = SpiritLM.from_release(checkpoints, "base")
    >>> listener = Listener(lm, 16000, most_seconds=60)
    >>> listener.add(bytes(64000))
    >>> listener.is_due, [len(part) for part in listener.take()]
    (True, [25])
    >>> [len(part) for part in listener.take(final=True)]
    [24]
    """

    def __init__(self, lm: SpiritLM, rate: int, most_seconds: float):
        self.lm = lm
        self.rate = rate
        self.most_seconds = most_seconds
        self.samples = 0
        self._new = bytearray()
        self._parts: list[SpeechUnits] = []
        self._stream = StreamingTokenizer(lm.mods.tokenizer, LATENCY_SECONDS)
        self._resampler: soxr.ResampleStream | None = None
        if rate != SAMPLE_RATE:
            self._resampler = soxr.ResampleStream(
                rate, SAMPLE_RATE, 1, dtype="float32"
            )

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.samples / self.rate

    @property
    def is_due(self) -> bool:
        """Whether there is something to take."""
        return len(self._new) >= 2 * self.rate * _LEAST_SECONDS

    @property
    def units(self) -> SpeechUnits:
        """All units that were taken."""
        return join_windows(self._parts)

    def add(self, content: bytes) -> None:
        """Add samples.

        Raises
        ------
        RequestError
            If it becomes too long.
        """
        self._new += content
        if self.seconds + len(self._new) / 2 / self.rate > self.most_seconds:
            raise RequestError(
                400,
                f"the recording lasts more than {self.most_seconds:g} s, "
                "which is the limit here; it is dropped",
            )

    def take(self, final: bool = False) -> list[SpeechUnits]:
        """Return units that have become final; for the model's thread.

        Raises
        ------
        ValueError
            At the end, if the recording is shorter than 80 ms.
        """
        wav = self._taken(final)
        with self.lm.inference_ctx:
            parts = list(self._stream.push(wav))
            if final:
                parts += self._stream.finish()
        self._parts += parts
        return parts

    def _taken(self, final: bool) -> Tensor:
        """Return what is new, at 16 kHz."""
        whole = len(self._new) // 2
        samples = np.frombuffer(bytes(self._new[: 2 * whole]), "<i2")
        del self._new[: 2 * whole]
        self.samples += whole
        floats = samples.astype(np.float32) / _FULL_SCALE
        if self._resampler is not None:
            floats = self._resampler.resample_chunk(floats, last=final)
        return torch.from_numpy(floats)
