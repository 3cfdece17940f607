"""Five-sentence stories: the first four make one of two endings fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random

from .templates import expand


@dataclass(frozen=True)
class Topic:
    """What can be told about one thing.

    ``slots`` are drawn once for a story; ``opening`` is its first three
    sentences; each of the two ``turns`` is a fourth sentence and its ending.
    """

    slots: dict[str, str]
    opening: tuple[str, str, str]
    turns: tuple[tuple[str, str], tuple[str, str]]


@dataclass(frozen=True)
class Story:
    """Four sentences, the ending that fits them, and two that do not."""

    topic: str
    context: tuple[str, ...]
    ending: str
    incorrect: str
    other_topic: str


def tell(
    topics: Mapping[str, Topic],
    people: Mapping[str, str],
    rng: Random,
    finish: Callable[[str], str],
) -> Story:
    """Draw a story with its fitting and unfitting endings.

    ``people`` are the slots of those whom it is about.
    """
    name, other = rng.sample(list(topics), 2)
    topic = topics[name]

    def say(sentence: str, slots: Mapping[str, str]) -> str:
        return expand(sentence, slots, rng, finish)

    slots = {**people, **_draw(topic, rng)}
    good, bad = rng.sample(topic.turns, 2)
    context = tuple(say(s, slots) for s in (*topic.opening, good[0]))
    foreign = {**people, **_draw(topics[other], rng)}
    return Story(
        name,
        context,
        say(good[1], slots),
        say(bad[1], slots),
        say(rng.choice(topics[other].turns)[1], foreign),
    )


def _draw(topic: Topic, rng: Random) -> dict[str, str]:
    return {n: rng.choice(v.split(",")) for n, v in topic.slots.items()}
