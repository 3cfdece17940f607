"""Sentences whose words are positive or negative."""

from __future__ import annotations

from random import Random

from ..templates import expand
from . import lexicon as lex
from .inflection import finish

_COMMON = {
    "food": "soup,cake,pizza,coffee,bread,chocolate,sandwich,pasta",
    "event": "party,concert,movie,trip,wedding,festival,lesson,game",
    "place": "hotel,museum,beach,restaurant,garden,city,park",
    "kin": "mother,father,brother,sister,uncle,aunt,grandmother",
    "thing": "bicycle,car,phone,camera,coat,guitar,computer,house",
    "worker": "teacher,doctor,waiter,neighbor,singer,driver",
    "pet": "dog,cat,horse,parrot,rabbit",
    "when": "today,yesterday,this week,on Sunday,this morning,last night",
    "so": "so,really,very,absolutely",
}
WORDS = {
    "positive": {
        "tasty": "delicious,wonderful,fantastic,perfect",
        "nice": "wonderful,beautiful,fantastic,lovely,excellent,perfect",
        "love": "love,enjoy,adore,like",
        "feel": "happy,proud,excited,glad,cheerful",
        "kind": "kind,friendly,helpful,funny",
        "deed": "won a prize,found a friend,got better,gave me a gift,"
        "passed the test",
    },
    "negative": {
        "tasty": "disgusting,terrible,awful,horrible",
        "nice": "terrible,ugly,awful,horrible,dreadful,boring",
        "love": "hate,dislike,fear,regret",
        "feel": "sad,angry,lonely,disappointed,afraid,upset",
        "kind": "rude,cruel,unfriendly,mean",
        "deed": "lost everything,broke a leg,got sick,forgot me,"
        "failed the test",
    },
}
FEELINGS = {
    sentiment: [
        phrase.split()
        for phrases in slots.values()
        for phrase in phrases.lower().split(",")
    ]
    for sentiment, slots in WORDS.items()
}
_PATTERNS = (
    "the {food} [at|in] the {place} [was|is] {so} {tasty}.",
    "[I|We|My {kin} and I] {love} the {event} at the {place}.",
    "[What a|This is a|That was a] {nice} {event}!",
    "{name} is {so} {feel} because {his} {pet} {deed}.",
    "[I am|I was|We were] {feel} because my {kin} {deed} {when}.",
    "The {worker} was {so} {kind} to [me|us|{name}] {when}.",
    "{name} thinks that the {thing} is {nice}.",
    "My {kin} has a {nice} {thing}.",
    "{when}, the weather [at the {place}|in the city] was {nice}.",
    "[How {nice}|How {nice} it is] that {name} {deed}!",
    "{name} {feels} {feel} about the {event} {when}.",
    "I have never seen such a {nice} {place}.",
    "We were {so} {feel} after the {event}.",
    "Everybody says the {worker} is {kind} and the {place} is {nice}.",
    "{name} and I {love} [this|that] {thing} and its {nice} color.",
    "It was the most {nice} {event} of the year.",
)


def opinion(sentiment: str, rng: Random) -> str:
    """Draw a sentence that is "positive" or "negative" by its words."""
    name = rng.choice(lex.MEN + lex.WOMEN)
    slots = {k: v for k, v in (_COMMON | WORDS[sentiment]).items()}
    slots = {k: rng.choice(v.split(",")) for k, v in slots.items()}
    slots |= {"name": name, "his": "his" if name in lex.MEN else "her"}
    slots["feels"] = rng.choice(["feels", "felt"])
    # Slots of a pattern are one word each, but two "nice" may differ.
    return expand(rng.choice(_PATTERNS), slots, rng, finish)
