#!/usr/bin/env python3
"""Write manifests of sWUGGY and sBLIMP, of the ZeroSpeech challenge 2021.

    python zerospeech_prepare.py DATA_FOLDER MANIFEST_FOLDER

DATA_FOLDER holds lexical (sWUGGY) and syntactic (sBLIMP), or one of them, each
with dev and test, and those with recordings and gold.csv; a test set without
gold.csv, as it was published, is passed over. Nothing is downloaded.
"""

import argparse
import logging

from spiritlm_plugin.dataio.corpus.preparation import prepare
from spiritlm_plugin.dataio.corpus.readers.zerospeech import (
    find_labelled,
    read_zerospeech,
)

MANIFESTS = {"dev": "valid", "test": "test"}


def prepare_zerospeech(data_folder: str, save_folder: str) -> None:
    """Write ``valid_lexical`` and so on, of what is there."""
    prepare(
        {
            f"{MANIFESTS[split]}_{task}": read_zerospeech(
                data_folder, task, split
            )
            for task, split in find_labelled(data_folder)
        },
        save_folder,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("data_folder", help="holds lexical and syntactic")
    parser.add_argument("save_folder", help="of the manifests")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    prepare_zerospeech(**vars(parser.parse_args()))
