"""Accuracy by likelihood: whether what is right is likelier than what is not."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Scored:
    """A variant of a group, right or wrong, with its log-likelihood.

    Arguments
    ---------
    group : hashable
        What it is compared in, such as a story, or a word in a voice.
    correct : bool
        Whether it is a right variant.
    log_likelihood : float
        Natural logarithm, summed over tokens.
    tokens : int
        So many were scored.
    item : hashable, optional
        What groups are averaged over first, such as the word, said in several
        voices; each group by itself if it is None.
    """

    group: Hashable
    correct: bool
    log_likelihood: float
    tokens: int
    item: Hashable = None

    def __post_init__(self) -> None:
        if not math.isfinite(self.log_likelihood) or self.tokens < 1:
            raise ValueError(
                f"a variant of {self.group!r} has the log-likelihood "
                f"{self.log_likelihood} of {self.tokens} tokens; it should be "
                "a number, and of 1 token at least: check the model and the "
                "data"
            )


# What variants are compared by.
SCORES: dict[str, Callable[[Scored], float]] = {
    "sum": lambda variant: variant.log_likelihood,
    "per_token": lambda variant: variant.log_likelihood / variant.tokens,
}


def pair_accuracy(variants: Iterable[Scored]) -> dict[str, float]:
    """Return how often right variants are likelier than wrong ones.

    In a group each right variant is compared with each wrong one; a tie counts
    half. The groups of an item are averaged, such as the voices of a word, and
    then the items. Chance is 0.5.

    Source: Nguyen et al., "The Zero Resource Speech Benchmark 2021", 2020,
    for sWUGGY and sBLIMP; Hassid et al., "Textually Pretrained Speech
    Language Models", NeurIPS 2023, for spoken StoryCloze.

    Arguments
    ---------
    variants : iterable of Scored
        In any order.

    Returns
    -------
    dict of str to float
        ``sum``, accuracy by the sums, and ``per_token``, by the sums divided
        by the numbers of tokens; and ``groups``, how many there are.

    Raises
    ------
    ValueError
        If there are no variants, or a group has no right or no wrong one.

    Example
    -------
    >>> pair_accuracy([
    ...     Scored("cat", True, -6.0, 3), Scored("cat", False, -5.0, 2),
    ...     Scored("dog", True, -3.0, 2), Scored("dog", False, -3.0, 1),
    ... ])
    {'sum': 0.25, 'per_token': 1.0, 'groups': 2}
    """
    groups = _group(variants)
    items = _average(groups)
    accuracies: dict[str, float] = {
        name: math.fsum(item[name] for item in items.values()) / len(items)
        for name in SCORES
    }
    return accuracies | {"groups": len(groups)}


def item_accuracies(
    variants: Iterable[Scored],
) -> dict[Hashable, dict[str, float]]:
    """Return of each item how often right variants are likelier.

    `pair_accuracy` is the mean over all items.

    Arguments
    ---------
    variants : iterable of Scored
        In any order.

    Returns
    -------
    dict of dict
        Of each item ``sum`` and ``per_token``, as of `pair_accuracy`.

    Raises
    ------
    ValueError
        As of `pair_accuracy`.

    Example
    -------
    >>> item_accuracies([
    ...     Scored("cat, Ann", True, -1.0, 1, "cat"),
    ...     Scored("cat, Ann", False, -2.0, 2, "cat"),
    ...     Scored("cat, Bob", True, -2.0, 1, "cat"),
    ...     Scored("cat, Bob", False, -1.0, 1, "cat"),
    ... ])
    {'cat': {'sum': 0.5, 'per_token': 0.25}}
    """
    return _average(_group(variants))


# Right and wrong variants of each group.
_Groups = dict[Hashable, tuple[list[Scored], list[Scored]]]


def _group(variants: Iterable[Scored]) -> _Groups:
    groups: _Groups = {}
    for variant in variants:
        right_and_wrong = groups.setdefault(variant.group, ([], []))
        right_and_wrong[0 if variant.correct else 1].append(variant)
    if not groups:
        raise ValueError("there is nothing to compare: no variants are given")
    for name, (right, wrong) in groups.items():
        if not right or not wrong:
            raise ValueError(
                f"{name!r} has {len(right)} right and {len(wrong)} wrong "
                "variants; a comparison needs one of each: leave it out, or "
                "add what is missing"
            )
        items = {variant.item for variant in right + wrong}
        if len(items) > 1:
            raise ValueError(
                f"the variants of {name!r} are of {len(items)} items; a "
                "comparison is within an item"
            )
    return groups


def _average(groups: _Groups) -> dict[Hashable, dict[str, float]]:
    """Return the mean over the groups of each item, by each score."""
    wins: dict[Hashable, list[dict[str, float]]] = {}
    for name, (right, wrong) in groups.items():
        item = right[0].item
        wins.setdefault(name if item is None else item, []).append(
            {
                score: _wins([*map(value, right)], [*map(value, wrong)])
                for score, value in SCORES.items()
            }
        )
    return {
        item: {
            score: math.fsum(group[score] for group in found) / len(found)
            for score in SCORES
        }
        for item, found in wins.items()
    }


def _wins(right: list[float], wrong: list[float]) -> float:
    """Return the share of comparisons that the right ones win."""
    wins = [(a > b) + (a == b) / 2 for a in right for b in wrong]
    return sum(wins) / len(wins)
