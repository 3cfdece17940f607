"""Accuracy by likelihood: whether what is right is likelier than what is not."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable
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
    """

    group: Hashable
    correct: bool
    log_likelihood: float
    tokens: int

    def __post_init__(self) -> None:
        if not math.isfinite(self.log_likelihood) or self.tokens < 1:
            raise ValueError(
                f"a variant of {self.group!r} has the log-likelihood "
                f"{self.log_likelihood} of {self.tokens} tokens; it should be "
                "a number, and of 1 token at least: check the model and the "
                "data"
            )


def pair_accuracy(variants: Iterable[Scored]) -> dict[str, float]:
    """Return how often right variants are likelier than wrong ones.

    In a group each right variant is compared with each wrong one; a tie counts
    half. Groups count alike. Chance is 0.5.

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
    groups: dict[Hashable, tuple[list[Scored], list[Scored]]] = {}
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
    scores = {
        "sum": lambda variant: variant.log_likelihood,
        "per_token": lambda variant: variant.log_likelihood / variant.tokens,
    }
    accuracies: dict[str, float] = {
        name: math.fsum(
            _wins([*map(score, right)], [*map(score, wrong)])
            for right, wrong in groups.values()
        )
        / len(groups)
        for name, score in scores.items()
    }
    return accuracies | {"groups": len(groups)}


def _wins(right: list[float], wrong: list[float]) -> float:
    """Return the share of comparisons that the right ones win."""
    wins = [(a > b) + (a == b) / 2 for a in right for b in wrong]
    return sum(wins) / len(wins)
