"""A model that continues the prompts of STSP."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from torch import Tensor

from spiritlm_plugin.dataio.audio.reading import read_audio
from spiritlm_plugin.dataio.audio.writing import write_wav
from spiritlm_plugin.dataio.batching import spread
from spiritlm_plugin.dataio.corpus.stsp import (
    DIRECTIONS,
    Record,
)
from spiritlm_plugin.dataio.units.segments import Segment, Speech, Text
from spiritlm_plugin.dataio.units.units import MIN_SAMPLES
from spiritlm_plugin.evaluation.loop import (
    answer_row,
    item_seeds,
)
from spiritlm_plugin.evaluation.sentiment_benchmark import (
    Benchmark,
    Classifiers,
    Condition,
    SentimentSettings,
)
from spiritlm_plugin.inference.continuation import Continuer
from spiritlm_plugin.inference.few_shot import TOO_LONG, Answer
from spiritlm_plugin.inference.generation import Generation, speech_of
from spiritlm_plugin.inference.protocols import InterleavedModel
from spiritlm_plugin.utils.files import safe_file_name
from spiritlm_plugin.utils.seeds import derive_seed

# Why there is no answer to a prompt without words.
NO_WORDS = "no_words"


class Continuation:
    """A model that continues prompts, judged; called with ids: rows.

    Arguments
    ---------
    hparams : SentimentSettings
        The recipe's.
    lm : InterleavedModel
        The model.
    classifiers : dict
        By modality.
    benchmark : Benchmark
        What is asked.
    """

    def __init__(
        self,
        hparams: SentimentSettings,
        lm: InterleavedModel,
        classifiers: Classifiers,
        benchmark: Benchmark,
    ):
        self.hparams, self.lm = hparams, lm
        self.classifiers = classifiers
        self.benchmark = benchmark
        self.folder = Path(hparams["output_folder"]) / "wavs"
        self.folder.mkdir(exist_ok=True)
        self._units: dict[Path, Segment] = {}
        self._continuer: tuple[Condition, Continuer] | None = None
        self._kept = {
            record.id
            for records in benchmark.records.values()
            for record in spread(records, hparams["sample_count"])
        }

    def __call__(self, names: list[str]) -> Iterator[dict[str, Any]]:
        """Yield the answers to some questions."""
        for condition, some in groupby(
            names, key=lambda name: self.benchmark.questions[name][0]
        ):
            yield from self.ask(condition, list(some))

    def ask(
        self, condition: Condition, names: list[str]
    ) -> Iterator[dict[str, Any]]:
        """Yield the answers to questions of one condition."""
        hparams, output = self.hparams, DIRECTIONS[condition.direction].output
        records = [self.benchmark.questions[name][1] for name in names]
        seeds = item_seeds(hparams["seed"], names)
        answers = self._answers(condition, records, seeds)
        said = [said_in(answer, output) for answer in answers]
        found = self.classifiers[output](said)
        shown = [shot.id for shot in self.benchmark.shots[condition]]
        for i, record in enumerate(records):
            if output == "speech" and not condition.run:
                self._keep(condition, record, said[i])
            yield answer_row(names[i], seeds[i], shown, answers[i]) | {
                "dataset": record.dataset,
                "sentiment": record.sentiment,
                "predicted": found[i],
                "continuation": said[i]
                if output == "text"
                else speech_of(answers[i].generation).to_string(),
            }

    def _answers(
        self, condition: Condition, records: list[Record], seeds: list[int]
    ) -> list[Answer]:
        """Continue prompts, anew where nothing is said, so often as allowed."""
        output = DIRECTIONS[condition.direction].output
        answers = [Answer(Generation([], NO_WORDS), 0) for _ in records]
        left = [i for i, record in enumerate(records) if record.has_words]
        for attempt in range(self.hparams["tries"]):
            if not left:
                break
            found = self._continuer_of(condition)(
                self._segments([records[i] for i in left]),
                [_seed_of(seeds[i], attempt) for i in left],
                self.hparams["speaker"],
            )
            for i, answer in zip(left, found):
                answers[i] = answer
            left = [
                i
                for i in left
                if is_empty(said_in(answers[i], output))
                and answers[i].generation.end_reason != TOO_LONG
            ]
        return answers

    def _continuer_of(self, condition: Condition) -> Continuer:
        if self._continuer is None or self._continuer[0] != condition:
            direction = DIRECTIONS[condition.direction]
            shots = [
                (
                    half(shot.prompt, direction.prompt, 0),
                    half(shot.generation, direction.output, 1),
                )
                for shot in self.benchmark.shots[condition]
            ]
            continuer = Continuer(
                self.lm,
                shots,
                direction.output,
                self.hparams["max_new_tokens"][condition.direction],
                temperature=self.hparams["temperature"],
                context=self.hparams["context"],
                top_p=self.hparams["top_p"],
                batch_size=self.hparams["batch_size"],
            )
            self._continuer = condition, continuer
        return self._continuer[1]

    def _segments(self, records: Sequence[Record]) -> list[Segment]:
        """Return prompts; recordings are tokenized once for all runs."""
        prompts = [record.prompt for record in records]
        spoken = [prompt for prompt in prompts if isinstance(prompt, Path)]
        new = [path for path in spoken if path not in self._units]
        [units] = self.lm.with_units([[Speech(path) for path in new]])
        self._units |= zip(new, units)
        return [
            self._units[prompt] if isinstance(prompt, Path) else Text(prompt)
            for prompt in prompts
        ]

    def _keep(
        self, condition: Condition, record: Record, wav: Tensor | None
    ) -> None:
        if record.id in self._kept and wav is not None and len(wav):
            name = safe_file_name(f"{condition.name}_{record.id}")
            path = self.folder / f"{name}.wav"
            write_wav(path, wav)


def _seed_of(seed: int, attempt: int) -> int:
    """Return the seed of an attempt; the first has the question's own."""
    return derive_seed(seed, attempt) if attempt else seed


def said_in(answer: Answer, output: str) -> Any:
    """Return the text of an answer, or its waveform."""
    return answer.text if output == "text" else answer.generation.wav


def is_empty(said: str | Tensor | None) -> bool:
    """Tell whether there is nothing to judge: no words, or under 80 ms.

    Example
    -------
    >>> is_empty(" "), is_empty("oh"), is_empty(None)
    (True, False, True)
    """
    if isinstance(said, str):
        return not said.strip()
    return said is None or len(said) < MIN_SAMPLES


def half(content: Any, modality: str, which: int) -> Segment:
    """Return a text, or the first or second half of a recording."""
    if modality == "text":
        return Text(content)
    wav = read_audio(content)
    middle = len(wav) // 2
    return Speech(wav[middle:] if which else wav[:middle])
