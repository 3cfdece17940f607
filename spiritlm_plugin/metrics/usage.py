"""How a codebook is used."""

from __future__ import annotations

from torch import Tensor


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
