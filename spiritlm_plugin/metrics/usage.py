"""How a codebook is used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np
from torch import Tensor

# Of the times that a unit is met, with one more of each label: how many have to
# be of its likeliest one.
_TELLING = 0.75


def unit_usage(units: Tensor, size: int) -> dict[str, float]:
    """Return how many units are used, and how evenly.

    Arguments
    ---------
    units : Tensor
        Integers in [0, size), any shape; at least one.
    size : int
        Of the codebook.

    Returns
    -------
    dict
        ``used_units``, and ``perplexity``: two to the power of the entropy
        in bits, which is ``size`` where all units are used equally.

    Raises
    ------
    ValueError
        If there are no units, or one is not of the codebook.

    Example
    -------
    >>> unit_usage(torch.tensor([0, 0, 3, 3]), 4)
    {'used_units': 2.0, 'perplexity': 2.0}
    """
    units = units.flatten()
    if not len(units) or units.min() < 0 or units.max() >= size:
        raise ValueError(
            f"units must be some integers in [0, {size}), got "
            f"{units[:10].tolist()}"
        )
    counts = units.bincount(minlength=size).double()
    share = counts[counts > 0] / counts.sum()
    entropy = -(share * share.log2()).sum()
    return {
        "used_units": float(len(share)),
        "perplexity": float(entropy.exp2()),
    }


def units_of_labels(
    streams: Iterable[Tensor | np.ndarray], labels: Iterable[str | None]
) -> dict[str, list[int]]:
    """Return the units that tell each label, the most common first.

    A unit tells the label of most of the utterances' units like it, if these
    are three in four of all, one more counted of each label: so a unit that
    was met but a few times, or with several labels, tells none. A label that
    no unit tells is left out.

    Arguments
    ---------
    streams : iterable of Tensor or numpy.ndarray
        Units of each utterance, shape (units,).
    labels : iterable of str or None
        Of each utterance; None is no label.

    Example
    -------
    >>> calm, glad = torch.tensor([5] * 9 + [2]), torch.tensor([2, 7] * 8)
    >>> units_of_labels([calm, glad], ["calm", "glad"])
    {'calm': [5], 'glad': [2, 7]}
    """
    met: dict[int, Counter[str]] = {}
    names = set()
    for stream, label in zip(streams, labels):
        if label is None:
            continue
        names.add(label)
        for unit in stream.tolist():
            met.setdefault(unit, Counter())[label] += 1
    told: dict[str, list[tuple[int, int]]] = {}
    for unit, counts in met.items():
        [(label, count)] = counts.most_common(1)
        if count + 1 >= _TELLING * (counts.total() + len(names)):
            told.setdefault(label, []).append((-count, unit))
    return {
        label: [unit for _, unit in sorted(told[label])]
        for label in sorted(told)
    }
