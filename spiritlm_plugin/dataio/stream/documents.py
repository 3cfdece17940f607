"""Documents of pretraining: what the model reads of utterances.

Utterances become documents in several forms, of which the interleaved one is
the method: the modality changes at random word boundaries, anew whenever the
document is made.

Source: Nguyen et al., "SpiRit-LM", TACL 2025, section 3.1 and table 6.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import chain
from random import Random

from spiritlm_plugin.dataio.stream.interleaving import (
    SpokenWords,
    draw_spans,
    interleave,
    join_speech,
)
from spiritlm_plugin.dataio.stream.marking import Part
from spiritlm_plugin.dataio.stream.turns import SIDES, converse
from spiritlm_plugin.dataio.stream.utterances import (
    LABELS,
    DocumentError,
    Utterance,
)
from spiritlm_plugin.dataio.units.prompts import (
    asr_shot,
    intent_shot,
    intent_text,
)
from spiritlm_plugin.dataio.units.segments import (
    Break,
    Reading,
    Segment,
    Speech,
    Text,
    Transcript,
)
from spiritlm_plugin.dataio.units.units import SpeechStream
from spiritlm_plugin.utils.arguments import listed, shown, whole_number


def draw_part(utterance: Utterance, random: Random) -> tuple[SpeechStream, str]:
    """Draw consecutive words of an utterance, any number of them.

    Arguments
    ---------
    utterance : Utterance
        With words and units.
    random : random.Random
        Decides on the number of words, and then on the first.

    Returns
    -------
    speech : SpeechStream
        Their units.
    text : str
        The words.

    Raises
    ------
    DocumentError
        As of `Utterance.starts`, or if the words are too short for a unit.

    Example
    -------
    >>> units = SpeechUnits([7] * 20 + [8] * 30)
    >>> words, times = ["a", "cat"], [(0.1, 0.4), (0.6, 1.5)]
    >>> utterance = Utterance(units, "a cat", words, times)
    >>> speech, text = draw_part(utterance, Random(4))
    >>> speech.to_string(), text
    ('[Hu7][Hu8]', 'cat')
    """
    words = SpokenWords([utterance])
    count = random.randint(1, len(words))
    first = random.randint(0, len(words) - count)
    speech = words.speech(first, first + count)
    if not len(speech):
        raise DocumentError("its words are too short for units")
    return speech, words.text(first, first + count)


def shuffle_words(
    utterance: Utterance, random: Random
) -> tuple[SpeechStream, str]:
    """Bring the words of an utterance into random order.

    Arguments
    ---------
    utterance : Utterance
        With words and units.
    random : random.Random
        Decides on the order.

    Returns
    -------
    speech : SpeechStream
        The units of one word after the other; words too short for a unit are
        left out.
    text : str
        The words.

    Raises
    ------
    DocumentError
        As of `Utterance.starts`, or if the words are too short for a unit.

    Example
    -------
    >>> units = SpeechUnits([7] * 20 + [8] * 30)
    >>> words, times = ["a", "cat"], [(0.1, 0.4), (0.6, 1.5)]
    >>> utterance = Utterance(units, "a cat", words, times)
    >>> speech, text = shuffle_words(utterance, Random(0))
    >>> speech.to_string(), text
    ('[Hu7][Hu8][Hu7]', 'cat a')
    """
    words = SpokenWords([utterance])
    order = random.sample(range(len(words)), len(words))
    pieces = [(words.speech(i, i + 1), words.text(i, i + 1)) for i in order]
    pieces = [(speech, word) for speech, word in pieces if len(speech)]
    if not pieces:
        raise DocumentError("its words are too short for units")
    streams, said = zip(*pieces)
    return SpeechStream.concatenate(streams), " ".join(said)


class DocumentMaker:
    """Makes documents of utterances, in the forms that the paper compares.

    Arguments
    ---------
    text_words, speech_words : tuple of int
        The fewest and the most words of a span where text and speech are
        interleaved.
    shots : tuple of int
        The fewest and the most utterances of a document of few-shot prompts.
    document_tokens : int, optional
        At least 1. Consecutive utterances, such as those of a chapter, make one document
        of text, speech or both interleaved, of so many tokens at most. By
        default each utterance is a document.
    turns : tuple of int
        The fewest and the most utterances of a conversation.
    assistant : str, optional
        The speaker whose turns are answers; see `converse`.
    answers_only : bool
        Whether nothing is learned of questions: of speech that is transcribed,
        of what is read or classified, of what others say in a conversation.
        What is no question and answer is learned whole.

    Example
    -------
    >>> make = DocumentMaker()
    >>> utterance = Utterance(SpeechUnits([7] * 50), "a cat")
    >>> make("asr", [utterance], Random(0))
    [Speech(50 phonetic units), Transcript(text='a cat')]
    """

    def __init__(
        self,
        text_words: Sequence[int] = (10, 30),
        speech_words: Sequence[int] = (5, 15),
        shots: Sequence[int] = (2, 10),
        document_tokens: int | None = None,
        turns: Sequence[int] = (2, 6),
        assistant: str | None = None,
        answers_only: bool = False,
    ):
        for name, numbers in (
            ("text_words", text_words),
            ("speech_words", speech_words),
            ("shots", shots),
            ("turns", turns),
        ):
            pair = listed(numbers)
            if pair is None or len(pair) != 2:
                raise ValueError(_pair_problem(name, numbers))
            fewest, most = (whole_number(name, count) for count in pair)
            if fewest > most:
                raise ValueError(_pair_problem(name, numbers))
        if document_tokens is not None:
            document_tokens = whole_number("document_tokens", document_tokens)
        self.text_words = tuple(text_words)
        self.speech_words = tuple(speech_words)
        self.shots = tuple(shots)
        self.document_tokens = document_tokens
        self.turns = tuple(turns)
        self.assistant = assistant
        self.answers_only = answers_only

    def joins(self, form: str) -> bool:
        """Tell whether consecutive utterances make one document."""
        if form in SIDES:
            return True
        return self.document_tokens is not None and form in JOINED

    def draw_count(self, form: str, random: Random) -> int:
        """Return of how many utterances a document is made.

        Arguments
        ---------
        form : str
            As below.
        random : random.Random
            Decides on the number where it is up to chance.
        """
        if form in SIDES:
            return random.randint(*self.turns)
        return random.randint(*self.shots) if form in _SHOTS else 1

    def __call__(
        self, form: str, utterances: Sequence[Utterance], random: Random
    ) -> list[Segment]:
        """Return the segments of a document.

        Arguments
        ---------
        form : str
            ``text``, ``speech``, ``interleaved``, ``words`` (each word as
            text and as speech, in an order that is drawn), ``asr`` or
            ``tts``; ``asr_span`` and ``tts_span`` are the same of a few words
            of the utterance, and ``asr_shuffled`` and ``tts_shuffled`` of its
            words in random order: what comes next cannot be guessed from what
            was before in the same modality, so that a model learns sooner to
            attend to the other one.
            ``few_shot_asr`` and ``few_shot_intent`` are the prompts of the
            evaluations, which large models understand without having seen
            any, and small ones do not. ``intent_of_speech``,
            ``sentiment_of_text`` and so on are an utterance with one of its
            `LABELS`, as `SpiritLM.classify` asks for it, and ``turns_s2s``
            and the like conversations, see `converse`.
        utterances : sequence of Utterance
            What it is made of; one, but for few-shot prompts, and for text,
            speech, interleaved, words and turns, where they follow each other.
        random : random.Random
            Decides what is up to chance.

        Raises
        ------
        DocumentError
            If an utterance lacks what the form needs.
        """
        parts = self.parts(form, utterances, random)
        return [*chain.from_iterable(part.segments for part in parts)]

    def parts(
        self, form: str, utterances: Sequence[Utterance], random: Random
    ) -> list[Part]:
        """Return the parts of a document, and which of them are learned.

        Arguments
        ---------
        form, utterances, random
            As above.

        Returns
        -------
        list of Part
            One that is learned whole; or, with ``answers_only``, questions
            and answers. None where there is no answer.

        Raises
        ------
        DocumentError
            As above.

        Example
        -------
        >>> make = DocumentMaker(answers_only=True)
        >>> utterance = Utterance(SpeechUnits([7] * 50), "a cat")
        >>> question, answer = make.parts("asr", [utterance], Random(0))
        >>> question.learned, answer
        (False, Part(segments=[Transcript(text='a cat')], learned=True))
        """
        if form in JOINED:
            return [Part(JOINED[form](self, utterances, random), True)]
        parts = self._asked(form, utterances, random)
        if self.answers_only or not parts:
            return parts
        return [Part([*chain.from_iterable(p.segments for p in parts)], True)]

    def asks(self, form: str) -> bool:
        """Tell whether documents are questions whose answers are learned."""
        return self.answers_only and form not in JOINED

    def _asked(
        self, form: str, utterances: Sequence[Utterance], random: Random
    ) -> list[Part]:
        if form in SIDES:
            return converse(form, utterances, self.assistant, random)
        make = _SHOTS.get(form) or partial(_SINGLE[form], random=random)
        return [
            part
            for *question, answer in map(make, utterances)
            for part in (Part(question, False), Part([answer], True))
        ]

    def _text(
        self, utterances: Sequence[Utterance], random: Random
    ) -> list[Segment]:
        return [Text(" ".join(u.transcript() for u in utterances))]

    def _speech(
        self, utterances: Sequence[Utterance], random: Random
    ) -> list[Segment]:
        streams = [utterance.spoken().merge() for utterance in utterances]
        return [Speech(join_speech(streams))]

    def _interleaved(
        self, utterances: Sequence[Utterance], random: Random
    ) -> list[Segment]:
        words = SpokenWords(utterances)
        spans = draw_spans(
            len(words), self.text_words, self.speech_words, random
        )
        return interleave(words, spans)

    def _words(
        self, utterances: Sequence[Utterance], random: Random
    ) -> list[Segment]:
        text_first = random.random() < 0.5
        words = SpokenWords(utterances)
        spans = [
            (is_text, word, word + 1)
            for word in range(len(words))
            for is_text in (text_first, not text_first)
        ]
        return interleave(words, spans)


def _pair_problem(name: str, value: object) -> str:
    return (
        f"{name} are the fewest and the most, as in [5, 15]; got {shown(value)}"
    )


def _asr(utterance: Utterance, random: Random) -> list[Segment]:
    return [Speech(utterance.spoken()), Transcript(utterance.transcript())]


def _asr_span(utterance: Utterance, random: Random) -> list[Segment]:
    speech, text = draw_part(utterance, random)
    return [Speech(speech), Transcript(text)]


def _asr_shuffled(utterance: Utterance, random: Random) -> list[Segment]:
    speech, text = shuffle_words(utterance, random)
    return [Speech(speech), Transcript(text)]


def _tts(utterance: Utterance, random: Random) -> list[Segment]:
    return [Text(utterance.transcript()), Reading(utterance.spoken())]


def _tts_span(utterance: Utterance, random: Random) -> list[Segment]:
    speech, text = draw_part(utterance, random)
    return [Text(text), Reading(speech)]


def _tts_shuffled(utterance: Utterance, random: Random) -> list[Segment]:
    speech, text = shuffle_words(utterance, random)
    return [Text(text), Reading(speech)]


def _asr_shot(utterance: Utterance) -> list[Segment]:
    return asr_shot(Speech(utterance.spoken()), utterance.transcript())


def _intent_shot(utterance: Utterance) -> list[Segment]:
    return _label_of_speech("intent", utterance)


def _label_of_speech(
    name: str, utterance: Utterance, random: Random | None = None
) -> list[Segment]:
    return intent_shot(Speech(utterance.spoken()), utterance.label(name))


def _label_of_text(
    name: str, utterance: Utterance, random: Random
) -> list[Segment]:
    label = intent_text(utterance.label(name))
    return [Text(utterance.transcript()), Break(), label]


# What consecutive utterances can make one document of.
JOINED: Mapping[str, Callable] = {
    "text": DocumentMaker._text,
    "speech": DocumentMaker._speech,
    "interleaved": DocumentMaker._interleaved,
    "words": DocumentMaker._words,
}
_SINGLE: Mapping[str, Callable] = {
    "asr": _asr,
    "asr_span": _asr_span,
    "asr_shuffled": _asr_shuffled,
    "tts": _tts,
    "tts_span": _tts_span,
    "tts_shuffled": _tts_shuffled,
    **{f"{name}_of_speech": partial(_label_of_speech, name) for name in LABELS},
    **{f"{name}_of_text": partial(_label_of_text, name) for name in LABELS},
}
_SHOTS: Mapping[str, Callable] = {
    "few_shot_asr": _asr_shot,
    "few_shot_intent": _intent_shot,
}
FORMS = (*JOINED, *_SINGLE, *_SHOTS, *SIDES)
# What utterances must have for each.
NEEDS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(FORMS, ("units", "words")),
    **dict.fromkeys(("asr", "tts", "few_shot_asr"), ("units", "text")),
    "text": ("text",),
    "speech": ("units",),
    "few_shot_intent": ("units", "text", "intent"),
    **{f"{name}_of_speech": ("units", name) for name in LABELS},
    **{f"{name}_of_text": ("text", name) for name in LABELS},
    **dict.fromkeys(SIDES, ("units", "text", "group")),
    "turns_s2s": ("units", "group"),
    "turns_t2t": ("text", "group"),
}
