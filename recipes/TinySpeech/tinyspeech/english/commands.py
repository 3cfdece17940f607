"""Spoken commands, with an intent of action, object and location."""

from __future__ import annotations

from random import Random

from ..templates import expand
from .inflection import finish

_ROOMS = {
    "kitchen": "in the kitchen",
    "bedroom": "in [the|my] bedroom",
    "bathroom": "in the bathroom",
    "none": "",
}
_PATTERNS = {
    ("activate", "lights"): "[turn on|switch on|put on] the [lights|lamps|"
    "light]{more} {place}",
    ("deactivate", "lights"): "[turn off|switch off|put out] the [lights|lamps"
    "|light]{more} {place}",
    ("increase", "heat"): "[turn up|increase|raise] the [heat|heating|"
    "temperature]{more} {place}",
    ("decrease", "heat"): "[turn down|decrease|lower] the [heat|heating|"
    "temperature]{more} {place}",
    ("open", "window"): "open [the|a] [window|windows|curtain]{more} {place}",
    ("close", "window"): "[close|shut] [the|a] [window|windows|curtain]{more} "
    "{place}",
    ("increase", "volume"): "[turn up the [volume|sound|radio]|make [it|the "
    "music|the radio] louder]{more}",
    ("decrease", "volume"): "[turn down the [volume|sound|radio]|make [it|the "
    "music|the radio] quieter]{more}",
    ("activate", "music"): "[play|start|put on] [some|the|my] [music|songs]"
    "{more}",
    ("deactivate", "music"): "[stop|pause|turn off] [the|this|my] "
    "[music|songs|song]{more}",
    ("bring", "newspaper"): "[bring|get|fetch] me [the|a|my] [newspaper|"
    "paper]{more}",
    ("bring", "shoes"): "[bring|get|fetch] me [the|my] [shoes|boots]{more}",
    ("bring", "juice"): "[bring|get|fetch] me [some|a glass of|the] juice"
    "{more}",
    ("change", "language"): "[change|switch|set] the language{more} to "
    "[English|French]",
}
_WITH_ROOMS = ("lights", "heat", "window")
_START = (
    "[|||please|could you|can you|would you|i want you to|now|hey robot|"
    "it is [dark|cold|warm|late|loud], so|i need you to|could you please]"
)
_END = "[||||please|for me|right now|again|for a while|for the children]"
_MORE = "[||| a little| quickly| now]"

INTENTS = [
    (action, thing, room)
    for action, thing in _PATTERNS
    for room in (_ROOMS if thing in _WITH_ROOMS else ["none"])
]


def command(intent: tuple[str, str, str], rng: Random) -> str:
    """Draw a phrasing of an intent.

    Example
    -------
    >>> command(("bring", "juice", "none"), Random(3)).count("juice")
    1
    """
    action, thing, room = intent
    pattern = _PATTERNS[action, thing]
    pattern = pattern.replace("{more}", _MORE).replace("{place}", _ROOMS[room])
    text = expand(f"{_START} {pattern} {_END}", {}, rng, finish)
    question = text.startswith(("Could", "Can", "Would"))
    return text + ("?" if question else ".")
