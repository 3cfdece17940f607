"""What a language model says while it is trained."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from spiritlm_plugin.dataio.batching import spread
from spiritlm_plugin.dataio.stream.utterances import Utterance
from spiritlm_plugin.dataio.units.segments import Segment, Speech, Text
from spiritlm_plugin.dataio.units.units import SpeechUnits
from spiritlm_plugin.inference.few_shot import (
    READING_TEMPERATURE,
    Reader,
    Transcriber,
)
from spiritlm_plugin.inference.generation import speech_of
from spiritlm_plugin.inference.protocols import InterleavedModel
from spiritlm_plugin.metrics.recognition import WordErrorStats

# Tokens of an answer at most, by what it is an answer to.
_MOST = {"continuation": 200, "transcript": 100, "reading": 500}
_OUTPUTS = {"continuation": "speech", "transcript": "asr", "reading": "tts"}
_TEMPERATURES = {
    "continuation": 0.8,
    "transcript": 0.0,
    "reading": READING_TEMPERATURE,
}


class Sampler:
    """Lets a model continue, transcribe and read utterances of a corpus.

    Arguments
    ---------
    rows : datasets.Dataset or sequence of dict
        Of a tokenized corpus.
    forms : collection of str
        What the model is trained on, as of `DocumentMaker`: a model that was
        not trained on ``asr`` does not transcribe.
    count : int
        Utterances that it is asked about, evenly spread.
    judged : int
        Utterances that word errors are counted on, if the model transcribes.

    Example
    -------
    >>> rows = [{"text": "the cat", "phonetic_units": [1, 2, 3, 4]}]
    >>> sampler = Sampler(rows, ["speech"], count=1, judged=0)
    >>> lm = SpiritLM.from_release(checkpoints, "base")
    >>> [sample] = sampler.sample(lm)
    >>> sample["task"], len(sample["wav"]) > 0
    ('continuation', True)
    """

    def __init__(
        self,
        rows: Sequence[Mapping[str, Any]],
        forms: Collection[str],
        count: int,
        judged: int,
    ):
        self.tasks = []
        if {"speech", "interleaved", "words"} & set(forms):
            self.tasks.append("continuation")
        self.tasks += ["transcript"] if "asr" in forms else []
        self.tasks += ["reading"] if "tts" in forms else []
        self.rows = self._some(rows, count)
        self.judged = self._some(rows, judged if "asr" in forms else 0)

    def sample(
        self, lm: InterleavedModel, seed: int = 0
    ) -> list[dict[str, Any]]:
        """Return what the model says.

        Returns
        -------
        list of dict
            ``utterance``, ``task``, ``reference`` (what was said or is to be
            read), ``end_reason``, and ``text`` or ``wav``.
        """
        samples = []
        for task in self.tasks:
            asked = [(row, self._prompt(task, row, lm)) for row in self.rows]
            # Those that leave room for an answer.
            context = lm.context
            asked = [
                (row, prompt)
                for row, prompt in asked
                if len(lm.vocabulary.encode(prompt, _OUTPUTS[task])) < context
            ]
            answers = lm.generate(
                [prompt for _, prompt in asked],
                _OUTPUTS[task],
                max_new_tokens=_MOST[task],
                temperature=_TEMPERATURES[task],
                seed=seed,
            )
            for (row, _), answer in zip(asked, answers):
                sample = {
                    "utterance": row.get("utterance"),
                    "task": task,
                    "reference": row.get("text"),
                    "end_reason": answer.end_reason,
                }
                if task == "transcript":
                    sample["text"] = answer.text
                else:
                    sample["wav"] = answer.wav
                samples.append(sample)
        return samples

    def judge(self, lm: InterleavedModel) -> dict[str, float]:
        """Return word error rates, in percent.

        Utterances that are too long to be answered count as empty.

        Returns
        -------
        dict of str to float
            ``WER`` of transcripts; and, of a model that reads aloud,
            ``reading_WER`` of what it hears itself say.
        """
        if not self.judged:
            return {}
        spoken = [Speech(_units_of(row, lm)) for row in self.judged]
        figures = {"WER": self._error_rate(lm, spoken)}
        if "reading" in self.tasks:
            read = Reader(
                lm,
                max_new_tokens=_MOST["reading"],
                batch_size=len(self.judged),
            )
            queries = [self._prompt("reading", r, lm) for r in self.judged]
            _, readings = read.ask(queries, seeds=range(len(queries)))
            speech = [Speech(speech_of(reading)) for reading in readings]
            figures["reading_WER"] = self._error_rate(lm, speech)
        return figures

    def _error_rate(
        self, lm: InterleavedModel, speech: Sequence[Speech]
    ) -> float:
        """Compare transcripts of speech, which may be empty, with the texts."""
        transcribe = Transcriber(
            lm,
            trained=True,
            max_new_tokens=_MOST["transcript"],
            batch_size=len(self.judged),
        )
        heard = [""] * len(speech)
        asked = [i for i, s in enumerate(speech) if len(s.stream)]
        answers = transcribe([speech[i] for i in asked], [0] * len(asked))
        for i, answer in zip(asked, answers):
            heard[i] = answer.text
        errors = WordErrorStats()
        texts = [row["text"] for row in self.judged]
        errors.append([str(i) for i in range(len(texts))], heard, texts)
        return errors.summarize("WER")

    def _prompt(
        self, task: str, row: Mapping[str, Any], lm: InterleavedModel
    ) -> list[Segment]:
        if task == "reading":
            return [Text(row["text"])]
        units = _units_of(row, lm)
        if task == "continuation":
            units = units.cut(0.0, units.duration / 2)
        return [Speech(units)]

    @staticmethod
    def _some(rows: Sequence, count: int) -> list[Mapping[str, Any]]:
        # The rows of a corpus are read where they are asked for.
        places = spread(range(len(rows)), count) if count else []
        return [rows[i] for i in places]


def _units_of(row: Mapping[str, Any], lm: InterleavedModel) -> SpeechUnits:
    """Return the units of an utterance that the model has tokens for."""
    return Utterance.from_row(row, lm.vocabulary.expressive).spoken()
