"""The archive of the STSP benchmark: prompts with a sentiment, and shots.

STSP asks whether a model keeps the sentiment of a prompt when it continues it,
in the same modality or the other one (Nguyen et al., "SpiRit-LM", TACL 2025).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from spiritlm_plugin.dataio.audio.reading import audio_seconds
from spiritlm_plugin.dataio.units.prompts import draw_shots
from spiritlm_plugin.dataio.units.units import MIN_SAMPLES, SAMPLE_RATE
from spiritlm_plugin.utils.seeds import derive_seed

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
        As predictions name it; numbers become strings.
    dataset : str
        Such as ``"emov"``.
    sentiment : str
        Of `SENTIMENTS`.
    prompt : str or Path
        A text, or a recording.
    """

    id: str
    dataset: str
    sentiment: str
    prompt: str | Path


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
    nothing is computed on records that cannot be used.

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
            found += _read_lines(self._manifest(dataset, split), read)
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
        """Draw shots, balanced over the sentiments, in any order.

        Raises
        ------
        ArchiveError
            If there are too few of a sentiment; otherwise as `shots`.
        """
        if not count:
            return []
        pool = {shot.id: shot for shot in self.shots(direction)}
        labels = {name: shot.sentiment for name, shot in pool.items()}
        held = Counter(labels.values())
        for sentiment in SENTIMENTS:
            if held[sentiment] < -(-count // len(SENTIMENTS)):
                raise ArchiveError(
                    f"{self._shot_file(direction)} has {held[sentiment]} "
                    f"{sentiment} shots, too few for {count} balanced ones; "
                    "add some, or lower the number of shots"
                )
        names = draw_shots(labels, count, seed, labels)
        # A class that is always shown last would be preferred.
        Random(derive_seed(seed, count, "order")).shuffle(names)
        return [pool[name] for name in names]

    def _manifest(self, dataset: str, split: str) -> Path:
        name = f"{dataset}.{split}.jsonl"
        found = sorted((self.folder / "manifest").glob(f"*/{name}"))
        if len(found) != 1:
            raise FileNotFoundError(
                f"{len(found) or 'no'} files {name} in the folders of "
                f"{self.folder / 'manifest'}; name a dataset and a split that "
                "is there once"
            )
        return found[0]

    def _shot_file(self, direction: str) -> Path:
        return self.folder / "manifest" / "few_shot" / f"{direction}.jsonl"

    def _record(
        self, dataset: str, modality: str, row: dict, number: int
    ) -> Record:
        spoken = modality == "speech"
        return Record(
            _id(row),
            dataset,
            # What a voice expresses is not what its words say.
            _sentiment(row, spoken),
            self._part(row, "wav_path" if spoken else "asr", modality),
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
    content = path.read_text(encoding="utf-8")
    for number, line in enumerate(content.split("\n"), 1):
        if line.strip():
            yield number, line


def _id(row: dict) -> str:
    name = row.get("id")
    if isinstance(name, bool) or not isinstance(name, (int, str)):
        raise ValueError(f"its id is {name!r}, not a number or a string")
    return str(name)


def _sentiment(row: dict, spoken: bool) -> str:
    sentiment, emotion = row.get("sentiment"), row.get("emotion")
    if sentiment is None or (spoken and emotion is not None):
        if emotion not in SENTIMENT_OF:
            raise ValueError(
                f"the emotion {emotion!r} of record {row.get('id')} is "
                f"unknown; known are {', '.join(SENTIMENT_OF)}"
            )
        if sentiment not in (None, SENTIMENT_OF[emotion]):
            raise ValueError(
                f"the emotion {emotion!r} of record {row.get('id')} is "
                f"{SENTIMENT_OF[emotion]}, its sentiment {sentiment!r}"
            )
        return SENTIMENT_OF[emotion]
    if sentiment not in SENTIMENTS:
        raise ValueError(
            f"the sentiment {sentiment!r} of record {row.get('id')} is not "
            f"one of {', '.join(SENTIMENTS)}"
        )
    return sentiment
