"""What a pretrained folder may have built of its YAML file.

HyperPyYAML builds and calls whatever a file names, so loading somebody's folder
runs somebody's code. Here the file is read as data first, and refused unless all
that it names is on a list.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from importlib import import_module
from itertools import accumulate
from pathlib import Path
from typing import Any

import ruamel.yaml
from hyperpyyaml import resolve_references
from torch import nn

# Where torch modules may come from. They are built with plain values.
_MODULES = (
    "spiritlm_plugin.lobes.",
    "speechbrain.nnet.",
    "speechbrain.lobes.features.",
    "speechbrain.lobes.models.HifiGAN.",
    "torch.nn.",
)
_BUILT = {"speechbrain.utils.parameter_transfer.Pretrainer"}
_CALLED = {"spiritlm_plugin.lobes.language_model.load_language_model"}
_NAMED = {"spiritlm_plugin.dataio.checkpoints.load_safetensors"}
_LISTS = {"!new": _BUILT, "!apply": _CALLED, "!name": _NAMED}
# Of HyperPyYAML, that build nothing; and YAML's own.
_PLAIN = {"!ref", "!copy", "!tuple", "!PLACEHOLDER"}
_YAML = "tag:yaml.org,2002:"
_TYPES = {"map", "seq", "str", "int", "float", "bool", "null", "merge"}
_TYPES |= {"timestamp"}


# Beyond these the time that ruamel.yaml takes has no bound.
_LONGEST, _DEEPEST = 1_000_000, 50
# What SpeechBrain looks for in a pretrained folder's file.
_NEEDED = ("modules", "pretrainer")
_REMEDY = (
    "download the folder again, or write the file anew with spiritlm-assemble "
    "or spiritlm-convert"
)


class UntrustedError(ValueError):
    """A pretrained folder that would run code of its own."""


def read_hyperparams(path: str | Path) -> str:
    """Return the YAML of a pretrained folder, if it has the form of one.

    Arguments
    ---------
    path : str or Path
        The file.

    Raises
    ------
    ValueError
        Naming the file and what is wrong: it is no YAML, or lacks
        ``modules`` or ``pretrainer``.

    Example
    -------
    >>> _ = (tmp / "hyperparams.yaml").write_text("modules: {}")
    >>> read_hyperparams(tmp / "hyperparams.yaml")
    Traceback (most recent call last):
        ...
    ValueError: ...hyperparams.yaml has no pretrainer; ...
    """
    path = Path(path)
    text = _read(path)
    root = _compose(text, path)
    keys = set()
    if isinstance(root, ruamel.yaml.MappingNode):
        keys = {key.value for key, _ in root.value if key.id == "scalar"}
    missing = [name for name in _NEEDED if name not in keys]
    if missing:
        raise ValueError(f"{path} has no {' and no '.join(missing)}; {_REMEDY}")
    return text


def check_folder(
    folder: str | Path,
    hparams_file: str,
    overrides: Mapping[str, Any] | None = None,
) -> None:
    """Refuse a pretrained folder that names code other than is on the list.

    On it are torch modules of this package, of SpeechBrain's and torch's own
    layers, SpeechBrain's ``Pretrainer``, and the two functions of this package
    that read weights. Nothing of the folder is built or imported.

    Arguments
    ---------
    folder : str or Path
        As of `local_folder`.
    hparams_file : str
        In it.
    overrides : dict, optional
        With which it is to be loaded.

    Raises
    ------
    UntrustedError
        Naming what the folder would build, call or import.
    ValueError
        If the file is no YAML, or its references lead nowhere.

    Example
    -------
    >>> _ = (tmp / "hyperparams.yaml").write_text("a: !new:random.Random []")
    >>> check_folder(tmp, "hyperparams.yaml")
    Traceback (most recent call last):
        ...
    spiritlm_plugin.pretrained.trust.UntrustedError: ...line 1: !new:random...
    """
    path = Path(folder) / hparams_file
    text = _read(path)
    for tag, line in _tags(text, path):
        if not _is_allowed(tag):
            raise UntrustedError(
                f"{path}, line {line}: {tag} is not on the list of what a "
                "pretrained folder may build; if the folder is your own, or "
                "you have read it, load it with trust=True"
            )
    # What HyperPyYAML makes of it, references resolved, is what is loaded.
    try:
        resolved = resolve_references(text, dict(overrides or {})).getvalue()
    except Exception as error:  # of HyperPyYAML, which raises what comes
        raise ValueError(
            f"cannot resolve the references of {path}: {error}; {_REMEDY}"
        ) from error
    for name in _names(_compose(resolved, path)):
        if set("/\\") & set(name) or name.startswith("."):
            raise UntrustedError(
                f"{path}: the name {name!r} leads to another folder"
            )
    for tag, _ in _tags(resolved, path):
        if not _is_allowed(tag):
            raise UntrustedError(f"{path}: {tag} stands behind a reference")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"cannot read {path} as YAML: line {line} is no text (UTF-8); "
            f"{_REMEDY}"
        ) from error


@lru_cache(maxsize=2)
def _compose(text: str, path: Path) -> Any:
    """Return the nodes of a YAML file, of which nothing is made.

    Several look at the same file, one after the other.
    """
    nested = accumulate((c in "[{") - (c in "]}") for c in text)
    if len(text) > _LONGEST or max(nested, default=0) > _DEEPEST:
        raise ValueError(
            f"cannot read {path} as YAML: no model is described in more than "
            f"{_LONGEST} characters or {_DEEPEST} brackets in each other; "
            f"{_REMEDY}"
        )
    try:
        return ruamel.yaml.YAML(pure=True).compose(text)
    except Exception as error:  # what a damaged file raises is not defined
        mark = getattr(error, "problem_mark", None)
        line = "" if mark is None else f"line {mark.line + 1}: "
        reason = getattr(error, "problem", None) or error
        raise ValueError(
            f"cannot read {path} as YAML: {line}{reason}; {_REMEDY}"
        ) from error


def _tags(text: str, path: Path) -> Iterator[tuple[str, int]]:
    """Yield the tag of each value, and its line."""
    waiting: list[Any] = [_compose(text, path)]
    seen = set()
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, (list, tuple)):
            waiting += node
            continue
        if node is None:
            continue
        tag, line = str(node.tag), node.start_mark.line + 1
        yield tag, line
        if not isinstance(node.value, str):
            waiting.append(node.value)
        elif "!" in node.value and (
            tag == "!tuple" or node.value.startswith("(")
        ):
            # HyperPyYAML reads what stands in a tuple again, with all tags.
            yield f"!tuple {node.value}", line


def _names(node: Any) -> Iterator[str]:
    """Yield the keys of all mappings; files are called by some of them."""
    waiting, seen = [node], set()
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, ruamel.yaml.MappingNode):
            yield from (str(key.value) for key, _ in node.value)
            waiting += [value for _, value in node.value]
        elif isinstance(node, ruamel.yaml.SequenceNode):
            waiting += node.value


def _is_allowed(tag: str) -> bool:
    if tag in _PLAIN or tag.removeprefix(_YAML) in _TYPES:
        return True
    kind, colon, name = tag.partition(":")
    if not colon or kind not in _LISTS:
        return False
    return name in _LISTS[kind] or (kind == "!new" and _is_module(name))


def _is_module(name: str) -> bool:
    """Whether this is a torch module, where it is defined.

    Names that a module has imported lead elsewhere.
    """
    if not name.startswith(_MODULES):
        return False
    module, _, attribute = name.rpartition(".")
    if module == "torch.nn":
        found = getattr(nn, attribute, None)
    else:
        try:
            found = vars(import_module(module)).get(attribute)
        except ImportError:
            return False
        if getattr(found, "__module__", None) != module:
            return False
    return isinstance(found, type) and issubclass(found, nn.Module)
