"""What a pretrained folder may have built of its YAML file.

HyperPyYAML builds and calls whatever a file names, so loading somebody's folder
runs somebody's code. Here the file is read as data first, and refused unless all
that it names is on a list.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
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


class UntrustedError(ValueError):
    """A pretrained folder that would run code of its own."""


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
        If the file is no YAML.

    Example
    -------
    >>> _ = (tmp / "hyperparams.yaml").write_text("a: !new:random.Random []")
    >>> check_folder(tmp, "hyperparams.yaml")
    Traceback (most recent call last):
        ...
    spiritlm_plugin.pretrained.trust.UntrustedError: ...line 1: !new:random...
    """
    path = Path(folder) / hparams_file
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"cannot read {path} as YAML: {error}") from error
    for tag, line in _tags(text, path):
        if not _is_allowed(tag):
            raise UntrustedError(
                f"{path}, line {line}: {tag} is not on the list of what a "
                "pretrained folder may build; if the folder is your own, or "
                "you have read it, load it with trust=True"
            )
    # What HyperPyYAML makes of it, references resolved, is what is loaded.
    resolved = resolve_references(text, dict(overrides or {})).getvalue()
    for tag, _ in _tags(resolved, path):
        if not _is_allowed(tag):
            raise UntrustedError(f"{path}: {tag} stands behind a reference")


def _tags(text: str, path: Path) -> Iterator[tuple[str, int]]:
    """Yield the tag of each value, and its line."""
    try:
        waiting: list[Any] = [ruamel.yaml.YAML(pure=True).compose(text)]
    except ruamel.yaml.YAMLError as error:
        raise ValueError(f"cannot read {path} as YAML: {error}") from error
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
