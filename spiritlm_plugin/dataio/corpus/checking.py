"""Checking of records: each recording is read once, in shards of a split.

`spiritlm_plugin.dataio.corpus.preparation` writes the records of a split to
``records-00000.arrow`` and on. Here each becomes a shard of the store, where
it is complete.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow
from tqdm import tqdm

from spiritlm_plugin.dataio.audio.reading import audio_seconds
from spiritlm_plugin.dataio.checkpoints import digest_values
from spiritlm_plugin.dataio.corpus.entries import (
    Report,
    check_recording,
    entry_problem,
    recording_problem,
    transcript_problem,
)
from spiritlm_plugin.dataio.corpus.shards import (
    make_row,
    make_table,
    read_row,
    write_shard,
)
from spiritlm_plugin.dataio.corpus.stores import ROOT, shard_path

_Item = dict[str, Any]
# What times may exceed the audio by, because they are rounded; seconds.
_ROUNDING = 0.01
_MOST_THREADS = 16


def make_checker(
    folder: Path, sources: Mapping[str, Sequence[str]], threads: int | None
) -> Callable[[tuple[str, int]], None]:
    """Return what makes a shard of the records of one.

    Arguments
    ---------
    folder : Path
        Of the manifests.
    sources : dict of sequence of str
        Of each split, what tells its shards of records from all others.
    threads : int, optional
        That read recordings; by default as many as there are cores for this
        process.
    """
    if threads is None:
        processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
        cores = (os.cpu_count() or 1) // processes
        threads = max(1, min(cores, _MOST_THREADS))
    return partial(_check_shard, folder, sources, threads)


def records_path(folder: Path, index: int) -> Path:
    """Return where the records of a shard lie until they are checked."""
    return folder / f"records-{index:05d}.arrow"


def _check_shard(
    folder: Path,
    sources: Mapping[str, Sequence[str]],
    threads: int,
    key: tuple[str, int],
) -> None:
    """Write a shard of what can be used, and keep what is said of the rest."""
    split, index = key
    records = read_records(records_path(folder / split, index))
    check = partial(check_record, root=str(folder.resolve()))
    report, rows = Report(), []
    with ThreadPoolExecutor(threads) as pool:
        checked = tqdm(
            pool.map(check, records.values()),
            total=len(records),
            desc=f"{split}, shard {index}",
            unit="file",
            leave=False,
            delay=2,
        )
        for name, (item, problem) in zip(records, checked):
            if item is None:
                report.leave_out(name, problem or "")
                continue
            if problem is not None:
                report.without_words(name, problem)
            rows.append(make_row(name, item))
    path = shard_path(folder / split, index)
    write_shard(
        make_table(rows),
        path,
        shard=path.name,
        source=sources[split][index],
        content=digest_values(rows),
        utterances=len(rows),
        seconds=sum(row["duration"] for row in rows),
        with_words=sum(bool(row["words"]) for row in rows),
        report=asdict(report),
    )


def read_records(path: Path) -> dict[str, _Item]:
    """Return the entries of a shard, by id."""
    with pyarrow.memory_map(str(path)) as file:
        rows = pyarrow.ipc.open_stream(file).read_all().to_pylist()
    return dict(map(read_row, rows))


def check_record(record: _Item, root: str) -> tuple[_Item | None, str | None]:
    """Return the entry of a record and why its words have no times.

    Arguments
    ---------
    record : dict
        Its wav, and what is known. A duration is found unless it is there.
    root : str
        What ``{data_root}`` stands for.

    Returns
    -------
    (dict or None, str or None)
        None and the reason, if it cannot be used.

    Example
    -------
    >>> item, _ = check_record({"wav": recording, "text": "two boats"}, "")
    >>> item["duration"]
    2.3999
    >>> check_record({"wav": "missing.wav"}, "")
    (None, 'no such audio file: missing.wav...')
    """
    item = {"wav": "", "duration": None, **record}
    words, problem = item.pop("words", None), None
    wav = item["wav"].replace(ROOT, root)
    check = check_recording(wav)
    if check[1] is not None:
        return None, check[1]
    try:
        if item["duration"] is None:
            item["duration"] = round(audio_seconds(wav), 4)
        if words is not None:
            item["words"] = fit_words(words, item["duration"])
    except OSError as error:
        return None, str(error)
    except ValueError as error:
        problem = str(error)
    fault = (
        entry_problem(item)
        or transcript_problem(item)
        or recording_problem(item | {"wav": wav}, check)
    )
    return (item, problem) if fault is None else (None, fault)


def fit_words(words: Iterable[Sequence[Any]], duration: float) -> list[list]:
    """Return words with times that lie in their recording.

    Arguments
    ---------
    words : iterable of (str, float, float)
        Words and, as empty ones, silences: what, start and end in seconds.
    duration : float
        Of the recording, in seconds.

    Returns
    -------
    list of [str, float, float]
        The words, without the silences.

    Raises
    ------
    ValueError
        If times are not in order, or exceed the recording by more than they
        may be rounded.

    Example
    -------
    >>> fit_words([("", 0, 0.25), ("two", 0.25, 0.5), ("boats", 0.5, 1.2)], 1.2)
    [['two', 0.25, 0.5], ['boats', 0.5, 1.2]]
    """
    spans, before = [list(span) for span in words], 0.0
    for _, _, end in spans:
        if not end <= duration + _ROUNDING:
            raise ValueError(
                f"the alignment ends at {end} s, the recording at "
                f"{duration:.3f} s"
            )
    for span in spans:
        word, start, end = span[0], *(min(t, duration) for t in span[1:])
        if not before <= start <= end or (word and start == end):
            raise ValueError(
                f"{word or 'a silence'} is from {start} to {end} s, after "
                f"what begins at {before} s"
            )
        span[1:], before = (start, end), start
    return [span for span in spans if span[0]]
