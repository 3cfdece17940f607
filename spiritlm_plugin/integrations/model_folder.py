"""The files of a pretrained folder that others need, and no others."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from spiritlm_plugin.dataio.checkpoints import require_files
from spiritlm_plugin.integrations.model_card import describe
from spiritlm_plugin.integrations.training_record import FILE
from spiritlm_plugin.pretrained.building import build_folder
from spiritlm_plugin.pretrained.trust import check_folder, read_hyperparams

_YAML = "hyperparams.yaml"
_NAMED = re.compile(r"<pretrained_path>/([\w.-]+)")
# A path that others do not have.
_ELSEWHERE = re.compile(
    r"""(?:^|(?<=[\s\[{(,"'=]))(/\w|~[/\\]|[A-Za-z]:\\)""", re.MULTILINE
)
# What transformers writes of a model and of its tokenizer.
_OF_TRANSFORMERS = (
    "config.json",
    "generation_config.json",
    "*.safetensors",
    "model.safetensors.index.json",
    "tokenizer*",
    "added_tokens.json",
    "special_tokens_map.json",
    "vocab.*",
    "merges.txt",
    "*.model",
    "*.jinja",
)
# What a model's folder may hold, and a new model is not to find there.
_REPLACED = ("hyperparams*.yaml", "*.safetensors", FILE)
_BESIDE = ("README.md", FILE, "LICENSE*", "NOTICE*")


@dataclass(frozen=True)
class ModelFolder:
    """A pretrained folder that was loaded.

    Arguments
    ---------
    path : Path
        The folder.
    files : list of str
        Those that a model needs or tells of itself, from there.
    left_out : list of str
        What else lies in it.
    models : dict
        What `describe` says of the model of each YAML file.
    """

    path: Path
    files: list[str]
    left_out: list[str]
    models: dict[str, dict[str, str]]


def read_model_folder(folder: str | Path) -> ModelFolder:
    """Load a pretrained folder from its own files alone, to see if they do.

    Arguments
    ---------
    folder : str or Path
        As of `export_model`, `assemble` or `convert_release`, with one
        ``hyperparams*.yaml`` or several.

    Raises
    ------
    FileNotFoundError
        If it is no model's folder, or files are missing.
    CheckpointError
        If weights are damaged or do not fit.
    ValueError
        If a YAML is damaged, or needs what is not in the folder.
    UntrustedError
        If it names code that nobody would load.

    Example
    -------
    >>> from spiritlm_plugin.pretrained.folders import local_folder
    >>> found = read_model_folder(local_folder("tinyspeech"))
    >>> found.files[:2], found.left_out
    (['README.md', 'hyperparams.yaml'], [])
    """
    path = Path(folder).expanduser()
    if not (path / _YAML).is_file():
        raise FileNotFoundError(
            f"no {_YAML} in {path}; name the folder of a model, such as the "
            "folder model in the output of a training"
        )
    yamls = sorted(file.name for file in path.glob("hyperparams*.yaml"))
    files = {*yamls, *_matching(path, _BESIDE)}
    for name in yamls:
        files |= _files_of(path, name)
    for name in files:
        _check_inside(path, name)
    with TemporaryDirectory() as temporary:
        alone = Path(temporary)
        for name in files:
            (alone / name).parent.mkdir(exist_ok=True)
            (alone / name).symlink_to((path / name).resolve())
        try:
            models = {name: _describe(alone, name) for name in yamls}
        except (FileNotFoundError, ValueError) as error:
            said = str(error).replace(str(alone), str(path))
            raise type(error)(said) from error
    everything = {
        file.relative_to(path).as_posix()
        for file in path.rglob("*")
        if not file.is_dir()
    }
    return ModelFolder(path, sorted(files), sorted(everything - files), models)


def is_replaced(name: str) -> bool:
    """Tell whether a file is part of a model, so that a new one replaces it.

    Arguments
    ---------
    name : str
        In a pretrained folder, with ``/``.

    Example
    -------
    >>> is_replaced("hyperparams_base.yaml"), is_replaced("notes.txt")
    (True, False)
    """
    path = PurePosixPath(name)
    patterns = _OF_TRANSFORMERS if path.parent.name else _REPLACED
    return any(fnmatch(path.name, pattern) for pattern in patterns)


def _describe(folder: Path, yaml: str) -> dict[str, str]:
    built = build_folder(folder, yaml, {"pretrained_path": str(folder)})
    assert built is not None
    missing = {"language_model", "tokenizer", "vocoder"} - set(built["modules"])
    if missing:
        raise ValueError(
            f"{folder / yaml} has no {', '.join(sorted(missing))} among its "
            "modules, and is no model for SpiritLM.from_hparams"
        )
    return describe(built["modules"])


def _files_of(folder: Path, yaml: str) -> set[str]:
    """Return what a YAML file names, as far as it lies in the folder."""
    text = read_hyperparams(folder / yaml)
    if found := _ELSEWHERE.search(text):
        line = text.count("\n", 0, found.start(1)) + 1
        raise ValueError(
            f"{folder / yaml}, line {line} names a place on this machine; put "
            "the file into the folder and write <pretrained_path>/ and its name"
        )
    check_folder(folder, yaml, {"pretrained_path": str(folder)})
    names = sorted(set(_NAMED.findall(text)))
    require_files(folder, names)
    files = set()
    for name in names:
        if not (folder / name).is_dir():
            files.add(name)
            continue
        require_files(folder / name, ["config.json"])
        own = _matching(folder / name, _OF_TRANSFORMERS)
        if not any(file.endswith(".safetensors") for file in own):
            raise FileNotFoundError(
                f"no *.safetensors in {folder / name}; write it anew, as "
                "LanguageModel.save does"
            )
        files |= {f"{name}/{file}" for file in own}
    return files


def _matching(folder: Path, patterns: Iterable[str]) -> list[str]:
    return [
        file.name
        for file in folder.iterdir()
        if file.is_file()
        and any(fnmatch(file.name, pattern) for pattern in patterns)
    ]


def _check_inside(folder: Path, name: str) -> None:
    if not (folder / name).resolve().is_relative_to(folder.resolve()):
        raise ValueError(
            f"{folder / name} is a link out of the folder; if that is what "
            "others may have, put a copy in its place: cp -rL copies a folder "
            "with what its links lead to"
        )
