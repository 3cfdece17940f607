"""What a model is asked for preferences, and who judges its answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from spiritlm_plugin.dataio.audio.reading import read_audio
from spiritlm_plugin.dataio.batching import spread
from spiritlm_plugin.dataio.corpus.manifests import load_manifest
from spiritlm_plugin.dataio.corpus.stsp import (
    DIRECTIONS,
    SENTIMENTS,
    STSPArchive,
)
from spiritlm_plugin.dataio.units.segments import (
    Segment,
    Speech,
    Text,
    Transcript,
)
from spiritlm_plugin.dataio.units.units import MIN_SAMPLES, SAMPLE_RATE
from spiritlm_plugin.evaluation.continuation import split_text
from spiritlm_plugin.evaluation.sentiment_continuation import is_empty
from spiritlm_plugin.evaluation.tts import listen
from spiritlm_plugin.inference.generation import Generation
from spiritlm_plugin.inference.protocols import InterleavedModel
from spiritlm_plugin.metrics.generative import load_judge
from spiritlm_plugin.metrics.recognition import (
    WordErrorStats,
    load_recognizer,
)
from spiritlm_plugin.metrics.sentiment_classifiers import (
    SpeechClassifier,
    TextClassifier,
    extract,
    load_classifier,
    tokenize,
)
from spiritlm_plugin.utils.arguments import number, whole_number


class Prompt(NamedTuple):
    """A text, or the path of a recording, and what a judge has to know of it."""

    content: str | Path
    wanted: str


@dataclass(kw_only=True)
class PreferenceTask(ABC):
    """Prompts, and a judge of the answers to them.

    A task of one's own inherits from it, and stands in the YAML file.

    Arguments
    ---------
    max_new_tokens : int
        Of an answer.
    prompts : int, optional
        So many, evenly spread; all if None.
    margin : float
        By which the scores of a better and a worse answer differ at least.

    Raises
    ------
    TypeError, ValueError
        If one is no number, or out of range.
    """

    max_new_tokens: int
    prompts: int | None = None
    margin: float = 0.0

    def __post_init__(self) -> None:
        whole_number("max_new_tokens", self.max_new_tokens)
        if self.prompts is not None:
            whole_number("prompts", self.prompts)
        if number("margin", self.margin) < 0:
            raise ValueError(f"margin must be 0 or more, got {self.margin}")

    @property
    @abstractmethod
    def output(self) -> str:
        """What answers are made of, as of `SpiritLM.generate`."""

    @property
    def listens(self) -> bool:
        """Whether the judge hears waveforms."""
        return self.output not in ("text", "asr")

    @abstractmethod
    def ask(self) -> dict[str, Prompt]:
        """Return the prompts by their names."""

    def heard(self, samples: int) -> int:
        """Return how much of a recording is the prompt, in samples."""
        return samples

    def segments(self, prompt: Prompt) -> list[Segment]:
        """Return what the model goes on from; recordings are read."""
        if isinstance(prompt.content, str):
            return [Text(prompt.content)]
        wav = read_audio(prompt.content)
        return [Speech(wav[: self.heard(len(wav))])]

    @abstractmethod
    def judge(
        self,
        lm: InterleavedModel,
        prompts: Sequence[Prompt],
        answers: Sequence[Generation],
    ) -> list[float | None]:
        """Return a score of each answer, more where it is better.

        None is worse than any, as of an answer that says nothing. A score
        must not depend on the other answers.

        Arguments
        ---------
        lm : InterleavedModel
            The model itself, which may judge as well.
        prompts : sequence of Prompt
            One for each answer.
        answers : sequence of Generation
            With waveforms if the judge `listens`; they may be empty.
        """


@dataclass(kw_only=True)
class SentimentTask(PreferenceTask):
    """Continuations that have the sentiment of their prompt.

    The score is the probability of the sentiment, by a classifier.

    Arguments
    ---------
    data_folder : str
        An archive in the layout of STSP.
    direction : str
        Of `DIRECTIONS`.
    classifier : str
        Of what is said, as of `load_classifier`.
    labels : list of str, optional
        Of its outputs.
    datasets : list of str, optional
        What prompts are taken from; by default they are the shots of the
        direction, whose words and voice agree.
    split : str
        Of the datasets.
    share : float
        Of a recording, which is the prompt.
    """

    data_folder: str
    direction: str
    classifier: str
    labels: list[str] | None = None
    datasets: list[str] | None = None
    split: str = "train"
    share: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_direction(self.direction)
        if not 0 < number("share", self.share) <= 1:
            raise ValueError(
                f"share is of a recording, more than 0 and 1 at most, got "
                f"{self.share}"
            )

    @property
    def output(self) -> str:
        """Text or speech."""
        return DIRECTIONS[self.direction].output

    def ask(self) -> dict[str, Prompt]:
        """Return as many prompts of each sentiment, where there are so many."""
        archive = STSPArchive(self.data_folder)
        if self.datasets:
            modality = DIRECTIONS[self.direction].prompt
            found: Sequence[Any] = archive.records(
                self.datasets, self.split, modality
            )
        else:
            found = archive.shots(self.direction)
        each = self.prompts and -(-self.prompts // len(SENTIMENTS))
        return {
            item.id: Prompt(item.prompt, sentiment)
            for sentiment in SENTIMENTS
            for item in spread(
                [item for item in found if item.sentiment == sentiment], each
            )
        }

    def heard(self, samples: int) -> int:
        """Return the share of a recording."""
        return max(round(self.share * samples), MIN_SAMPLES)

    def judge(
        self,
        lm: InterleavedModel,
        prompts: Sequence[Prompt],
        answers: Sequence[Generation],
    ) -> list[float | None]:
        """Return the probabilities of the prompts' sentiments."""
        said = [a.wav if self.listens else a.text for a in answers]
        found = sentiment_probabilities(self._classifier, said)
        return [
            None if row is None else row[prompt.wanted]
            for row, prompt in zip(found, prompts)
        ]

    @cached_property
    def _classifier(self) -> TextClassifier | SpeechClassifier:
        return load_classifier(
            self.classifier, self.output, _device(), self.labels
        )


def _check_direction(direction: str) -> None:
    if direction not in DIRECTIONS:
        raise ValueError(
            f"no such direction: {direction!r}; there are "
            f"{', '.join(DIRECTIONS)}"
        )


@torch.inference_mode()
def sentiment_probabilities(
    classifier: TextClassifier | SpeechClassifier, said: Sequence[Any]
) -> list[dict[str, float] | None]:
    """Return the probability of each sentiment, None where nothing is said.

    Arguments
    ---------
    classifier : TextClassifier or SpeechClassifier
        Who reads or listens.
    said : sequence
        Texts; or waveforms, which are heard one by one.

    Example
    -------
    >>> from transformers import BertConfig, BertForSequenceClassification
    >>> from spiritlm_plugin.metrics.sentiment_classifiers import word_tokenizer
    >>> tokenizer = word_tokenizer(["the cat sleeps"], 16)
    >>> model = BertForSequenceClassification(
    ...     BertConfig(vocab_size=len(tokenizer), hidden_size=8, num_labels=2,
    ...                num_hidden_layers=1, num_attention_heads=1)
    ... )
    >>> classifier = TextClassifier(model, tokenizer, ["happy", "sad"])
    >>> some, nothing = sentiment_probabilities(classifier, ["the cat", ""])
    >>> round(sum(some.values()), 3), nothing
    (1.0, None)
    """
    return [
        None if is_empty(one) else _probabilities(classifier, one)
        for one in said
    ]


def _probabilities(
    classifier: TextClassifier | SpeechClassifier, said: str | Tensor
) -> dict[str, float]:
    inputs: Any = (
        tokenize(classifier.processor, [said])
        if isinstance(said, str)
        else extract(classifier.processor, [said])
    )
    model = classifier.model
    shares = (
        model(**inputs.to(model.device)).logits[0, classifier.known].softmax(-1)
    )
    found = dict.fromkeys(SENTIMENTS, 0.0)
    for label, share in zip(classifier.labels, shares.tolist()):
        found[label] += share
    return found


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


@dataclass(kw_only=True)
class UtteranceTask(PreferenceTask):
    """What is asked about utterances of a manifest.

    Arguments
    ---------
    manifest_folder, split : str
        Whose utterances have a text.
    """

    manifest_folder: str
    split: str = "train"

    def items(self) -> dict[str, dict[str, Any]]:
        """Return the utterances by id."""
        path = Path(self.manifest_folder) / self.split
        items = load_manifest(path, ["text"])
        return {name: items[name] for name in spread(items, self.prompts)}


@dataclass(kw_only=True)
class ReadingTask(UtteranceTask):
    """Texts that are read, behind ``[TTS]``, so that a listener gets the words.

    The score is the share of characters that a recognizer gets, which may be
    negative; without one, how likely the model itself finds the text behind
    its reading: nats a token.

    Arguments
    ---------
    recognizer : str, optional
        As of `load_recognizer`.
    """

    recognizer: str | None = None

    @property
    def output(self) -> str:
        """Readings."""
        return "tts"

    @property
    def listens(self) -> bool:
        """Whether there is a recognizer."""
        return self.recognizer is not None

    def ask(self) -> dict[str, Prompt]:
        """Return texts."""
        return {
            name: Prompt(item["text"], item["text"])
            for name, item in self.items().items()
        }

    def judge(
        self,
        lm: InterleavedModel,
        prompts: Sequence[Prompt],
        answers: Sequence[Generation],
    ) -> list[float | None]:
        """Return how much of the words is understood."""
        texts = [prompt.wanted for prompt in prompts]
        if self.recognizer is None:
            return own_ears(lm, texts, answers)
        heard = listen(self._recognize, [answer.wav for answer in answers])
        return [understood(text, said) for text, said in zip(texts, heard)]

    @cached_property
    def _recognize(self) -> Any:
        return load_recognizer(str(self.recognizer), _device())


def understood(text: str, heard: str | None) -> float | None:
    """Return the share of a text's characters that are heard.

    It is negative where more is wrong than there is; None of silence, and of
    a text without words.

    Example
    -------
    >>> understood("old cats", "old bats"), understood("old cats", "")
    (0.875, None)
    """
    if not heard:
        return None
    errors = WordErrorStats(characters=True)
    errors.append(["it"], [heard], [text])
    rate = errors.rate()
    return None if rate is None else 1 - rate / 100


def own_ears(
    lm: InterleavedModel, texts: Sequence[str], readings: Sequence[Generation]
) -> list[float | None]:
    """Return how likely a model finds texts behind readings, nats a token.

    As `Reader` chooses among its candidates. None of a reading that is silent,
    or leaves no room for the text in the context.

    Arguments
    ---------
    lm : InterleavedModel
        Trained to transcribe.
    texts : sequence of str
        What is read.
    readings : sequence of Generation
        Of speech.

    Example
    -------
    >>> lm = SpiritLM.from_hparams("tinyspeech")
    >>> reading = Generation([Speech(SpeechUnits([3, 4]))], "end_of_sequence")
    >>> [score] = own_ears(lm, ["a cat"], [reading])
    >>> score < 0
    True
    """
    behind: list[list[Segment]] = [[Transcript(text)] for text in texts]
    fits = [
        i
        for i, reading in enumerate(readings)
        if len(reading)
        and len(lm.vocabulary.encode([*reading, *behind[i]])) <= lm.context
    ]
    scores: list[float | None] = [None] * len(texts)
    if fits:
        sums, counts = lm.log_likelihood(
            [list(readings[i]) for i in fits], [behind[i] for i in fits]
        )
        for i, score in zip(fits, (sums / counts).tolist()):
            scores[i] = score
    return scores


@dataclass(kw_only=True)
class ContinuationTask(UtteranceTask):
    """Continuations that a language model of text expects.

    The score is their log-likelihood behind the words of the prompt, nats a
    token. A model that repeats itself is likely, too: look at what is chosen.

    Arguments
    ---------
    direction : str
        Of `DIRECTIONS`.
    text_model : str
        As of `load_judge`.
    recognizer : str, optional
        Who hears the words of what is spoken, as of `load_recognizer`.
    prompt_seconds : float
        The beginning of an utterance, which is the prompt.
    """

    direction: str
    text_model: str
    recognizer: str | None = None
    prompt_seconds: float = 3.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_direction(self.direction)
        if number("prompt_seconds", self.prompt_seconds) <= 0:
            raise ValueError(
                f"prompt_seconds must be above 0, got {self.prompt_seconds}"
            )
        if self.output == "speech" and self.recognizer is None:
            raise ValueError(
                "spoken continuations are judged by their words: name a "
                "recognizer"
            )

    @property
    def output(self) -> str:
        """Text or speech."""
        return DIRECTIONS[self.direction].output

    def ask(self) -> dict[str, Prompt]:
        """Return the beginnings of utterances that are longer."""
        spoken = DIRECTIONS[self.direction].prompt == "speech"
        prompts = {}
        for name, item in self.items().items():
            if item["duration"] > self.prompt_seconds:
                said, _ = split_text(item, self.prompt_seconds)
                content = Path(item["wav"]) if spoken else said
                prompts[name] = Prompt(content, said)
        return prompts

    def heard(self, samples: int) -> int:
        """Return the first seconds."""
        return round(self.prompt_seconds * SAMPLE_RATE)

    def judge(
        self,
        lm: InterleavedModel,
        prompts: Sequence[Prompt],
        answers: Sequence[Generation],
    ) -> list[float | None]:
        """Return how likely the words are."""
        texts: list[str | None] = [answer.text for answer in answers]
        if self.listens:
            texts = listen(self._recognize, [answer.wav for answer in answers])
        found = self._surprise(
            [text or "" for text in texts], [p.wanted for p in prompts]
        )
        return [None if s is None else -s.nats / s.tokens for s in found]

    @cached_property
    def _surprise(self) -> Any:
        return load_judge(self.text_model, _device())

    @cached_property
    def _recognize(self) -> Any:
        return load_recognizer(str(self.recognizer), _device())


def settings_of(tasks: Mapping[str, PreferenceTask]) -> dict[str, Any]:
    """Return what decides about answers and their scores, as plain values.

    Example
    -------
    >>> task = ReadingTask(manifest_folder="corpus", max_new_tokens=9)
    >>> settings_of({"readings": task})["readings"]["max_new_tokens"]
    9
    """
    return {
        name: {
            "task": type(task).__name__,
            **{n: v for n, v in asdict(task).items() if n != "margin"},
        }
        for name, task in tasks.items()
    }
