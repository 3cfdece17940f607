"""Measures of what units cost and of what a vocoder makes of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from torch import Tensor

from spiritlm_plugin.dataio.units import SpeechUnits
from spiritlm_plugin.metrics.units import unit_edit_distance


def unit_agreement(
    units: Sequence[SpeechUnits], others: Sequence[SpeechUnits]
) -> dict[str, float]:
    """Compare the units of some audio with those of its resynthesis.

    Arguments
    ---------
    units, others : sequence of SpeechUnits
        Of each utterance, at full rate, with the same streams.

    Returns
    -------
    dict
        ``unit_edit_distance`` of the phonetic units, and for each stream the
        share of frames with the same unit, as in ``same_phonetic``.

    Example
    -------
    >>> one, other = SpeechUnits([1, 1, 2, 3]), SpeechUnits([1, 1, 4])
    >>> unit_agreement([one], [other])["same_phonetic"]
    0.6666666666666666
    """
    figures = {
        "unit_edit_distance": unit_edit_distance(
            [u.phonetic for u in units], [u.phonetic for u in others]
        )
    }
    for stream in ("phonetic", "pitch", "style"):
        pairs = [
            (getattr(one, stream), getattr(other, stream))
            for one, other in zip(units, others)
        ]
        if any(one is None or other is None for one, other in pairs):
            continue
        same = [_equal_frames(*pair) for pair in pairs]
        frames = sum(len(frame) for frame in same)
        equal = sum(int(frame.sum()) for frame in same)
        figures[f"same_{stream}"] = equal / frames if frames else math.nan
    return figures


def bit_rate(
    units: Sequence[SpeechUnits], sizes: Mapping[str, int]
) -> dict[str, float]:
    """Return the bits a second of the tokens that a language model reads.

    Each token of a stream costs ``log2(size)`` bits: phonetic and pitch
    tokens without repeats, style tokens one a second.

    Arguments
    ---------
    units : sequence of SpeechUnits
        At full rate.
    sizes : dict of str to int
        Of the streams' codebooks, by name; the streams named here count.

    Returns
    -------
    dict
        By stream, and ``total``.

    Example
    -------
    >>> units = SpeechUnits([0] * 10 + [1] * 15, pitch=[2] * 12)
    >>> bit_rate([units], {"phonetic": 256, "pitch": 64})
    {'phonetic': 16.0, 'pitch': 6.0, 'total': 22.0}
    """
    seconds = sum(item.duration for item in units)
    rates = {}
    for stream, size in sizes.items():
        tokens = 0
        for item in units:
            values = getattr(item, stream)
            if stream != "style":
                values = values.unique_consecutive()
            tokens += len(values)
        rates[stream] = tokens * math.log2(size) / seconds
    return rates | {"total": sum(rates.values())}


def _equal_frames(one: Tensor, other: Tensor) -> Tensor:
    """Compare as many frames as both have."""
    frames = min(len(one), len(other))
    return one[:frames] == other[:frames]
