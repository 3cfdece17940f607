"""The world in Spanish."""

from ..language import Language, Voice
from .commands import INTENTS, command
from .grammar import SLIPS, Grammar
from .lexicon import VERBS
from .sentiment import FEELINGS, opinion
from .topics import story
from .verbs import forms

LANGUAGE = Language(
    grammar=Grammar,
    slips=SLIPS,
    opinion=opinion,
    feelings=FEELINGS,
    story=story,
    command=command,
    intents=INTENTS,
    consonants="bdflmnprst",
    silent=(),
    speakers={
        "alba": Voice("roa/es+f2"),
        "bruno": Voice("roa/es+m7"),
        "celia": Voice("roa/es-419+steph"),
        "dario": Voice("roa/es-419+m6", -3),
        "eva": Voice("roa/es+f5", 6),
        "fermin": Voice("roa/es-419+rob"),
    },
    unseen_speaker={"gil": Voice("roa/es-419+m8")},
    same_phones={"θ": "s", "ʎ": "j"},
    more_words={form for verb in VERBS for form in forms(verb)},
)
