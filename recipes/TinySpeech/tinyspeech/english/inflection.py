"""How nouns and verbs inflect, and how sentences are written."""

from __future__ import annotations

import re

_ARTICLE = re.compile(r"\b([Aa]) (?=[aeiou])")

_PLURALS = {
    "man": "men",
    "woman": "women",
    "child": "children",
    "sheep": "sheep",
    "wolf": "wolves",
    "mouse": "mice",
    "shelf": "shelves",
    "knife": "knives",
    "scarf": "scarves",
    "potato": "potatoes",
    "tomato": "tomatoes",
    "box": "boxes",
    "fox": "foxes",
}

# verb: third person, past, participle, -ing form; others are regular.
_IRREGULAR = {
    "be": "is was been being",
    "have": "has had had having",
    "meet": "meets met met meeting",
    "send": "sends sent sent sending",
    "lend": "lends lent lent lending",
    "prefer": "prefers preferred preferred preferring",
    "do": "does did done doing",
    "go": "goes went gone going",
    "eat": "eats ate eaten eating",
    "drink": "drinks drank drunk drinking",
    "drive": "drives drove driven driving",
    "ride": "rides rode ridden riding",
    "write": "writes wrote written writing",
    "sing": "sings sang sung singing",
    "swim": "swims swam swum swimming",
    "run": "runs ran run running",
    "see": "sees saw seen seeing",
    "find": "finds found found finding",
    "buy": "buys bought bought buying",
    "sell": "sells sold sold selling",
    "build": "builds built built building",
    "break": "breaks broke broken breaking",
    "wear": "wears wore worn wearing",
    "give": "gives gave given giving",
    "take": "takes took taken taking",
    "bring": "brings brought brought bringing",
    "sleep": "sleeps slept slept sleeping",
    "sit": "sits sat sat sitting",
    "fly": "flies flew flown flying",
    "tell": "tells told told telling",
    "forget": "forgets forgot forgotten forgetting",
    "hide": "hides hid hidden hiding",
    "lose": "loses lost lost losing",
    "catch": "catches caught caught catching",
    "teach": "teaches taught taught teaching",
    "feed": "feeds fed fed feeding",
    "cut": "cuts cut cut cutting",
    "draw": "draws drew drawn drawing",
    "throw": "throws threw thrown throwing",
    "steal": "steals stole stolen stealing",
    "leave": "leaves left left leaving",
    "understand": "understands understood understood understanding",
    "grow": "grows grew grown growing",
    "know": "knows knew known knowing",
    "think": "thinks thought thought thinking",
    "say": "says said said saying",
    "hear": "hears heard heard hearing",
    "feel": "feels felt felt feeling",
    "come": "comes came come coming",
    "speak": "speaks spoke spoken speaking",
    "choose": "chooses chose chosen choosing",
    "hold": "holds held held holding",
}


def plural(noun: str) -> str:
    """Return the plural of a noun."""
    if noun in _PLURALS:
        return _PLURALS[noun]
    return _add_s(noun)


def forms(verb: str) -> tuple[str, str, str, str]:
    """Return the third person, the past, the participle and the -ing form."""
    if verb in _IRREGULAR:
        return tuple(_IRREGULAR[verb].split())
    stem = verb[:-1] if verb.endswith("e") else verb
    if verb in ("plan", "drop", "stop"):
        stem += verb[-1]
    past = stem + "ed"
    if verb.endswith("y") and verb[-2] not in "aeiou":
        past = verb[:-1] + "ied"
    return _add_s(verb), past, past, stem + "ing"


def _add_s(word: str) -> str:
    if word.endswith("y") and word[-2] not in "aeiou":
        return word[:-1] + "ies"
    if word.endswith(("s", "x", "ch", "sh")):
        return word + "es"
    return word + "s"


def finish(sentence: str) -> str:
    """Return a sentence with its articles, spaces and first capital right."""
    sentence = _ARTICLE.sub(r"\1n ", " ".join(sentence.split()))
    sentence = re.sub(r" ([,.?!])", r"\1", sentence)
    return sentence[:1].upper() + sentence[1:]
