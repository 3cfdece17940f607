"""Reading and writing of weights: data, never code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn


class CheckpointError(ValueError):
    """A checkpoint that cannot be read or does not fit its model."""


def require_files(folder: str | Path, names: list[str]) -> None:
    """Raise if files are missing from a folder, and list which.

    Raises
    ------
    FileNotFoundError
        Naming every missing file.

    Example
    -------
    >>> require_files(".", ["no_such_file"])
    Traceback (most recent call last):
    ...
    FileNotFoundError: missing in .: no_such_file...
    """
    missing = [name for name in names if not (Path(folder) / name).exists()]
    if missing:
        raise FileNotFoundError(
            f"missing in {folder}: {', '.join(missing)}; is this the right "
            "folder, and was it downloaded whole?"
        )


def read_pickle(path: str | Path) -> dict:
    """Read a dict of tensors and plain values from a ``.pt`` or ``.bin``.

    Raises
    ------
    CheckpointError
        If the file is damaged, or holds anything but plain data.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no such checkpoint: {path}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what a damaged file raises is not defined
        raise CheckpointError(
            f"cannot read {path} as plain data: {error}; download it again, "
            "and do not load files from a source that you do not trust"
        ) from error
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"{path} should hold a dict, got {type(content).__name__}"
        )
    return dict(content)


def load_state(
    module: nn.Module, state: Mapping[str, Tensor], source: str | Path
) -> None:
    """Load a state dict that must fit a module exactly.

    Raises
    ------
    CheckpointError
        Naming the tensors that are missing, unknown or of another shape.
    """
    own = module.state_dict()
    problems = [f"missing {name}" for name in own if name not in state]
    problems += [f"unknown {name}" for name in state if name not in own]
    problems += [
        f"{name} has shape {tuple(state[name].shape)}, expected "
        f"{tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    if problems:
        shown = "; ".join(problems[:8])
        more = len(problems) - 8
        raise CheckpointError(
            f"the tensors of {source} do not fit {type(module).__name__}: "
            f"{shown}{f'; and {more} more' if more > 0 else ''}. Check that "
            "its configuration belongs to these weights"
        )
    module.load_state_dict(state)


def digest_weights(module: nn.Module) -> str:
    """Return what tells a module from those of other weights.

    Example
    -------
    >>> one, other = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    >>> digest_weights(one) == digest_weights(other)
    False
    """
    digest = hashlib.sha256(type(module).__name__.encode())
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        content = tensor.detach().cpu().contiguous().flatten()
        digest.update(content.view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def digest_values(values: Any) -> str:
    """Return what tells plain values, which JSON can hold, from others.

    Example
    -------
    >>> digest_values({"a": 1, "b": 2}) == digest_values({"b": 2, "a": 1})
    True
    """
    text = json.dumps(values, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def load_safetensors(module: nn.Module, path: str | Path) -> None:
    """Load a module's weights; a custom hook for SpeechBrain's Pretrainer.

    Raises
    ------
    CheckpointError
        If the file is damaged or does not fit the module.
    """
    try:
        state = load_file(path)
    except SafetensorError as error:
        raise CheckpointError(
            f"cannot read {path} as safetensors: {error}; download it again"
        ) from error
    load_state(module, state, path)


def save_safetensors(module: nn.Module, path: str | Path) -> None:
    """Write a module's weights."""
    state = {k: v.contiguous() for k, v in module.state_dict().items()}
    save_file(state, path)
