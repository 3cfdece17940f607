"""What phonetic units say about phones, and how steady they are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torchaudio
from torch import Tensor

from spiritlm_plugin.dataio.units.units import (
    PHONETIC_RATE,
    SAMPLE_RATE,
    units_before,
)

# Samples that a frame sees: a hop, and 5 ms of the next one.
_FIELD = 720


def frame_labels(
    segments: Iterable[Sequence], frames: int, outside: str = "sil"
) -> list[str]:
    """Return the label at the middle of each phonetic frame.

    Arguments
    ---------
    segments : iterable of (label, start, end)
        In seconds, in order, as a manifest's ``"phones"`` or ``"words"``.
    frames : int
        Number of frames.
    outside : str
        Label where there is no segment.

    Returns
    -------
    list of str

    Example
    -------
    >>> frame_labels([["a", 0.0, 0.05], ["b", 0.05, 0.1]], 4)
    ['a', 'b', 'sil', 'sil']
    """
    labels = [outside] * frames
    middle = _FIELD / 2 / SAMPLE_RATE
    for label, start, end in segments:
        first, last = (
            int(units_before(max(time - middle, 0.0), PHONETIC_RATE))
            for time in (start, end)
        )
        labels[first:last] = [label] * (min(last, frames) - first)
    return labels


def joint_counts(
    units: Tensor, labels: Tensor, unit_count: int, label_count: int
) -> Tensor:
    """Count how often a unit and a label meet in a frame.

    Arguments
    ---------
    units, labels : Tensor
        Integers, shape (frames,).
    unit_count, label_count : int
        How many there are.

    Returns
    -------
    Tensor
        Shape (labels, units), float64.

    Raises
    ------
    ValueError
        If there are not as many units as labels.

    Example
    -------
    >>> joint_counts(torch.tensor([0, 2, 2]), torch.tensor([1, 0, 0]), 3, 2)
    tensor([[0., 0., 2.],
            [1., 0., 0.]], dtype=torch.float64)
    """
    if units.shape != labels.shape:
        raise ValueError(
            f"{tuple(units.shape)} units do not go with "
            f"{tuple(labels.shape)} labels; a frame has one of each"
        )
    cells = labels * unit_count + units
    counts = cells.bincount(minlength=unit_count * label_count)
    return counts.view(label_count, unit_count).double()


def phone_purity(counts: Tensor) -> float:
    """Return how often the most likely phone of a unit is right.

    Source: Hsu et al., "HuBERT", 2021, section IV-D.

    Arguments
    ---------
    counts : Tensor
        Of `joint_counts`, shape (phones, units).

    Example
    -------
    >>> phone_purity(torch.tensor([[4.0, 1.0], [1.0, 2.0]]))
    0.75
    """
    return float(counts.amax(0).sum() / counts.sum())


def cluster_purity(counts: Tensor) -> float:
    """Return how often the most likely unit of a phone is right.

    Arguments and source are those of `phone_purity`.

    Example
    -------
    >>> cluster_purity(torch.tensor([[4.0, 1.0], [1.0, 2.0]]))
    0.75
    """
    return phone_purity(counts.T)


def pnmi(counts: Tensor) -> float:
    """Return phone-normalized mutual information.

    The share of the uncertainty about a frame's phone that its unit takes
    away: 0 where units say nothing, 1 where they say the phone. It is 0 where
    there is no uncertainty. Arguments and source are those of `phone_purity`.

    Example
    -------
    >>> round(pnmi(torch.tensor([[3, 1, 0], [0, 0, 4]])), 6)
    1.0
    """
    joint = counts.double() / counts.sum()
    phones, units = joint.sum(1), joint.sum(0)
    uncertainty = _entropy(phones)
    if uncertainty <= 0:
        return 0.0
    information = uncertainty + _entropy(units) - _entropy(joint.flatten())
    return float((information / uncertainty).clamp(0, 1))


def unit_edit_distance(
    clean: Sequence[Tensor], changed: Sequence[Tensor]
) -> float:
    """Return how much of the units of some audio changes with the audio.

    The edit distance of the deduplicated units, over the length of the clean
    ones. Source: Gat et al., "Augmentation Invariant Discrete Representation
    for Generative Spoken Language Modeling", 2023, section 3.

    Arguments
    ---------
    clean, changed : sequence of Tensor
        Units of each utterance, each of shape (frames,).

    Returns
    -------
    float
        0 where nothing changes; it can be above 1.

    Example
    -------
    >>> unit_edit_distance([torch.tensor([4, 4, 5])], [torch.tensor([4, 6, 6])])
    0.5
    """
    counts = [unit_edits(one, other) for one, other in zip(clean, changed)]
    edits, length = map(sum, zip(*counts))
    return edits / length


def unit_edits(clean: Tensor, changed: Tensor) -> tuple[int, int]:
    """Count the edits between the deduplicated units of two recordings.

    Arguments
    ---------
    clean, changed : Tensor
        Units, each of shape (frames,).

    Returns
    -------
    edits, length : int
        The edits, and the deduplicated units of the clean recording.

    Example
    -------
    >>> unit_edits(torch.tensor([4, 4, 5]), torch.tensor([4, 6, 6]))
    (1, 2)
    """
    one = clean.unique_consecutive().tolist()
    other = changed.unique_consecutive().tolist()
    return torchaudio.functional.edit_distance(one, other), len(one)


def _entropy(probabilities: Tensor) -> Tensor:
    return -torch.special.xlogy(probabilities, probabilities).sum()
