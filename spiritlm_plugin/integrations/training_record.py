"""What a training was, to be told with the model: ``training.json``."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from spiritlm_plugin.dataio.corpus.stores import read_description
from spiritlm_plugin.utils.environment import package_commit
from spiritlm_plugin.utils.files import read_json, write_file
from spiritlm_plugin.utils.processes import rank_and_world_size

FILE = "training.json"
_PACKAGES = ("spiritlm_plugin", "speechbrain", "torch", "transformers")
# A path, or another value; inside a word these signs are part of it.
_PIECE = re.compile(r"""(?:[^\[\]{}()"'=,]|(?<=\w)[',=](?=\w))+""")
_OPTION = re.compile(r"(--\w+=)?(.*)", re.DOTALL)
_SECRET = re.compile(r"--(\w+_)?(token|key|secret|password)(=.*)?")
# What lies below where a recipe runs, or on the Hub.
_HARMLESS = re.compile(r"[\w.-]+(/[\w.-]+)*")
_REMEDY = "delete it, or export the model again"


def training_record(
    hparams: Mapping[str, Any],
    device: str | torch.device = "cpu",
    arguments: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Return what a model card says of a training.

    Made before it, so that what cannot be read is known then. No path but its
    last name is in it, nor who runs it or where.

    Arguments
    ---------
    hparams : dict
        The recipe's: of it ``pretrained``, ``codec``, ``codec_hparams``,
        ``corpus_folders``, ``text_files``, the ``shares`` of the ``mode``,
        ``seed``, ``step_rows`` and ``row_tokens`` are told, those that there
        are.
    device : str or torch.device
        What it is trained on.
    arguments : sequence of str, optional
        The command line; by default that of this process.

    Returns
    -------
    dict
        Plain values; ``steps`` are to be added when it is done. Where the
        model starts from one that has such a record, that is ``before``.

    Raises
    ------
    FileNotFoundError, ValueError
        If a corpus is missing or damaged, or the record of the start.

    Example
    -------
    >>> record = training_record(
    ...     {"seed": 1, "step_rows": 4, "row_tokens": 64},
    ...     arguments=["train.py", "--text_files=[/home/me/a.txt]"],
    ... )
    >>> record["command"], record["step_tokens"]
    ("train.py '--text_files=[a.txt]'", 256)
    """
    forms = (hparams.get("shares") or {}).get(hparams.get("mode")) or {}
    forms = {form: share for form, share in forms.items() if share}
    texts = [Path(f).name for f in hparams.get("text_files") or ()]
    corpora = [_corpus(f) for f in hparams.get("corpus_folders") or ()]
    record: dict[str, Any] = {
        "command": _command(sys.argv if arguments is None else arguments),
        "date": datetime.now(timezone.utc).date().isoformat(),
        "versions": {name: version(name) for name in _PACKAGES},
        "commit": package_commit(),
        "processes": rank_and_world_size()[1],
        "device": _name_of(torch.device(device)),
        "seed": hparams.get("seed"),
        "forms": forms,
        # Of text alone the corpora are no part where there are files of it.
        "corpora": [] if texts and {*forms} == {"text"} else corpora,
        "texts": texts,
    }
    if {"step_rows", "row_tokens"} <= hparams.keys():
        tokens = hparams["step_rows"] * hparams["row_tokens"]
        record["step_tokens"] = tokens
    for name in ("codec", "codec_hparams"):
        record[name] = without_folders(str(hparams.get(name) or ""))
    record |= _start(hparams)
    return {name: value for name, value in record.items() if value}


def write_record(folder: Path, record: Mapping[str, Any] | None) -> None:
    """Write a record beside its model; without one, none is there."""
    if record is None:
        (folder / FILE).unlink(missing_ok=True)
        return
    text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False)
    write_file(folder / FILE, text + "\n")


def read_record(folder: Path) -> dict[str, Any] | None:
    """Return the record of a model; None where there is none.

    Raises
    ------
    ValueError
        If it is damaged.

    Example
    -------
    >>> write_record(tmp, {"steps": 10})
    >>> read_record(tmp)
    {'steps': 10}
    """
    if not (folder / FILE).is_file():
        return None
    return read_json(folder / FILE, _REMEDY)


def _command(arguments: Sequence[str]) -> str:
    script = Path(arguments[0]).absolute().parts
    is_recipe = "recipes" in script
    begin = len(script) - 1
    if is_recipe:
        begin = len(script) - 1 - script[::-1].index("recipes")
    words = ["/".join(script[begin:])]
    hidden = False
    for word in arguments[1:]:
        secret = _SECRET.fullmatch(word)
        name, equals, _ = word.partition("=")
        if hidden or (secret and equals):
            word = f"{name}=..." if secret else "..."
        words.append(without_folders(word))
        hidden = secret is not None and not equals
    return shlex.join(words)


def without_folders(text: str) -> str:
    """Return text with paths as their last names, but for relative ones.

    Example
    -------
    >>> without_folders("--corpus_folders=[/home/me/a b/units, ../c]")
    '--corpus_folders=[units, c]'
    >>> without_folders("--pretrained=HuggingFaceTB/SmolLM2-360M")
    '--pretrained=HuggingFaceTB/SmolLM2-360M'
    """
    found = _OPTION.fullmatch(text)
    assert found  # whatever the text
    name, value = found.groups("")
    return name + _PIECE.sub(lambda piece: _last_name(piece[0]), value)


def _last_name(piece: str) -> str:
    words = piece.strip()
    if "," in piece and not words.startswith(("/", "\\", "~")):
        return ",".join(map(_last_name, piece.split(",")))
    parts = [part for part in re.split(r"[/\\]", words) if part]
    if len(parts) < 2 and not words.startswith(("/", "\\", "~")):
        return piece
    if _HARMLESS.fullmatch(words) and not {".", ".."} & set(parts):
        return piece
    return piece.replace(words, parts[-1].lstrip("~") if parts else "")


def _name_of(device: torch.device) -> str:
    if device.type != "cuda":
        return device.type
    return torch.cuda.get_device_name(device)


def _corpus(folder: str | Path) -> dict[str, Any]:
    found = read_description(Path(folder) / "train")
    corpus = {"name": Path(folder).resolve().name}
    corpus["utterances"] = found["utterances"]
    if "seconds" in found:
        corpus["hours"] = round(found["seconds"] / 3600, 2)
    return corpus


def _start(hparams: Mapping[str, Any]) -> dict[str, Any]:
    source = hparams.get("pretrained")
    if not source:
        return {}
    record: dict[str, Any] = {"started_from": str(source)}
    if hparams.get("random_weights"):
        record["random_weights"] = True
    folder = Path(source).expanduser().absolute()
    if folder.is_dir():
        record["started_from"] = folder.name
        record["before"] = read_record(folder) or read_record(folder.parent)
    return record
