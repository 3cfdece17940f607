"""What prompts begin with in common."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import NamedTuple

# Fewer tokens in common are read again by each.
_LEAST = 64


class Group(NamedTuple):
    """Prompts that begin with the same tokens.

    Arguments
    ---------
    shared : int
        Tokens that all begin with; 0 if they are not worth sharing.
    members : list of int
        The numbers of the prompts.
    """

    shared: int
    members: list[int]


def groups_of_prompts(
    prompts: Sequence[Sequence[int]], worth: int = 256
) -> list[Group]:
    """Put prompts together that begin with the same tokens, such as shots.

    A prompt keeps at least one token for itself.

    Arguments
    ---------
    prompts : sequence of sequences of int
        Token ids; none may be empty.
    worth : int
        Tokens that another group has to save.

    Returns
    -------
    list of Group
        Each prompt is in one of them.

    Example
    -------
    >>> shots, others = list(range(300)), list(range(1, 300))
    >>> groups_of_prompts([[*shots, 7], others, [*shots, 8], [*others, 9]])
    [Group(shared=300, members=[0, 2]), Group(shared=298, members=[1, 3])]
    """
    keys = [list(prompt) for prompt in prompts]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    groups: list[Group] = []
    for i in order:
        if groups:
            shared, members = groups[-1]
            common = min(shared, _common(keys[members[-1]], keys[i]))
            if common * len(members) > shared * (len(members) - 1) - worth:
                groups[-1] = Group(common, [*members, i])
                continue
        groups.append(Group(len(keys[i]) - 1, [i]))
    return [
        group
        if group.shared >= _LEAST and len(group.members) > 1
        else Group(0, group.members)
        for group in groups
    ]


def _common(first: list[int], second: list[int]) -> int:
    """Return how many tokens two begin with, with one left of each."""
    same = takewhile(lambda pair: pair[0] == pair[1], zip(first, second))
    return min(sum(1 for _ in same), len(first) - 1, len(second) - 1)
