"""Manifests: what is known of each utterance of a corpus."""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from tqdm import tqdm

logger = logging.getLogger(__name__)

# Below this amplitude a recording is silence: less than one step of 16 bits.
_SILENCE = 1 / 32768
# Fewer utterances are checked without a progress bar.
_PROGRESS_UTTERANCES = 5000


class ManifestError(ValueError):
    """A manifest that cannot be used."""


def load_manifest(
    path: str | Path, needs: Iterable[str] = ()
) -> dict[str, dict[str, Any]]:
    """Read a manifest and leave out what cannot be used.

    A recording that is missing, damaged or silent, an empty transcript and an
    entry that lacks what is needed are reported by name. Each recording is
    read once: what was found stands in ``<manifest>.checked`` and holds as
    long as the recording's size and time of change do.

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
    path = Path(path)
    items = _read(path)
    root = str(path.parent.resolve())
    for item in items.values():
        item["wav"] = str(item["wav"]).replace("{data_root}", root)
    problems = {
        name: problem
        for name, item in items.items()
        if (problem := _entry_problem(item, needs))
    }
    candidates = {n: i for n, i in items.items() if n not in problems}
    problems |= _recording_problems(candidates, path)
    for name, problem in problems.items():
        logger.warning("%s: %s is left out: %s", path.name, name, problem)
    usable = {n: i for n, i in items.items() if n not in problems}
    if not usable:
        first = next(iter(problems.items()), ("", "it is empty"))
        raise ManifestError(
            f"{path} has no utterance that can be used ({': '.join(first)}); "
            "prepare the corpus again"
        )
    if problems:
        logger.warning(
            "%s: %d of %d utterances are left out",
            path.name,
            len(problems),
            len(items),
        )
    return usable


def write_manifest(items: Mapping[str, dict], path: str | Path) -> None:
    """Write a manifest, which appears when it is complete."""
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    # Utterances a line each, so that people can search and compare.
    lines = (f"{json.dumps(k)}: {json.dumps(v)}" for k, v in items.items())
    partial.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    os.replace(partial, path)


def _read(path: Path) -> dict[str, dict[str, Any]]:
    if not path.is_file():
        raise FileNotFoundError(
            f"no such manifest: {path}; prepare the corpus first, and name "
            "the folder of its manifests"
        )
    try:
        items = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ManifestError(
            f"cannot read {path} as JSON: {error}; prepare the corpus again"
        ) from error
    if not isinstance(items, dict) or not all(
        isinstance(item, dict) and "wav" in item for item in items.values()
    ):
        raise ManifestError(
            f'{path} should hold {{id: {{"wav": ..., "duration": ...}}}}'
        )
    return items


def _entry_problem(item: dict[str, Any], needs: Iterable[str]) -> str | None:
    duration = item.get("duration")
    if not isinstance(duration, (int, float)) or not 0 < duration < math.inf:
        return f"its duration is {duration!r}"
    for key in needs:
        if item.get(key) is None:
            return f"it has no {key!r}"
        if isinstance(item[key], str) and not item[key].strip():
            return f"its {key} is empty"
    return None


def _recording_problems(
    items: Mapping[str, dict], manifest: Path
) -> dict[str, str]:
    """Check recordings, each only once unless it changes."""
    cache = manifest.with_name(manifest.name + ".checked")
    known = _read_cache(cache)
    verdicts: dict[str, list] = {}
    new = []
    for item in items.values():
        wav = item["wav"]
        stamp = _stamp(wav)
        if wav in known and known[wav][:2] == stamp:
            verdicts[wav] = known[wav]
        else:
            new.append(wav)
    if new:
        with ThreadPoolExecutor(min(os.cpu_count() or 1, 16)) as pool:
            found = tqdm(
                pool.map(_recording_problem, new, chunksize=16),
                total=len(new),
                desc=f"checking {manifest.name}",
                unit="file",
                disable=len(new) < _PROGRESS_UTTERANCES,
            )
            for wav, problem in zip(new, found):
                verdicts[wav] = [*_stamp(wav), problem]
        _write_cache(verdicts, cache)
    return {
        name: verdicts[item["wav"]][2]
        for name, item in items.items()
        if verdicts[item["wav"]][2]
    }


def _stamp(wav: str) -> list[int]:
    try:
        status = os.stat(wav)
    except OSError:
        return [0, 0]
    return [status.st_size, status.st_mtime_ns]


def _recording_problem(wav: str) -> str | None:
    if not os.path.isfile(wav):
        return f"there is no file {wav}"
    loudest = 0.0
    frames = 0
    try:
        with soundfile.SoundFile(wav) as file:
            for block in file.blocks(1 << 20, dtype="float32"):
                loudest = max(loudest, float(np.abs(block).max(initial=0)))
                frames += len(block)
            expected = file.frames
    except (soundfile.LibsndfileError, RuntimeError) as error:
        return f"{wav} cannot be read as audio: {error}"
    if frames < expected:
        return f"{wav} is cut short: {frames} of {expected} samples"
    if not math.isfinite(loudest):
        return f"{wav} has samples that are not finite"
    if loudest <= _SILENCE:
        return f"{wav} is silence"
    return None


def _read_cache(path: Path) -> dict[str, list]:
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _write_cache(verdicts: dict[str, list], path: Path) -> None:
    """Keep what was found; a folder that cannot be written does without."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        partial.write_text(json.dumps(verdicts), encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        logger.info("cannot keep %s: %s", path, error)
