"""Conversations: utterances that follow each other, as turns.

Either side speaks or writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from random import Random

from spiritlm_plugin.dataio.stream.interleaving import join_speech
from spiritlm_plugin.dataio.stream.marking import Part
from spiritlm_plugin.dataio.stream.utterances import Utterance
from spiritlm_plugin.dataio.units.segments import (
    Break,
    Segment,
    Speech,
    Text,
)

# Of the side that asks and of the one that answers; drawn for each turn where
# there is none.
SIDES = {
    "turns_s2s": ("speech", "speech"),
    "turns_s2t": ("speech", "text"),
    "turns_t2s": ("text", "speech"),
    "turns_t2t": ("text", "text"),
    "turns_mixed": (None, None),
}


def converse(
    form: str,
    utterances: Sequence[Utterance],
    assistant: str | None,
    random: Random,
) -> list[Part]:
    """Return the turns of a conversation, each behind a marker of its own.

    What one speaker says in a row is one turn; where all is said by one, or
    nobody knows who speaks, each utterance is a turn.

    Arguments
    ---------
    form : str
        Which side speaks and which writes: ``turns_s2s``, ``turns_s2t``,
        ``turns_t2s``, ``turns_t2t``, or ``turns_mixed``.
    utterances : sequence of Utterance
        That follow each other.
    assistant : str, optional
        The speaker whose turns are learned. By default all are but the first,
        and every second one is an answer.
    random : random.Random
        Decides on what is mixed.

    Returns
    -------
    list of Part
        From a question to the last answer; none if there is no answer.

    Raises
    ------
    DocumentError
        If an utterance lacks what its side needs.

    Example
    -------
    >>> user = Utterance(text="who is there", labels={"speaker": "ann"})
    >>> bob = Utterance(text="it is bob", labels={"speaker": "bob"})
    >>> turns = converse("turns_t2t", [user, bob, user], "bob", Random(0))
    >>> [(turn.segments[0].text, turn.learned) for turn in turns]
    [('who is there', False), ('it is bob', True)]
    """
    parts = []
    for number, turn in enumerate(_turns(utterances)):
        answers = number % 2 == 1
        learned = number > 0
        if assistant is not None:
            answers = learned = turn[0].labels.get("speaker") == assistant
        modality = SIDES[form][answers] or random.choice(["speech", "text"])
        parts.append(Part([_segment(turn, modality), Break()], learned))
    while parts and parts[0].learned:
        del parts[0]
    while parts and not parts[-1].learned:
        del parts[-1]
    return parts


def _turns(utterances: Sequence[Utterance]) -> list[list[Utterance]]:
    speakers = [utterance.labels.get("speaker") for utterance in utterances]
    if len({*speakers}) < 2:
        return [[utterance] for utterance in utterances]
    runs = groupby(zip(speakers, utterances), key=lambda pair: pair[0])
    return [[utterance for _, utterance in run] for _, run in runs]


def _segment(turn: Sequence[Utterance], modality: str) -> Segment:
    if modality == "text":
        return Text(" ".join(utterance.transcript() for utterance in turn))
    return Speech(join_speech([u.spoken().merge() for u in turn]))
