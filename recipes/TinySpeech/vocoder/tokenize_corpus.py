"""Tokenize a corpus: units at full rate beside what the manifests say.

python tokenize_corpus.py hparams/tokenize.yaml --manifest_folder FOLDER \
    --phonetic PART --pitch PART --style PART

Writes <output_folder>/<split> for each split. Under torchrun the processes
share the work; a run that was stopped goes on when it is started again.
"""

import os
import sys
from pathlib import Path

import torch
from speechbrain.utils.distributed import infer_device

from spiritlm_plugin.core import load_recipe
from spiritlm_plugin.dataio.corpus import (
    STREAMS,
    fingerprints,
    tokenize_corpus,
)
from spiritlm_plugin.dataio.manifests import load_manifest
from spiritlm_plugin.inference import SpeechCodec
from spiritlm_plugin.integrations.parts import load_tokenizer


def load(hparams):
    """Return the tokenizer of a whole model, or that of trained parts."""
    if hparams.get("codec"):
        names = hparams["codec"], hparams["codec_hparams"]
        return SpeechCodec.from_hparams(*names).mods.tokenizer
    return load_tokenizer(**{n: hparams[n] for n in STREAMS if hparams[n]})


def main(arguments):
    hparams, run_opts = load_recipe(arguments)
    device = run_opts["device"] or infer_device()
    tokenizer = load(hparams).to(device)
    tokenizer.batch_seconds = hparams["batch_seconds"]
    for split in hparams["splits"]:
        manifest = Path(hparams["manifest_folder"]) / f"{split}.json"
        with torch.inference_mode():
            tokenize_corpus(
                load_manifest(manifest),
                Path(hparams["output_folder"]) / split,
                tokenizer,
                fingerprints(tokenizer),
                shard_seconds=hparams["shard_seconds"],
                batch_seconds=hparams["read_seconds"],
                workers=hparams["workers"],
                rank=int(os.environ.get("RANK", 0)),
                world_size=int(os.environ.get("WORLD_SIZE", 1)),
            )


if __name__ == "__main__":
    main(sys.argv[1:])
