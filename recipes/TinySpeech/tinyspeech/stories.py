"""Five-sentence stories: the first four make one of two endings fit."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from . import lexicon as lex
from .templates import expand
from .topics import TOPICS, Topic


@dataclass(frozen=True)
class Story:
    """Four sentences, the ending that fits them, and two that do not."""

    topic: str
    context: tuple[str, ...]
    ending: str
    incorrect: str
    other_topic: str


def story(rng: Random) -> Story:
    """Draw a story with its fitting and unfitting endings."""
    people = _people(rng)
    name, other = rng.sample(list(TOPICS), 2)
    topic = TOPICS[name]
    slots = people | _draw(topic, rng)
    good, bad = rng.sample(topic.turns, 2)
    context = tuple(expand(s, slots, rng) for s in (*topic.opening, good[0]))
    foreign = people | _draw(TOPICS[other], rng)
    return Story(
        name,
        context,
        expand(good[1], slots, rng),
        expand(bad[1], slots, rng),
        expand(rng.choice(TOPICS[other].turns)[1], foreign, rng),
    )


def _draw(topic: Topic, rng: Random) -> dict[str, str]:
    return {n: rng.choice(v.split(",")) for n, v in topic.slots.items()}


def _people(rng: Random) -> dict[str, str]:
    hero, friend = rng.sample(lex.MEN + lex.WOMEN, 2)
    pronouns = (
        ("he", "his", "him") if hero in lex.MEN else ("she", "her", "her")
    )
    return dict(zip(("he", "his", "him"), pronouns), hero=hero, friend=friend)
