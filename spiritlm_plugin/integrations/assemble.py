"""Put trained parts together to a SpeechBrain pretrained folder.

Run as ``spiritlm-assemble my_folder --phonetic results/... --vocoder ...``.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from spiritlm_plugin.dataio.units.units import Kind
from spiritlm_plugin.dataio.units.vocabulary import Vocabulary
from spiritlm_plugin.integrations.parts import (
    KINDS,
    Parts,
    add_language_model,
    read_parts,
    write_folder,
)
from spiritlm_plugin.utils.files import naming_full_disk

_BASE = "_base"


def assemble(
    destination: str | Path,
    base_vocoder: str | Path | None = None,
    language_model: str | Path | None = None,
    base_language_model: str | Path | None = None,
    half: bool = False,
    **folders: str | Path | None,
) -> Path:
    """Write trained parts as a pretrained folder.

    Arguments
    ---------
    destination : str or Path
        Is made if it is not there; files of the same names are replaced.
    base_vocoder : str or Path, optional
        Vocoder of phonetic units alone, which is loaded with
        ``hparams_file="hyperparams_base.yaml"``.
    language_model, base_language_model : str or Path, optional
        Folders of transformers, as the pretraining recipe exports them; the
        second goes with the second vocoder.
    half : bool
        Weights of tokenizer and vocoders in float16, for half the size. They
        are computed with in float32, a few units are others than before.
    **folders : str or Path
        By kind: ``phonetic``, ``pitch``, ``style``, ``vocoder``.

    Returns
    -------
    Path
        The destination, which `SpeechCodec.from_hparams` loads, and with a
        language model `SpiritLM.from_hparams`.

    Raises
    ------
    FileNotFoundError, CheckpointError
        If a part is missing, is damaged or does not fit.
    ValueError
        If parts were not made for each other's units.
    """
    destination = Path(destination)
    models = {"": read_parts(**folders)}
    if base_vocoder is not None:
        models[_BASE] = read_parts(
            phonetic=folders.get("phonetic"), vocoder=base_vocoder
        )
    language_models = {"": language_model, _BASE: base_language_model}
    for variant, parts in models.items():
        _check_counts(parts)
        model = language_models[variant]
        if model is not None:
            _check_vocabulary(parts, Path(model))
    destination.mkdir(parents=True, exist_ok=True)
    for variant, parts in models.items():
        write_folder(parts, destination, variant, half)
        model = language_models[variant]
        if model is not None:
            place = destination / f"language_model{variant}"
            with naming_full_disk(place):
                shutil.copytree(model, place, dirs_exist_ok=True)
            add_language_model(destination, variant)
    return destination


def _check_vocabulary(parts: Parts, folder: Path) -> None:
    """Raise unless a language model was made for the tokenizer's units."""
    vocabulary = Vocabulary.load(folder)
    for kind in Kind:
        name = kind.name.lower()
        tokenizer = parts.arguments.get(name, {})
        has = tokenizer.get("quantizer", tokenizer).get("units", 0)
        knows = vocabulary.unit_count(kind)
        # A linear quantizer has a blank.
        if knows != has and (name != "phonetic" or knows != has + 1):
            raise ValueError(
                f"the language model in {folder} knows {knows} {name} units "
                f"and the tokenizer has {has}: give it the parts that it was "
                "trained with"
            )


def _check_counts(parts: Parts) -> None:
    """Raise unless the vocoder was made for the tokenizer's units."""
    arguments = parts.arguments
    vocoder = arguments.get("vocoder")
    if vocoder is None:
        return
    units = {"phonetic": arguments.get("phonetic", {}).get("quantizer", {})}
    units |= {kind: arguments.get(kind, {}) for kind in ("pitch", "style")}
    for kind, tokenizer in units.items():
        has = tokenizer.get("units", 0)
        expects = vocoder.get(f"{kind}_units", 0)
        if expects != has:
            raise ValueError(
                f"the vocoder in {parts.folder} was made for {expects} {kind} "
                f"units and the tokenizer has {has}: give it the parts that "
                "it was trained with"
            )


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        prog="spiritlm-assemble",
        description="Put trained parts together to a SpeechBrain pretrained "
        "folder, to be loaded with SpeechCodec.from_hparams, or with a "
        "language model with SpiritLM.from_hparams.",
    )
    parser.add_argument("destination", help="the folder to write")
    for kind in KINDS:
        parser.add_argument(
            f"--{kind}", metavar="FOLDER", help=f"the trained {kind} part"
        )
    parser.add_argument(
        "--base_vocoder",
        metavar="FOLDER",
        help="a trained vocoder of phonetic units alone",
    )
    for name in ("language_model", "base_language_model"):
        parser.add_argument(
            f"--{name}",
            metavar="FOLDER",
            help="a trained language model, a folder of transformers"
            + (", for the base vocoder" if name.startswith("base") else ""),
        )
    parser.add_argument(
        "--half",
        action="store_true",
        help="store weights of tokenizer and vocoders in float16, for half the "
        "size; what is computed stays in float32",
    )
    options = vars(parser.parse_args(arguments))
    try:
        written = assemble(**options)
    except (FileNotFoundError, ValueError) as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
    print(f"written: {written}")


if __name__ == "__main__":
    main()
