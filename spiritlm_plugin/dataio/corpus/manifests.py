"""Manifests: what is known of each utterance of a corpus."""

from __future__ import annotations

import gc
import json
import logging
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tqdm import tqdm

from spiritlm_plugin.dataio.audio.reading import read_windows
from spiritlm_plugin.dataio.units.units import SAMPLE_RATE

logger = logging.getLogger(__name__)

# Below this amplitude a recording is silence: less than one step of 16 bits.
_SILENCE = 1 / 32768
# What times in a manifest may be off by, seconds.
_TOLERANCE = 0.05
# Raise it when recordings are checked in another way.
_CHECK_VERSION = 1
# So many recordings are checked before what was found is saved.
_CHECKPOINT = 10_000


class ManifestError(ValueError):
    """A manifest that cannot be used."""


def load_manifest(
    path: str | Path, needs: Iterable[str] = ()
) -> dict[str, dict[str, Any]]:
    """Read a manifest and leave out what cannot be used.

    A recording that is missing, damaged, silent or not as long as it should
    be, an empty transcript, words or phones that do not fit, and an entry that
    lacks what is needed are reported by name. Each recording is read once:
    what was found stands in ``<manifest>.checked`` and holds as long as the
    recording's size and time of change do.

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
        If it cannot be read, has an id twice, or no utterance can be used.

    Example
    -------
    >>> manifest = tmp / "train.json"
    >>> items = {"a": {"wav": recording, "duration": 2.4, "text": "all day"},
    ...          "b": {"wav": recording, "duration": 2.4, "text": ""}}
    >>> write_manifest(items, manifest)
    >>> list(load_manifest(manifest, needs=["text"]))
    ['a']
    """
    path, needs = Path(path), tuple(needs)
    items = _read(path)
    recordings = _check_recordings(_place_recordings(items, path), path)
    problems = {}
    for name, item in items.items():
        problem = _entry_problem(item, needs)
        problem = problem or _recording_problem(item, recordings)
        if problem is not None:
            problems[name] = problem
    if len(problems) == len(items):
        example = "".join(f"; {n}: {p}" for n, p in [*problems.items()][:1])
        raise ManifestError(
            f"{path} has no utterance that can be used{example}; prepare the "
            "corpus again"
        )
    _report(problems, items, path)
    return {name: i for name, i in items.items() if name not in problems}


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
    return sorted({item[key] for item in items.values()})


def write_manifest(items: Mapping[str, dict], path: str | Path) -> None:
    """Write a manifest, which appears when it is complete."""
    # Utterances a line each, so that people can search and compare.
    lines = (f"{json.dumps(k)}: {json.dumps(v)}" for k, v in items.items())
    _write("{\n" + ",\n".join(lines) + "\n}\n", Path(path))


def _write(content: str, path: Path) -> None:
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_text(content, encoding="utf-8")
    os.replace(partial, path)


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(
            f"no such manifest: {path}; prepare the corpus first, and name "
            "the folder of its manifests"
        )
    # Looking for cycles, which JSON has not, would take most of the time.
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        content = path.read_text(encoding="utf-8")
        items = json.loads(content, object_pairs_hook=_unique)
    except ValueError as error:
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


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    items = dict(pairs)
    if len(items) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        name = next(name for name, count in counts.items() if count > 1)
        raise ValueError(f"{name!r} is there twice")
    return items


def _report(
    problems: Mapping[str, str], items: Mapping[str, Any], path: Path
) -> None:
    for name, problem in problems.items():
        logger.warning("%s: %s is left out: %s", path.name, name, problem)
    if problems:
        logger.warning(
            "%s: %d of %d utterances are left out",
            path.name,
            len(problems),
            len(items),
        )


def _entry_problem(item: Any, needs: Iterable[str]) -> str | None:
    if not isinstance(item, dict) or not isinstance(item.get("wav"), str):
        return "it names no recording (wav)"
    duration = item.get("duration")
    if not isinstance(duration, (int, float)) or not 0 < duration < math.inf:
        return f"its duration is {duration!r}"
    for key in needs:
        if item.get(key) is None:
            return f"it has no {key!r}"
    for key in (*needs, "text"):
        if isinstance(item.get(key), str) and not item[key].strip():
            return f"its {key} is empty"
    for key in ("words", "phones"):
        spans = item.get(key)
        if spans is not None and not _are_spans(spans, duration):
            return f"its {key} are not names with times in its {duration} s"
    words, text = item.get("words"), item.get("text")
    if words is not None and isinstance(text, str):
        spoken = " ".join(span[0] for span in words)
        if spoken != text and _letters(spoken) != _letters(text):
            return f"its words are not those of its text {text!r}"
    return None


def _are_spans(spans: Any, duration: float) -> bool:
    """Tell whether these are [name, start, end], in order of time."""
    before = 0.0
    try:
        for name, start, end in spans:
            if not isinstance(name, str) or not before <= start <= end:
                return False
            before = start
            if not end <= duration + _TOLERANCE:
                return False
    except (TypeError, ValueError):
        return False
    return True


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text.casefold()))


def _place_recordings(items: Mapping[str, Any], path: Path) -> Iterator[str]:
    """Yield the recordings, and put their places into the entries."""
    root = str(path.parent.resolve())
    for item in items.values():
        if isinstance(item, dict) and isinstance(item.get("wav"), str):
            item["wav"] = item["wav"].replace("{data_root}", root)
            yield item["wav"]


def _check_recordings(
    wavs: Iterable[str], manifest: Path
) -> dict[str, tuple[float, str | None]]:
    """Return seconds and problem of each, checked once unless it changes."""
    cache = manifest.with_name(f"{manifest.name}.checked")
    known = _read_cache(cache)
    stamps = {wav: _stamp(wav) for wav in wavs}
    checks = {
        wav: known[wav]
        for wav, stamp in stamps.items()
        if wav in known and known[wav][0] == stamp
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
            for wav, check in zip(some, pool.map(_check_recording, some)):
                checks[wav] = [stamps[wav], *check]
                progress.update()
            _write_cache(checks, cache)
    return {wav: (seconds, p) for wav, (_, seconds, p) in checks.items()}


def _recording_problem(
    item: dict[str, Any], recordings: Mapping[str, tuple[float, str | None]]
) -> str | None:
    wav, expected = item["wav"], item["duration"]
    seconds, problem = recordings[wav]
    if problem is None and abs(seconds - expected) > _TOLERANCE:
        return f"{wav} has {seconds:.2f} s, expected {expected:.2f} s"
    return problem


def _stamp(wav: str) -> Sequence[int]:
    try:
        status = os.stat(wav)
    except OSError:
        return [0, 0]
    return [status.st_size, status.st_mtime_ns]


def _check_recording(wav: str) -> tuple[float, str | None]:
    """Return the seconds that can be read, and what is wrong."""
    loudest, samples = 0.0, 0
    try:
        for window in read_windows(wav):
            loudest = max(loudest, float(window.abs().max()))
            samples += len(window)
    except (OSError, ValueError) as error:
        return 0.0, str(error)
    problem = f"{wav} is silence" if loudest <= _SILENCE else None
    return samples / SAMPLE_RATE, problem


def _read_cache(path: Path) -> dict[str, list]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["version"] == _CHECK_VERSION:
            return content["recordings"]
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return {}


def _write_cache(checks: dict[str, list], path: Path) -> None:
    """Keep what was found; a folder that cannot be written does without."""
    content = {"version": _CHECK_VERSION, "recordings": checks}
    try:
        _write(json.dumps(content), path)
    except OSError as error:
        logger.info("cannot keep %s: %s", path, error)
