"""From the records of a corpus to its stores.

A corpus is read by a generator of records, one function for each corpus in
`spiritlm_plugin.dataio.corpus.readers`::

    def read_my_corpus(folder: Path, split: str) -> Iterator[Record]:
        for name, text in _transcripts(folder / split):
            yield name, {"wav": folder / split / f"{name}.flac", "text": text}

It looks at tables and transcripts only; `prepare` does the rest. No more of a
corpus is in memory than a shard of records.
"""

from __future__ import annotations

import hashlib
import json
import logging
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from speechbrain.utils.distributed import run_on_main

from spiritlm_plugin.dataio.checkpoints import digest_values
from spiritlm_plugin.dataio.corpus.checking import make_checker, records_path
from spiritlm_plugin.dataio.corpus.checksums import ChecksumError, check_file
from spiritlm_plugin.dataio.corpus.entries import (
    CHECK_VERSION,
    Report,
    entry_problem,
    is_text,
    stamp,
)
from spiritlm_plugin.dataio.corpus.shards import (
    ROWS,
    make_row,
    make_table,
    write_shard,
)
from spiritlm_plugin.dataio.corpus.stores import (
    DESCRIPTION,
    ROOT,
    CorpusError,
    clean_store,
    is_store,
    read_description,
    shard_path,
    shard_paths,
)
from spiritlm_plugin.utils.engines import Engine, run
from spiritlm_plugin.utils.files import write_file

logger = logging.getLogger(__name__)

# Id, and entry of the manifest. Of `wav`, a path, the `duration` is found unless
# it is there. `words` are [word, start, end] in order of time, in seconds;
# silences may stand between them as empty words. Utterances whose `position` is
# one more than that before, in the same `group`, follow each other in a recording.
Record = tuple[str, dict[str, Any]]

_THREADS = 16
_MOST_SECONDS = 1e9
_TIMES = (int, float)


@dataclass
class _Split:
    """What was read of a split.

    Of each shard of records what tells it from others; how many records there
    are, and whether their store is there already; the shards to check, with
    their numbers of records; and what is left out already.
    """

    sources: list[str] = field(default_factory=list)
    records: int = 0
    is_complete: bool = False
    tasks: list[tuple[tuple[str, int], float]] = field(default_factory=list)
    report: Report = field(default_factory=Report)


def prepare(
    splits: Mapping[str, Iterable[Record]],
    save_folder: str | Path,
    merged: Mapping[str, Sequence[str]] | None = None,
    engine: Engine = "torchrun",
) -> None:
    """Write the stores of splits.

    Each recording is read as a whole. What cannot be used is reported and left
    out: missing, damaged and silent recordings or such of another length, empty
    texts, words that are not those of the text, ids that are there twice. A run
    that was stopped goes on, and where nothing has changed none is read again:
    neither the records of a shard nor size and time of its recordings.

    Arguments
    ---------
    splits : dict of iterable of Record
        Of each store, by its name, what is in it. All are read before any
        recording is opened.
    save_folder : path
        Of the stores, such as ``train-clean-100``; made if there is none.
        ``{data_root}`` in a path of a recording stands for it.
    merged : dict of sequence of str, optional
        More stores, each the union of several splits, such as ``{"train":
        ["train-clean-100", "train-clean-360"]}``; an id stands once in these.
        Of no split none is written.
    engine : str
        As of `spiritlm_plugin.utils.engines.run`: who reads the recordings.

    Raises
    ------
    ValueError
        If a split has no recording that can be used.
    DiskFullError
        If there is no room for a shard.

    Example
    -------
    >>> from spiritlm_plugin.dataio.corpus.manifests import read_manifest
    >>> def read_boats():
    ...     yield "boats", {"wav": recording, "text": "two boats"}
    >>> prepare({"train": read_boats()}, tmp)
    >>> read_manifest(tmp / "train")["boats"]
    {'wav': '...boats.wav', 'duration': 2.3999, 'text': 'two boats'}
    """
    folder = Path(save_folder)
    unions = {name: [*parts] for name, parts in (merged or {}).items() if parts}
    _check_places(folder, splits, unions)
    read = run_on_main(_read_splits, args=[splits, folder, unions.values()])
    threads = 1 if engine == "ray" else None
    sources = {split: found.sources for split, found in read.items()}
    run(
        {task: size for found in read.values() for task, size in found.tasks},
        partial(make_checker, folder, sources, threads),
        name="checking",
        unit="recordings",
        engine=engine,
        device="cpu",
    )
    run_on_main(_finish, args=[folder, read, unions])


def _read_splits(
    splits: Mapping[str, Iterable[Record]],
    folder: Path,
    unions: Iterable[Sequence[str]],
) -> dict[str, _Split]:
    """Write the records of all splits, in shards."""
    ids = [(parts, Names()) for parts in unions]
    found = {
        split: _read_split(
            records,
            folder / split,
            [known for parts, known in ids if split in parts] or [Names()],
        )
        for split, records in splits.items()
    }
    for split, some in found.items():
        if not some.records:
            some.report.log(split, some.report.left_out)
            raise _nothing_left(split, some.report.left_out)
    for split, some in found.items():
        if not some.is_complete:
            # No longer, while shards are made anew.
            (folder / split / DESCRIPTION).unlink(missing_ok=True)
    return found


def _check_places(
    folder: Path, splits: Iterable[str], unions: Mapping[str, list[str]]
) -> None:
    """Refuse names that are none, and folders of what others have made."""
    splits = [*splits]
    for name, parts in unions.items():
        unknown = [part for part in parts if part not in splits]
        if unknown:
            raise ValueError(
                f"{name} is to be of {', '.join(unknown)}, and the splits are "
                f"{', '.join(splits)}"
            )
    for name in [*splits, *unions]:
        if Path(name).name != name:
            raise ValueError(
                f"a split is the name of a folder, got {name!r}; rename it"
            )
        if is_store(folder / name) and not _is_prepared(folder / name):
            raise CorpusError(
                f"{folder / name} holds a corpus that was aligned or "
                "tokenized, which would be lost; name another folder"
            )


def _is_prepared(folder: Path) -> bool:
    """Tell whether a store was prepared, not aligned or tokenized."""
    try:
        return not {"sources", "union"}.isdisjoint(read_description(folder))
    except CorpusError:  # its shards tell
        return "corpus" not in _kept(folder, 0)


def _read_split(
    records: Iterable[Record], folder: Path, known: Sequence[Names]
) -> _Split:
    folder.mkdir(parents=True, exist_ok=True)
    root = str(folder.parent.resolve())
    split, sizes = _Split(), list[float]()
    records = iter(records)
    with ThreadPoolExecutor(_THREADS) as pool:
        while some := [*islice(records, ROWS)]:
            rows = [*_clean(some, split.report, known)]
            places = [row["wav"].replace(ROOT, root) for row in rows]
            found = [CHECK_VERSION, rows, [*pool.map(stamp, places)]]
            path = records_path(folder, len(sizes))
            write_shard(make_table(rows), path)
            split.sources.append(digest_values(found))
            sizes.append(float(len(rows)))
    split.records = int(sum(sizes))
    split.is_complete = _is_complete(folder, split.sources)
    if not split.is_complete:
        split.tasks += [
            ((folder.name, index), size)
            for index, size in enumerate(sizes)
            if _kept(folder, index).get("source") != split.sources[index]
        ]
    return split


def _clean(
    records: Iterable[Record], report: Report, known: Sequence[Names]
) -> Iterator[dict[str, Any]]:
    """Yield rows of what can be written, whose ids are not known."""
    rows: dict[str, dict[str, Any]] = {}
    for name, item in records:
        try:
            row = make_row(name, _checked(name, item))
        except (TypeError, ValueError) as error:
            report.leave_out(name, str(error))
            continue
        if name in rows:
            report.leave_out(name, f"{rows[name]['wav']} has the same id")
            continue
        rows[name] = row
    names = [*rows]
    are_new = np.all([some.are_new(names) for some in known], axis=0)
    for name, is_new in zip(names, are_new):
        if is_new:
            yield rows[name]
        else:
            report.leave_out(name, "another recording has the same id")
    for some in known:
        some.add([name for name, is_new in zip(names, are_new) if is_new])


def _checked(name: str, record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record that can be written, its texts in one form."""
    item = {**record, "wav": str(record.get("wav", ""))}
    if item.get("text") is not None:
        item["text"] = _check_text(item["text"])
    if item.get("words") is not None:
        item["words"] = [
            [_composed(w), *map(_check_seconds, times)]
            for w, *times in item["words"]
        ]
    if item.get("duration") is not None:
        _check_seconds(item["duration"])
    if not isinstance(name, str):
        raise ValueError(f"its id is {name!r}, not a text")
    # Of words and durations, recordings decide.
    problem = entry_problem({**item, "duration": 1.0, "words": None})
    content = json.dumps([name, item], ensure_ascii=False)
    if problem is None and not is_text(content):
        problem = "its name or text is not UTF-8; rename or correct it"
    if problem is not None:
        raise ValueError(problem)
    return item


def _check_text(text: Any) -> str:
    if not isinstance(text, str):
        raise ValueError(f"its transcript is {text!r}, not a text")
    if not text.strip():
        raise ValueError("its transcript is empty")
    return _composed(text)


def _check_seconds(value: Any) -> Any:
    if not isinstance(value, _TIMES) or abs(value) > _MOST_SECONDS:
        raise ValueError(f"{value!r} is no time in seconds")
    return value


def _composed(text: str) -> str:
    """Return a text whose letters with accents are one character each."""
    return unicodedata.normalize("NFC", text)


class Names:
    """Ids of a corpus by 8 bytes each.

    Of 20 million ids one is taken for another once in 90,000 corpora.

    Example
    -------
    >>> names = Names()
    >>> names.add(["a", "b"])
    >>> names.are_new(["b", "c"])
    array([False,  True])
    """

    def __init__(self) -> None:
        # Sorted, each more than twice as long as the next.
        self._parts: list[np.ndarray] = []

    def are_new(self, names: Sequence[str]) -> np.ndarray:
        """Tell which names have not been added."""
        digests, are_new = _digests(names), np.ones(len(names), bool)
        for part in self._parts:
            places = np.searchsorted(part, digests).clip(max=len(part) - 1)
            are_new &= part[places] != digests
        return are_new

    def add(self, names: Sequence[str]) -> None:
        """Add names that are new."""
        part = np.sort(_digests(names))
        while self._parts and len(self._parts[-1]) <= 2 * len(part):
            part = np.sort(np.concatenate([self._parts.pop(), part]))
        if len(part):
            self._parts.append(part)


def _digests(names: Iterable[str]) -> np.ndarray:
    hashes = (hashlib.blake2b(n.encode(), digest_size=8) for n in names)
    return np.frombuffer(b"".join(h.digest() for h in hashes), np.uint64)


def _is_complete(folder: Path, sources: Sequence[str]) -> bool:
    """Tell whether a store, merged or not, is of these records."""
    try:
        description = read_description(folder)
        for path in shard_paths(folder, description):
            check_file(path)
    except (OSError, CorpusError, ChecksumError):
        return False
    return description.get("sources") == sources


def _kept(folder: Path, index: int) -> dict[str, Any]:
    """Return what is kept of a shard that is there."""
    path = shard_path(folder, index)
    try:
        return check_file(path) if path.is_file() else {}
    except ChecksumError as error:
        logger.warning("%s is made anew: %s", path, error)
        return {}


def _finish(
    folder: Path, read: Mapping[str, _Split], unions: Mapping[str, list[str]]
) -> None:
    """Describe the stores, now that their shards are there."""
    found = {
        split: _finish_split(folder / split, split, some)
        for split, some in read.items()
    }
    for name, parts in unions.items():
        description = {"union": parts} | {
            key: sum(found[part][key] for part in parts)
            for key in ("utterances", "seconds")
        }
        before = []
        if is_store(folder / name):
            before = read_description(folder / name).get("union", [])
        if set(before) - set(parts):
            logger.warning(
                "%s was %s before; it has no more than %s now",
                *(name, ", ".join(before), ", ".join(parts)),
            )
        logger.info("%s: %s", name, ", ".join(parts))
        (folder / name).mkdir(exist_ok=True)
        clean_store(folder / name, description)
        _describe(folder / name, description)


def _finish_split(folder: Path, name: str, split: _Split) -> dict[str, Any]:
    is_new = not _is_complete(folder, split.sources)
    found = _summarize(folder, split) if is_new else read_description(folder)
    split.report += Report(**found["report"])
    count, left_out = found["utterances"], split.report.left_out
    split.report.log(name, count + left_out)
    if not count:
        raise _nothing_left(name, left_out)
    if is_new:
        _describe(folder, found)
    clean_store(folder, found)
    logger.info(
        "%s: %d utterances, %d left out, %.2f hours, %d with word times%s",
        *(name, count, left_out, found["seconds"] / 3600, found["with_words"]),
        "" if is_new else ", as before",
    )
    return found


def _nothing_left(split: str, left_out: int) -> ValueError:
    return ValueError(
        f"the split {split} names no recording that can be used ({left_out} "
        "are left out); name the folder of the corpus as it is unpacked"
    )


def _summarize(folder: Path, split: _Split) -> dict[str, Any]:
    """Return what the shards of a split are together."""
    shards = [_kept(folder, index) for index in range(len(split.sources))]
    report = Report()
    for shard in shards:
        report += Report(**shard["report"])
    return {
        **{
            key: sum(shard[key] for shard in shards)
            for key in ("utterances", "seconds", "with_words")
        },
        "shards": len(shards),
        "content": digest_values([shard["content"] for shard in shards]),
        "sources": split.sources,
        "report": asdict(report),
    }


def _describe(folder: Path, description: Mapping[str, Any]) -> None:
    write_file(folder / DESCRIPTION, json.dumps(description, indent=2))
