"""What Flite and Festival tell: phones of the Radio set, by their ends."""

from __future__ import annotations

from collections.abc import Iterable

from ..templates import WORD
from ..timing import Span

# The phones of the Radio set, named as eSpeak's are.
PHONES = {
    "aa": "ɑ", "ae": "æ", "ah": "ʌ", "ao": "ɔ", "aw": "aʊ", "ax": "ə",
    "axr": "ɚ", "ay": "aɪ", "b": "b", "ch": "tʃ", "d": "d", "dh": "ð",
    "dx": "t", "eh": "ɛ", "el": "əl", "em": "m", "en": "n", "er": "ɚ",
    "ey": "eɪ", "f": "f", "g": "ɡ", "hh": "h", "hv": "h", "ih": "ɪ",
    "iy": "i", "jh": "dʒ", "k": "k", "l": "l", "m": "m", "n": "n",
    "nx": "n", "ng": "ŋ", "ow": "oʊ", "oy": "ɔɪ", "p": "p", "r": "ɹ",
    "s": "s", "sh": "ʃ", "t": "t", "th": "θ", "uh": "ʊ", "uw": "u",
    "v": "v", "w": "w", "y": "j", "z": "z", "zh": "ʒ", "pau": "sil",
    "ssil": "sil", "brth": "sil", "h#": "sil",
}  # fmt: skip
# eSpeak has one phone for each of these, and for a stressed "er".
_STRESSED_ER = "ɜ"
_JOINED = {name: name for name in ("ɑɹ", "ɔɹ", "ɛɹ", "ɪɹ", "ʊɹ", "əl")}
_JOINED |= {"ɚɹ": "ɚ", "ɜɹ": "ɜ"}
_VOWELS = set("ɑæʌɔaəɚɛeɪioʊuɜ")

Segment = tuple[str, float, int | None, bool]


def written(text: str) -> str:
    """Return a sentence with one word between two spaces.

    Example
    -------
    >>> written("It's a well-known ice-cream, Tom.")
    "It's a well known ice cream, Tom."
    """
    return text.replace("-", " ")


def spans(
    text: str, segments: Iterable[Segment]
) -> tuple[list[Span], list[Span]]:
    """Return words and phones with their times.

    Arguments
    ---------
    text : str
        The sentence.
    segments : iterable of tuple
        Each a phone of the Radio set, the second of its end, the index of
        its word (None in a pause and of a linking phone, which is of the word
        before), and whether its syllable is stressed.

    Raises
    ------
    ValueError
        If a word was not said.

    Example
    -------
    >>> said = [("pau", 0.1, None, False), ("n", 0.2, 0, True)]
    >>> spans("No.", [*said, ("ow", 0.4, 0, True)])
    ([('no', 0.1, 0.4)], [('sil', 0.0, 0.1), ('n', 0.1, 0.2), ('oʊ', 0.2, 0.4)])
    """
    names = [match.group().lower() for match in WORD.finditer(text)]
    owned: list[tuple[Span, int | None]] = []
    times: dict[int, tuple[float, float]] = {}
    start, last = 0.0, None
    for phone, end, word, stressed in segments:
        name = PHONES[phone]
        if word is None and name != "sil":
            word = last  # a phone that links two, of no syllable
        last = word
        if phone == "er" and stressed:
            name = _STRESSED_ER
        owned.append(((name, start, end), word))
        if word is not None:
            times[word] = (times.get(word, (start, end))[0], end)
        start = end
    if sorted(times) != list(range(len(names))):
        raise ValueError(
            f"{len(times)} words were said of the {len(names)} of {text!r}"
        )
    return [(n, *times[i]) for i, n in enumerate(names)], _joined(owned)


def _joined(owned: list[tuple[Span, int | None]]) -> list[Span]:
    """Join a vowel and what colors it, unless a vowel of the word follows."""
    phones: list[Span] = []
    before: int | None = None
    for i, (span, word) in enumerate(owned):
        name, start, end = span
        after, other = owned[i + 1] if i + 1 < len(owned) else (span, None)
        both = phones[-1][0] + name if phones and word == before else ""
        goes_on = other == word and after[0][0] in _VOWELS
        if both in _JOINED and not goes_on:
            phones[-1] = (_JOINED[both], phones[-1][1], end)
        else:
            phones.append((name, start, end))
        before = word
    return phones
