#!/usr/bin/env python3
"""Write the manifest of SALMon.

    python salmon_prepare.py DATA_FOLDER MANIFEST_FOLDER

DATA_FOLDER holds the eight parts, such as sentiment_consistency, or some of them,
each with two recordings for each number. Nothing is downloaded.
"""

import argparse
import logging

from spiritlm_plugin.dataio.corpus.preparation import prepare
from spiritlm_plugin.dataio.corpus.readers.salmon import (
    find_parts,
    read_salmon,
)


def prepare_salmon(data_folder: str, save_folder: str) -> None:
    """Write ``test_salmon``, of all parts that are there."""
    records = read_salmon(data_folder, find_parts(data_folder))
    prepare({"test_salmon": records}, save_folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("data_folder", help="holds the parts")
    parser.add_argument("save_folder", help="of the manifests")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    prepare_salmon(**vars(parser.parse_args()))
