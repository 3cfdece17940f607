"""Preferences: two answers to a prompt, of which one is better."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from spiritlm_plugin.dataio.units.segments import SEGMENTS, Segment, Text
from spiritlm_plugin.dataio.units.units import SpeechStream
from spiritlm_plugin.dataio.units.vocabulary import Vocabulary, check_output
from spiritlm_plugin.utils.files import read_lines, write_file

# What text goes on in, of all outputs.
_WRITTEN = ("text", "asr")


class PreferenceError(ValueError):
    """A file of preferences that cannot be used."""


@dataclass(frozen=True)
class Candidate:
    """An answer to a prompt.

    Arguments
    ---------
    segments : list of segments
        Text and speech, whose content is units; there may be none.
    ended : bool
        Whether the end of the sequence stands behind it; an answer that was
        cut has none.
    score : float, optional
        What a judge says of it, more is better; None is worse than any.
    """

    segments: list[Segment]
    ended: bool
    score: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "segments": plain_segments(self.segments),
            "ended": self.ended,
            "score": self.score,
        }

    @classmethod
    def from_json(cls, row: Any) -> Candidate:
        """Return what `to_json` has written.

        Raises
        ------
        ValueError
            If it is something else.
        """
        segments = read_segments(_value(row, "segments", list))
        score = row.get("score")
        if score is not None and not _is_number(score):
            raise ValueError(f"its score is {score!r:.60}, no number")
        return cls(segments, _value(row, "ended", bool), score)


@dataclass(frozen=True)
class Pair:
    """A prompt with a better and a worse answer.

    Arguments
    ---------
    id : str
        Of the prompt.
    prompt : list of segments
        Their speech is units.
    output : str
        As of `SpiritLM.generate`, or ``"asr"`` or ``"tts"``.
    chosen, rejected : Candidate
        The better answer and the worse one.

    Example
    -------
    >>> chosen = Candidate([Speech(SpeechStream.from_string("[Hu3]"))], True)
    >>> pair = Pair("1", [Text("a cat")], "speech", chosen, Candidate([], True))
    >>> pair.to_json()["chosen"]
    {'segments': [['speech', '[Hu3]']], 'ended': True, 'score': None}
    >>> Pair.from_json(pair.to_json()).rejected
    Candidate(segments=[], ended=True, score=None)
    """

    id: str
    prompt: list[Segment]
    output: str
    chosen: Candidate
    rejected: Candidate

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "id": self.id,
            "prompt": plain_segments(self.prompt),
            "output": self.output,
            "chosen": self.chosen.to_json(),
            "rejected": self.rejected.to_json(),
        }

    @classmethod
    def from_json(cls, row: Any) -> Pair:
        """Return what `to_json` has written.

        Raises
        ------
        ValueError
            If it is something else, or there is no prompt.
        """
        prompt = read_segments(_value(row, "prompt", list))
        if not prompt:
            raise ValueError("its prompt is empty")
        output = _value(row, "output", str)
        check_output(output)
        answers = (
            Candidate.from_json(_value(row, name, dict))
            for name in ("chosen", "rejected")
        )
        return cls(str(row.get("id", "")), prompt, output, *answers)


def plain_segments(segments: Iterable[Segment]) -> list[list[str]]:
    """Return segments as pairs of a marker and a text or units.

    Example
    -------
    >>> plain_segments([Text("a [Hu1]"), Speech(SpeechUnits([3, 3]))])
    [['text', 'a [Hu1]'], ['speech', '[Hu3]']]
    """
    return [
        [s.marker, s.text if isinstance(s, Text) else s.stream.to_string()]
        for s in segments
    ]


def read_segments(rows: Iterable[Any]) -> list[Segment]:
    """Return the segments of `plain_segments`.

    Raises
    ------
    ValueError
        If they are none.

    Example
    -------
    >>> read_segments([["text", "a"], ["speech", "[Hu3]"]])
    [Text(text='a'), Speech(1 phonetic units)]
    >>> read_segments([["speech", "a.wav"]])
    Traceback (most recent call last):
        ...
    ValueError: speech is written in units, as [Hu3][Pi1], got 'a.wav'
    """
    return [_segment(row) for row in rows]


def _segment(row: Any) -> Segment:
    fits = isinstance(row, (list, tuple)) and len(row) == 2
    if not fits or not all(isinstance(part, str) for part in row):
        raise ValueError(f"no segment: {row!r:.60}; write ['text', '...']")
    marker, content = row
    if marker not in SEGMENTS:
        raise ValueError(
            f"no such segment: {marker!r}; there are {', '.join(SEGMENTS)}"
        )
    kind = SEGMENTS[marker]
    if issubclass(kind, Text):
        return kind(content)
    stream = SpeechStream.from_string(content)
    if stream.to_string() != content:
        raise ValueError(
            f"speech is written in units, as [Hu3][Pi1], got {content!r:.60}"
        )
    return kind(stream)


def _is_number(value: Any) -> bool:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and math.isfinite(value)


def _value(row: Any, key: str, kind: type) -> Any:
    value = row.get(key) if isinstance(row, dict) else None
    if not isinstance(value, kind):
        raise ValueError(f"its {key} is {value!r:.60}, no {kind.__name__}")
    return value


def write_pairs(path: str | Path, pairs: Iterable[Pair]) -> None:
    """Write pairs, a line of JSON for each.

    Example
    -------
    >>> pair = Pair("1", [Text("a")], "text", *[Candidate([], True)] * 2)
    >>> write_pairs(tmp / "train.jsonl", [pair])
    >>> read_pairs(tmp / "train.jsonl") == [pair]
    True
    """
    lines = (json.dumps(p.to_json(), ensure_ascii=False) for p in pairs)
    write_file(path, "".join(f"{line}\n" for line in lines))


def read_pairs(path: str | Path) -> list[Pair]:
    """Read what `write_pairs` has written.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    PreferenceError
        Naming the line that is no pair; or if there are none.
    """
    path, pairs = Path(path), []
    if not path.is_file():
        raise FileNotFoundError(
            f"no such file: {path}; make pairs with make_pairs.py"
        )
    for number, line in enumerate(read_lines(path), 1):
        if not line.strip():
            continue
        try:
            pairs.append(Pair.from_json(json.loads(line)))
        except (TypeError, ValueError) as error:
            raise PreferenceError(
                f"{path}, line {number}: no pair ({error}); correct or remove "
                "it"
            ) from error
    if not pairs:
        raise PreferenceError(
            f"{path} has no pairs: no two answers differ enough; draw more, or "
            "lower the margin"
        )
    return pairs


class Tokens(NamedTuple):
    """The ids of a pair, each int32 and of shape (tokens,)."""

    context: np.ndarray
    chosen: np.ndarray
    rejected: np.ndarray

    @property
    def longest(self) -> int:
        """Tokens of the context with the longer answer."""
        return len(self.context) + max(len(self.chosen), len(self.rejected))

    @property
    def differs(self) -> bool:
        """Whether the answers are two."""
        return not np.array_equal(self.chosen, self.rejected)


def tokens_of(pair: Pair, vocabulary: Vocabulary) -> Tokens:
    """Return the ids of a pair.

    The marker that an output stands behind belongs to the context, as where
    a model is asked; in an output of ``"any"`` it is the answer's own.

    Arguments
    ---------
    pair : Pair
        Of any text and speech.
    vocabulary : Vocabulary
        Of the language model.

    Raises
    ------
    ValueError
        If an answer is not of the modality that the output names, has no
        token at all, or a unit is out of range.

    Example
    -------
    >>> vocabulary = Vocabulary.extend(example_text_tokenizer(), phonetic=9)
    >>> answers = [Candidate([Speech(SpeechUnits([3]))], True),
    ...            Candidate([], True)]
    >>> tokens = tokens_of(Pair("1", [Text("a")], "speech", *answers), vocabulary)
    >>> [len(ids) for ids in tokens], tokens.longest
    ([5, 2, 1], 7)
    """
    context = vocabulary.encode(pair.prompt, pair.output)
    answer = partial(_answer_ids, pair, vocabulary)
    found = context, answer(pair.chosen), answer(pair.rejected)
    return Tokens(*(np.array(ids, np.int32) for ids in found))


def _answer_ids(
    pair: Pair, vocabulary: Vocabulary, answer: Candidate
) -> list[int]:
    ids: list[int] = []
    if answer.segments:
        marker, ids = vocabulary.encode_continuation(answer.segments)
        if pair.output == "any":
            if marker != pair.prompt[-1].marker:
                ids = [vocabulary.markers[marker], *ids]
        elif (marker in _WRITTEN) != (pair.output in _WRITTEN):
            raise ValueError(
                f"an answer of pair {pair.id!r} is {marker}, its output "
                f"{pair.output}; correct one of the two"
            )
    if answer.ended:
        ids = [*ids, vocabulary.eos_id]
    if not ids:
        raise ValueError(
            f"an answer of pair {pair.id!r} has no token, not even an end; "
            "leave the pair out"
        )
    return ids


def best_and_worst(
    candidates: Sequence[Candidate], margin: float
) -> tuple[Candidate, Candidate] | None:
    """Return the best and the worst answer, if they differ enough.

    Of answers with the same score it is the first one.

    Arguments
    ---------
    candidates : sequence of Candidate
        Answers to one prompt.
    margin : float
        Of their scores; those of a pair differ in any case.

    Example
    -------
    >>> drawn = [Candidate([], True, score) for score in (0.5, 0.9, 0.1)]
    >>> [answer.score for answer in best_and_worst(drawn, 0.5)]
    [0.9, 0.1]
    >>> best_and_worst(drawn, 0.9) is None
    True
    """
    if not candidates:
        return None
    best, worst = max(candidates, key=_merit), min(candidates, key=_merit)
    differ = _merit(best) - _merit(worst)  # no number where both have none
    return (best, worst) if differ > 0 and differ >= margin else None


def _merit(candidate: Candidate) -> float:
    return -math.inf if candidate.score is None else candidate.score
