"""Random numbers that depend on names, not on what was drawn before."""

from __future__ import annotations

import hashlib
from typing import Any

import torch


def derive_seed(*names: Any) -> int:
    """Return a seed of 32 bits that depends on all of the names.

    Example
    -------
    >>> derive_seed(1, "a") == derive_seed(1, "a") != derive_seed(1, "b")
    True
    """
    digest = hashlib.blake2b(repr(names).encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big")


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
