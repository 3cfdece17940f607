"""The joined speech tokenizer: waveforms to `SpeechUnits`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import repeat

import torch
from torch import Tensor, nn

from spiritlm_plugin.dataio.batching import length_batches
from spiritlm_plugin.dataio.units.units import (
    MIN_SAMPLES,
    SAMPLE_RATE,
    WINDOW_SECONDS,
    SpeechUnits,
)
from spiritlm_plugin.lobes.phonetic import PhoneticTokenizer
from spiritlm_plugin.lobes.pitch import PitchTokenizer
from spiritlm_plugin.lobes.style import StyleTokenizer

# Recordings are cut into windows that are tokenized by themselves.
WINDOW_SAMPLES = WINDOW_SECONDS * SAMPLE_RATE

# Units of a padded batch, and how many each item has.
Stream = tuple[Tensor, Tensor]


class SpeechTokenizer(nn.Module):
    """Phonetic, pitch and style units of waveforms of any length.

    Source: Nguyen et al., "SpiRit-LM", TACL 2025, sections 3.1 and 3.2.

    Arguments
    ---------
    phonetic : PhoneticTokenizer
    pitch : PitchTokenizer, optional
        Of an Expressive model.
    style : StyleTokenizer, optional
        Of an Expressive model.
    batch_seconds : float
        Windows of similar length are run together up to this much audio,
        padding included; more is faster on a GPU and needs more memory.

    Example
    -------
    >>> lm = SpiritLM.from_release(checkpoints, "expressive")
    >>> [units] = lm.mods.tokenizer([torch.randn(16000)])
    >>> len(units.phonetic), len(units.pitch), len(units.style)
    (24, 12, 1)
    """

    def __init__(
        self,
        phonetic: PhoneticTokenizer,
        pitch: PitchTokenizer | None = None,
        style: StyleTokenizer | None = None,
        batch_seconds: float = 100.0,
    ):
        super().__init__()
        self.phonetic = phonetic
        self.pitch = pitch
        self.style = style
        self.batch_seconds = batch_seconds

    def prepare_for_inference(self) -> None:
        """Fuse what can be fused."""
        for module in (self.phonetic, self.style):
            if module is not None:
                module.prepare_for_inference()

    def quantize(self, form: str) -> None:
        """Trade exactness of phonetic and style units for speed.

        Pitch units stay what they are.

        Arguments
        ---------
        form : str
            As of `SpeechEncoder.quantize`.

        Raises
        ------
        ValueError
            If there is no such form, or not on this machine.

        Example
        -------
        >>> lm = SpiritLM.from_release(checkpoints, "base")
        >>> lm.mods.tokenizer.quantize("int3")
        Traceback (most recent call last):
            ...
        ValueError: a speech encoder has no form 'int3'; it has int8
        """
        for module in (self.phonetic, self.style):
            if module is not None:
                module.quantize(form)

    def unit_counts(self) -> dict[str, int]:
        """Return how many units each stream has, a blank among them.

        Example
        -------
        >>> lm = SpiritLM.from_release(checkpoints, "expressive")
        >>> lm.mods.tokenizer.unit_counts()["pitch"]
        64
        """
        counts = {"phonetic": self.phonetic.unit_count}
        if self.pitch is not None:
            counts["pitch"] = len(self.pitch.quantizer.codebook)
        if self.style is not None:
            counts["style"] = self.style.classifier.out_features
        return counts

    def forward(self, wavs: Sequence[Tensor]) -> list[SpeechUnits]:
        """Return the units of waveforms.

        Arguments
        ---------
        wavs : sequence of Tensor
            16 kHz, each of shape (samples,).

        Returns
        -------
        list of SpeechUnits
            Each is what the waveform gives alone.

        Raises
        ------
        ValueError
            If a waveform has fewer than 1280 samples.
        """
        windows, owners = [], []
        for index, wav in enumerate(wavs):
            if len(wav) < MIN_SAMPLES:
                raise ValueError(
                    f"waveform {index} has {len(wav)} samples at 16 kHz; at "
                    f"least {MIN_SAMPLES} (80 ms) are needed"
                )
            for window in wav.split(WINDOW_SAMPLES):
                if len(window) >= MIN_SAMPLES:
                    windows.append(window)
                    owners.append(index)
        parts: list[list[SpeechUnits]] = [[] for _ in wavs]
        for owner, units in zip(owners, self._tokenize(windows)):
            parts[owner].append(units)
        return [join_windows(units) for units in parts]

    def tokenize_windows(self, windows: Iterable[Tensor]) -> SpeechUnits:
        """Return the units of one recording, read window by window.

        Arguments
        ---------
        windows : iterable of Tensor
            As from `spiritlm_plugin.dataio.audio.reading.read_windows`.

        Returns
        -------
        SpeechUnits
        """
        parts = []
        for window in windows:
            if len(window) >= MIN_SAMPLES:
                parts += _collect(self._run([window]))
        return join_windows(parts)

    def _tokenize(self, windows: list[Tensor]) -> list[SpeechUnits]:
        """Tokenize windows in batches of similar length, in order."""
        lengths = [len(window) for window in windows]
        limit = int(self.batch_seconds * SAMPLE_RATE)
        batches = length_batches(lengths, limit)
        # A GPU has all of them to do before one is waited for.
        made = [self._run([windows[i] for i in batch]) for batch in batches]
        out: dict[int, SpeechUnits] = {}
        for indices, streams in zip(batches, made):
            out.update(zip(indices, _collect(streams)))
        return [out[index] for index in range(len(windows))]

    def _run(self, windows: list[Tensor]) -> list[Stream | None]:
        """Return each stream of a batch, where it was made."""
        device = next(self.parameters()).device
        wavs = nn.utils.rnn.pad_sequence(windows, batch_first=True)
        wavs = _send(wavs, device)
        lengths = _send(torch.tensor([len(w) for w in windows]), device)
        tokenizers = (self.phonetic, self.pitch, self.style)
        return [
            None if tokenizer is None else tokenizer(wavs, lengths)
            for tokenizer in tokenizers
        ]


def _send(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on a device; a GPU works on while it is on its way."""
    if device.type != "cuda" or tensor.is_cuda:
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def _collect(streams: list[Stream | None]) -> list[SpeechUnits]:
    """Return the units of a batch's items."""
    columns = [repeat(None) if s is None else _rows(*s) for s in streams]
    return [SpeechUnits(*item) for item in zip(*columns)]


def _rows(units: Tensor, counts: Tensor) -> Iterable[Tensor]:
    return [row[:n] for row, n in zip(units.cpu(), counts.tolist())]


def join_windows(parts: Iterable[SpeechUnits]) -> SpeechUnits:
    """Join the units of consecutive windows of one recording.

    Their times are those of `spiritlm_plugin.dataio.units.units.unit_starts`.

    Example
    -------
    >>> parts = [SpeechUnits([1], pitch=[2]), SpeechUnits([3], pitch=[4])]
    >>> join_windows(parts).pitch.tolist()
    [2, 4]
    """
    parts = list(parts)

    def join(name: str) -> Tensor | None:
        streams = [getattr(part, name) for part in parts]
        return None if streams[0] is None else torch.cat(streams)

    phonetic = torch.cat([part.phonetic for part in parts])
    return SpeechUnits(phonetic, join("pitch"), join("style"))
