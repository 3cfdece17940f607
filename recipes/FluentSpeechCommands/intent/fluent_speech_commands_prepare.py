#!/usr/bin/env python3
"""Write manifests of Fluent Speech Commands, with an intent for each command.

    python fluent_speech_commands_prepare.py DATA_FOLDER MANIFEST_FOLDER

DATA_FOLDER holds data/{train,valid,test}_data.csv and wavs/. The intent is the
action, the object and the location together. Nothing is downloaded.
"""

import argparse
import logging

from spiritlm_plugin.dataio.corpus.preparation import prepare
from spiritlm_plugin.dataio.corpus.readers.fluent_speech_commands import (
    read_fluent_speech_commands,
)

SPLITS = ("train", "valid", "test")


def prepare_fluent_speech_commands(data_folder: str, save_folder: str) -> None:
    """Write ``train``, ``valid`` and ``test``."""
    prepare(
        {
            split: read_fluent_speech_commands(data_folder, split)
            for split in SPLITS
        },
        save_folder,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("data_folder", help="holds data/ and wavs/")
    parser.add_argument("save_folder", help="of the manifests")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    prepare_fluent_speech_commands(**vars(parser.parse_args()))
