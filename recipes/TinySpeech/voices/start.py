"""Carry a model over to the units of another tokenizer.

    python start.py FOLDER --manifest_folder DIR --phonetic PART \
        [--pitch PART --style PART] [--model tinyspeech]

What the model knows of a unit it has then to know of another one: an embedding of a
new unit is the mean of those of the old units that sound in the same frames, of
utterances whose voices the model knows. A new phonetic unit that these voices have
seldom is told by its phones.

Writes what trainings start from, with `--pretrained`: FOLDER/language_model and
language_model_base, of transformers, FOLDER/vocoder and vocoder_base, parts.
"""

from __future__ import annotations

import argparse
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from tqdm import tqdm

from spiritlm_plugin.dataio.audio.reading import read_audio
from spiritlm_plugin.dataio.corpus.manifests import load_manifest
from spiritlm_plugin.dataio.units.frames import fill_blanks
from spiritlm_plugin.integrations.parts import load_tokenizer, save_part
from spiritlm_plugin.lobes.language_model import load_language_model
from spiritlm_plugin.lobes.language_model_config import token_layers
from spiritlm_plugin.lobes.phonetic import PhoneticTokenizer
from spiritlm_plugin.lobes.speech_tokenizer import SpeechTokenizer
from spiritlm_plugin.metrics.units import frame_labels
from spiritlm_plugin.pretrained.building import build_folder
from spiritlm_plugin.pretrained.folders import local_folder

SILENCE = "sil"
# What is known of a unit otherwise counts as much as so many frames.
_PRIOR_FRAMES = 5
_TOKENS = {"phonetic": "[Hu{}]", "pitch": "[Pi{}]", "style": "[St{}]"}


def write_start(
    folder: str | Path,
    manifest_folder: str | Path,
    phonetic: str | Path,
    pitch: str | Path | None = None,
    style: str | Path | None = None,
    model: str = "tinyspeech",
) -> None:
    """Write the vocoders, and the language models.

    Arguments
    ---------
    folder : path
        Is made.
    manifest_folder : path
        Of a corpus with phones, whose `valid` is read.
    phonetic, pitch, style : path
        The new parts; pitch and style units stay what they are without.
    model : str
        Of `local_folder`: Expressive, with a Base.

    Raises
    ------
    ValueError
        If a part has another number of units than the model's.
    """
    folder, source = Path(folder), local_folder(model, "hyperparams.yaml")
    new = load_tokenizer(phonetic=phonetic, pitch=pitch, style=style)
    items = list(load_manifest(Path(manifest_folder) / "valid").values())
    shares: dict[str, Tensor] = {}
    for variant in ("", "_base"):
        yaml = f"hyperparams{variant}.yaml"
        overrides = {"pretrained_path": str(source), "language_model": None}
        modules = build_folder(source, yaml, overrides)["modules"]
        vocoder = modules["vocoder"].eval()
        shares = shares or stream_shares(
            modules["tokenizer"].eval(), new, items, set(vocoder.speakers)
        )
        for stream in shares.keys() & vocoder.embeddings.keys():
            carry(vocoder.embeddings[stream].weight, shares[stream])
        known = {"speakers": vocoder.speakers}
        save_part(folder / f"vocoder{variant}", known, vocoder)
        lm = load_language_model(source / f"language_model{variant}")
        ids = lm.vocabulary.speech_tokens()
        weights = {layer.weight for layer in token_layers(lm.model)}
        for stream, share in shares.items():
            names = map(_TOKENS[stream].format, range(len(share)))
            rows = torch.tensor([ids[name] for name in names if name in ids])
            for weight in weights if len(rows) else ():
                carry(weight, share, rows)
        lm.save(folder / f"language_model{variant}")


def stream_shares(
    old: SpeechTokenizer,
    new: SpeechTokenizer,
    items: Sequence[Mapping[str, Any]],
    known: Container[str],
) -> dict[str, Tensor]:
    """Return the shares of `unit_shares` and `prosody_shares`, by stream.

    Arguments
    ---------
    old, new : SpeechTokenizer
        Of which the new one may lack pitch and style.
    items : sequence of dict
        Of a manifest with phones.
    known : container of str
        The voices for which the old units were made.

    Raises
    ------
    ValueError
        If a stream has other numbers of units in the two.
    """
    before, after = (
        tokenizer.unit_counts()
        | {"phonetic": tokenizer.phonetic.quantizer.units}  # without a blank
        for tokenizer in (old, new)
    )
    for stream, units in after.items():
        if units != before.get(stream, 0):
            raise ValueError(
                f"{units} {stream} units cannot take the places of the "
                f"model's {before.get(stream, 0)}: train a part of as many"
            )
    heard = [item for item in items if item["speaker"] in known]
    shares = {"phonetic": unit_shares(old.phonetic, new.phonetic, items, known)}
    for stream in after.keys() - shares.keys():
        parts = getattr(old, stream), getattr(new, stream)
        shares[stream] = prosody_shares(*parts, after[stream], heard)
    return shares


def prosody_shares(
    old: nn.Module,
    new: nn.Module,
    units: int,
    items: Sequence[Mapping[str, Any]],
) -> Tensor:
    """Return how often each old unit sounds where each new one does.

    Arguments
    ---------
    old, new : nn.Module
        Pitch or style tokenizers, of as many units a second.
    units : int
        How many each of them has.
    items : sequence of dict
        Of a manifest, of voices for which the old units were made.

    Returns
    -------
    Tensor
        Shape (new units, old units); rows add up to 1.
    """
    together = torch.full((units, units), 1e-3)
    for item in tqdm(items, "prosody", unit="utterances"):
        wav = read_audio(item["wav"])
        count(together, units_of(new, wav), units_of(old, wav))
    everywhere = normalize(together.sum(0), p=1, dim=0)
    return normalize(together + _PRIOR_FRAMES * everywhere, p=1, dim=1)


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


def units_of(tokenizer: nn.Module, wav: Tensor) -> Tensor:
    """Return the units of a recording, without blanks."""
    with torch.inference_mode():
        [units], _ = tokenizer(wav[None], torch.tensor([len(wav)]))
    if isinstance(tokenizer, PhoneticTokenizer):
        return fill_blanks(units, tokenizer.quantizer.units)
    return units


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
        Of `stream_shares`.
    rows : Tensor, optional
        Of the units, among those of tokens.
    """
    rows = torch.arange(len(shares)) if rows is None else rows
    weight[rows] = (shares @ weight[rows].float()).to(weight.dtype)


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Carry a model over to the units of another tokenizer: "
        "what trainings start from.",
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
    for stream in ("pitch", "style"):
        parser.add_argument(
            f"--{stream}", help=f"the new {stream} part, if that is new"
        )
    parser.add_argument(
        "--model", default="tinyspeech", help="with a Base beside Expressive"
    )
    write_start(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
