"""How verbs are conjugated: the five persons of Latin America.

A verb is its infinitive, with "se" behind it if it is reflexive. Forms come in
the order yo, tú, él, nosotros, ellos.
"""

from __future__ import annotations

from functools import cache

TENSES = ("present", "past", "imperfect", "future", "subjunctive")
CLITICS = ("me", "te", "se", "nos", "se")

_PRESENT = {
    "a": ("o", "as", "a", "amos", "an"),
    "e": ("o", "es", "e", "emos", "en"),
    "i": ("o", "es", "e", "imos", "en"),
}
_PAST = {
    "a": ("é", "aste", "ó", "amos", "aron"),
    "e": ("í", "iste", "ió", "imos", "ieron"),
}
_STRONG_PAST = ("e", "iste", "o", "imos", "ieron")
_IMPERFECT = {
    "a": ("aba", "abas", "aba", "ábamos", "aban"),
    "e": ("ía", "ías", "ía", "íamos", "ían"),
}
_FUTURE = ("é", "ás", "á", "emos", "án")
_SUBJUNCTIVE = {
    "a": ("e", "es", "e", "emos", "en"),
    "e": ("a", "as", "a", "amos", "an"),
}

# The last vowel of the stem, where it is stressed.
_CHANGES = {
    verb: tuple(change.split(">"))
    for change, verbs in {
        "e>ie": "pensar cerrar empezar sentar despertar calentar regar perder "
        "entender encender querer tener venir preferir sentir",
        "o>ue": "contar encontrar mostrar volar recordar acostar costar probar "
        "colgar soñar almorzar dormir poder volver devolver mover resolver",
        "u>ue": "jugar",
        "e>i": "pedir servir seguir perseguir elegir vestir decir",
    }.items()
    for verb in verbs.split()
}
_FIRST = {
    "hacer": "hago",
    "poner": "pongo",
    "salir": "salgo",
    "traer": "traigo",
    "caer": "caigo",
    "tener": "tengo",
    "venir": "vengo",
    "decir": "digo",
    "ver": "veo",
    "dar": "doy",
    "saber": "sé",
    "conducir": "conduzco",
}
_WHOLE = {
    ("ser", "present"): "soy eres es somos son",
    ("ser", "imperfect"): "era eras era éramos eran",
    ("ser", "subjunctive"): "sea seas sea seamos sean",
    ("ir", "present"): "voy vas va vamos van",
    ("ir", "imperfect"): "iba ibas iba íbamos iban",
    ("ir", "subjunctive"): "vaya vayas vaya vayamos vayan",
    ("ser", "past"): "fui fuiste fue fuimos fueron",
    ("ir", "past"): "fui fuiste fue fuimos fueron",
    ("estar", "present"): "estoy estás está estamos están",
    ("estar", "subjunctive"): "esté estés esté estemos estén",
    ("haber", "present"): "he has ha hemos han",
    ("dar", "past"): "di diste dio dimos dieron",
    ("dar", "subjunctive"): "dé des dé demos den",
    ("ver", "past"): "vi viste vio vimos vieron",
    ("ver", "imperfect"): "veía veías veía veíamos veían",
    ("oír", "present"): "oigo oyes oye oímos oyen",
    ("oír", "past"): "oí oíste oyó oímos oyeron",
    ("saber", "subjunctive"): "sepa sepas sepa sepamos sepan",
}
_STRONG = dict(
    pair.split()
    for pair in [
        "tener tuv",
        "estar estuv",
        "hacer hic",
        "poder pud",
        "poner pus",
        "querer quis",
        "saber sup",
        "venir vin",
        "decir dij",
        "traer traj",
        "conducir conduj",
    ]
)
_FUTURE_STEMS = dict(
    pair.split()
    for pair in [
        "tener tendr",
        "hacer har",
        "poder podr",
        "poner pondr",
        "querer querr",
        "saber sabr",
        "venir vendr",
        "decir dir",
        "salir saldr",
        "oír oir",
    ]
)
_PARTICIPLES = dict(
    pair.split()
    for pair in [
        "abrir abierto",
        "escribir escrito",
        "ver visto",
        "hacer hecho",
        "poner puesto",
        "decir dicho",
        "romper roto",
        "volver vuelto",
        "devolver devuelto",
        "resolver resuelto",
        "descubrir descubierto",
    ]
)
_GERUNDS = {"ir": "yendo", "oír": "oyendo", "poder": "pudiendo"}
_COMMANDS = dict(
    pair.split()
    for pair in [
        "decir di",
        "hacer haz",
        "ir ve",
        "poner pon",
        "salir sal",
        "tener ten",
        "venir ven",
    ]
)


def is_reflexive(verb: str) -> bool:
    """Return whether a verb takes me, te, se, nos."""
    return verb.endswith("se")


def plain(verb: str) -> str:
    """Return the infinitive without "se"."""
    return verb.removesuffix("se")


@cache
def conjugate(verb: str, tense: str) -> tuple[str, ...]:
    """Return the five forms of a tense.

    Example
    -------
    >>> conjugate("jugar", "present")
    ('juego', 'juegas', 'juega', 'jugamos', 'juegan')
    >>> conjugate("perseguir", "past")[2:]
    ('persiguió', 'perseguimos', 'persiguieron')
    """
    verb = plain(verb)
    if (verb, tense) in _WHOLE:
        return tuple(_WHOLE[verb, tense].split())
    return _MAKE[tense](verb)


def participle(verb: str) -> str:
    """Return the masculine participle.

    Example
    -------
    >>> participle("leer"), participle("abrir"), participle("vivir")
    ('leído', 'abierto', 'vivido')
    """
    verb = plain(verb)
    if verb in _PARTICIPLES:
        return _PARTICIPLES[verb]
    stem, theme = _split(verb)
    if theme == "a":
        return stem + "ado"
    return stem + ("ído" if stem.endswith(("a", "e", "o")) else "ido")


def gerund(verb: str) -> str:
    """Return the gerund.

    Example
    -------
    >>> gerund("leer"), gerund("dormir"), gerund("seguir")
    ('leyendo', 'durmiendo', 'siguiendo')
    """
    verb = plain(verb)
    if verb in _GERUNDS:
        return _GERUNDS[verb]
    stem, theme = _split(verb)
    if theme == "a":
        return stem + "ando"
    if _is_open(verb):
        return stem + "yendo"
    return _weaken(verb, stem) + "iendo"


def command(verb: str) -> str:
    """Return what tú is told to do."""
    return _COMMANDS.get(plain(verb)) or conjugate(verb, "present")[2]


def forms(verb: str) -> set[str]:
    """Return all forms of a verb that this module knows.

    Example
    -------
    >>> {"hizo", "haciendo", "hecho", "hagas"} <= forms("hacer")
    True
    """
    found = {form for tense in TENSES for form in conjugate(verb, tense)}
    return found | {plain(verb), participle(verb), gerund(verb)}


def _split(verb: str) -> tuple[str, str]:
    return verb[:-2], verb[-2].replace("í", "i")


def _theme(verb: str) -> str:
    return "a" if verb.endswith("ar") else "e"


def _is_open(verb: str) -> bool:
    """Return whether the stem ends in a vowel that is heard."""
    return verb.endswith(("eer", "aer", "uir")) and not verb.endswith("guir")


def _stressed(verb: str, stem: str) -> str:
    if verb not in _CHANGES:
        return stem
    old, new = _CHANGES[verb]
    head, _, tail = stem.rpartition(old)
    return head + new + tail


def _weaken(verb: str, stem: str) -> str:
    """Return the stem of an -ir verb as before "iendo": e to i, o to u."""
    if not verb.endswith("ir") or verb not in _CHANGES:
        return stem
    old = _CHANGES[verb][0]
    head, _, tail = stem.rpartition(old)
    return head + {"e": "i", "o": "u"}[old] + tail


def _present(verb: str) -> tuple[str, ...]:
    stem, theme = _split(verb)
    forms = []
    for person, ending in enumerate(_PRESENT[theme]):
        part = stem if person == 3 else _stressed(verb, stem)
        if _is_open(verb) and verb.endswith("uir") and person != 3:
            part += "y"
        forms.append(part + ending)
    forms[0] = _FIRST.get(verb) or _first(verb, forms[0])
    return tuple(forms)


def _first(verb: str, form: str) -> str:
    for ending, changed in (("guir", "go"), ("ger", "jo"), ("gir", "jo")):
        if verb.endswith(ending):
            return form[: -len(ending) + 1] + changed
    if verb.endswith("cer"):
        return form[:-2] + "zco"
    return form


def _past(verb: str) -> tuple[str, ...]:
    stem, theme = _split(verb)
    if verb in _STRONG:
        strong = _STRONG[verb]
        forms = [strong + ending for ending in _STRONG_PAST]
        if strong.endswith("j"):
            forms[4] = strong + "eron"
        if verb == "hacer":
            forms[2] = "hizo"
        return tuple(forms)
    forms = [stem + ending for ending in _PAST[_theme(verb)]]
    if theme == "a":
        forms[0] = _spell(stem) + "é"
    elif _is_open(verb):
        forms[2], forms[4] = stem + "yó", stem + "yeron"
        if stem[-1] in "ae":
            forms[1], forms[3] = stem + "íste", stem + "ímos"
    else:
        weak = _weaken(verb, stem)
        forms[2], forms[4] = weak + "ió", weak + "ieron"
    return tuple(forms)


def _spell(stem: str) -> str:
    """Return a stem of -ar as it is written before "e"."""
    for ending, changed in (("c", "qu"), ("g", "gu"), ("z", "c")):
        if stem.endswith(ending):
            return stem[:-1] + changed
    return stem


def _imperfect(verb: str) -> tuple[str, ...]:
    stem, _ = _split(verb)
    return tuple(stem + ending for ending in _IMPERFECT[_theme(verb)])


def _future(verb: str) -> tuple[str, ...]:
    stem = _FUTURE_STEMS.get(verb, verb)
    return tuple(stem + ending for ending in _FUTURE)


def _subjunctive(verb: str) -> tuple[str, ...]:
    first = conjugate(verb, "present")[0].removesuffix("o")
    stem = _split(verb)[0]
    regular = verb not in _FIRST and not verb.endswith(("cer", "oír"))
    forms = []
    for person, ending in enumerate(_SUBJUNCTIVE[_theme(verb)]):
        part = first
        if person == 3 and regular and verb in _CHANGES:
            part = _first(verb, _weaken(verb, stem) + "o")[:-1]
        forms.append((_spell(part) if _theme(verb) == "a" else part) + ending)
    return tuple(forms)


_MAKE = {
    "present": _present,
    "past": _past,
    "imperfect": _imperfect,
    "future": _future,
    "subjunctive": _subjunctive,
}
