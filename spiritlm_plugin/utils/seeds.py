"""Random numbers that depend on names, not on what was drawn before."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from typing import Any

import torch

from spiritlm_plugin.utils.arguments import listed, whole_number

# Those of torch's generators.
_LEAST, _MOST = -(2**63), 2**64 - 1


def derive_seed(*names: Any) -> int:
    """Return a seed of 32 bits that depends on all of the names.

    Example
    -------
    >>> derive_seed(1, "a") == derive_seed(1, "a") != derive_seed(1, "b")
    True
    """
    digest = hashlib.blake2b(repr(names).encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big")


def draw_seeds(seed: int | Sequence[int] | None, count: int) -> list[int]:
    """Return a seed for each of so many items.

    Arguments
    ---------
    seed : int or sequence of int, optional
        One for each; a single number n gives item i the seed n + i; None
        draws one.
    count : int
        Of the items.

    Raises
    ------
    TypeError
        If a seed is no whole number.
    ValueError
        If there are not as many as items, or one is beyond 64 bits.

    Example
    -------
    >>> draw_seeds(7, 3), draw_seeds([4, 2], 2)
    ([7, 8, 9], [4, 2])
    """
    if seed is None:
        seed = random.SystemRandom().randrange(2**31)
    given = listed(seed)
    if given is None:
        first = _checked(seed)
        given = [first + i for i in range(count)]
    if len(given) != count:
        raise ValueError(
            f"{len(given)} seeds for {count} items: give one number, or one "
            "for each item"
        )
    return [_checked(item) for item in given]


def _checked(seed: Any) -> int:
    number = whole_number("seed", seed, least=_LEAST)
    if number > _MOST:
        raise ValueError(f"seed must be below 2**64, got {number}")
    return number


def item_generator(*names: Any) -> torch.Generator:
    """Return a generator for the randomness of one item of the data.

    What it draws depends on nothing but the names, such as seed, epoch and
    id: not on the order of the items, nor on the number of workers.

    Example
    -------
    >>> draws = [torch.rand(1, generator=item_generator(1, 2, "utterance"))
    ...          for _ in range(2)]
    >>> bool(draws[0] == draws[1])
    True
    """
    return torch.Generator().manual_seed(derive_seed(*names))
