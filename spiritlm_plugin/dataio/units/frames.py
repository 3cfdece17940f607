"""Speech units frame by frame: what a vocoder reads of them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from spiritlm_plugin.dataio.units.units import (
    PHONETIC_RATE,
    RATES,
    SpeechUnits,
)


def unit_frames(
    units: SpeechUnits, durations: Tensor | None = None
) -> dict[str, Tensor]:
    """Return the streams of speech units, all at 25 Hz.

    A phonetic unit has the pitch and style in force when it begins.

    Arguments
    ---------
    units : SpeechUnits
        At full rate, or with durations.
    durations : Tensor, optional
        Frames of each phonetic unit, shape (units,).

    Returns
    -------
    dict of str to Tensor
        By name, each of shape (frames,).

    Example
    -------
    >>> frames = unit_frames(SpeechUnits([7, 8, 9], pitch=[3, 4], style=[5]))
    >>> frames["pitch"].tolist(), frames["style"].tolist()
    ([3, 3, 4], [5, 5, 5])
    """
    frames = {"phonetic": units.phonetic}
    for name in ("pitch", "style"):
        stream = getattr(units, name)
        if stream is None:
            continue
        if units.full_rate and len(stream):
            times = units.starts(PHONETIC_RATE)
            begun = np.searchsorted(units.starts(RATES[name]), times, "right")
            stream = stream[torch.from_numpy(begun) - 1]
        frames[name] = stream
    if durations is None:
        return frames
    return {
        name: stream.repeat_interleave(durations)
        for name, stream in frames.items()
    }


def fill_blanks(phonetic: Tensor, blank: int) -> Tensor:
    """Replace the tokenizer's blank by the last unit before it.

    Blanks in front take the first unit; of nothing but blanks nothing is left.

    Arguments
    ---------
    phonetic : Tensor
        Units, shape (units,).
    blank : int
        What stands for no unit.

    Example
    -------
    >>> fill_blanks(torch.tensor([9, 3, 9, 4]), 9).tolist()
    [3, 3, 3, 4]
    """
    is_unit = phonetic != blank
    if not bool(is_unit.any()):
        return phonetic[:0]
    source = torch.where(is_unit, torch.arange(len(phonetic)), 0)
    first = int(is_unit.nonzero()[0])
    return phonetic[source.cummax(0).values.clamp(min=first)]
