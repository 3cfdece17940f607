"""Tokenize a corpus: units at full rate beside what the manifests say.

python tokenize_corpus.py hparams/tokenize.yaml --manifest_folder FOLDER \
    --phonetic PART --pitch PART --style PART

or, with the tokenizer of a whole model, --codec FOLDER. Writes
<output_folder>/<split> for each split. Under torchrun the processes share the work; a
run that was stopped goes on when it is started again.
"""

import os
from pathlib import Path

import torch
from speechbrain.utils.distributed import infer_device
from torch import nn

from spiritlm_plugin.dataio.corpus.manifests import load_manifest
from spiritlm_plugin.dataio.corpus.unit_store import (
    STREAMS,
    fingerprints,
    tokenize_corpus,
)
from spiritlm_plugin.inference import SpeechCodec
from spiritlm_plugin.integrations.parts import load_tokenizer
from spiritlm_plugin.lobes.augmentation import Equalizer, PitchShift
from spiritlm_plugin.utils.recipes import load_recipe, run
from spiritlm_plugin.utils.seeds import derive_seed

CHANGES = {"pitch_ratios": PitchShift, "equalizer": Equalizer}


def load(hparams):
    """Return the tokenizer of a whole model, or that of trained parts."""
    parts = {name: hparams[name] for name in STREAMS if hparams[name]}
    if bool(hparams["codec"]) == bool(parts):
        raise ValueError(
            "name the tokenizer: either codec, a whole model, or the folders "
            f"of its parts ({', '.join(STREAMS)})"
        )
    if parts:
        return load_tokenizer(**parts)
    names = hparams["codec"], hparams["codec_hparams"]
    return SpeechCodec.from_hparams(*names).mods.tokenizer


class ChangedVoices:
    """A tokenizer that hears each recording as if another voice spoke.

    What is drawn depends on the seed and on the recording alone.
    """

    def __init__(self, tokenizer, changes, seed):
        self.tokenizer = tokenizer
        self.changes = changes
        self.seed = seed

    def __call__(self, wavs):
        return self.tokenizer([self.change(wav) for wav in wavs])

    def change(self, wav):
        seed = derive_seed(self.seed, len(wav), float(wav.abs().sum()))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.changes(wav[None])[0]


def main(arguments):
    hparams, run_opts = load_recipe(arguments)
    device = run_opts["device"] or infer_device()
    tokenizer = load(hparams).to(device)
    tokenizer.batch_seconds = hparams["batch_seconds"]
    parts, tokenize = fingerprints(tokenizer), tokenizer
    changes = {name: hparams[name] for name in CHANGES if hparams[name]}
    if changes:
        voices = [CHANGES[name](value) for name, value in changes.items()]
        changes["seed"] = hparams["seed"]
        tokenize = ChangedVoices(
            tokenizer, nn.Sequential(*voices), hparams["seed"]
        )
    for split in hparams["splits"]:
        manifest = Path(hparams["manifest_folder"]) / f"{split}.json"
        with torch.inference_mode():
            tokenize_corpus(
                load_manifest(manifest),
                Path(hparams["output_folder"]) / split,
                tokenize,
                parts,
                shard_seconds=hparams["shard_seconds"],
                batch_seconds=hparams["read_seconds"],
                workers=hparams["workers"],
                rank=int(os.environ.get("RANK", 0)),
                world_size=int(os.environ.get("WORLD_SIZE", 1)),
                changes=changes,
            )


if __name__ == "__main__":
    run(main)
