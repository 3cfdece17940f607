"""Tasks that a language model does behind a few shots."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch

from spiritlm_plugin.dataio.units.prompts import (
    FewShotPrompts,
    Prompt,
    asr_answer,
    asr_query,
    asr_shot,
    intent_answer,
    intent_query,
    intent_shot,
    intent_text,
    tts_answer,
    tts_query,
    tts_shot,
)
from spiritlm_plugin.dataio.units.segments import (
    Segment,
    Speech,
    Text,
    Transcript,
)
from spiritlm_plugin.dataio.units.units import Kind
from spiritlm_plugin.decoders.constrained import check_sampling
from spiritlm_plugin.inference.generation import Generation, speech_of
from spiritlm_plugin.utils.arguments import (
    as_list,
    as_texts,
    shown,
    whole_number,
)
from spiritlm_plugin.utils.seeds import derive_seed, draw_seeds

T = TypeVar("T")
U = TypeVar("U")

if TYPE_CHECKING:
    from spiritlm_plugin.inference.protocols import InterleavedModel

# Why there is no answer to a query that leaves no room for one.
TOO_LONG = "prompt_too_long"
# What is read has less freedom than what is made up.
READING_TEMPERATURE = 0.3
# A candidate costs as much as a reading.
_MOST_CANDIDATES = 256


@dataclass
class Answer:
    """What a model has answered.

    Arguments
    ---------
    generation : Generation
        As it is; of a reading cut at its stop, with its waveform.
    shots : int
        How many of the shots the prompt had room for.
    text : str
        The transcript or the label.
    complete : bool
        Whether the answer has an end.
    scores : dict
        Log-likelihood of each label, where they were compared.
    """

    generation: Generation
    shots: int
    text: str = ""
    complete: bool = False
    scores: dict[str, float] = field(default_factory=dict)


def as_speech(
    lm: InterleavedModel, recordings: Sequence[Any], batch_size: int = 16
) -> list[Speech]:
    """Return recordings, units or `Speech` as speech with units."""
    items = as_list("recordings", recordings, "recordings")
    speech = [to_speech(item) for item in items]
    found: list[Segment] = []
    for begin in range(0, len(speech), batch_size):
        found += lm.with_units([speech[begin : begin + batch_size]])[0]
    return cast("list[Speech]", found)


def to_speech(recording: Any) -> Speech:
    """Return a recording, units or `Speech` as speech."""
    return recording if isinstance(recording, Speech) else Speech(recording)


def to_text(text: Any) -> str:
    """Return a text, checked as `Text` checks it."""
    return Text(text).text


def as_shots(
    shots: Any, first: Callable[[Any], T], second: Callable[[Any], U]
) -> list[tuple[T, U]]:
    """Return shots as pairs, checked.

    Arguments
    ---------
    shots : iterable of pairs, optional
        As they are given.
    first, second : callable
        Make of the halves of a shot what is needed, or raise TypeError or
        ValueError.

    Raises
    ------
    TypeError
        If there is no list of shots.
    ValueError
        Naming the shot that is none.

    Example
    -------
    >>> as_shots([("1", "a")], int, str)
    [(1, 'a')]
    >>> as_shots([("1", "a"), "2"], int, str)
    Traceback (most recent call last):
        ...
    ValueError: shot 1 must be a pair, got '2'
    """
    pairs = []
    given = [] if shots is None else as_list("shots", shots, "pairs")
    for index, shot in enumerate(given):
        if not isinstance(shot, (list, tuple)) or len(shot) != 2:
            raise ValueError(f"shot {index} must be a pair, got {shown(shot)}")
        try:
            pairs.append((first(shot[0]), second(shot[1])))
        except (TypeError, ValueError) as error:
            raise ValueError(f"shot {index} cannot be used: {error}") from error
    return pairs


class FewShot:
    """A model with the shots it is shown; what the tasks share.

    Arguments
    ---------
    lm : InterleavedModel
        The model.
    shots : sequence of list of segments
        In the order in which they are shown.
    output : str
        Of `SpiritLM.generate`.
    max_new_tokens : int
        Of an answer. Shots are dropped from the left until prompt and answer
        fit into the context.
    context : int, optional
        Tokens; the model's context if it is smaller.
    temperature, top_p : float
        As of `SpiritLM.generate`.
    batch_size : int
        Prompts to run together.
    num_beams, style
        As of `SpiritLM.generate`.

    Raises
    ------
    ValueError
        If the model has no marker for this output, or no such style, or the
        answer leaves the shots no room.
    """

    def __init__(
        self,
        lm: InterleavedModel,
        shots: Sequence[list[Segment]],
        output: str,
        max_new_tokens: int,
        context: int | None = None,
        temperature: float = 0.0,
        top_p: float = 0.95,
        batch_size: int = 16,
        num_beams: int = 1,
        style: int | str | None = None,
    ):
        if output not in ("any", *lm.vocabulary.markers):
            raise ValueError(
                f"the model was not trained on [{output.upper()}]: its "
                "vocabulary has no such marker; give shots without it"
            )
        sampling = check_sampling(max_new_tokens, temperature, top_p, num_beams)
        self.lm = lm
        self.context = room = lm.context
        if context is not None:
            room = min(whole_number("context", context), room)
        limit = room - sampling.max_new_tokens
        if shots and limit < 1:
            raise ValueError(
                f"an answer of {max_new_tokens} tokens fills the context of "
                f"{room}, without room for shots; lower max_new_tokens"
            )
        self.prompts = FewShotPrompts(lm.vocabulary, shots, output, limit)
        self.batch_size = whole_number("batch_size", batch_size)
        self.sampling: dict[str, Any] = sampling._asdict()
        lm.style_units(style)  # if there is none, say so now
        self.style = style

    def ask(
        self, queries: Sequence[list[Segment]], seeds: Sequence[int]
    ) -> tuple[list[Prompt], list[Generation]]:
        """Generate the answers; queries that are too long get none."""
        seeds = draw_seeds(seeds, len(queries))
        prompts = [self.prompts(query) for query in queries]
        generations = [Generation([], TOO_LONG) for _ in prompts]
        fits = [i for i, p in enumerate(prompts) if p.tokens < self.context]
        if fits:
            found = self.lm.generate(
                [prompts[i].segments for i in fits],
                self.prompts.output,
                seed=[seeds[i] for i in fits],
                min_speech_units=0,
                vocode=False,
                batch_size=self.batch_size,
                style=self.style,
                **self.sampling,
            )
            for i, generation in zip(fits, found):
                generations[i] = generation
        return prompts, generations

    def speak(
        self,
        answers: Sequence[Answer],
        prompts: Sequence[Prompt],
        goes_on: bool,
        seeds: Sequence[int],
        voice: int | None,
    ) -> None:
        """Give answers their waveforms.

        Arguments
        ---------
        answers : sequence of Answer
            Whose speech gets its waveform.
        prompts : sequence of Prompt
            What they answer.
        goes_on : bool
            Whether their speech goes on from the prompts'.
        seeds : sequence of int
            One for each.
        voice : int, optional
            The speaker; by default the one that each answer sounds like.
        """
        for begin in range(0, len(answers), self.batch_size):
            some = slice(begin, begin + self.batch_size)
            self.lm.speak(
                [answer.generation for answer in answers[some]],
                [prompt.segments for prompt in prompts[some]],
                [goes_on] * len(prompts[some]),
                voice,
                list(seeds[some]),
                style=self.style,
            )


class Transcriber(FewShot):
    """Transcribes speech.

    Arguments
    ---------
    lm : InterleavedModel
        The model.
    shots : sequence of (recording, str)
        Speech, as anything `Speech` takes, with its transcript.
    trained : bool
        Whether the model was trained to transcribe behind ``[ASR]``.
    max_new_tokens : int
        Of a transcript.
    **options
        As of `FewShot`.

    Example
    -------
    >>> lm = SpiritLM.from_release(checkpoints, "base")
    >>> transcribe = Transcriber(lm, [(recording, "boats")], max_new_tokens=5)
    >>> [answer] = transcribe([recording], seeds=[0])
    >>> answer.shots, answer.complete
    (1, False)
    """

    def __init__(
        self,
        lm: InterleavedModel,
        shots: Sequence[tuple[Any, str]] = (),
        trained: bool = False,
        max_new_tokens: int = 200,
        **options: Any,
    ):
        pairs = as_shots(shots, to_speech, to_text)
        speech = as_speech(lm, [recording for recording, _ in pairs])
        shown = [asr_shot(s, t, trained) for s, (_, t) in zip(speech, pairs)]
        output = "asr" if trained else "text"
        super().__init__(lm, shown, output, max_new_tokens, **options)
        self.trained = trained

    def __call__(
        self, recordings: Sequence[Any], seeds: Sequence[int]
    ) -> list[Answer]:
        """Return the transcripts."""
        speech = as_speech(self.lm, recordings, self.batch_size)
        prompts, generations = self.ask([asr_query(s) for s in speech], seeds)
        answers = []
        for prompt, generation in zip(prompts, generations):
            text, complete = asr_answer(generation.text)
            if self.trained:
                text = generation.text.strip()
                complete = generation.end_reason == "end_of_sequence"
            answers.append(Answer(generation, prompt.shots, text, complete))
        return answers


class Reader(FewShot):
    """Reads texts aloud.

    Arguments
    ---------
    lm : InterleavedModel
        The model.
    shots : sequence of (recording, str)
        Speech, as anything `Speech` takes, with its transcript.
    stop : recording, optional
        Of the word "stop", which ends the shots and the answers. Without it
        the model is asked behind ``[TTS]``, as it was trained.
    max_new_tokens : int
        Of a reading.
    temperature : float
        As of `SpiritLM.generate`.
    candidates : int
        Readings that are made of each text: the one is given whose units let
        the model itself expect the text most, as its transcript.
    **options
        As of `FewShot`.

    Raises
    ------
    ValueError
        If there are several candidates and the model was not trained to
        transcribe, or there are none.

    Example
    -------
    >>> lm = SpiritLM.from_release(checkpoints, "base")
    >>> read = Reader(
    ...     lm, [(recording, "boats")], SpeechUnits([7, 8]), max_new_tokens=5
    ... )
    >>> [answer] = read(["the old man"], seeds=[0])
    >>> answer.generation.wav.shape[0] > 0, answer.complete
    (True, False)
    """

    def __init__(
        self,
        lm: InterleavedModel,
        shots: Sequence[tuple[Any, str]] = (),
        stop: Any = None,
        max_new_tokens: int = 500,
        temperature: float = READING_TEMPERATURE,
        candidates: int = 1,
        **options: Any,
    ):
        self.candidates = whole_number("candidates", candidates)
        if self.candidates > _MOST_CANDIDATES:
            raise ValueError(
                f"candidates must be at most {_MOST_CANDIDATES}, got "
                f"{candidates}"
            )
        if self.candidates > 1 and "asr" not in lm.vocabulary.markers:
            raise ValueError(
                "to choose among candidates the model has to transcribe them, "
                "and its vocabulary has no [ASR]; make one candidate"
            )
        self.stop = None if stop is None else as_speech(lm, [stop])[0]
        pairs = as_shots(shots, to_speech, to_text)
        speech = as_speech(lm, [recording for recording, _ in pairs])
        shown = [tts_shot(t, s, self.stop) for s, (_, t) in zip(speech, pairs)]
        super().__init__(
            lm,
            shown,
            "tts" if stop is None else "speech",
            max_new_tokens,
            temperature=temperature,
            **options,
        )

    @torch.inference_mode()
    def __call__(
        self,
        texts: Sequence[str],
        seeds: Sequence[int],
        speaker: int | str | None = None,
    ) -> list[Answer]:
        """Return the readings; one may be empty."""
        voice = self.lm.speaker_id(speaker)
        texts = as_texts("texts", texts)
        seeds = draw_seeds(seeds, len(texts))
        queries = [tts_query(text, self.stop is None) for text in texts]
        numbers = range(self.candidates)
        prompts, generations = self.ask(
            [query for query in queries for _ in numbers],
            [
                derive_seed(seed, n) if n else seed
                for seed in seeds
                for n in numbers
            ],
        )
        answers = [
            self._cut(prompt, generation)
            for prompt, generation in zip(prompts, generations)
        ]
        if self.candidates > 1:
            answers = self._likeliest(texts, answers)
        prompts = prompts[:: self.candidates]
        self.speak(answers, prompts, False, seeds, voice)
        return answers

    def _likeliest(
        self, texts: Sequence[str], answers: list[Answer]
    ) -> list[Answer]:
        """Return of each text's readings the one that says it most clearly.

        One with an end, if there is any, and never silence if there is not.
        """
        size, scores = self.candidates, [float("-inf")] * len(answers)
        fits = [
            i
            for i, answer in enumerate(answers)
            if self._fits(answer.generation, texts[i // size])
        ]
        if fits:
            sums, _ = self.lm.log_likelihood(
                [answers[i].generation for i in fits],
                [[Transcript(texts[i // size])] for i in fits],
                batch_size=self.batch_size,
            )
            for i, score in zip(fits, sums.tolist()):
                scores[i] = score

        def merits(i: int) -> tuple[bool, bool, float]:
            return bool(answers[i].generation), answers[i].complete, scores[i]

        firsts = range(0, len(answers), size)
        return [
            answers[max(range(first, first + size), key=merits)]
            for first in firsts
        ]

    def _fits(self, reading: Generation, text: str) -> bool:
        """Whether there is a reading, and room for its transcript."""
        if not len(reading):
            return False
        both = [*reading, Transcript(text)]
        return len(self.lm.vocabulary.encode(both)) <= self.context

    def _cut(self, prompt: Prompt, generation: Generation) -> Answer:
        """Leave what stands before the stop."""
        stream, stopped = speech_of(generation), False
        if self.stop is not None:
            stream, stopped = tts_answer(stream, self.stop.stream)
        complete = stopped or generation.end_reason == "end_of_sequence"
        kept = [Speech(stream)] if stream.count(Kind.PHONETIC) else []
        cut = Generation(kept, generation.end_reason)
        return Answer(cut, prompt.shots, complete=complete)


class Classifier(FewShot):
    """Says which label speech has.

    Arguments
    ---------
    lm : InterleavedModel
        The model.
    shots : sequence of (recording, str)
        Speech, as anything `Speech` takes, with its label.
    labels : sequence of str, optional
        To choose from; without them a label is generated.
    max_new_tokens : int
        Of a label that is generated.
    **options
        As of `FewShot`.

    Example
    -------
    >>> lm = SpiritLM.from_release(checkpoints, "base")
    >>> classify = Classifier(lm, [(recording, "boats")], ["boats", "bets"])
    >>> [answer] = classify([recording], seeds=[0])
    >>> answer.text in ("boats", "bets")
    True
    """

    def __init__(
        self,
        lm: InterleavedModel,
        shots: Sequence[tuple[Any, str]],
        labels: Sequence[str] | None = None,
        max_new_tokens: int = 50,
        **options: Any,
    ):
        self.labels = None if labels is None else as_texts("labels", labels)
        if self.labels is not None and not self.labels:
            raise ValueError("there are no labels to choose from; name some")
        pairs = as_shots(shots, to_speech, to_text)
        speech = as_speech(lm, [recording for recording, _ in pairs])
        shown = [intent_shot(s, label) for s, (_, label) in zip(speech, pairs)]
        # Speech or a marker behind a label ends it, so the model may choose.
        output = "any"
        if self.labels is not None:
            output = "text"
            max_new_tokens = max(
                len(lm.vocabulary.encode_text(intent_text(label).text))
                for label in self.labels
            )
        super().__init__(lm, shown, output, max_new_tokens, **options)

    def __call__(
        self, recordings: Sequence[Any], seeds: Sequence[int]
    ) -> list[Answer]:
        """Return the labels."""
        speech = as_speech(self.lm, recordings, self.batch_size)
        if self.labels is not None:
            return self._choose(speech, self.labels)
        queries = [intent_query(part) for part in speech]
        prompts, generations = self.ask(queries, seeds)
        return [
            Answer(g, p.shots, intent_answer(g), complete=True)
            for p, g in zip(prompts, generations)
        ]

    def _choose(self, speech: list[Speech], labels: list[str]) -> list[Answer]:
        """Return the likeliest labels, by the sums over their tokens."""
        prompts = [self.prompts([part]) for part in speech]
        room = self.context - self.sampling["max_new_tokens"]
        fits = [i for i, p in enumerate(prompts) if p.tokens <= room]
        answers = [Answer(Generation([], TOO_LONG), p.shots) for p in prompts]
        if not fits:
            return answers
        sums, _ = self.lm.log_likelihood(
            [prompts[i].segments for i in fits for _ in labels],
            # With what stands before it: so its tokens are those of a shot.
            [[intent_text(label)] for _ in fits for label in labels],
            batch_size=self.batch_size,
        )
        for i, row in zip(fits, sums.view(len(fits), -1).tolist()):
            scores = dict(zip(labels, row))
            label = max(scores, key=scores.__getitem__)
            text = Generation([Text(label)], "likeliest")
            answers[i] = Answer(text, prompts[i].shots, label, True, scores)
        return answers
