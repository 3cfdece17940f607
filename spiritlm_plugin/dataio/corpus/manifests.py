"""Manifests: what is known of each utterance of a corpus."""

from __future__ import annotations

import gc
import json
import logging
import os
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeGuard

from tqdm import tqdm

from spiritlm_plugin.dataio.audio.reading import read_windows
from spiritlm_plugin.dataio.units.units import SAMPLE_RATE
from spiritlm_plugin.utils.files import read_json, write_file

# What is said of an utterance in words.
TEXT_KEYS = ("speaker", "style", "sentiment", "intent", "kind", "text")

logger = logging.getLogger(__name__)

# Below this amplitude a recording is silence: less than one step of 16 bits.
_SILENCE = 1 / 32768
# What times in a manifest may be off by, seconds.
_TOLERANCE = 0.05
# Raise it when recordings are checked in another way.
_CHECK_VERSION = 2
# So many recordings are checked before what was found is saved.
_CHECKPOINT = 10_000
# So many utterances that are left out are named.
_MOST_WARNINGS = 20


class ManifestError(ValueError):
    """A manifest that cannot be used."""


def load_manifest(
    path: str | Path, needs: Iterable[str] = ()
) -> dict[str, dict[str, Any]]:
    """Read a manifest and leave out what cannot be used.

    A recording that is missing, damaged, silent or not as long as it should
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
    path, needs = Path(path), tuple(needs)
    items = read_manifest(path)
    recordings = _check_recordings(_place_recordings(items, path), path)
    problems = {name: _REPEATED.format(name) for name in _repeated(items)}
    for name, item in items.items():
        problem = (
            problems.get(name)
            or (None if _is_text(name) else "its id is no text")
            or _entry_problem(item, needs)
            or _transcript_problem(item)
            or _recording_problem(item, recordings)
        )
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
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"no such manifest: {path}; prepare the corpus first, and name "
            "the folder of its manifests"
        )
    # Looking for cycles, which JSON has not, would take most of the time.
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        items = json.loads(path.read_bytes(), object_pairs_hook=_object)
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


_REPEATED = "{!r} is there twice"


class _Repeating(dict[str, Any]):
    """An object of JSON that has names twice."""

    repeated: list[str]


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    items = dict(pairs)
    if len(items) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        items = _Repeating(items)
        items.repeated = [name for name, n in counts.items() if n > 1]
    return items


def _repeated(item: dict[str, Any]) -> list[str]:
    return item.repeated if isinstance(item, _Repeating) else []


def _report(
    problems: Mapping[str, str], items: Mapping[str, Any], path: Path
) -> None:
    for name, problem in [*problems.items()][:_MOST_WARNINGS]:
        message = f"{path.name}: {name} is left out: {problem}"
        # Names of files may hold bytes that are no text.
        printable = message.encode("utf-8", "backslashreplace").decode()
        logger.warning("%s", printable)
    if problems:
        logger.warning(
            "%s: %d of %d utterances are left out%s",
            path.name,
            len(problems),
            len(items),
            ", the first of which are named above"
            if len(problems) > _MOST_WARNINGS
            else "",
        )


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _entry_problem(item: Any, needs: Iterable[str]) -> str | None:
    if not isinstance(item, dict) or not isinstance(item.get("wav"), str):
        return "it names no recording (wav)"
    for name in _repeated(item):
        return f"its {_REPEATED.format(name)}"
    duration = item.get("duration")
    if not _is_duration(duration):
        return f"its duration is {duration!r:.40}"
    for key in needs:
        if item.get(key) is None:
            return f"it has no {key!r}"
    for key in TEXT_KEYS:
        if not isinstance(item.get(key), (str, type(None))):
            return f"its {key} is {item[key]!r:.40}, no text"
    for key in (*needs, "text"):
        if isinstance(item.get(key), str) and not item[key].strip():
            return f"its {key} is empty"
    for key in ("words", "phones"):
        spans = item.get(key)
        if spans is not None and not _are_spans(spans, duration):
            return f"its {key} are not names with times in its {duration} s"
    return None


def _is_duration(value: Any) -> TypeGuard[float]:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    return 0 < value <= sys.float_info.max


def _are_spans(spans: Any, duration: float) -> bool:
    """Tell whether these are [name, start, end], in order of time."""
    if not isinstance(spans, list):
        return False
    before = 0.0
    for span in spans:
        match span:
            case [str(), int() | float() as start, int() | float() as end]:
                if not before <= start <= end <= duration + _TOLERANCE:
                    return False
                before = start
            case _:
                return False
    return True


def _transcript_problem(item: dict[str, Any]) -> str | None:
    """Bring text and words into one form, and compare them."""
    words, text = item.get("words"), item.get("text")
    if text is not None and not text.isascii():
        item["text"] = text = unicodedata.normalize("NFC", text)
    if words is None:
        return None
    if text is None or not text.isascii():
        words = [[unicodedata.normalize("NFC", w), *span] for w, *span in words]
        item["words"] = words
    spoken = " ".join(span[0] for span in words)
    if text in (None, spoken) or _letters(spoken) == _letters(text):
        return None
    return f"its words are not those of its text {text!r}"


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
    except (OSError, ValueError):  # no path at all
        return [0, 0]
    return [status.st_size, status.st_mtime_ns]


def _check_recording(wav: str) -> tuple[float, str | None]:
    """Return the seconds that can be read, and what is wrong."""
    loudest, samples = 0.0, 0
    try:
        for window in read_windows(wav):
            loudest = max(loudest, float(window.abs().max()))
            samples += len(window)
    except Exception as error:  # what a damaged file raises is not defined
        return 0.0, str(error)
    problem = f"{wav} is silence" if loudest <= _SILENCE else None
    return samples / SAMPLE_RATE, problem


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
    if content.get("version") == _CHECK_VERSION and isinstance(
        recordings, dict
    ):
        return recordings
    logger.info("%s is of another version: checking again", path)
    return {}


def _write_cache(checks: dict[str, list], path: Path) -> None:
    """Keep what was found; a folder that cannot be written does without."""
    content = {"version": _CHECK_VERSION, "recordings": checks}
    try:
        write_file(path, json.dumps(content))
    except OSError as error:
        logger.info("cannot keep %s: %s", path, error)
