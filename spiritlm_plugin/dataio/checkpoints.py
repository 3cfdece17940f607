"""Reading and writing of weights: data, never code."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from spiritlm_plugin.utils.files import naming_full_disk, writing

# Types of weights, as safetensors call them.
_FLOATS = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
# Problems that a message names.
_SHOWN = 8


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


def read_safetensors(
    path: str | Path, remedy: str = "download it again"
) -> dict[str, Tensor]:
    """Read the tensors of a ``.safetensors``.

    Arguments
    ---------
    path : str or Path
        The file.
    remedy : str
        What to do where it is damaged.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    CheckpointError
        If it is damaged.

    Example
    -------
    >>> save_safetensors(torch.nn.Linear(2, 3), tmp / "a.safetensors")
    >>> sorted(read_safetensors(tmp / "a.safetensors"))
    ['bias', 'weight']
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no such checkpoint: {path}")
    try:
        return load_file(path)
    except Exception as error:  # what a damaged file raises is not defined
        raise CheckpointError(
            f"cannot read {path} as safetensors: {error}; {remedy}"
        ) from error


def check_weights(
    state: Mapping[str, Any],
    source: str | Path,
    remedy: str = "download them again",
) -> None:
    """Refuse weights that are NaN or infinite, in one pass over them.

    Arguments
    ---------
    state : dict
        Tensors by name, on any device; of these the floating ones are looked
        at.
    source : str or Path
        Where they are from, for messages.
    remedy : str
        What to do about it.

    Raises
    ------
    CheckpointError
        Naming the tensors that are NaN or infinite, or are none.

    Example
    -------
    >>> check_weights({"a": torch.tensor([0.0, torch.nan])}, "model.pt")
    Traceback (most recent call last):
        ...
    spiritlm_plugin.dataio.checkpoints.CheckpointError: ...model.pt...: a is NaN...
    """
    problems = [
        f"{name} {problem}"
        for name, value in state.items()
        if (problem := _value_problem(value))
    ]
    if problems:
        raise CheckpointError(
            f"the tensors of {source} are damaged: {_shorten(problems)}; "
            f"{remedy}"
        )


def _value_problem(value: Any) -> str | None:
    if not isinstance(value, Tensor):
        return f"is a {type(value).__name__}"
    if value.layout != torch.strided or value.is_quantized or value.is_meta:
        return "is no plain tensor"
    if not value.is_floating_point() or not value.numel():
        return None
    if value.itemsize == 1:  # which cannot be compared
        value = value.float()
    # A maximum takes NaN along, and no memory.
    if all(edge.isfinite() for edge in value.detach().aminmax()):
        return None
    return "is NaN or infinite"


def _kind(dtype: torch.dtype) -> str:
    if dtype.is_floating_point:
        return "floating"
    if dtype.is_complex:
        return "complex"
    return "bool" if dtype == torch.bool else "integer"


def _shorten(problems: list[str]) -> str:
    more = len(problems) - _SHOWN
    return "; ".join(problems[:_SHOWN]) + (
        f"; and {more} more" if more > 0 else ""
    )


def load_state(
    module: nn.Module, state: Mapping[str, Tensor], source: str | Path
) -> None:
    """Load a state dict that must fit a module exactly.

    Raises
    ------
    CheckpointError
        Naming the tensors that are missing, unknown, of another shape or kind
        of number, NaN or infinite.
    """
    own = module.state_dict()
    problems = [f"missing {name}" for name in own if name not in state]
    problems += [f"unknown {name}" for name in state if name not in own]
    problems += [
        f"{name} {problem}"
        for name in own
        if name in state and (problem := _misfit(state[name], own[name]))
    ]
    if problems:
        raise CheckpointError(
            f"the tensors of {source} do not fit {type(module).__name__}: "
            f"{_shorten(problems)}. Check that its configuration belongs to "
            "these weights"
        )
    # In the type of the module, which may know less large numbers.
    check_weights({n: state[n].to(own[n].dtype) for n in own}, source)
    module.load_state_dict(state)
    check_weights(_normalized(module), source)


def _normalized(module: nn.Module) -> dict[str, Tensor]:
    """Return what is computed of weights; of zeros a direction is NaN."""
    return {
        f"{name}.{key}": getattr(part, key)
        for name, part in module.named_modules()
        if is_parametrized(part)
        for key in part.parametrizations
    }


def _misfit(value: Any, expected: Tensor) -> str | None:
    if not isinstance(value, Tensor):
        return f"is a {type(value).__name__}"
    if value.shape != expected.shape:
        return f"has shape {tuple(value.shape)}, expected {(*expected.shape,)}"
    if _kind(value.dtype) != _kind(expected.dtype):
        return f"is of {value.dtype}, expected {expected.dtype}"
    return None


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
    FileNotFoundError
        If there is no such file.
    CheckpointError
        If the file is damaged or does not fit the module.
    """
    load_state(module, read_safetensors(path), path)


def save_safetensors(
    module: nn.Module, path: str | Path, half: bool = False
) -> None:
    """Write a module's weights, which appear when they are complete.

    Arguments
    ---------
    module : nn.Module
        Stays as it is.
    path : str or Path
        To write.
    half : bool
        Matrices in float16, for half the size; who loads them computes in the
        type of the module as before.
    """
    state = {k: v.contiguous() for k, v in module.state_dict().items()}
    if half:
        floats = {k: v for k, v in state.items() if v.is_floating_point()}
        state |= {k: v.half() for k, v in floats.items() if v.dim() > 1}
    with writing(path) as partial:
        save_file(state, partial)


@contextmanager
def writing_model(folder: str | Path) -> Iterator[Path]:
    """Write a folder of transformers, whose files are replaced together.

    Without its ``config.json``, which goes first and comes last, it is no
    model to anyone: one that was killed is not the half of two.

    Arguments
    ---------
    folder : str or Path
        Is made if it is not there.

    Yields
    ------
    Path
        Where to write the files.

    Raises
    ------
    DiskFullError
        If there is no room; the folder is as it was.

    Example
    -------
    >>> with writing_model(tmp / "model") as partial:
    ...     _ = (partial / "config.json").write_text("{}")
    >>> [path.name for path in (tmp / "model").iterdir()]
    ['config.json']
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{os.getpid()}.partial"
    try:
        partial.mkdir()
        with naming_full_disk(folder):
            yield partial
        _replace_model(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _replace_model(new: Path, folder: Path) -> None:
    config = folder / "config.json"
    config.unlink(missing_ok=True)
    # Weights may have been in more files than they are.
    for path in folder.glob("model*.safetensors*"):
        path.unlink()
    names = sorted(path.name for path in new.iterdir())
    for name in sorted(names, key=lambda name: name == config.name):
        os.replace(new / name, folder / name)


def other_than_floats(folder: str | Path) -> dict[str, str]:
    """Return what is no floating number among a transformers folder's weights.

    Headers are looked at, no weights; eight bits count as no floating number.

    Arguments
    ---------
    folder : str or Path
        With ``model*.safetensors`` or else ``pytorch_model*.bin``, which were
        read before.

    Returns
    -------
    dict of str to str
        The type by the tensor's name.

    Example
    -------
    >>> other_than_floats(f"{checkpoints}/spiritlm_model/spirit-lm-base-7b")
    {}
    """
    kinds: dict[str, str] = {}
    for path in sorted(Path(folder).glob("model*.safetensors")):
        with safe_open(path, "pt") as file:
            names = file.keys()
            kinds |= {n: file.get_slice(n).get_dtype() for n in names}
    if kinds:
        return {n: kind for n, kind in kinds.items() if kind not in _FLOATS}
    for path in sorted(Path(folder).glob("pytorch_model*.bin")):
        # Files of old versions cannot be mapped.
        mmap = zipfile.is_zipfile(path)
        state = torch.load(path, "cpu", weights_only=True, mmap=mmap)
        kinds |= {name: str(tensor.dtype) for name, tensor in state.items()}
    floats = set(map(str, _FLOATS.values()))
    return {n: kind for n, kind in kinds.items() if kind not in floats}
