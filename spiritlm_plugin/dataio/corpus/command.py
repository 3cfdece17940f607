"""Manifests of corpora that one has, by a command.

Run as ``spiritlm-prepare libritts LibriTTS data/libritts``; ``--help`` lists
the corpora, ``spiritlm-prepare libritts --help`` what one of them takes.
``spiritlm-prepare merge data/libritts/train-clean-100`` makes few large files of
many shards. Under ``torchrun`` the processes share the reading of recordings.
"""

from __future__ import annotations

import argparse
import json
import logging
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch.distributed as dist
from speechbrain.utils.distributed import ddp_init_group, run_on_main

from spiritlm_plugin.dataio.corpus.corpora import CORPORA
from spiritlm_plugin.dataio.corpus.merging import FILE_BYTES, merge_shards
from spiritlm_plugin.dataio.corpus.preparation import Record, prepare
from spiritlm_plugin.utils.recipes import run

# Manifests that training and evaluation ask for, and which splits make them
# together, by the first word of their names.
MERGED = {
    "train": ("train", "small", "medium", "large", "unlabelled"),
    "valid": ("valid", "validation", "dev"),
    "test": ("test",),
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="spiritlm-prepare",
        description="Write the manifests of a corpus, a folder of shards for "
        "each split, and check its recordings. These stay where they are, "
        "unless they are cut or come out of parquet. A run that was stopped "
        "goes on where it was.",
    )
    corpora = parser.add_subparsers(
        dest="corpus", required=True, metavar="CORPUS"
    )
    for name, corpus in CORPORA.items():
        one = corpora.add_parser(
            name, help=corpus.description, description=corpus.description
        )
        one.add_argument(
            "data_folder",
            help="the corpus, as it is unpacked; of hub, a name as well",
        )
        one.add_argument(
            "manifest_folder", help="of the manifests, such as train"
        )
        one.add_argument(
            "--splits", nargs="*", help="default: all that are there"
        )
        one.add_argument(
            "--lowercase", action="store_true", help="texts in lower case"
        )
        one.add_argument(
            "--dry_run",
            action="store_true",
            help="say what is there, and write nothing",
        )
        one.add_argument(
            "--engine",
            choices=["torchrun", "ray"],
            default="torchrun",
            help="who reads the recordings: this process, or those of "
            "torchrun; or a cluster of Ray; default: torchrun",
        )
        corpus.options(one)
    _add_merge(corpora)
    return parser


def _add_merge(commands: Any) -> None:
    text = "make few large files of the shards of manifests or tokenized splits"
    merge = commands.add_parser("merge", help=text, description=text)
    merge.add_argument("folders", nargs="+", help="such as data/train")
    merge.add_argument(
        "--file_bytes",
        type=int,
        default=FILE_BYTES,
        help="of a file, at most; default: %(default)s",
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the preparation from the command line.

    Example
    -------
    >>> _ = (tmp / "a.wav").write_bytes(Path(recording).read_bytes())
    >>> _ = (tmp / "a.txt").write_text("Two boats.")
    >>> main(["folder", str(tmp), str(tmp / "data"), "--dry_run"])
    train: 1 recordings, 1 with text, 0 with word times, 0 speakers
      a: {"wav": ".../a.wav", "text": "Two boats."}
    >>> main(["folder", str(tmp), str(tmp / "data")])
    >>> main(["merge", str(tmp / "data" / "train")])
    >>> from spiritlm_plugin.dataio.corpus.manifests import read_manifest
    >>> read_manifest(tmp / "data" / "train")["a"]
    {'wav': '.../a.wav', 'duration': 2.3999, 'text': 'Two boats.'}
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    # It has a handler of its own.
    logging.getLogger("huggingface_hub").propagate = False
    try:
        if not dist.is_initialized():
            ddp_init_group({"distributed_backend": "gloo"})
        _run(options)
    except (OSError, ValueError, ImportError) as error:
        parser.exit(1, f"{parser.prog}: {error}\n")


def _run(options: argparse.Namespace) -> None:
    if options.corpus == "merge":
        for folder in options.folders:
            run_on_main(merge_shards, args=[folder, options.file_bytes])
        return
    found = CORPORA[options.corpus].open(options)
    splits = options.splits or list(found)
    unknown = [split for split in splits if split not in found]
    if unknown:
        raise ValueError(
            f"no split {', '.join(unknown)} in {options.data_folder}; there "
            f"are {', '.join(found)}"
        )
    save_folder = None if options.dry_run else Path(options.manifest_folder)
    records = {split: found[split](save_folder) for split in splits}
    if options.lowercase:
        records = {s: map(_lower, some) for s, some in records.items()}
    if save_folder is None:
        for split, some in records.items():
            _show(split, some)
    else:
        prepare(records, save_folder, _merge(splits), options.engine)


def _lower(record: Record) -> Record:
    name, item = record
    changed = dict(item)
    if item.get("text") is not None:
        changed["text"] = item["text"].lower()
    if item.get("words") is not None:
        changed["words"] = [(w.lower(), *times) for w, *times in item["words"]]
    return name, changed


def _merge(splits: Sequence[str]) -> dict[str, list[str]]:
    """Return which splits make up train, valid and test.

    Example
    -------
    >>> _merge(["train-clean-100", "train-other-500", "dev", "test"])
    {'train': ['train-clean-100', 'train-other-500'], 'valid': ['dev']}
    """
    first = {split: re.split(r"[^a-z]", split.lower())[0] for split in splits}
    merged = {
        name: [split for split in splits if first[split] in words]
        for name, words in MERGED.items()
    }
    return {n: some for n, some in merged.items() if some and n not in splits}


def _show(split: str, records: Iterable[Record]) -> None:
    """Print what is in a split, and its first record."""
    counts: Counter[str] = Counter()
    speakers, first = set(), None
    for name, item in records:
        first = first or (name, item)
        counts["recordings"] += 1
        counts.update(key for key in ("text", "words") if item.get(key))
        speakers.add(item.get("speaker"))
    print(
        f"{split}: {counts['recordings']} recordings, {counts['text']} with "
        f"text, {counts['words']} with word times, "
        f"{len(speakers - {None})} speakers"
    )
    if first is not None:
        print(f"  {first[0]}: {json.dumps(first[1], default=str)}")


if __name__ == "__main__":
    run(main)
