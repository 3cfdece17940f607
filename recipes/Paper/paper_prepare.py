#!/usr/bin/env python3
"""Write the manifests of the paper's test sets, of those that are there.

    python paper_prepare.py DATA MANIFEST_FOLDER

DATA holds the corpora as they are unpacked, in folders that README.md names.
Nothing is downloaded. Recordings that have not changed are not read again.
"""

import argparse
import logging
from pathlib import Path

from spiritlm_plugin.dataio.corpus.preparation import prepare
from spiritlm_plugin.dataio.corpus.readers import (
    expresso,
    fluent_speech_commands,
    librispeech,
    salmon,
    storycloze,
    zerospeech,
)

# Where shots are drawn from: the first of these that is there.
SHOT_SPLITS = ("train-clean-100", "train-clean-360", "dev-clean")


def prepare_librispeech(data, manifests, words=None):
    """Write ``test-clean``, ``test-other`` and ``train``."""
    shown = [split for split in SHOT_SPLITS if (data / split).is_dir()]
    tested = [s for s in ("test-clean", "test-other") if (data / s).is_dir()]
    alignments = data.with_name(f"{data.name}_alignments")
    if not alignments.is_dir():
        alignments = None
    splits = {
        split: librispeech.read_librispeech(data, split, alignments)
        for split in [*tested, *shown[:1]]
    }
    prepare(splits, manifests, merged={"train": shown[:1]})


def prepare_fluent_speech_commands(data, manifests, words=None):
    """Write ``train`` and ``test``."""
    read = fluent_speech_commands.read_fluent_speech_commands
    prepare(
        {split: read(data, split) for split in ("train", "test")}, manifests
    )


def prepare_zerospeech(data, manifests, words=None):
    """Write ``valid_lexical`` and ``valid_syntactic``."""
    prepare(
        {
            f"valid_{task}": zerospeech.read_zerospeech(data, task, split)
            for task, split in zerospeech.find_labelled(data)
            if split == "dev"
        },
        manifests,
    )


def prepare_storycloze(data, manifests, words=None):
    """Write ``test_storycloze`` and ``test_topic_storycloze``."""
    names = {"sSC": "test_storycloze", "tSC": "test_topic_storycloze"}
    splits = {}
    for part in storycloze.find_parts(data):
        if part in names and (
            words is None or storycloze.has_whole_stories(data, part)
        ):
            path = Path(words or "") / names[part]
            times = storycloze.read_word_times(path) if words else None
            splits[names[part]] = storycloze.read_storycloze(data, part, times)
    prepare(splits, manifests)


def prepare_salmon(data, manifests, words=None):
    """Write ``test_salmon``."""
    parts = salmon.find_parts(data)
    prepare({"test_salmon": salmon.read_salmon(data, parts)}, manifests)


def prepare_expresso(data, manifests, words=None):
    """Write ``train`` and ``test``, and recordings at 16 kHz."""
    corpus = expresso.open_expresso(data)
    prepare(
        {
            split: expresso.read_expresso(corpus, split, manifests)
            for split in ("train", "test")
        },
        manifests,
    )


# The folders in DATA; STSP is read as it is.
CORPORA = {
    "LibriSpeech": prepare_librispeech,
    "fluent_speech_commands_dataset": prepare_fluent_speech_commands,
    "zerospeech": prepare_zerospeech,
    "StoryCloze": prepare_storycloze,
    "SALMon": prepare_salmon,
    "Expresso": prepare_expresso,
    "STSP": None,
}


def find_corpora(data):
    """Return the names of the corpora that are there.

    Raises
    ------
    FileNotFoundError
        If none is.
    """
    found = [name for name in CORPORA if (Path(data) / name).is_dir()]
    if not found:
        raise FileNotFoundError(
            f"{data} holds none of {', '.join(CORPORA)}; give the folders "
            "these names, or link them"
        )
    return found


def prepare_corpus(name, data, manifests, words=None):
    """Write the manifests of a corpus into a folder of its name."""
    if CORPORA[name] is not None:
        CORPORA[name](Path(data) / name, Path(manifests) / name, words)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("data", help="holds the corpora")
    parser.add_argument("manifests", help="gets a folder for each")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    arguments = parser.parse_args()
    for corpus in find_corpora(arguments.data):
        prepare_corpus(corpus, arguments.data, arguments.manifests)
