"""The world in English."""

from ..language import Language, Voice
from .commands import INTENTS, command
from .grammar import SLIPS, Grammar
from .sentiment import FEELINGS, opinion
from .topics import story

LANGUAGE = Language(
    grammar=Grammar,
    slips=SLIPS,
    opinion=opinion,
    feelings=FEELINGS,
    story=story,
    command=command,
    intents=INTENTS,
    consonants="bdflmnprtv",
    silent=("gn", "mb", "mn", "lk", "lm", "ps"),
    speakers={
        "anna": Voice("gmw/en-US+f2"),
        "ben": Voice("gmw/en-US+m7"),
        "cora": Voice("gmw/en+steph"),
        "dan": Voice("gmw/en+m6", -3),
        "ella": Voice("gmw/en-US+f5", 6),
        "finn": Voice("gmw/en-US+rob"),
    },
    unseen_speaker={"gus": Voice("gmw/en-US+m8")},
    natural_speakers={
        "joe": Voice("joe", engine="piper"),
        "rms": Voice("rms", engine="flite"),
        "awb": Voice("awb", engine="flite"),
        "kal16": Voice("kal16", engine="flite"),
        "ked": Voice("ked_diphone", engine="festival"),
        "alan": Voice("alan", engine="rhvoice"),
        "bdl": Voice("bdl", engine="rhvoice"),
        "clb": Voice("clb", engine="rhvoice"),
        "pia": Voice("en-US", engine="pico"),
        "pam": Voice("en-GB", engine="pico"),
    },
    # One person, by two engines.
    unseen_natural={
        "slt": Voice("slt", engine="flite"),
        "slt_hts": Voice("cmu_us_slt_arctic_hts", engine="festival"),
    },
    same_phones={
        "ᵻ": "ɪ",
        "ɐ": "ə",
        "əʊ": "oʊ",
        "a": "æ",
        "ɾ": "t",
        "ʔ": "t",
    },
)
