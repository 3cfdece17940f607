#!/usr/bin/env python3
r"""Write manifests of LibriSpeech, with word times where there are alignments.

    python librispeech_prepare.py LibriSpeech MANIFEST_FOLDER \
        --tr_splits train-clean-100 --dev_splits dev-clean \
        --te_splits test-clean test-other

Each split gets a manifest of its name, a folder of shards; ``train``, ``valid``
and ``test`` are what the splits make together. Nothing is downloaded. Recordings
are read once, as a whole; where nothing has changed, not again.

Alignments, TextGrids of the Montreal Forced Aligner or ``.alignment.txt``, lie
beside the recordings, or in a tree of their own, laid out alike:

    python librispeech_prepare.py LibriSpeech MANIFEST_FOLDER \
        --alignment_folder ALIGNMENTS
"""

import argparse
import logging
from collections.abc import Sequence

from spiritlm_plugin.dataio.corpus.preparation import prepare
from spiritlm_plugin.dataio.corpus.readers.librispeech import read_librispeech

TRAIN_SPLITS = ("train-clean-100", "train-clean-360", "train-other-500")
DEV_SPLITS = ("dev-clean",)
TEST_SPLITS = ("test-clean", "test-other")


def prepare_librispeech(
    data_folder: str,
    save_folder: str,
    tr_splits: Sequence[str] = TRAIN_SPLITS,
    dev_splits: Sequence[str] = DEV_SPLITS,
    te_splits: Sequence[str] = TEST_SPLITS,
    alignment_folder: str | None = None,
) -> None:
    """Write the manifests, or what is missing of them."""
    splits = [*tr_splits, *dev_splits, *te_splits]
    prepare(
        {
            split: read_librispeech(data_folder, split, alignment_folder)
            for split in splits
        },
        save_folder,
        merged={"train": tr_splits, "valid": dev_splits, "test": te_splits},
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("data_folder", help="holds the splits")
    parser.add_argument("save_folder", help="of the manifests")
    parser.add_argument("--tr_splits", nargs="*", default=TRAIN_SPLITS)
    parser.add_argument("--dev_splits", nargs="*", default=DEV_SPLITS)
    parser.add_argument("--te_splits", nargs="*", default=TEST_SPLITS)
    parser.add_argument(
        "--alignment_folder", help="holds the splits' alignments"
    )
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    prepare_librispeech(**vars(parser.parse_args()))
