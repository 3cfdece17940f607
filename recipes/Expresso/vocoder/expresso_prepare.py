#!/usr/bin/env python3
"""Cut Expresso into utterances at 16 kHz and write their manifests.

    python expresso_prepare.py EXPRESSO MANIFEST_FOLDER

Read sentences stay whole. Longform readings and conversations are cut where
VAD_segments.txt has pauses, conversations for each speaker's channel. The
pieces are written to MANIFEST_FOLDER/wav, and the manifests beside. Nothing is
downloaded. A run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import logging

import torch

from spiritlm_plugin.dataio.corpus.preparation import prepare
from spiritlm_plugin.dataio.corpus.readers.expresso import (
    open_expresso,
    read_expresso,
)

MANIFESTS = {"train": "train", "valid": "dev", "test": "test"}


def prepare_expresso(
    data_folder: str, save_folder: str, jobs: int | None = None
) -> None:
    """Write the recordings and manifests, or what is missing of them."""
    corpus = open_expresso(data_folder)
    prepare(
        {
            manifest: read_expresso(corpus, split, save_folder, jobs)
            for manifest, split in MANIFESTS.items()
        },
        save_folder,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("data_folder", help="Expresso, unpacked")
    parser.add_argument("save_folder", help="of the manifests")
    parser.add_argument("--jobs", type=int, help="threads; one per core")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    prepare_expresso(**vars(parser.parse_args()))
