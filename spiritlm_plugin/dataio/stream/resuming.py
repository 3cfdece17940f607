"""What a loader looks at when it goes on where a saved one was."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spiritlm_plugin.dataio.checkpoints import CheckpointError

logger = logging.getLogger(__name__)


def check_accumulation(path: Path, state: Mapping[str, Any], now: int) -> None:
    """Raise if a step would begin inside of one that was saved.

    Arguments
    ---------
    path : Path
        Of the state.
    state : dict
        With ``accumulation``, the batches of a step, and ``step``, those of
        the epoch that are done.
    now : int
        Batches of a step.

    Raises
    ------
    CheckpointError
        If the epoch is not over, and its steps have other batches.

    Example
    -------
    >>> state = {"step": 2, "accumulation": 2}
    >>> check_accumulation(tmp / "loader.ckpt", state, 2)
    >>> check_accumulation(tmp / "loader.ckpt", state, 4)
    Traceback (most recent call last):
        ...
    spiritlm_plugin.dataio.checkpoints.CheckpointError: ...--grad_accumulation_factor 2...
    """
    before = state.get("accumulation", now)
    if state["step"] and before != now:
        raise CheckpointError(
            f"{path} was saved within an epoch, at {before} batches a step, and "
            f"now there are {now}; go on with --grad_accumulation_factor "
            f"{before} to the epoch's end, then change it"
        )


def warn_of_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Name the settings that a training goes on with and did not begin with."""
    for key, old in before.items():
        new = now.get(key, old)
        if new != old:
            logger.warning(
                "the training goes on with another %s: %s, and was %s",
                key,
                new,
                old,
            )
