"""Entries of manifests and their recordings: what is wrong with them."""

from __future__ import annotations

import logging
import os
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from spiritlm_plugin.dataio.audio.reading import read_windows
from spiritlm_plugin.dataio.corpus.shards import TEXT_KEYS
from spiritlm_plugin.dataio.units.units import SAMPLE_RATE

# Raise it when recordings are checked in another way.
CHECK_VERSION = 2
# What times may be off by, seconds.
_TOLERANCE = 0.05
# Below this amplitude a recording is silence: less than one step of 16 bits.
_SILENCE = 1 / 32768
_LAST_POSITION = 2**31 - 1
# So many utterances are named of those that have the same fault.
_MOST_NAMED = 20

logger = logging.getLogger(__name__)

REPEATED = "{!r} is there twice"


class _Repeating(dict[str, Any]):
    """An object of JSON that has names twice."""

    repeated: list[str]


def object_of_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of JSON that knows which names it has twice.

    Example
    -------
    >>> repeated(object_of_pairs([("a", 1), ("b", 2), ("a", 3)]))
    ['a']
    """
    items = dict(pairs)
    if len(items) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        items = _Repeating(items)
        items.repeated = [name for name, n in counts.items() if n > 1]
    return items


def repeated(item: dict[str, Any]) -> list[str]:
    """Return the names that an object of JSON has twice."""
    return item.repeated if isinstance(item, _Repeating) else []


def is_text(name: str) -> bool:
    r"""Tell whether a string can be written as UTF-8.

    Example
    -------
    >>> is_text("all day"), is_text(os.fsdecode(b"\xe9"))
    (True, False)
    """
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def entry_problem(item: Any, needs: Iterable[str] = ()) -> str | None:
    """Return what is wrong with an entry, but for its recording.

    Arguments
    ---------
    item : Any
        Of a manifest.
    needs : iterable of str
        Keys that it must have.

    Example
    -------
    >>> entry_problem({"wav": "a.wav", "duration": 0})
    'its duration is 0'
    """
    if not isinstance(item, dict) or not isinstance(item.get("wav"), str):
        return "it names no recording (wav)"
    for name in repeated(item):
        return f"its {REPEATED.format(name)}"
    duration = item.get("duration")
    if not _is_duration(duration):
        return f"its duration is {duration!r:.40}"
    for key in needs:
        if item.get(key) is None:
            return f"it has no {key!r}"
    for key in (*TEXT_KEYS, "group"):
        if not isinstance(item.get(key), (str, type(None))):
            return f"its {key} is {item[key]!r:.40}, no text"
    for key in (*needs, "text"):
        if isinstance(item.get(key), str) and not item[key].strip():
            return f"its {key} is empty"
    position = item.get("position")
    if position is not None and not _is_position(position):
        return f"its position is {position!r:.40}, no number"
    for key in ("words", "phones"):
        spans = item.get(key)
        if spans is not None and not _are_spans(spans, duration):
            return f"its {key} are not names with times in its {duration} s"
    return None


def fit_group(item: dict[str, Any]) -> None:
    """Let go of a group and position that are of another meaning.

    Files of earlier versions may have these keys for anything.

    Example
    -------
    >>> item = {"group": 5, "position": "first"}
    >>> fit_group(item)
    >>> item
    {'group': '5'}
    """
    if isinstance(item.get("group"), int):
        item["group"] = str(item["group"])
    if not isinstance(item.get("group"), str | None):
        del item["group"]
    if "position" in item and not _is_position(item["position"]):
        del item["position"]


def _is_duration(value: Any) -> TypeGuard[float]:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    return 0 < value <= sys.float_info.max


def _is_position(value: Any) -> bool:
    return (
        isinstance(value, int)
        and not isinstance(value, bool)
        and 0 <= value <= _LAST_POSITION
    )


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


def transcript_problem(item: dict[str, Any]) -> str | None:
    """Bring text and words into one form, and compare them.

    Example
    -------
    >>> item = {"text": "all day", "words": [["all", 0, 0.2]]}
    >>> transcript_problem(item)
    "its words are not those of its text 'all day'"
    """
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


def recording_problem(
    item: Mapping[str, Any], check: tuple[float, str | None]
) -> str | None:
    """Return what is wrong with the recording of an entry.

    Arguments
    ---------
    item : dict
        With its wav and duration.
    check : (float, str or None)
        Of `check_recording`.

    Example
    -------
    >>> item = {"wav": "a.wav", "duration": 2.0}
    >>> recording_problem(item, (1.0, None))
    'a.wav has 1.00 s, expected 2.00 s'
    """
    wav, expected = item["wav"], item["duration"]
    seconds, problem = check
    if problem is None and abs(seconds - expected) > _TOLERANCE:
        return f"{wav} has {seconds:.2f} s, expected {expected:.2f} s"
    return problem


def stamp(wav: str) -> list[int]:
    """Return what changes with a recording: its size and time of change.

    Example
    -------
    >>> stamp("missing.wav")
    [0, 0]
    """
    try:
        status = os.stat(wav)
    except (OSError, ValueError):  # no path at all
        return [0, 0]
    return [status.st_size, status.st_mtime_ns]


def check_recording(wav: str) -> tuple[float, str | None]:
    """Read a recording as a whole.

    Returns
    -------
    (float, str or None)
        The seconds that can be read, and what is wrong.

    Example
    -------
    >>> check_recording("missing.wav")
    (0.0, 'no such audio file: missing.wav...')
    """
    loudest, samples = 0.0, 0
    try:
        for window in read_windows(wav):
            loudest = max(loudest, float(window.abs().max()))
            samples += len(window)
    except Exception as error:  # what a damaged file raises is not defined
        return 0.0, str(error)
    problem = f"{wav} is silence" if loudest <= _SILENCE else None
    return samples / SAMPLE_RATE, problem


@dataclass
class Report:
    """What is wrong with utterances: the first by name, all by number.

    Example
    -------
    >>> from dataclasses import asdict
    >>> report = Report()
    >>> report.leave_out("a", "its text is empty")
    >>> Report(**asdict(report)) == report
    True
    """

    left_out: int = 0
    named: list[str] = field(default_factory=list)
    wordless: int = 0
    named_wordless: list[str] = field(default_factory=list)

    def leave_out(self, name: str, problem: str) -> None:
        """Note an utterance that cannot be used."""
        self += Report(1, [f"{name} is left out: {problem}"])

    def without_words(self, name: str, problem: str) -> None:
        """Note an utterance whose words have no times."""
        self += Report(0, [], 1, [f"{name} has no word times: {problem}"])

    def __iadd__(self, other: Report) -> Report:
        """Add what another one has noted."""
        self.left_out += other.left_out
        self.wordless += other.wordless
        for named, more in (
            (self.named, other.named),
            (self.named_wordless, other.named_wordless),
        ):
            # Names of files may hold bytes that are no text.
            named += [
                text.encode("utf-8", "backslashreplace").decode()
                for text in more[: _MOST_NAMED - len(named)]
            ]
        return self

    def log(self, manifest: str, utterances: int) -> None:
        """Say it of a manifest of so many utterances."""
        for text in (*self.named, *self.named_wordless):
            logger.warning("%s: %s", manifest, text)
        for count, named, what in (
            (self.left_out, self.named, "are left out"),
            (self.wordless, self.named_wordless, "have no word times"),
        ):
            if count:
                logger.warning(
                    "%s: %d of %d utterances %s%s",
                    *(manifest, count, utterances, what),
                    ", the first of which are named above"
                    if count > len(named)
                    else "",
                )
