"""The corpora that `spiritlm-prepare` knows, and what each of them takes."""

from __future__ import annotations

import os
import zlib
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

from spiritlm_plugin.dataio.corpus.preparation import Record
from spiritlm_plugin.dataio.corpus.readers import (
    emov_db,
    expresso,
    folder,
    hub,
    hub_splits,
    libri_light,
    librispeech,
    libritts,
    mls,
    voxpopuli,
)
from spiritlm_plugin.dataio.corpus.voice_activity import Cutting, cut_by_voice

# Of each split what reads it, given the folder of manifests; given None it
# writes nothing.
Splits = Mapping[str, Callable[[Path | None], Iterator[Record]]]


class Corpus(NamedTuple):
    """A corpus on the command line.

    `options` adds what it takes besides what all do, `open` finds its splits.
    """

    description: str
    open: Callable[[Namespace], Splits]
    options: Callable[[ArgumentParser], None] = lambda _: None


def _plain(read: Callable, splits: Iterable[str], *arguments: Any) -> Splits:
    """Return the splits of a reader that writes nothing.

    It takes the first of the arguments, the split and the other arguments.
    """
    data, *others = arguments
    return {s: partial(_read, partial(read, data, s, *others)) for s in splits}


def _read(
    read: Callable[[], Iterator[Record]], _: Path | None
) -> Iterator[Record]:
    return read()


def _hub_options(parser: ArgumentParser) -> None:
    _shares(parser)
    parser.add_argument("--config", help="one of several configurations")
    for column in ("audio", "text", "id", "speaker"):
        parser.add_argument(
            f"--{column}_column",
            help="default: the first usual one, as docs/your_data.md says",
        )
    parser.add_argument(
        "--keep", nargs="*", default=(), help="more columns for the manifest"
    )


def _open_hub(options: Namespace) -> Splits:
    columns = hub.Columns(
        options.audio_column,
        options.text_column,
        options.id_column,
        options.speaker_column,
        options.keep,
    )
    opened = hub_splits.open_hub(options.data_folder, options.config)
    splits = {
        split: partial(hub.read_hub, opened, split, columns=columns)
        for split in opened.splits
    }
    return _divide_train(splits, options)


def _text_option(parser: ArgumentParser, texts: Iterable[str]) -> None:
    parser.add_argument(
        "--text",
        choices=list(texts),
        default="normalized",
        help="which of the texts; default: normalized",
    )


def _open_mls(options: Namespace) -> Splits:
    data = options.data_folder
    limited = [s for s in options.splits or () if s.startswith("train_")]
    return _plain(mls.read_mls, [*mls.find_splits(data), *limited], data)


def _open_libritts(options: Namespace) -> Splits:
    data = options.data_folder
    splits = libritts.find_splits(data)
    return _plain(libritts.read_libritts, splits, data, options.text)


def _voxpopuli_options(parser: ArgumentParser) -> None:
    _text_option(parser, voxpopuli.TEXTS)
    parser.add_argument("--language", help="such as en, where there are more")


def _open_voxpopuli(options: Namespace) -> Splits:
    data, language = options.data_folder, options.language
    if language is None:
        language, *others = voxpopuli.find_languages(data)
        if others:
            raise ValueError(
                f"there are several languages in {data}; name one of them: "
                f"--language {'|'.join([language, *others])}"
            )
    splits = voxpopuli.find_splits(data, language)
    read = voxpopuli.read_voxpopuli
    return _plain(read, splits, data, language, options.text)


def _libri_light_options(parser: ArgumentParser) -> None:
    for name, value in Cutting()._asdict().items():
        parser.add_argument(
            f"--{name}", type=float, default=value, help="default: %(default)s"
        )
    parser.add_argument(
        "--jobs",
        type=int,
        default=os.cpu_count() or 1,
        help="processes; default: one per core",
    )


def _open_libri_light(options: Namespace) -> Splits:
    splits = libri_light.find_splits(options.data_folder)
    return {s: partial(_read_libri_light, options, s) for s in splits}


def _read_libri_light(
    options: Namespace, split: str, save_folder: Path | None
) -> Iterator[Record]:
    records = libri_light.read_libri_light(options.data_folder, split)
    if save_folder is None:
        return records
    cutting = Cutting(*(getattr(options, name) for name in Cutting._fields))
    return cut_by_voice(records, save_folder, cutting, options.jobs)


def _shares(parser: ArgumentParser) -> None:
    for part in ("valid", "test"):
        parser.add_argument(
            f"--{part}_share",
            type=float,
            default=0.0,
            help=f"of the recordings, for {part}, those of a group together; "
            "default: 0",
        )


def _divide(read: Callable[[], Iterator[Record]], options: Namespace) -> Splits:
    """Divide a corpus without splits, by what groups or ids are hashed to."""
    valid, test = options.valid_share, options.test_share
    _check_shares(valid, test)
    # All are in memory only where they are divided.
    every = cache(lambda: tuple(read())) if valid or test else read
    ends = _ends(valid, test)
    shares = {"train": 1.0, "valid": valid, "test": test}
    return {
        part: partial(_part, every, ends, part)
        for part, share in shares.items()
        if share
    }


def _divide_train(splits: Splits, options: Namespace) -> Splits:
    """Take the shares that are asked for from the split ``train``."""
    asked = {
        "valid": options.valid_share,
        "test": options.test_share,
    }
    there = [part for part, share in asked.items() if share and part in splits]
    if there:
        raise ValueError(
            f"there is a split {there[0]}; leave --{there[0]}_share out"
        )
    if not any(asked.values()):
        return splits
    if "train" not in splits:
        raise ValueError(
            f"there is no split train to divide, only {', '.join(splits)}"
        )
    _check_shares(*asked.values())
    # Its recordings are written once, by who asks first.
    every: dict[Path | None, list[Record]] = {}

    def read(part: str, save_folder: Path | None) -> Iterator[Record]:
        if save_folder not in every:
            every[save_folder] = list(splits["train"](save_folder))
        ends = _ends(*asked.values())
        return _part(lambda: every[save_folder], ends, part, None)

    divided = ["train", *(part for part, share in asked.items() if share)]
    return {**splits, **{part: partial(read, part) for part in divided}}


def _check_shares(valid: float, test: float) -> None:
    if not (valid >= 0 and test >= 0 and valid + test < 1):
        raise ValueError(
            f"valid_share {valid} and test_share {test} leave nothing to "
            "train with; name shares of less than 1 together"
        )


def _ends(valid: float, test: float) -> dict[str, float]:
    return {"valid": valid, "test": valid + test, "train": 1.0}


def _part(
    every: Callable[[], Iterable[Record]],
    ends: Mapping[str, float],
    part: str,
    _: Path | None,
) -> Iterator[Record]:
    count = found = 0
    for record in every():
        count += 1
        if part == _part_of(record, ends):
            found += 1
            yield record
    if not found:
        raise ValueError(
            f"the shares leave {part} empty, of {count} recordings; name "
            "larger ones, or none"
        )


def _part_of(record: Record, ends: Mapping[str, float]) -> str:
    """Return where a record belongs; those of a group stay together."""
    name, item = record
    group = item.get("group")
    place = zlib.crc32((name if group is None else group).encode()) / 2**32
    return next(part for part, end in ends.items() if place < end)


def _open_emov_db(options: Namespace) -> Splits:
    return _divide(partial(emov_db.read_emov_db, options.data_folder), options)


def _folder_options(parser: ArgumentParser) -> None:
    _shares(parser)
    parser.add_argument(
        "--speaker_folders",
        action="store_true",
        help="the first folder on the way to a recording is its speaker",
    )


def _open_folder(options: Namespace) -> Splits:
    readers = {
        split: partial(folder.read_folder, path, options.speaker_folders)
        for split, path in folder.find_splits(options.data_folder).items()
    }
    if list(readers) == ["train"]:
        return _divide(readers["train"], options)
    return {split: partial(_read, read) for split, read in readers.items()}


def _librispeech_options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--alignment_folder", help="of word times, unless beside the audio"
    )


def _open_librispeech(options: Namespace) -> Splits:
    data = Path(options.data_folder)
    splits = sorted(path.name for path in data.glob("*-*") if path.is_dir())
    if not splits:
        raise FileNotFoundError(
            f"no folder such as train-clean-100 in {data}; name the folder "
            "that holds the splits of LibriSpeech"
        )
    read = librispeech.read_librispeech
    return _plain(read, splits, data, options.alignment_folder)


def _expresso_options(parser: ArgumentParser) -> None:
    parser.add_argument("--jobs", type=int, help="threads; one per core")


def _open_expresso(options: Namespace) -> Splits:
    corpus = expresso.open_expresso(options.data_folder)
    return {
        split: partial(_read_expresso, corpus, split, options.jobs)
        for split in expresso.SPLITS
    }


def _read_expresso(
    corpus: expresso.Expresso,
    split: str,
    jobs: int | None,
    save_folder: Path | None,
) -> Iterator[Record]:
    if save_folder is not None:
        yield from expresso.read_expresso(corpus, split, save_folder, jobs)
        return
    for name in corpus.splits[split]:
        if name in corpus.recordings:
            yield name, {"wav": corpus.recordings[name].path}


CORPORA = {
    "hub": Corpus(
        "an audio dataset of the Hugging Face Hub: a folder of parquet, what "
        "save_to_disk has written, or a name",
        _open_hub,
        _hub_options,
    ),
    "folder": Corpus(
        "recordings in any container, with or without transcripts "
        "(metadata.csv, transcripts.txt, a.txt, a.lab), TextGrids, or the "
        "json of WhisperX",
        _open_folder,
        _folder_options,
    ),
    "librispeech": Corpus(
        "LibriSpeech: train-clean-100/19/198/19-198-0000.flac",
        _open_librispeech,
        _librispeech_options,
    ),
    "libri_light": Corpus(
        "Libri-Light, cut by voice activity: small/100/<book>/<file>.flac",
        _open_libri_light,
        _libri_light_options,
    ),
    "libritts": Corpus(
        "LibriTTS, LibriTTS-R: dev-clean/84/121123/84_121123_*.wav",
        _open_libritts,
        partial(_text_option, texts=libritts.TEXTS),
    ),
    "mls": Corpus(
        "a language of MLS: train/transcripts.txt, "
        "train/audio/<speaker>/<book>/<id>.flac or .opus; --splits train_9hr, "
        "train_1hr or train_10hr for limited supervision",
        _open_mls,
    ),
    "voxpopuli": Corpus(
        "VoxPopuli: transcribed_data/en/asr_train.tsv, "
        "transcribed_data/en/2013/<id>.ogg, unlabelled_data/en/2013/<id>.ogg",
        _open_voxpopuli,
        _voxpopuli_options,
    ),
    "expresso": Corpus(
        "Expresso, cut into utterances: audio_48khz, splits, VAD_segments.txt",
        _open_expresso,
        _expresso_options,
    ),
    "emov_db": Corpus(
        "EmoV-DB: bea_Amused/amused_1-15_0001.wav or bea/Amused/...; "
        "cmuarctic.data beside them gives the texts",
        _open_emov_db,
        _shares,
    ),
}
