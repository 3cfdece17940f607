"""The archive of the STSP benchmark: prompts with a sentiment, and shots.

STSP asks whether a model keeps the sentiment of a prompt when it continues it,
in the same modality or the other one (Nguyen et al., "SpiRit-LM", TACL 2025).
"""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from glob import escape
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from spiritlm_plugin.dataio.audio.reading import audio_seconds
from spiritlm_plugin.dataio.units.units import MIN_SAMPLES, SAMPLE_RATE
from spiritlm_plugin.utils.files import read_lines
from spiritlm_plugin.utils.seeds import derive_seed

logger = logging.getLogger(__name__)

SENTIMENTS = ("negative", "neutral", "positive")
SENTIMENT_OF = {
    "happy": "positive",
    "amused": "positive",
    "sad": "negative",
    "angry": "negative",
    "default": "neutral",
    "neutral": "neutral",
}
MODALITIES = ("text", "speech")
_NUMBER = re.compile(r"[+-]?\d+", re.ASCII)


class Direction(NamedTuple):
    """What is continued in what."""

    name: str
    prompt: str
    output: str


DIRECTIONS = {
    "t2t": Direction("T→T", "text", "text"),
    "t2s": Direction("T→S", "text", "speech"),
    "s2s": Direction("S→S", "speech", "speech"),
    "s2t": Direction("S→T", "speech", "text"),
}


class ArchiveError(ValueError):
    """An archive that cannot be used."""


@dataclass(frozen=True)
class Record:
    """A prompt.

    Arguments
    ---------
    id : str
        As predictions name it; see `record_id`.
    dataset : str
        Such as ``"emov"``.
    sentiment : str
        Of `SENTIMENTS`.
    prompt : str or Path
        A text, which is empty where the archive has no words, or a recording.
    speaker : str, optional
        Where the archive names one.
    """

    id: str
    dataset: str
    sentiment: str
    prompt: str | Path
    speaker: str | None = None

    @property
    def has_words(self) -> bool:
        """Whether there is anything to continue."""
        return self.prompt != ""


@dataclass(frozen=True)
class Shot:
    """A prompt with a continuation that keeps its sentiment.

    Arguments
    ---------
    id : str
        Its line in the file.
    sentiment : str
        Of `SENTIMENTS`.
    prompt, generation : str or Path
        Texts, or recordings, of which the first half is the prompt and the
        second half the generation.
    """

    id: str
    sentiment: str
    prompt: str | Path
    generation: str | Path


class STSPArchive:
    """The unpacked archive.

    It holds ``data`` (audio), ``model`` (classifiers) and ``manifest``, with
    ``<folder>/<dataset>.<split>.jsonl`` and
    ``few_shot/{t2t,t2s,s2s,s2t}.jsonl``. Whatever is read is checked, so that
    nothing is computed on records that cannot be used. Texts without words are
    among the real ones; they are records like others, counted in a warning.

    Arguments
    ---------
    folder : str or Path
        Of the archive.

    Raises
    ------
    FileNotFoundError
        If there is no ``manifest`` in it.

    Example
    -------
    >>> (tmp / "manifest" / "emov").mkdir(parents=True)
    >>> record = {"id": 7, "emotion": "amused", "wav_path": recording}
    >>> manifest = tmp / "manifest" / "emov" / "emov.test.jsonl"
    >>> _ = manifest.write_text(json.dumps(record))
    >>> [found] = STSPArchive(tmp).records(["emov"], "test", "speech")
    >>> found.id, found.sentiment
    ('7', 'positive')
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self._shots: dict[str, list[Shot]] = {}
        if not (self.folder / "manifest").is_dir():
            raise FileNotFoundError(
                f"no folder manifest in {self.folder}; unpack the STSP archive "
                "there, or prepare a corpus in its layout"
            )

    def records(
        self, datasets: Iterable[str], split: str, modality: str
    ) -> list[Record]:
        """Return the prompts of some datasets.

        Arguments
        ---------
        datasets : iterable of str
            Such as ``["emov", "expresso_read"]``.
        split : str
            ``"train"``, ``"dev"`` or ``"test"``.
        modality : str
            ``"text"`` reads ``asr``, ``"speech"`` reads ``wav_path``.

        Raises
        ------
        FileNotFoundError
            If there is no such manifest.
        ArchiveError
            Naming the record that is not complete, has a recording that is
            missing or damaged, an unknown emotion, or an id twice.
        """
        found: list[Record] = []
        for dataset in datasets:
            read = partial(self._record, dataset, modality)
            records = _read_lines(self._manifest(dataset, split), read)
            silent = [record.id for record in records if not record.has_words]
            if silent:
                logger.warning(
                    "%s.%s has %d of %d records without words, such as %s",
                    dataset,
                    split,
                    len(silent),
                    len(records),
                    silent[0],
                )
            found += records
        counts = Counter(record.id for record in found)
        twice = [r for r in found if counts[r.id] > 1]
        if twice:
            raise ArchiveError(
                f"the id {twice[0].id} of {twice[0].dataset}.{split} is there "
                f"{counts[twice[0].id]} times; give each record its own"
            )
        return found

    def shots(self, direction: str) -> list[Shot]:
        """Return the shots of a direction of `DIRECTIONS`.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ArchiveError
            Naming the line that cannot be used.
        """
        if direction not in self._shots:
            read = partial(self._shot, DIRECTIONS[direction])
            path = self._shot_file(direction)
            self._shots[direction] = _read_lines(path, read)
        return self._shots[direction]

    def draw_shots(self, direction: str, count: int, seed: int) -> list[Shot]:
        """Draw shots as the benchmark does: as many of each sentiment.

        The negative ones stand first, then the neutral, then the positive. Of
        a number that three does not divide, one more of each is drawn than
        goes into it.

        Raises
        ------
        ArchiveError
            If there are too few of a sentiment; otherwise as `shots`.
        """
        each, drawn = -(-count // len(SENTIMENTS)), []
        for sentiment in SENTIMENTS if count else ():
            pool = [
                s for s in self.shots(direction) if s.sentiment == sentiment
            ]
            if len(pool) < each:
                raise ArchiveError(
                    f"{self._shot_file(direction)} has {len(pool)} "
                    f"{sentiment} shots, too few for {count} balanced ones; "
                    "add some, or lower the number of shots"
                )
            # A run's 3 shots are among its 6.
            Random(derive_seed(seed, "shots", sentiment)).shuffle(pool)
            drawn += pool[:each]
        return drawn

    def _manifest(self, dataset: str, split: str) -> Path:
        name = f"{dataset}.{split}.jsonl"
        found = sorted((self.folder / "manifest").glob(f"*/{escape(name)}"))
        if len(found) != 1:
            there = sorted((self.folder / "manifest").glob("*/*.jsonl"))
            names = ", ".join(path.name for path in there) or "none"
            raise FileNotFoundError(
                f"{len(found) or 'no'} files {name} in the folders of "
                f"{self.folder / 'manifest'}; there are {names}: name a dataset "
                "and a split that is there once"
            )
        return found[0]

    def _shot_file(self, direction: str) -> Path:
        return self.folder / "manifest" / "few_shot" / f"{direction}.jsonl"

    def _record(
        self, dataset: str, modality: str, row: dict, number: int
    ) -> Record:
        spoken = modality == "speech"
        speaker = row.get("speaker")
        return Record(
            record_id(row.get("id")),
            dataset,
            # What a voice expresses is not what its words say.
            _sentiment(row, spoken),
            self._part(row, "wav_path", modality) if spoken else _words(row),
            None if speaker is None else str(speaker),
        )

    def _shot(self, direction: Direction, row: dict, number: int) -> Shot:
        # Halves of recordings are taken.
        samples = 2 * MIN_SAMPLES
        return Shot(
            str(number),
            _sentiment(row, False),
            self._part(row, "prompt", direction.prompt, samples),
            self._part(row, "generation", direction.output, samples),
        )

    def _part(
        self, row: dict, key: str, modality: str, samples: int = MIN_SAMPLES
    ) -> str | Path:
        content = row.get(key)
        if not isinstance(content, str) or not content.strip():
            raise ValueError(f"its {key} is {content!r}")
        if modality == "text":
            return content.strip()
        path = self.folder / "data" / content
        seconds = audio_seconds(path)
        if seconds < samples / SAMPLE_RATE:
            raise ValueError(f"{path} has {seconds} s, too few")
        return path


def read_texts(
    folder: str | Path, datasets: Iterable[str], split: str = "train"
) -> list[str]:
    """Return the texts of some datasets; see `STSPArchive.records`."""
    records = STSPArchive(folder).records(datasets, split, "text")
    return [str(record.prompt) for record in records]


def _read_lines(path: Path, read: Callable[[dict, int], Any]) -> list:
    if not path.is_file():
        raise FileNotFoundError(
            f"no such file: {path}; unpack the whole STSP archive"
        )
    found, problems = [], []
    for number, line in _lines(path):
        try:
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError(f"{line:.60} is not a record {{...}}")
            found.append(read(row, number))
        except (OSError, ValueError) as error:
            problems.append(f"line {number}: {error}")
    if problems:
        raise ArchiveError(
            f"{path} has {len(problems)} records that cannot be used, such as "
            f"{problems[0]}; correct or remove them"
        )
    if not found:
        raise ArchiveError(f"{path} is empty; unpack the archive again")
    return found


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        lines = read_lines(path)
    except ValueError as error:
        raise ArchiveError(str(error)) from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield number, line


def record_id(value: Any) -> str:
    """Return an id as it is compared: a number, as a string or not, is one.

    Arguments
    ---------
    value : int or str
        The benchmark's are signed numbers of 64 bits.

    Raises
    ------
    ValueError
        If it is anything else.

    Example
    -------
    >>> record_id(-17), record_id("-17"), record_id("a17")
    ('-17', '-17', 'a17')
    """
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise ValueError(f"its id is {value!r}, not a number or a string")
    name = str(value).strip()
    return str(int(name)) if _NUMBER.fullmatch(name) else name


def sentiment_of(label: Any) -> str | None:
    """Return the sentiment that a label means, None if it is unknown.

    Arguments
    ---------
    label : str
        A sentiment or an emotion, in any case.

    Example
    -------
    >>> sentiment_of("Angry"), sentiment_of("neutral"), sentiment_of("sleepy")
    ('negative', 'neutral', None)
    """
    name = str(label).strip().lower()
    return name if name in SENTIMENTS else SENTIMENT_OF.get(name)


def _words(row: dict) -> str:
    """Return the text of a record; some have none."""
    content = row.get("asr")
    if content is None:
        return ""
    if not isinstance(content, str):
        raise ValueError(f"its asr is {content!r}")
    return content.strip()


def _sentiment(row: dict, spoken: bool) -> str:
    """Return the sentiment that is stated, or that the emotion means."""
    sentiment, emotion = row.get("sentiment"), row.get("emotion")
    if sentiment is not None and sentiment not in SENTIMENTS:
        raise ValueError(
            f"the sentiment {sentiment!r} of record {row.get('id')} is not "
            f"one of {', '.join(SENTIMENTS)}"
        )
    meant = SENTIMENT_OF.get(emotion) if isinstance(emotion, str) else None
    if sentiment is None:
        if meant is None:
            raise ValueError(
                f"the emotion {emotion!r} of record {row.get('id')} is "
                f"unknown; known are {', '.join(SENTIMENT_OF)}"
            )
        return meant
    if spoken and meant not in (None, sentiment):
        raise ValueError(
            f"the emotion {emotion!r} of record {row.get('id')} is "
            f"{meant}, its sentiment {sentiment!r}"
        )
    return sentiment
