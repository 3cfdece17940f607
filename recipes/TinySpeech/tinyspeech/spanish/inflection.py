"""How nouns and adjectives inflect, and how sentences are written."""

from __future__ import annotations

import re
import unicodedata

_BARE = str.maketrans("áéíóú", "aeiou")
_PLURALS = {"joven": "jóvenes", "gris": "grises", "tigre": "tigres"}
# "y" and "o" change before their own sounds; "a" and "de" swallow "el".
_JOINED = (
    (r"\b([Yy]) (?=(?i:h?[ií](?!e)))", {"y": "e ", "Y": "E "}),
    (r"\b([Oo]) (?=(?i:h?[oó]))", {"o": "u ", "O": "U "}),
    (r"\b([Aa]) el\b", {"a": "al", "A": "Al"}),
    (r"\b([Dd]e) el\b", {"de": "del", "De": "Del"}),
)


def plural(word: str) -> str:
    """Return the plural of a noun or an adjective.

    Example
    -------
    >>> plural("pez"), plural("ratón"), plural("sofá"), plural("azul")
    ('peces', 'ratones', 'sofás', 'azules')
    """
    if word in _PLURALS:
        return _PLURALS[word]
    if word[-1] in "aeiouáéó":
        return word + "s"
    if word.endswith("z"):
        return word[:-1] + "ces"
    if re.search("[áéíóú][ns]$", word):
        return word[:-2] + word[-2:].translate(_BARE) + "es"
    return word + "es"


def agree(adjective: str, feminine: bool, many: bool = False) -> str:
    """Return an adjective with a gender and a number.

    Example
    -------
    >>> agree("rojo", True, True), agree("trabajador", True), agree("azul", True)
    ('rojas', 'trabajadora', 'azul')
    """
    if feminine and adjective.endswith("o"):
        adjective = adjective[:-1] + "a"
    elif feminine and adjective.endswith("dor"):
        adjective += "a"
    return plural(adjective) if many else adjective


def finish(sentence: str) -> str:
    """Return a sentence with its contractions, spaces and first capital right.

    Example
    -------
    >>> finish("¿ vio a el perro de el rey y Inés ?")
    '¿Vio al perro del rey e Inés?'
    """
    sentence = unicodedata.normalize("NFC", " ".join(sentence.split()))
    for pattern, forms in _JOINED:
        sentence = re.sub(pattern, lambda m: forms[m[1]], sentence)  # noqa: B023
    sentence = re.sub(r" ([,.?!])", r"\1", sentence)
    sentence = re.sub(r"([¿¡]) ", r"\1", sentence)
    first = next(i for i, c in enumerate(sentence) if c.isalpha())
    return sentence[:first] + sentence[first].upper() + sentence[first + 1 :]
