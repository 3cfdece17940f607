"""The parts that a model is made of, and the YAML that puts them together."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hyperpyyaml import load_hyperpyyaml
from torch import Tensor, nn

from spiritlm_plugin.dataio.checkpoints import (
    CheckpointError,
    load_state,
    read_safetensors,
    require_files,
    save_safetensors,
)
from spiritlm_plugin.utils.files import read_json, write_file, writing

KINDS = ("phonetic", "pitch", "style", "vocoder")
_CONFIG = "config.json"
_WEIGHTS = "model.safetensors"
_REMEDY = "train it again"
_LOBES = "spiritlm_plugin.lobes"
_HOOK = "!name:spiritlm_plugin.dataio.checkpoints.load_safetensors"
_LINE = 100  # characters; longer lists have an item a line


@dataclass(frozen=True)
class Parts:
    """What a model is made of.

    Arguments
    ---------
    folder : Path or str
        Where it was read, for messages.
    arguments : dict
        For each of ``phonetic``, ``pitch``, ``style`` and ``vocoder`` that
        there is the arguments of its classes, plain values.
    states : dict
        For each its weights.
    language_model : Path, optional
        The language model's folder.
    places : dict
        Where the weights of each were read, for messages.
    """

    folder: Path | str
    arguments: dict[str, dict[str, Any]]
    states: dict[str, dict[str, Tensor]]
    language_model: Path | None = None
    places: dict[str, Path] = field(default_factory=dict)


def save_part(
    folder: str | Path, arguments: Mapping[str, Any], module: nn.Module
) -> Path:
    """Write a trained part.

    Arguments
    ---------
    folder : str or Path
        Is made, or its files are replaced.
    arguments : dict
        Of the part's classes, as in `Parts`.
    module : nn.Module
        The part; of the pitch tokenizer its `PitchQuantizer`.

    Returns
    -------
    Path
        The folder.

    Example
    -------
    >>> from spiritlm_plugin.lobes.pitch import PitchQuantizer
    >>> arguments = {"units": 8, "width": 4, "output_width": 4}
    >>> quantizer = PitchQuantizer(**arguments)
    >>> folder = save_part(
    ...     tmp / "pitch", {"center": True, **arguments}, quantizer
    ... )
    >>> type(load_part("pitch", folder)).__name__
    'PitchTokenizer'
    """
    folder = Path(folder)
    text = json.dumps(dict(arguments), indent=2)
    folder.mkdir(parents=True, exist_ok=True)
    with writing(folder / _WEIGHTS) as partial:
        save_safetensors(module, partial)
        # Without its configuration a part does not count.
        (folder / _CONFIG).unlink(missing_ok=True)
    write_file(folder / _CONFIG, text)
    return folder


def read_parts(**folders: str | Path | None) -> Parts:
    """Read trained parts.

    Arguments
    ---------
    **folders : str or Path
        By kind: ``phonetic``, ``pitch``, ``style``, ``vocoder``; None for a
        part that the model does without.

    Raises
    ------
    FileNotFoundError
        Naming what is missing.
    CheckpointError
        If a file is damaged.
    ValueError
        If there is no such kind.
    """
    unknown = sorted(set(folders) - set(KINDS))
    if unknown:
        raise ValueError(
            f"no such kind of part: {', '.join(unknown)}; there are "
            f"{', '.join(KINDS)}"
        )
    arguments, states, places = {}, {}, {}
    for kind in KINDS:
        given = folders.get(kind)
        if given is None:
            continue
        folder = Path(given)
        require_files(folder, [_CONFIG, _WEIGHTS])
        places[kind] = folder / _WEIGHTS
        arguments[kind] = read_json(folder / _CONFIG, _REMEDY, CheckpointError)
        states[kind] = read_safetensors(places[kind], _REMEDY)
    read = ", ".join(str(path.parent) for path in places.values())
    return Parts(read, arguments, states, places=places)


def load_part(kind: str, folder: str | Path) -> nn.Module:
    """Load a trained part: a tokenizer of one stream, or a vocoder.

    Arguments
    ---------
    kind : str
        ``"phonetic"``, ``"pitch"``, ``"style"`` or ``"vocoder"``.
    folder : str or Path
        As written by `save_part`.

    Raises
    ------
    FileNotFoundError
        Naming what is missing.
    CheckpointError
        If a file is damaged, or the weights do not fit.
    """
    name = "pitch_tokenizer" if kind == "pitch" else kind
    return build(read_parts(**{kind: folder}))[name].eval()


def load_tokenizer(
    phonetic: str | Path,
    pitch: str | Path | None = None,
    style: str | Path | None = None,
) -> nn.Module:
    """Load the `SpeechTokenizer` that trained parts make.

    Arguments and errors are those of `load_part`.
    """
    parts = read_parts(phonetic=phonetic, pitch=pitch, style=style)
    tokenizer = build(parts)["tokenizer"].eval()
    tokenizer.prepare_for_inference()
    return tokenizer


def build(parts: Parts, dtype: str = "auto") -> dict[str, Any]:
    """Make the modules, with their weights.

    Arguments
    ---------
    parts : Parts
        What there is.
    dtype : str
        Of the language model.

    Returns
    -------
    dict
        The loaded YAML, as `hyperparams` writes it.

    Raises
    ------
    CheckpointError
        If the weights do not fit the configurations.
    """
    overrides = {}
    if parts.language_model is not None:
        overrides["language_model_dtype"] = dtype
    try:
        hparams = load_hyperpyyaml(
            hyperparams(parts, parts.language_model), overrides
        )
    except (CheckpointError, FileNotFoundError):
        raise
    except Exception as error:  # whatever wrong arguments lead to
        raise CheckpointError(
            f"the configurations in {parts.folder} do not make a model: {error}"
        ) from error
    for name, state in parts.states.items():
        load_state(hparams[name], state, parts.places.get(name, parts.folder))
    return hparams


def write_folder(
    parts: Parts, folder: str | Path, variant: str = "", half: bool = False
) -> dict[str, Any]:
    """Write a SpeechBrain pretrained folder, but for the language model.

    Arguments
    ---------
    parts : Parts
        What there is.
    folder : str or Path
        Is there.
    variant : str
        Goes into the names of the YAML, of the vocoder and of the language
        model, so that models that share a tokenizer share a folder:
        ``"_base"`` makes ``hyperparams_base.yaml``.
    half : bool
        Of `save_safetensors`.

    Returns
    -------
    dict
        The modules, as of `build`.

    Raises
    ------
    CheckpointError
        If the weights do not fit the configurations.
    """
    hparams = build(parts)
    yaml = Path(folder) / f"hyperparams{variant}.yaml"
    # Without it the folder is no model's.
    yaml.unlink(missing_ok=True)
    for name in parts.states:
        file = _file(name, variant)
        save_safetensors(hparams[name], Path(folder) / file, half)
    write_file(yaml, hyperparams(parts, variant=variant))
    return hparams


def hyperparams(
    parts: Parts, language_model: Path | None = None, variant: str = ""
) -> str:
    """Return the ``hyperparams.yaml`` of a model.

    Arguments
    ---------
    parts : Parts
        What there is.
    language_model : Path, optional
        Folder of the language model; by default ``language_model`` beside the
        YAML file.
    variant : str
        See `write_folder`.

    Returns
    -------
    str

    Example
    -------
    >>> release = read_release(checkpoints, "base")
    >>> hyperparams(release).splitlines()[-1]
    '        vocoder: !name:spiritlm_plugin.dataio.checkpoints.load_safetensors'
    """
    sections = [
        "# Spirit LM. from_hparams sets pretrained_path to this folder.\n"
        "pretrained_path: .\n"
        "sample_rate: 16000"
    ]
    modules = []
    tokenizer = {}
    if "phonetic" in parts.arguments:
        sections += _phonetic(parts.arguments["phonetic"])
        tokenizer["phonetic"] = "<phonetic>"
    if "pitch" in parts.arguments:
        sections += _pitch(parts.arguments["pitch"])
        tokenizer["pitch"] = "<pitch_tokenizer>"
    if "style" in parts.arguments:
        style = parts.arguments["style"]
        sections.append(_new("style", "style.StyleTokenizer", style))
        tokenizer["style"] = "<style>"
    if "phonetic" in tokenizer:
        modules.append("tokenizer")
        cls = "speech_tokenizer.SpeechTokenizer"
        sections.append(_new("tokenizer", cls, {}, **tokenizer))
    if "vocoder" in parts.arguments:
        modules.append("vocoder")
        vocoder = parts.arguments["vocoder"]
        sections.append(_new("vocoder", "vocoder.UnitVocoder", vocoder))
    if parts.language_model is not None:
        modules.append("language_model")
        path = f"!ref <pretrained_path>/language_model{variant}"
        if language_model is not None:
            path = json.dumps(str(language_model))
        sections.append(_language_model(path))
    files = {
        name: f"<pretrained_path>/{_file(name, variant)}"
        for name in parts.states
    }
    sections += [
        "modules:\n" + "\n".join(f"    {m}: !ref <{m}>" for m in modules),
        "pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer\n"
        + _lines("loadables", {n: f"!ref <{n}>" for n in files})
        + _lines("paths", {n: f"!ref {path}" for n, path in files.items()})
        + _lines("custom_hooks", dict.fromkeys(files, _HOOK)),
    ]
    return "\n\n".join(sections)


def add_language_model(folder: Path, variant: str = "") -> None:
    """Put a language model into the YAML of a folder that has none.

    Arguments
    ---------
    folder : Path
        As of `write_folder`; the model itself is to be saved in
        ``language_model`` and the variant.
    variant : str
        See `write_folder`.
    """
    yaml = folder / f"hyperparams{variant}.yaml"
    before, heading, after = yaml.read_text("utf-8").partition("\nmodules:\n")
    path = f"!ref <pretrained_path>/language_model{variant}"
    module = "    language_model: !ref <language_model>\n"
    write_file(
        yaml, f"{before}\n{_language_model(path)}\n{heading}{module}{after}"
    )


def _language_model(path: str) -> str:
    return (
        "# auto is the type of the weights; float32 where exactness matters.\n"
        "language_model_dtype: auto\n"
        f"language_model: !apply:{_LOBES}.language_model.load_language_model\n"
        f"    folder: {path}\n"
        "    dtype: !ref <language_model_dtype>"
    )


def _file(name: str, variant: str) -> str:
    """Return the file of a module's weights."""
    return f"{name}{variant if name == 'vocoder' else ''}.safetensors"


def _phonetic(arguments: dict[str, Any]) -> list[str]:
    arguments = dict(arguments)
    quantizer = arguments.pop("quantizer")
    is_linear = "hidden_dims" in quantizer
    kind = "LinearQuantizer" if is_linear else "KMeansQuantizer"
    return [
        _new("quantizer", f"phonetic.{kind}", quantizer),
        _new(
            "phonetic",
            "phonetic.PhoneticTokenizer",
            arguments,
            quantizer="<quantizer>",
        ),
    ]


def _pitch(arguments: dict[str, Any]) -> list[str]:
    arguments = dict(arguments)
    center = {"center": arguments.pop("center")}
    return [
        _new("pitch", "pitch.PitchQuantizer", arguments),
        _new("f0", "pitch.FCPE", {}),
        _new(
            "pitch_tokenizer",
            "pitch.PitchTokenizer",
            center,
            f0="<f0>",
            quantizer="<pitch>",
        ),
    ]


def _lines(key: str, entries: Mapping[str, str]) -> str:
    """Write a mapping inside an object."""
    inner = "".join(f"        {k}: {v}\n" for k, v in entries.items())
    return f"    {key}:\n{inner}"


def _new(
    name: str, cls: str, arguments: dict[str, Any], **references: str
) -> str:
    """Write the YAML that makes an object."""
    if not arguments and not references:
        return f"{name}: !new:{_LOBES}.{cls} {{}}"
    lines = [f"{name}: !new:{_LOBES}.{cls}"]
    for key, value in arguments.items():
        lines.extend(_entry(key, value, 1))
    lines += [f"    {key}: !ref {value}" for key, value in references.items()]
    return "\n".join(lines)


def _entry(key: str, value: Any, level: int) -> list[str]:
    indent = "    " * level
    if not isinstance(value, dict) or not value:
        line = f"{indent}{key}: {json.dumps(value)}"
        if not isinstance(value, list) or len(line) <= _LINE:
            return [line]
        items = (f"{indent}    - {json.dumps(item)}" for item in value)
        return [f"{indent}{key}:", *items]
    lines = [f"{indent}{key}:"]
    for inner, content in value.items():
        # Names of styles can be any words, which YAML may read otherwise.
        name = json.dumps(inner) if key == "styles" else inner
        lines.extend(_entry(name, content, level + 1))
    return lines
