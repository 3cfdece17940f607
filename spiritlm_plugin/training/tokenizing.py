"""Corpora as speech units, beside what their manifests say."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from speechbrain.utils.distributed import run_on_main
from torch import Tensor, nn

from spiritlm_plugin.dataio.corpus.manifests import open_source
from spiritlm_plugin.dataio.corpus.merging import merge_shards
from spiritlm_plugin.dataio.corpus.shards import STREAMS
from spiritlm_plugin.dataio.corpus.unit_store import (
    Tokenizer,
    fingerprints,
    tokenize_corpus,
)
from spiritlm_plugin.dataio.units.units import SpeechUnits
from spiritlm_plugin.inference import SpeechCodec
from spiritlm_plugin.integrations.parts import load_tokenizer
from spiritlm_plugin.lobes.augmentation import Equalizer, PitchShift
from spiritlm_plugin.lobes.speech_tokenizer import SpeechTokenizer
from spiritlm_plugin.lobes.voice_changes import FormantShift
from spiritlm_plugin.utils.configuration import Settings
from spiritlm_plugin.utils.engines import Engine
from spiritlm_plugin.utils.placing import Placed
from spiritlm_plugin.utils.seeds import derive_seed

# Which tokenizer it is, besides the folders of its parts.
_TOKENIZER = ("codec", "codec_hparams", "batch_seconds")
_CHANGES: dict[str, Callable[[Any], nn.Module]] = {
    "formants": lambda bounds: FormantShift(*bounds),
    "pitch_ratios": PitchShift,
    "equalizer": Equalizer,
}


class TokenizingSettings(Settings):
    """What tokenizing reads."""

    manifest_folder: str
    splits: list[str]
    codec: str | None
    codec_hparams: str
    phonetic: str | None
    pitch: str | None
    style: str | None
    formants: list[float] | None
    pitch_ratios: list[list[int]] | None
    equalizer: float | None
    engine: Engine
    shard_seconds: float
    read_seconds: float
    batch_seconds: float
    file_bytes: int
    workers: int


def load(hparams: Mapping[str, Any]) -> SpeechTokenizer:
    """Return the tokenizer of a whole model, or that of trained parts.

    Arguments
    ---------
    hparams : TokenizingSettings
        Or what they say of the tokenizer alone.

    Raises
    ------
    ValueError
        Unless one of the two is named.
    """
    parts = {name: hparams[name] for name in STREAMS if hparams[name]}
    if bool(hparams["codec"]) == bool(parts):
        raise ValueError(
            "name the tokenizer: either codec, a whole model, or the folders "
            f"of its parts ({', '.join(STREAMS)})"
        )
    tokenizer: Any = (
        load_tokenizer(**parts)
        if parts
        else SpeechCodec.from_hparams(
            hparams["codec"], hparams["codec_hparams"]
        ).mods.tokenizer
    )
    tokenizer.batch_seconds = hparams["batch_seconds"]
    return tokenizer


class ChangedVoices:
    """A tokenizer that hears each recording as if another voice spoke.

    What is drawn depends on the seed and on the recording alone.

    Arguments
    ---------
    tokenizer : callable
        That hears it.
    changes : nn.Module
        Of waveforms, (batch, samples).
    seed : int
        Of what is drawn.
    """

    def __init__(self, tokenizer: Tokenizer, changes: nn.Module, seed: int):
        self.tokenizer = tokenizer
        self.changes = changes
        self.seed = seed

    def __call__(self, wavs: Sequence[Tensor]) -> Sequence[SpeechUnits]:
        """Return the units of waveforms, changed."""
        return self.tokenizer([self.change(wav) for wav in wavs])

    def change(self, wav: Tensor) -> Tensor:
        """Return a waveform, (samples,), in another voice."""
        seed = derive_seed(self.seed, len(wav), float(wav.abs().sum()))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.changes(wav[None])[0]


def tokenize_splits(
    hparams: TokenizingSettings, run_opts: Mapping[str, Any]
) -> None:
    """Tokenize the splits of a corpus; processes or a cluster share the work.

    Where all shards of a split are there, they are merged.

    Arguments
    ---------
    hparams : TokenizingSettings
        The recipe's.
    run_opts : dict
        ``device`` and ``precision`` of the networks.
    """
    device, precision = run_opts["device"], run_opts["precision"]
    values: Mapping[str, Any] = hparams
    needed = {name: values[name] for name in (*_TOKENIZER, *STREAMS)}
    placed = Placed(partial(load, needed), device, precision)
    parts = fingerprints(placed.network)
    tokenize: Tokenizer = placed
    description: dict[str, Any] = {}
    if precision != "fp32":
        description["precision"] = precision
    changes = {name: values[name] for name in _CHANGES if values[name]}
    if changes:
        voices = [_CHANGES[name](value) for name, value in changes.items()]
        changes["seed"] = hparams["seed"]
        description["changes"] = changes
        tokenize = ChangedVoices(
            tokenize, nn.Sequential(*voices), hparams["seed"]
        )
    for split in hparams["splits"]:
        folder = Path(hparams["output_folder"]) / split
        tokenize_corpus(
            open_source(Path(hparams["manifest_folder"]) / split),
            folder,
            tokenize,
            parts,
            shard_seconds=hparams["shard_seconds"],
            batch_seconds=hparams["read_seconds"],
            workers=hparams["workers"],
            description=description,
            engine=hparams["engine"],
            device=device,
        )
        if hparams["file_bytes"]:
            run_on_main(merge_shards, args=[folder, hparams["file_bytes"]])
