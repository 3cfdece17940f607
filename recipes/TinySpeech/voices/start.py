"""Carry a model over to the units of another phonetic tokenizer.

    python start.py FOLDER --manifest_folder DIR --phonetic PART [--model tinyspeech]

What the model knows of a unit it has then to know of another one: an embedding of a
new unit is the mean of those of the old units that sound in the same frames, of
utterances whose voices the model knows. A new unit that these voices have seldom is
told by its phones.

Writes what trainings start from, with `--pretrained`: FOLDER/language_model and
language_model_base, of transformers, FOLDER/vocoder and vocoder_base, parts.
"""

from __future__ import annotations

import argparse
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize
from tqdm import tqdm

from spiritlm_plugin.dataio.audio.reading import read_audio
from spiritlm_plugin.dataio.corpus.manifests import load_manifest
from spiritlm_plugin.dataio.units.frames import fill_blanks
from spiritlm_plugin.integrations.parts import load_part, save_part
from spiritlm_plugin.lobes.language_model import load_language_model
from spiritlm_plugin.lobes.language_model_config import token_layers
from spiritlm_plugin.lobes.phonetic import PhoneticTokenizer
from spiritlm_plugin.metrics.units import frame_labels
from spiritlm_plugin.pretrained.building import build_folder
from spiritlm_plugin.pretrained.folders import local_folder

SILENCE = "sil"
# What phones say of a unit counts as much as so many frames.
_PRIOR_FRAMES = 5


def write_start(
    folder: str | Path,
    manifest_folder: str | Path,
    phonetic: str | Path,
    model: str = "tinyspeech",
) -> None:
    """Write the vocoders, and the language models.

    Arguments
    ---------
    folder : path
        Is made.
    manifest_folder : path
        Of a corpus with phones, whose `valid` is read.
    phonetic : path
        The new phonetic part.
    model : str
        Of `local_folder`: Expressive, with a Base.
    """
    folder, source = Path(folder), local_folder(model, "hyperparams.yaml")
    new = load_part("phonetic", phonetic)
    items = list(load_manifest(Path(manifest_folder) / "valid").values())
    shares = None
    for variant in ("_base", ""):
        yaml = f"hyperparams{variant}.yaml"
        overrides = {"pretrained_path": str(source), "language_model": None}
        modules = build_folder(source, yaml, overrides)["modules"]
        vocoder = modules["vocoder"].eval()
        if shares is None:
            old = modules["tokenizer"].phonetic.eval()
            shares = unit_shares(old, new, items, set(vocoder.speakers))
        carry(vocoder.embeddings["phonetic"].weight, shares)
        known = {"speakers": vocoder.speakers}
        save_part(folder / f"vocoder{variant}", known, vocoder)
        lm = load_language_model(source / f"language_model{variant}")
        ids = lm.vocabulary.speech_tokens()
        rows = torch.tensor([ids[f"[Hu{unit}]"] for unit in range(len(shares))])
        for weight in {layer.weight for layer in token_layers(lm.model)}:
            carry(weight, shares, rows)
        lm.save(folder / f"language_model{variant}")


def unit_shares(
    old: PhoneticTokenizer,
    new: PhoneticTokenizer,
    items: Sequence[Mapping[str, Any]],
    known: Container[str],
) -> Tensor:
    """Return how often each old unit sounds where each new one does.

    Arguments
    ---------
    old, new : PhoneticTokenizer
        Of as many units a second.
    items : sequence of dict
        Of a manifest with phones.
    known : container of str
        The voices for which the old units were made.

    Returns
    -------
    Tensor
        Shape (new units, old units); rows add up to 1.
    """
    names = {SILENCE: 0}
    for item in items:
        for name, *_ in item["phones"]:
            names.setdefault(name, len(names))
    together = torch.zeros(new.quantizer.units, old.quantizer.units)
    heard = torch.full((new.quantizer.units, len(names)), 1e-3)
    said = torch.full((len(names), old.quantizer.units), 1e-3)
    for item in tqdm(items, "units", unit="utterances"):
        wav = read_audio(item["wav"])
        units = units_of(new, wav)
        labels = frame_labels(item["phones"], len(units), SILENCE)
        phones = torch.tensor([names[label] for label in labels])
        count(heard, units, phones)
        if item["speaker"] in known:
            before = units_of(old, wav)
            count(together, units, before)
            count(said, phones, before)
    by_phone = normalize(heard, p=1, dim=1) @ normalize(said, p=1, dim=1)
    return normalize(together + _PRIOR_FRAMES * by_phone, p=1, dim=1)


def units_of(tokenizer: PhoneticTokenizer, wav: Tensor) -> Tensor:
    """Return the units of a recording, without blanks."""
    with torch.inference_mode():
        units, _ = tokenizer(wav[None], torch.tensor([len(wav)]))
    return fill_blanks(units[0], tokenizer.quantizer.units)


def count(table: Tensor, rows: Tensor, columns: Tensor) -> None:
    """Add a frame to each of these places, as far as both last."""
    frames = min(len(rows), len(columns))
    places = rows[:frames], columns[:frames]
    table.index_put_(places, torch.ones(frames), accumulate=True)


@torch.no_grad()
def carry(weight: Tensor, shares: Tensor, rows: Tensor | None = None) -> None:
    """Make embeddings of old units those of new ones.

    Arguments
    ---------
    weight : Tensor
        A row for each unit, shape (units, width), or for each token.
    shares : Tensor
        Of `unit_shares`.
    rows : Tensor, optional
        Of the units, among those of tokens.
    """
    rows = torch.arange(len(shares)) if rows is None else rows
    weight[rows] = (shares @ weight[rows].float()).to(weight.dtype)


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Carry a model over to the units of another phonetic "
        "tokenizer: what trainings start from.",
    )
    parser.add_argument("folder", help="to write")
    parser.add_argument(
        "--manifest_folder",
        required=True,
        help="of TinySpeech with --voices all",
    )
    parser.add_argument(
        "--phonetic", required=True, help="the new phonetic part"
    )
    parser.add_argument(
        "--model", default="tinyspeech", help="with a Base beside Expressive"
    )
    write_start(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
