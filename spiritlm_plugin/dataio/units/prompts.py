"""Few-shot prompts: what a model is asked, and how its answers are read.

A prompt is some shots, which are queries with their answers, and a query.
Models that are trained on transcribing and reading are asked as they were
trained, behind ``[ASR]`` and ``[TTS]``, and need no shots.

Source: Nguyen et al., "SpiRit-LM", TACL 2025, appendix B.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, chain, zip_longest
from random import Random
from typing import NamedTuple

from spiritlm_plugin.dataio.units.segments import (
    Break,
    Reading,
    Segment,
    Speech,
    Text,
    Transcript,
)
from spiritlm_plugin.dataio.units.units import Kind, SpeechStream
from spiritlm_plugin.dataio.units.vocabulary import Vocabulary
from spiritlm_plugin.utils.seeds import derive_seed

START = "<START Transcript>"
END = "<END>"
STOP_WORD = "stop"
LINE_END = "\n"
_ANSWER = "A:"


def asr_shot(
    speech: Speech, transcript: str, trained: bool = False
) -> list[Segment]:
    """Return speech with its transcript.

    Arguments
    ---------
    speech : Speech
        What was said.
    transcript : str
        In words.
    trained : bool
        Whether it stands behind ``[ASR]`` instead of between flags.

    Example
    -------
    >>> speech = Speech(SpeechUnits([1, 2]))
    >>> asr_shot(speech, "the cat")[1].text
    '<START Transcript> the cat <END>'
    >>> asr_shot(speech, "the cat", trained=True)[1]
    Transcript(text='the cat')
    """
    if trained:
        return [speech, Transcript(transcript)]
    return [speech, Text(f"{START} {transcript} {END}")]


def asr_query(speech: Speech) -> list[Segment]:
    """Return speech that is to be transcribed."""
    return [speech]


def asr_answer(text: str) -> tuple[str, bool]:
    """Read the transcript out of what a model has written between flags.

    Arguments
    ---------
    text : str
        What stands before the first flag, or behind the end, is dropped; a
        text without flags is all transcript.

    Returns
    -------
    transcript : str
        Without white space around it.
    complete : bool
        Whether its end was there.

    Example
    -------
    >>> asr_answer("<START Transcript> the cat <END> [Sp")
    ('the cat', True)
    >>> asr_answer("the dog")
    ('the dog', False)
    """
    before, start, behind = text.partition(START)
    transcript, end, _ = (behind if start else before).partition(END)
    return transcript.strip(), bool(end)


def tts_shot(
    text: str, speech: Speech, stop: Speech | None = None
) -> list[Segment]:
    """Return a text with its reading.

    Arguments
    ---------
    text : str
        What is read.
    speech : Speech
        The reading.
    stop : Speech, optional
        The word "stop", which ends it; without it the reading stands behind
        ``[TTS]``, as of models that are trained on reading.

    Example
    -------
    >>> speech, stop = Speech(SpeechUnits([1, 2])), Speech(SpeechUnits([3]))
    >>> tts_shot("the cat", speech, stop)
    [Text(text="the cat 'stop'"), Speech(2 phonetic units),
     Speech(1 phonetic units)]
    >>> tts_shot("the cat", speech)
    [Text(text='the cat'), Reading(2 phonetic units)]
    """
    if stop is None:
        return [*tts_query(text, trained=True), Reading(speech.content)]
    return [*tts_query(text), speech, stop]


def tts_query(text: str, trained: bool = False) -> list[Segment]:
    """Return a text that is to be read.

    Example
    -------
    >>> tts_query("the cat"), tts_query("the cat", trained=True)
    ([Text(text="the cat 'stop'")], [Text(text='the cat')])
    """
    return [Text(text if trained else f"{text} '{STOP_WORD}'")]


def tts_answer(
    stream: SpeechStream, stop: SpeechStream
) -> tuple[SpeechStream, bool]:
    """Cut speech where a model says the word "stop".

    Arguments
    ---------
    stream : SpeechStream
        What it said.
    stop : SpeechStream
        The word, as in the shots; its phonetic units are looked for.

    Returns
    -------
    stream : SpeechStream
        What was said before.
    complete : bool
        Whether the word was there.

    Raises
    ------
    ValueError
        If the word has no phonetic units.

    Example
    -------
    >>> said = SpeechStream.from_string("[Hu5][Hu7][Pi1][Hu8][Hu9]")
    >>> cut, complete = tts_answer(said, SpeechStream.from_string("[Hu7][Hu8]"))
    >>> cut.to_string(), complete
    ('[Hu5]', True)
    """
    places = (stream.kinds == int(Kind.PHONETIC)).nonzero().squeeze(1)
    units = stream.values[places]
    word = stop.values[stop.kinds == int(Kind.PHONETIC)]
    if not len(word):
        raise ValueError(
            'the recording of the word "stop" has no phonetic units; give '
            "a longer one"
        )
    if len(units) < len(word):
        return stream, False
    starts = (units.unfold(0, len(word), 1) == word).all(1).nonzero()
    if not len(starts):
        return stream, False
    return stream[: int(places[starts[0, 0]])], True


def intent_shot(speech: Speech, label: str) -> list[Segment]:
    """Return speech with its label.

    Example
    -------
    >>> intent_shot(Speech(SpeechUnits([1, 2])), "bring shoes none")
    [Speech(2 phonetic units), Text(text='A:bring shoes none')]
    """
    return [speech, intent_text(label)]


def intent_text(label: str) -> Text:
    """Return a label as it stands behind its speech.

    Example
    -------
    >>> intent_text("bring shoes none")
    Text(text='A:bring shoes none')
    """
    return Text(f"{_ANSWER}{label}")


def intent_query(speech: Speech) -> list[Segment]:
    """Return speech whose label is to be generated.

    Example
    -------
    >>> intent_query(Speech(SpeechUnits([1, 2])))
    [Speech(2 phonetic units), Text(text='A:')]
    """
    return intent_shot(speech, "")


def intent_answer(segments: Sequence[Segment]) -> str:
    """Read the label: the text before the modality changes.

    Example
    -------
    >>> intent_answer([Text(" bring shoes none"), Speech(SpeechUnits([1]))])
    'bring shoes none'
    """
    if not segments or not isinstance(segments[0], Text):
        return ""
    return segments[0].text.strip()


def continuation_shot(prompt: Segment, continuation: Segment) -> list[Segment]:
    r"""Return a prompt with its continuation, each behind a marker.

    As the benchmark of sentiment preservation has them, where both may be of
    one modality; a line break ends them.

    Example
    -------
    >>> continuation_shot(Text("a long"), Text("walk"))
    [Text(text='a long'), Break(text=''), Text(text='walk'), Break(text='\n')]
    """
    return [prompt, Break(), continuation, Break(LINE_END)]


def continuation_answer(text: str) -> str:
    r"""Read a continuation: what stands before the end of its line.

    Example
    -------
    >>> continuation_answer("walk\nand another")
    'walk'
    """
    return text.partition(LINE_END)[0]


def draw_shots(
    names: Iterable[str],
    count: int,
    seed: int,
    labels: Mapping[str, str] | None = None,
) -> list[str]:
    """Draw the items that are shown, once for a run.

    Arguments
    ---------
    names : iterable of str
        Ids of the items, in any order.
    count : int
        Items to draw.
    seed : int
        Decides which.
    labels : dict, optional
        Of each item; the shots are balanced over them.

    Returns
    -------
    list of str

    Raises
    ------
    ValueError
        If there are fewer items.

    Example
    -------
    >>> labels = {"a": "x", "b": "x", "c": "x", "d": "y"}
    >>> drawn = draw_shots(labels, 2, seed=1, labels=labels)
    >>> sorted(labels[name] for name in drawn)
    ['x', 'y']
    """
    names = sorted(names)
    if not 0 <= count <= len(names):
        raise ValueError(
            f"cannot draw {count} shots from {len(names)} utterances; change "
            "the number of shots"
        )
    random = Random(derive_seed(seed, "shots"))
    random.shuffle(names)
    if labels is None:
        return names[:count]
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(labels[name], []).append(name)
    rounds = chain.from_iterable(zip_longest(*groups.values()))
    return [name for name in rounds if name is not None][:count]


def fitting_shots(lengths: Sequence[int], room: int) -> int:
    """Return how many shots fit, if they are dropped from the left.

    Arguments
    ---------
    lengths : sequence of int
        Tokens of each shot.
    room : int
        Tokens.

    Example
    -------
    >>> fitting_shots([5, 4, 3], room=8)
    2
    """
    totals = accumulate(reversed(lengths))
    return sum(total <= room for total in totals)


class Prompt(NamedTuple):
    """A query with the shots that fit."""

    segments: list[Segment]
    shots: int
    tokens: int


class FewShotPrompts:
    """Puts shots before queries, as many of the last ones as fit.

    Arguments
    ---------
    vocabulary : Vocabulary
        Of the model.
    shots : sequence of list of segments
        Their speech holds units.
    output : str
        What follows the query, as of `Vocabulary.encode`.
    limit : int
        Tokens that a prompt with shots may have.

    Example
    -------
    >>> vocabulary = Vocabulary.extend(example_text_tokenizer(), phonetic=9)
    >>> speech = Speech(SpeechUnits([1, 2, 3]))
    >>> shots = [asr_shot(speech, "a cat")] * 3
    >>> prompts = FewShotPrompts(vocabulary, shots, "text", 60)
    >>> prompt = prompts(asr_query(speech))
    >>> prompt.shots, prompt.tokens
    (1, 36)
    >>> len(vocabulary.encode(prompt.segments, "text"))
    36
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        shots: Sequence[list[Segment]],
        output: str,
        limit: int,
    ):
        self.vocabulary = vocabulary
        self.shots = list(shots)
        self.output = output
        self.limit = limit
        start = len(vocabulary.text.prompt_start)
        self._lengths = [len(vocabulary.encode(s)) - start for s in self.shots]

    def __call__(self, query: list[Segment]) -> Prompt:
        """Return the prompt of a query; a long one stands alone."""
        tokens = len(self.vocabulary.encode(query, self.output))
        kept = fitting_shots(self._lengths, self.limit - tokens)
        first = len(self.shots) - kept
        segments = [*chain.from_iterable(self.shots[first:]), *query]
        return Prompt(segments, kept, tokens + sum(self._lengths[first:]))
