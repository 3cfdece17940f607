"""Converter of the released checkpoints to a SpeechBrain pretrained folder.

Run as ``spiritlm-convert checkpoints expressive my_folder``.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from pathlib import Path
from typing import Any

from hyperpyyaml import load_hyperpyyaml

from spiritlm_plugin.dataio.checkpoints import (
    CheckpointError,
    load_state,
    save_safetensors,
)
from spiritlm_plugin.integrations.release import (
    VARIANTS,
    Release,
    read_release,
)

_LOBES = "spiritlm_plugin.lobes"


def hyperparams(release: Release, language_model: Path | None = None) -> str:
    """Return the ``hyperparams.yaml`` of a released model.

    Arguments
    ---------
    release : Release
        As read by `read_release`.
    language_model : Path, optional
        Folder of the language model; by default ``language_model`` beside the
        YAML file.

    Returns
    -------
    str

    Example
    -------
    >>> release = read_release(checkpoints, "base")
    >>> hyperparams(release).splitlines()[-1]
    '        vocoder: !name:spiritlm_plugin.dataio.checkpoints.load_safetensors'
    """
    folder = "!ref <pretrained_path>/language_model"
    if language_model is not None:
        folder = json.dumps(str(language_model))
    phonetic = dict(release.arguments["phonetic"])
    quantizer = phonetic.pop("quantizer")
    kind = (
        "LinearQuantizer" if "hidden_dims" in quantizer else "KMeansQuantizer"
    )
    sections = [
        "# Spirit LM. from_hparams sets pretrained_path to this folder.\n"
        "pretrained_path: .\n"
        "sample_rate: 16000\n"
        "# auto is the type of the weights; float32 where exactness matters.\n"
        "language_model_dtype: auto",
        _new("quantizer", f"phonetic.{kind}", quantizer),
        _new(
            "phonetic",
            "phonetic.PhoneticTokenizer",
            phonetic,
            quantizer="<quantizer>",
        ),
    ]
    tokenizer = {"phonetic": "<phonetic>"}
    if "pitch" in release.arguments:
        pitch = dict(release.arguments["pitch"])
        center = pitch.pop("center")
        sections += [
            _new("pitch", "pitch.PitchQuantizer", pitch),
            _new("f0", "pitch.FCPE", {}),
            _new(
                "pitch_tokenizer",
                "pitch.PitchTokenizer",
                {"center": center},
                f0="<f0>",
                quantizer="<pitch>",
            ),
            _new("style", "style.StyleTokenizer", release.arguments["style"]),
        ]
        tokenizer |= {"pitch": "<pitch_tokenizer>", "style": "<style>"}
    loadables = "".join(
        f"        {name}: !ref <{name}>\n" for name in release.states
    )
    paths = "".join(
        f"        {name}: !ref <pretrained_path>/{name}.safetensors\n"
        for name in release.states
    )
    hook = "!name:spiritlm_plugin.dataio.checkpoints.load_safetensors"
    hooks = "".join(f"        {name}: {hook}\n" for name in release.states)
    sections += [
        _new("tokenizer", "speech_tokenizer.SpeechTokenizer", {}, **tokenizer),
        _new("vocoder", "vocoder.UnitVocoder", release.arguments["vocoder"]),
        f"language_model: !apply:{_LOBES}.language_model.load_language_model\n"
        f"    folder: {folder}\n"
        "    dtype: !ref <language_model_dtype>",
        "modules:\n"
        "    tokenizer: !ref <tokenizer>\n"
        "    vocoder: !ref <vocoder>\n"
        "    language_model: !ref <language_model>",
        "pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer\n"
        f"    loadables:\n{loadables}    paths:\n{paths}"
        f"    custom_hooks:\n{hooks}",
    ]
    return "\n\n".join(sections)


def build_release(release: Release, dtype: str = "auto") -> dict[str, Any]:
    """Make a released model's modules, with their weights.

    Arguments
    ---------
    release : Release
        As read by `read_release`.
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
    try:
        hparams = load_hyperpyyaml(
            hyperparams(release, release.language_model),
            {"language_model_dtype": dtype},
        )
    except CheckpointError:
        raise
    except (ValueError, TypeError, RuntimeError) as error:
        raise CheckpointError(
            f"the configurations in {release.folder} do not make a model: "
            f"{error}"
        ) from error
    for name, state in release.states.items():
        load_state(hparams[name], state, f"{release.folder} ({name})")
    return hparams


def _new(name: str, cls: str, arguments: dict[str, Any], **references) -> str:
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
    if not isinstance(value, dict):
        return [f"{indent}{key}: {json.dumps(value)}"]
    lines = [f"{indent}{key}:"]
    for inner, content in value.items():
        lines.extend(_entry(inner, content, level + 1))
    return lines


def convert_release(
    folder: str | Path, variant: str, destination: str | Path
) -> Path:
    """Write a released model as a SpeechBrain pretrained folder.

    The folder appears under its name only when it is complete.

    Arguments
    ---------
    folder : str or Path
        The released checkpoints.
    variant : str
        ``"base"`` or ``"expressive"``.
    destination : str or Path
        Must not exist, or be empty.

    Returns
    -------
    Path
        The destination.

    Raises
    ------
    FileExistsError
        If the destination is not empty.
    FileNotFoundError, CheckpointError, ValueError
        As `read_release`.
    """
    destination = Path(destination)
    if destination.is_file() or (
        destination.exists() and any(destination.iterdir())
    ):
        raise FileExistsError(
            f"{destination} is there already; name a new folder or remove it"
        )
    release = read_release(folder, variant)
    partial = destination.with_name(destination.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        _write(release, partial)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    if destination.exists():
        destination.rmdir()
    os.replace(partial, destination)
    return destination


def _write(release: Release, folder: Path) -> None:
    hparams = build_release(release)
    for name in release.states:
        save_safetensors(hparams[name], folder / f"{name}.safetensors")
    lm = hparams["language_model"]
    lm.model.save_pretrained(folder / "language_model")
    lm.vocabulary.save(folder / "language_model")
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (release.language_model / name).exists():
            shutil.copy(
                release.language_model / name, folder / "language_model"
            )
    (folder / "hyperparams.yaml").write_text(hyperparams(release))


def main(arguments: list[str] | None = None) -> None:
    """Run the converter from the command line."""
    parser = argparse.ArgumentParser(
        prog="spiritlm-convert",
        description="Write released Spirit LM checkpoints as a SpeechBrain "
        "pretrained folder, to be loaded with SpiritLM.from_hparams.",
    )
    parser.add_argument("folder", help="the checkpoints, as downloaded")
    parser.add_argument("variant", choices=VARIANTS)
    parser.add_argument("destination", help="a new folder")
    options = parser.parse_args(arguments)
    try:
        written = convert_release(
            options.folder, options.variant, options.destination
        )
    except (FileNotFoundError, FileExistsError, ValueError) as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
    print(
        f'written: {written}; load it with SpiritLM.from_hparams("{written}")'
    )


if __name__ == "__main__":
    main()
