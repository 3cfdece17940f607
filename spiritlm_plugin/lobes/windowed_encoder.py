"""Long audio through an encoder in windows that overlap."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spiritlm_plugin.dataio.units.units import SAMPLE_RATE
from spiritlm_plugin.lobes.speech_encoder import SpeechEncoder
from spiritlm_plugin.utils.arguments import number

# What neighbouring windows share. It is part of what units mean.
OVERLAP_SECONDS = 0.5
# Of a window of which the middle is worth something.
_SHORTEST = 2 * OVERLAP_SECONDS


def encode_in_windows(
    encoder: SpeechEncoder,
    wavs: Tensor,
    lengths: Tensor,
    seconds: float | None,
) -> tuple[Tensor, Tensor]:
    """Return features of waveforms, those of long ones window by window.

    Attention costs the square of what it sees; with windows an hour costs as
    much a second as a window does. A feature depends on the audio of its
    window and on nothing else. Of what two windows share, the earlier one has
    the first half. Recordings of up to a window are encoded as they are.

    Arguments
    ---------
    encoder : SpeechEncoder
        Encodes a window as if there were nothing else.
    wavs : Tensor
        16 kHz, shape (batch, samples).
    lengths : Tensor
        Samples of each item, shape (batch,).
    seconds : float or None
        Of a window, as from `checked_window`; None is all there is.

    Returns
    -------
    features, lengths : Tensor
        As from the encoder, of as many frames.

    Example
    -------
    >>> from transformers import HubertConfig, HubertModel
    >>> sizes = {"hidden_size": 16, "num_attention_heads": 2}
    >>> config = HubertConfig(num_hidden_layers=1, **sizes)
    >>> encoder = SpeechEncoder(HubertModel(config))
    >>> wavs, lengths = torch.randn(1, 80_000), torch.tensor([80_000])
    >>> features, _ = encode_in_windows(encoder, wavs, lengths, 3.0)
    >>> features.shape
    torch.Size([1, 249, 16])
    """
    if seconds is None:
        return encoder(wavs, lengths)
    counts = encoder.output_lengths(lengths)
    frames, size = counts.tolist(), _frames(encoder, seconds)
    if max(frames) <= size:
        return encoder(wavs, lengths)
    overlap = _frames(encoder, OVERLAP_SECONDS)
    places = [divide(count, size, overlap) for count in frames]
    hop = encoder.input_length(2) - encoder.input_length(1)
    windows: list[Tensor] = []
    for wav, length, row in zip(wavs, lengths.tolist(), places):
        width = length if len(row) == 1 else encoder.input_length(size)
        windows += [wav[i * hop : i * hop + width] for i, _, _ in row]
    encoded = iter(_encode(encoder, windows))
    joined = [
        torch.cat([next(encoded)[a - start : b - start] for start, a, b in row])
        for row in places
    ]
    return nn.utils.rnn.pad_sequence(joined, batch_first=True), counts


def checked_window(seconds: float | None) -> float | None:
    """Return the length of windows as it can be, or None.

    Raises
    ------
    TypeError, ValueError
        Unless it is a number of at least 1 s.

    Example
    -------
    >>> checked_window(20), checked_window(None)
    (20.0, None)
    """
    if seconds is None:
        return None
    seconds = number("window_seconds", seconds)
    if seconds < _SHORTEST:
        raise ValueError(
            f"window_seconds must be at least {_SHORTEST:g}, twice what "
            f"windows share, got {seconds:g}; 20 to 30 are fast"
        )
    return seconds


def divide(frames: int, size: int, overlap: int) -> list[tuple[int, int, int]]:
    """Return the windows of a recording, and what each is there for.

    All windows are of one size. The last one ends with the recording, and
    shares more with the one in front of it.

    Arguments
    ---------
    frames : int
        Of the recording.
    size, overlap : int
        Frames of a window, and that it shares with its neighbour.

    Returns
    -------
    list of (int, int, int)
        Of each window its first frame; then from which frame to which the
        features are its own.

    Example
    -------
    >>> divide(20, 10, 2), divide(7, 10, 2)
    ([(0, 0, 9), (8, 9, 17), (10, 17, 20)], [(0, 0, 7)])
    """
    last = max(frames - size, 0)
    starts = [*range(0, last, size - overlap), last]
    seams = [start + size - overlap // 2 for start in starts[:-1]]
    return [*zip(starts, [0, *seams], [*seams, frames])]


def final_frames(
    encoder: SpeechEncoder, samples: int, seconds: float | None
) -> int:
    """Return how many features of a recording are final before its end.

    They are those that windows give which do not end with the recording,
    however it goes on.

    Arguments
    ---------
    encoder, seconds
        As of `encode_in_windows`.
    samples : int
        Of the recording so far.

    Example
    -------
    >>> from transformers import HubertConfig, HubertModel
    >>> sizes = {"hidden_size": 16, "num_attention_heads": 2}
    >>> config = HubertConfig(num_hidden_layers=1, **sizes)
    >>> encoder = SpeechEncoder(HubertModel(config))
    >>> [final_frames(encoder, n * 16000, 3.0) for n in (3, 4, 6)]
    [0, 137, 262]
    """
    if seconds is None:
        return 0
    frames = int(encoder.output_lengths(torch.tensor(samples)))
    size = _frames(encoder, seconds)
    overlap = _frames(encoder, OVERLAP_SECONDS)
    windows = -(-(frames - size) // (size - overlap))
    if windows < 1:
        return 0
    return (windows - 1) * (size - overlap) + size - overlap // 2


def _encode(
    encoder: SpeechEncoder, windows: list[Tensor]
) -> Tensor | list[Tensor]:
    """Return features of windows: on a CPU, which is filled by one, in turn."""
    device = windows[0].device
    lengths = torch.tensor([len(window) for window in windows], device=device)
    if device.type == "cuda":
        padded = nn.utils.rnn.pad_sequence(windows, batch_first=True)
        return encoder(padded, lengths)[0]
    return [
        encoder(window[None], length[None])[0][0]
        for window, length in zip(windows, lengths)
    ]


def _frames(encoder: SpeechEncoder, seconds: float) -> int:
    """Return how many frames see no more than so much audio."""
    samples = torch.tensor(round(seconds * SAMPLE_RATE))
    return int(encoder.output_lengths(samples))
