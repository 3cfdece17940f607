"""What the YAML of a pretrained folder builds, with errors that name it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ruamel.yaml
from hyperpyyaml import resolve_references
from speechbrain.inference.interfaces import pretrained_from_hparams
from torch import nn

from spiritlm_plugin.dataio.checkpoints import (
    CheckpointError,
    check_weights,
    read_pickle,
)
from spiritlm_plugin.pretrained.trust import read_hyperparams

# What loads a language model, and what of its arguments an engine takes.
_LOADER = "!apply:spiritlm_plugin.lobes.language_model.load_language_model"
_TAKEN = {"folder", "dtype"}
# Weights that SpeechBrain's own hooks read.
_PICKLES = {".ckpt", ".pt", ".bin"}


def build_folder(
    folder: str | Path,
    hparams_file: str,
    overrides: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> dict[str, Any] | None:
    """Build the modules of a pretrained folder and load their weights.

    Arguments
    ---------
    folder : str or Path
        As of `local_folder`.
    hparams_file : str
        In it.
    overrides : dict, optional
        Of the YAML.
    **kwargs
        As of `Pretrained.from_hparams`.

    Returns
    -------
    dict or None
        The arguments of `Pretrained`; None where files were only collected.

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    CheckpointError
        If weights are damaged or do not fit.
    ValueError
        If something else keeps the YAML from being built. All name the file.

    Example
    -------
    >>> from spiritlm_plugin.pretrained.folders import local_folder
    >>> folder = local_folder("tinyspeech")
    >>> place = {"pretrained_path": str(folder), "language_model": None}
    >>> sorted(build_folder(folder, "hyperparams.yaml", place))
    ['hparams', 'modules']
    """
    folder = Path(folder)
    try:
        built = pretrained_from_hparams(
            dict,
            str(folder),
            hparams_file,
            overrides=dict(overrides or {}),
            **kwargs,
        )
    except CheckpointError:
        raise
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"cannot build the model of {folder / hparams_file}: {error}"
        ) from error
    except Exception as error:  # whatever the YAML's values lead to
        for path in sorted(folder.iterdir()):
            if path.suffix in _PICKLES:
                read_pickle(path)  # which says if it is that
        raise ValueError(
            f"cannot build the model of {folder / hparams_file}: "
            f"{str(error) or repr(error)}; check that the file is whole, "
            "belongs to the weights beside it and to this version"
        ) from error
    if built is not None:
        _check_modules(built["modules"], folder / hparams_file)
        _check_transferred(built["hparams"]["pretrainer"])
    return built


def language_model_arguments(
    folder: str | Path,
    hparams_file: str,
    overrides: Mapping[str, Any] | None = None,
) -> dict[str, str]:
    """Return where the YAML of a pretrained folder has its language model.

    Arguments
    ---------
    folder, hparams_file, overrides
        As of `build_folder`. Nothing is built.

    Returns
    -------
    dict
        ``folder`` and, where it is said, ``dtype``, as of
        `load_language_model`.

    Raises
    ------
    ValueError
        If the YAML does not load one, or loads it in another way.

    Example
    -------
    >>> from spiritlm_plugin.pretrained.folders import local_folder
    >>> found = language_model_arguments(
    ...     local_folder("tinyspeech"), "hyperparams.yaml"
    ... )
    >>> Path(found["folder"]).name, found["dtype"]
    ('language_model', 'auto')
    """
    path = Path(folder) / hparams_file
    text = read_hyperparams(path)
    place = {"pretrained_path": str(folder), **(overrides or {})}
    try:
        resolved = resolve_references(text, place).getvalue()
        root = ruamel.yaml.YAML(pure=True).compose(resolved)
    except Exception as error:  # of HyperPyYAML, which raises what comes
        raise ValueError(f"cannot read {path}: {error}") from error
    entries = {key.value: value for key, value in root.value}
    node = entries.get("language_model")
    if node is None or node.tag != _LOADER:
        raise ValueError(
            f"{path} does not load its language_model with "
            f"{_LOADER.removeprefix('!apply:')}, so that no other engine can; "
            'load it with engine="transformers"'
        )
    found = {key.value: value.value for key, value in node.value}
    if set(found) - _TAKEN:
        raise ValueError(
            f"{path} loads its language_model with "
            f"{', '.join(sorted(set(found) - _TAKEN))}, which other engines "
            'cannot; load it with engine="transformers"'
        )
    return found


def _check_modules(modules: Any, path: Path) -> None:
    if not isinstance(modules, Mapping):
        raise ValueError(f"the modules of {path} are {modules!r:.80}, no names")
    for name, module in modules.items():
        # None is what a user goes without.
        if not isinstance(module, (nn.Module, type(None))):
            raise ValueError(
                f"the module {name} of {path} is {module!r:.80}, no module"
            )


def _check_transferred(pretrainer: Any) -> None:
    """Look at weights that SpeechBrain's own hooks have loaded."""
    for name, module in pretrainer.loadables.items():
        if name not in pretrainer.custom_hooks and name in pretrainer.paths:
            state = dict(module.named_parameters())
            check_weights(state, pretrainer.paths[name])
