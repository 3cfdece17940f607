#!/usr/bin/env python3
"""Write manifests of spoken StoryCloze and topic-StoryCloze.

    python storycloze_prepare.py DATA_FOLDER MANIFEST_FOLDER

DATA_FOLDER holds sSC (StoryCloze) and tSC (topic-StoryCloze), or one of them,
with recordings such as 12_correct.wav and 12_incorrect.wav, each a whole story.
Nothing is downloaded.
"""

import argparse
import logging

from spiritlm_plugin.dataio.corpus.preparation import prepare
from spiritlm_plugin.dataio.corpus.readers.storycloze import (
    find_parts,
    read_storycloze,
)

MANIFESTS = {"sSC": "test_storycloze", "tSC": "test_topic_storycloze"}


def prepare_storycloze(data_folder: str, save_folder: str) -> None:
    """Write ``test_storycloze.json`` and ``test_topic_storycloze.json``."""
    prepare(
        {
            MANIFESTS[part]: read_storycloze(data_folder, part)
            for part in find_parts(data_folder)
        },
        save_folder,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("data_folder", help="holds sSC and tSC")
    parser.add_argument("save_folder", help="of the manifests")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    prepare_storycloze(**vars(parser.parse_args()))
