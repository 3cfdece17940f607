#!/usr/bin/env python3
"""Write manifests of spoken StoryCloze and topic-StoryCloze.

    python storycloze_prepare.py DATA_FOLDER MANIFEST_FOLDER [--words FOLDER]

DATA_FOLDER holds sSC (StoryCloze) and tSC (topic-StoryCloze), or one of them,
with whole stories such as 1_12_correct.wav and 2_12_incorrect.wav, where 12 is
the story, and their texts, 1_12_correct.txt and so on. Or it holds folders of
speakers, with contexts, 12_mutual.wav, and endings, 12_correct.wav and
12_incorrect.wav, or folders of such folders. Nothing is downloaded.

The endings of whole stories are scored apart from their contexts (T2S, S2T) only
if it is known when they start. For that, run an aligner on the manifests, and
then this script again with --words, the folder of the aligned manifests.
"""

import argparse
import logging
from pathlib import Path

from spiritlm_plugin.dataio.corpus.preparation import prepare
from spiritlm_plugin.dataio.corpus.readers.storycloze import (
    find_parts,
    has_whole_stories,
    read_storycloze,
    read_word_times,
)

MANIFESTS = {"sSC": "test_storycloze", "tSC": "test_topic_storycloze"}


def prepare_storycloze(
    data_folder: str, save_folder: str, words: str | None = None
) -> None:
    """Write ``test_storycloze``, ``test_topic_storycloze`` and so on.

    Other folders of speakers, such as ``multi``, become ``test_multi``.
    """
    splits = {}
    for part in find_parts(data_folder):
        if part == ".":
            folder = Path(data_folder).resolve().name
            manifest = MANIFESTS.get(folder, "test_storycloze")
        else:
            manifest = MANIFESTS.get(part, f"test_{part}")
        times = None
        if words is not None and has_whole_stories(data_folder, part):
            times = read_word_times(Path(words) / manifest)
        splits[manifest] = read_storycloze(data_folder, part, times)
    prepare(splits, save_folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("data_folder", help="holds sSC and tSC")
    parser.add_argument("save_folder", help="of the manifests")
    parser.add_argument(
        "--words", help="folder of the same manifests with word times"
    )
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    prepare_storycloze(**vars(parser.parse_args()))
