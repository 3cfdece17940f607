"""Word times as aligners write them, and the transcript that they belong to."""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from spiritlm_plugin.utils.files import read_text

# What is said, start and end in seconds; silences are empty.
Word = tuple[str, float, float]
# Of a tier its name, and what is in it.
_Tier = tuple[str, list[Word]]

UNKNOWN = "<unk>"
_UNKNOWN = frozenset({UNKNOWN, "spn"})
_SILENCES = frozenset({"", "sil", "sp", "<eps>", "<sil>"})
# Of one speaker, or as in "anna - words" of each.
_TIER = re.compile(r"(?:.* - )?words?", re.IGNORECASE)
# What counts in a text file of Praat (its manual, "TextGrid file formats"):
# texts, and numbers that stand free. All else, such as "intervals [3]:", is for
# people. The last alternative is a text that does not end.
_TOKEN = re.compile(
    r'"(?P<text>[^"]*(?:""[^"]*)*)"'
    r"|(?<!\S)(?P<number>[+-]?\d{1,20}(\.\d*)?([eE][+-]?\d\d?)?)(?!\S)"
    r"|!.*"
    r'|(?P<damage>")'
)


def read_textgrid(path: str | Path) -> list[Word]:
    r"""Return the words and silences of a TextGrid, in order of time.

    As Praat and the Montreal Forced Aligner write it, in long or short form.

    Arguments
    ---------
    path : str or Path
        Of a file with an interval tier ``words``, or, for each of several
        speakers, one such as ``anna - words``.

    Returns
    -------
    list of (str, float, float)
        What is said, start and end in seconds. Silences (also ``sil`` and
        ``sp``) are empty words; a word that the aligner did not know
        (``<unk>``, ``spn``) is `UNKNOWN`, for `match_words` to name.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is damaged, as one that lacks an interval, or has no such tier;
        names the file.

    Example
    -------
    >>> path = tmp / "boats.TextGrid"
    >>> _ = path.write_text('''File type = "ooTextFile"
    ... Object class = "TextGrid"
    ...
    ... 0
    ... 1.2
    ... <exists>
    ... 1
    ... "IntervalTier"
    ... "words"
    ... 0
    ... 1.2
    ... 2
    ... 0
    ... 0.25
    ... ""
    ... 0.25
    ... 1.2
    ... "boats"
    ... ''')
    >>> read_textgrid(path)
    [('', 0.0, 0.25), ('boats', 0.25, 1.2)]
    """
    try:
        tiers = [
            entries
            for name, entries in _read_tiers(_tokens(_decode(Path(path))))
            if _TIER.fullmatch(name.strip())
        ]
        if not tiers:
            raise ValueError("it has no tier of words")
    except ValueError as error:
        raise ValueError(f"cannot read the TextGrid {path}: {error}") from error
    words = [(_word(text), start, end) for t in tiers for text, start, end in t]
    if len(tiers) > 1:  # the silence of one is no silence
        words = sorted((w for w in words if w[0]), key=lambda word: word[1:])
    return words


def match_words(words: Iterable[Word], text: str) -> list[Word]:
    """Return words with the spelling of their transcript.

    Arguments
    ---------
    words : iterable of (str, float, float)
        Words and silences with times; an `UNKNOWN` one takes the place that it
        has in the transcript.
    text : str
        The transcript. Case, punctuation and the way in which accents are
        written make no other word.

    Raises
    ------
    ValueError
        If the words are others than the transcript's.

    Example
    -------
    >>> words = [("", 0.0, 0.25), ("<unk>", 0.25, 0.5), ("GO", 0.5, 0.75)]
    >>> match_words(words, "They go.")
    [('', 0.0, 0.25), ('They', 0.25, 0.5), ('go.', 0.5, 0.75)]
    """
    words = list(words)
    said = [word[0] for word in words if _letters(word[0])]
    known = [word for word in text.split() if _letters(word)]
    problem = None
    if len(said) != len(known):
        problem = f"{len(said)}, not {len(known)}"
    for word, spelled in zip(said, known):
        if word != UNKNOWN and _letters(word) != _letters(spelled):
            problem = problem or f"{word!r}, not {spelled!r}"
    if problem:
        raise ValueError(
            f"the alignment has other words than the transcript: {problem}"
        )
    spelling = iter(known)
    return [
        (next(spelling) if _letters(word) else "", start, end)
        for word, start, end in words
    ]


def _letters(word: str) -> str:
    folded = unicodedata.normalize("NFC", word.casefold())
    return "".join(filter(str.isalnum, folded))


def _word(text: str) -> str:
    text = text.strip()
    if text.lower() in _SILENCES:
        return ""
    return UNKNOWN if text.lower() in _UNKNOWN else text


def _decode(path: Path) -> str:
    """Return what a file says; Praat writes UTF-16 where it needs it."""
    with path.open("rb") as file:
        start = file.read(2)
    if start not in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        return read_text(path)
    return unicodedata.normalize("NFC", path.read_text(encoding="utf-16"))


def _tokens(content: str) -> Iterator[str | float]:
    """Yield texts and numbers."""
    for token in _TOKEN.finditer(content):
        if token["text"] is not None:
            yield token["text"].replace('""', '"')
        elif token["number"] is not None:
            yield float(token["number"])
        elif token["damage"]:
            line = content.count("\n", 0, token.start()) + 1
            raise ValueError(f"the text of line {line} does not end")


def _read_tiers(tokens: Iterator[str | float]) -> Iterator[_Tier]:
    """Yield name and intervals of each tier; points are passed over."""
    _, kind = _take(tokens, "the header", str, str)
    if kind != "TextGrid":
        raise ValueError(f"it says that it is a {kind:.60}")
    _, _, tiers = _take(tokens, "the header", float, float, float)
    for number in range(1, int(tiers) + 1):
        kind, name, _, _, size = _take(
            tokens, f"tier {number}", str, str, float, float, float
        )
        types = (float, float, str) if kind == "IntervalTier" else (float, str)
        entries = [
            _take(tokens, f"entry {entry} of {int(size)} in {name}", *types)
            for entry in range(1, int(size) + 1)
        ]
        if kind == "IntervalTier":
            yield name, [(text, start, end) for start, end, text in entries]


def _take(
    tokens: Iterator[str | float], what: str, *types: type
) -> tuple[Any, ...]:
    """Return the next tokens, which must be of these types."""
    found = tuple(islice(tokens, len(types)))
    if tuple(map(type, found)) != types:
        raise ValueError(f"{what} is not complete")
    return found
