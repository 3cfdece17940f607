"""How far a figure would vary if other items had been drawn."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
from scipy import stats

_LEVEL = 0.95
_DRAWS = 1000
# Draws that are held in memory at a time.
_BATCH = 100
# Fewer groups have an interval of another kind.
_FEW = 20


def ratio_interval(
    numerators: Sequence[float],
    denominators: Sequence[float] | None = None,
    groups: Sequence[Hashable] | None = None,
    seed: int = 0,
) -> tuple[float, float] | None:
    """Return the 95% interval of a rate over items.

    By the bootstrap; of fewer than 20 groups, for which its percentiles are
    too narrow, by Student's t of the linearized rate.

    Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993,
    chapter 13 (percentiles); by speaker as in Bisani and Ney, "Bootstrap
    estimates for confidence intervals in ASR performance evaluation", 2004.
    Few groups: Cochran, "Sampling Techniques", 1977, sections 6.3 and 6.4.

    Arguments
    ---------
    numerators : sequence of float
        Of each item, such as its errors, or whether it is right.
    denominators : sequence of float, optional
        Such as its words; 1 by default.
    groups : sequence, optional
        Such as its speaker: items of a group are drawn together, since they
        are alike. Without them each item is drawn alone.
    seed : int
        Of the draws.

    Returns
    -------
    tuple of float, or None
        Lower and upper end; None where there are fewer than two groups,
        nothing is counted, or few groups do not differ at all.

    Raises
    ------
    ValueError
        If the sequences differ in length.

    Example
    -------
    >>> right = [1] * 80 + [0] * 20
    >>> low, high = ratio_interval(right)
    >>> 0.70 < low < 0.80 < high < 0.90
    True
    >>> ratio_interval([1, 1], groups=["anna", "anna"]) is None
    True
    """
    above = np.asarray(numerators, float)
    below = np.ones_like(above)
    if denominators is not None:
        below = np.asarray(denominators, float)
    places: np.ndarray = np.arange(len(above))
    if groups is not None:
        numbers: dict[Hashable, int] = {}
        found = [numbers.setdefault(group, len(numbers)) for group in groups]
        places = np.array(found, int)
    if not len(above) == len(below) == len(places):
        raise ValueError(
            f"{len(above)} numerators, {len(below)} denominators and "
            f"{len(places)} groups: give one of each for an item"
        )
    above, below = np.bincount(places, above), np.bincount(places, below)
    kept = below > 0
    above, below = above[kept], below[kept]
    if len(above) < 2:
        return None

    if len(above) < _FEW:
        return _of_few(above, below)

    def rate(
        above: np.ndarray, below: np.ndarray, axis: int = -1
    ) -> np.ndarray:
        return above.sum(axis) / below.sum(axis)

    interval = stats.bootstrap(
        (above, below),
        rate,
        n_resamples=_DRAWS,
        batch=_BATCH,
        vectorized=True,
        paired=True,
        confidence_level=_LEVEL,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(interval.low), float(interval.high)


def _of_few(above: np.ndarray, below: np.ndarray) -> tuple[float, float] | None:
    """Return the interval of a rate over few groups."""
    groups, rate = len(above), above.sum() / below.sum()
    squares = float(((above - rate * below) ** 2).sum())
    if squares < 1e-12 * max(float((above**2).sum()), 1e-12):
        return None
    error = np.sqrt(groups / (groups - 1) * squares) / below.sum()
    margin = stats.t.ppf((1 + _LEVEL) / 2, groups - 1) * error
    low, high = float(rate - margin), float(rate + margin)
    if (above >= 0).all():
        low = max(low, 0.0)
        # A share, which is not more than all.
        high = min(high, 1.0) if (above <= below).all() else high
    return low, high


def percent_interval(
    numerators: Sequence[float],
    denominators: Sequence[float] | None = None,
    groups: Sequence[Hashable] | None = None,
) -> list[float] | None:
    """Return what `ratio_interval` does, in percent.

    Example
    -------
    >>> percent_interval([1] * 50)
    [100.0, 100.0]
    """
    interval = ratio_interval(numerators, denominators, groups)
    if interval is None:
        return None
    return [100 * end for end in interval]


def speaker_groups(
    speakers: Mapping[str, str | None],
) -> dict[str, Hashable]:
    """Return what utterances are drawn together: those of a speaker.

    Arguments
    ---------
    speakers : dict
        By utterance; None where it is unknown.

    Returns
    -------
    dict
        By utterance; each is alone where its speaker is unknown, and where all
        are by one, since there is no other to be drawn.

    Example
    -------
    >>> speaker_groups({"a": "ann", "b": "bob", "c": None})
    {'a': 'ann', 'b': 'bob', 'c': ('', 'c')}
    >>> speaker_groups({"a": "ann", "b": "ann"})
    {'a': ('', 'a'), 'b': ('', 'b')}
    """
    known = {speaker for speaker in speakers.values() if speaker is not None}
    return {
        name: speaker if len(known) > 1 and speaker is not None else ("", name)
        for name, speaker in speakers.items()
    }
