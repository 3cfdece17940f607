"""Manifests: what is known of each utterance of a corpus."""

from __future__ import annotations

import gc
import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from tqdm import tqdm

from spiritlm_plugin.dataio.corpus.entries import (
    CHECK_VERSION,
    REPEATED,
    Report,
    check_recording,
    entry_problem,
    fit_group,
    is_text,
    object_of_pairs,
    recording_problem,
    repeated,
    stamp,
    transcript_problem,
)
from spiritlm_plugin.dataio.corpus.mapping import Listed
from spiritlm_plugin.dataio.corpus.shards import ROWS, read_row
from spiritlm_plugin.dataio.corpus.stores import (
    ROOT,
    Store,
    has_units,
    is_store,
)
from spiritlm_plugin.utils.files import read_json, write_file

logger = logging.getLogger(__name__)

# So many recordings are checked before what was found is saved.
_CHECKPOINT = 10_000


class ManifestError(ValueError):
    """A manifest that cannot be used."""


def load_manifest(
    path: str | Path, needs: Iterable[str] = ()
) -> dict[str, dict[str, Any]]:
    """Read a manifest and leave out what cannot be used.

    A store has been checked as it was made. Of JSON, a recording that is missing, damaged, silent or not as long as it should
    be, an empty transcript, words or phones that do not fit, an id that is
    there twice, and an entry that lacks what is needed are reported: 20 by
    name, all by number. Each recording is read once: what was found stands in
    ``<manifest>.checked`` and holds as long as the recording's size and time
    of change do. Texts and words come in Unicode's form NFC.

    Arguments
    ---------
    path : str or Path
        SpeechBrain's JSON, ``{id: {"wav": ..., "duration": ..., ...}}``;
        ``{data_root}`` in a path stands for the manifest's folder.
    needs : iterable of str
        Keys that an utterance must have, such as ``"text"``.

    Returns
    -------
    dict
        Utterances by id, in the manifest's order.

    Raises
    ------
    FileNotFoundError
        If there is no such manifest.
    ManifestError
        If it cannot be read, or no utterance can be used.

    Example
    -------
    >>> manifest = tmp / "train.json"
    >>> items = {"a": {"wav": recording, "duration": 2.4, "text": "all day"},
    ...          "b": {"wav": recording, "duration": 2.4, "text": ""}}
    >>> write_manifest(items, manifest)
    >>> list(load_manifest(manifest, needs=["text"]))
    ['a']
    """
    path, needs = find_manifest(Path(path).parent, Path(path).name), [*needs]
    if is_store(path):
        return _load_store(path, needs)
    items = read_manifest(path)
    checks = _check_recordings(_place_recordings(items, path), path)
    problems = {name: REPEATED.format(name) for name in repeated(items)}
    for name, item in items.items():
        problem = (
            problems.get(name)
            or (None if is_text(name) else "its id is no text")
            or entry_problem(item, needs)
            or transcript_problem(item)
            or recording_problem(item, checks[item["wav"]])
        )
        if problem is not None:
            problems[name] = problem
    return _leave_out(problems, items, path)


def _load_store(path: Path, needs: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the entries of a store, which preparation has checked."""
    store = Store(path)
    items: dict[str, dict[str, Any]] = {}
    for start in range(0, len(store), ROWS):
        items |= store.items(start, min(start + ROWS, len(store)))
    problems = {
        name: problem
        for name, item in items.items()
        if (problem := entry_problem(item, needs)) is not None
    }
    return _leave_out(problems, items, path)


def _leave_out(
    problems: Mapping[str, str], items: dict[str, Any], path: Path
) -> dict[str, dict[str, Any]]:
    if len(problems) == len(items):
        example = "".join(f"; {n}: {p}" for n, p in [*problems.items()][:1])
        raise ManifestError(
            f"{path} has no utterance that can be used{example}; prepare the "
            "corpus again"
        )
    if not problems:
        return items
    report = Report()
    for name, problem in problems.items():
        report.leave_out(name, problem)
    report.log(path.name, len(items))
    return {name: i for name, i in items.items() if name not in problems}


def find_manifest(folder: str | Path, split: str) -> Path:
    """Return the manifest of a split: a store, or else a JSON file.

    Arguments
    ---------
    folder : str or Path
        Of manifests.
    split : str
        Such as ``"train"``. With ``.json``, a file is preferred.

    Returns
    -------
    Path
        The folder ``train`` or the file ``train.json``.

    Raises
    ------
    FileNotFoundError
        If there is neither.

    Example
    -------
    >>> write_manifest({"a": {"text": "all day"}}, tmp / "train.json")
    >>> find_manifest(tmp, "train").name
    'train.json'
    """
    path = Path(folder) / split
    plain = path.with_name(path.name.removesuffix(".json"))
    file = plain.with_name(f"{plain.name}.json")
    for found in (path, plain, file):
        # Units that were made of a file may lie beside it.
        is_other = found.is_dir() and file.is_file() and has_units(found)
        if found.is_file() or (is_store(found) and not is_other):
            return found
    raise FileNotFoundError(
        f"no such manifest: {path}; prepare the corpus first, and name the "
        "folder of its manifests"
    )


def has_manifest(path: str | Path) -> bool:
    """Tell whether there is a manifest, as `load_manifest` finds it.

    Example
    -------
    >>> write_manifest({"a": {"text": "all day"}}, tmp / "train.json")
    >>> has_manifest(tmp / "train"), has_manifest(tmp / "test")
    (True, False)
    """
    with suppress(FileNotFoundError):
        return bool(find_manifest(Path(path).parent, Path(path).name))
    return False


def open_source(path: str | Path) -> Store | Listed:
    """Return a manifest as what `map_shards` takes.

    Arguments
    ---------
    path : str or Path
        As of `load_manifest`. A store is not read as a whole.

    Raises
    ------
    FileNotFoundError, ManifestError, CorpusError
        If it is not there or cannot be used.

    Example
    -------
    >>> items = {"a": {"wav": recording, "duration": 2.4}}
    >>> write_manifest(items, tmp / "train.json")
    >>> open_source(tmp / "train").seconds
    2.4
    """
    path = find_manifest(Path(path).parent, Path(path).name)
    return Store(path) if is_store(path) else Listed(load_manifest(path))


def manifest_labels(manifest: str | Path, key: str) -> list[str]:
    """Return the values that a key has in a manifest, sorted.

    Arguments
    ---------
    manifest : str or Path
        As of `load_manifest`.
    key : str
        Such as ``"style"``.

    Raises
    ------
    FileNotFoundError, ManifestError
        As by `load_manifest`.

    Example
    -------
    >>> item = {"wav": recording, "duration": 2.4}
    >>> items = {n: {**item, "style": n} for n in ("sad", "happy")}
    >>> write_manifest(items, tmp / "train.json")
    >>> manifest_labels(tmp / "train.json", "style")
    ['happy', 'sad']
    """
    items = load_manifest(manifest, needs=[key])
    for name, item in items.items():
        if not isinstance(item[key], str):
            raise ManifestError(
                f"{manifest}: {name}: its {key} is {item[key]!r}, no text"
            )
    return sorted({item[key] for item in items.values()})


def write_manifest(items: Mapping[str, dict], path: str | Path) -> None:
    """Write a manifest, which appears when it is complete."""
    # Utterances a line each, so that people can search and compare.
    lines = (f"{json.dumps(k)}: {json.dumps(v)}" for k, v in items.items())
    write_file(path, "{\n" + ",\n".join(lines) + "\n}\n")


def read_manifest(path: str | Path) -> dict[str, Any]:
    """Return a manifest as it is, with what `load_manifest` leaves out.

    Raises
    ------
    FileNotFoundError, ManifestError
        As by `load_manifest`.

    Example
    -------
    >>> write_manifest({"a": {"text": "all day"}}, tmp / "train.json")
    >>> read_manifest(tmp / "train.json")
    {'a': {'text': 'all day'}}
    """
    path = find_manifest(Path(path).parent, Path(path).name)
    if is_store(path):
        rows = Store(path)
        return dict(map(read_row, rows.raw(0, len(rows))))
    # Looking for cycles, which JSON has not, would take most of the time.
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        items = json.loads(path.read_bytes(), object_pairs_hook=object_of_pairs)
    except (ValueError, RecursionError) as error:
        raise ManifestError(
            f"cannot read {path} as JSON: {error}; prepare the corpus again"
        ) from error
    finally:
        if was_enabled:
            gc.enable()
    if not isinstance(items, dict):
        raise ManifestError(
            f'{path} should hold {{id: {{"wav": ..., "duration": ...}}}}, got '
            f"a {type(items).__name__}; prepare the corpus again"
        )
    return items


def _place_recordings(items: Mapping[str, Any], path: Path) -> Iterator[str]:
    """Yield the recordings, and put their places into the entries."""
    root = str(path.parent.resolve())
    for item in items.values():
        if isinstance(item, dict) and isinstance(item.get("wav"), str):
            item["wav"] = item["wav"].replace(ROOT, root)
            fit_group(item)
            yield item["wav"]


def _check_recordings(
    wavs: Iterable[str], manifest: Path
) -> dict[str, tuple[float, str | None]]:
    """Return seconds and problem of each, checked once unless it changes."""
    cache = manifest.with_name(f"{manifest.name}.checked")
    known = _read_cache(cache)
    stamps = {wav: stamp(wav) for wav in wavs}
    checks = {
        wav: known[wav]
        for wav, stamp in stamps.items()
        if _is_check(known.get(wav), stamp)
    }
    new = [wav for wav in stamps if wav not in checks]
    with (
        ThreadPoolExecutor(min(os.cpu_count() or 1, 16)) as pool,
        tqdm(
            total=len(new), desc=f"checking {manifest.name}", delay=2
        ) as progress,
    ):
        for start in range(0, len(new), _CHECKPOINT):
            some = new[start : start + _CHECKPOINT]
            for wav, check in zip(some, pool.map(check_recording, some)):
                checks[wav] = [stamps[wav], *check]
                progress.update()
            _write_cache(checks, cache)
    return {wav: (seconds, p) for wav, (_, seconds, p) in checks.items()}


def _is_check(check: Any, stamp: Sequence[int]) -> bool:
    match check:
        case [found, int() | float(), None | str()]:
            return found == stamp
    return False


def _read_cache(path: Path) -> dict[str, Any]:
    """Return what is known of recordings; damage is no reason to stop."""
    try:
        content = read_json(path, "the recordings are checked again")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        logger.warning("%s", error)
        return {}
    recordings = content.get("recordings")
    if content.get("version") == CHECK_VERSION and isinstance(recordings, dict):
        return recordings
    logger.info("%s is of another version: checking again", path)
    return {}


def _write_cache(checks: dict[str, list], path: Path) -> None:
    """Keep what was found; a folder that cannot be written does without."""
    content = {"version": CHECK_VERSION, "recordings": checks}
    try:
        write_file(path, json.dumps(content))
    except OSError as error:
        logger.info("cannot keep %s: %s", path, error)
