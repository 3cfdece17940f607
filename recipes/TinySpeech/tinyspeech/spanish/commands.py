"""Spoken commands in Spanish, with an intent of action, object and location."""

from __future__ import annotations

from random import Random

from ..templates import expand
from .inflection import finish

_ROOMS = {
    "cocina": "[en|de] la cocina",
    "dormitorio": "[en el|en mi|de el] dormitorio",
    "baño": "[en|de] el baño",
    "ninguno": "",
}
# Each begins with the verb as a command, and as an infinitive.
_PATTERNS = {
    ("encender", "luces"): "<enciende/encender> [las luces|la luz|las "
    "lámparas] {place}{more}",
    ("apagar", "luces"): "<apaga/apagar> [las luces|la luz|las lámparas] "
    "{place}{more}",
    ("subir", "calefacción"): "<sube/subir> la [calefacción|temperatura] "
    "{place}{more}",
    ("bajar", "calefacción"): "<baja/bajar> la [calefacción|temperatura] "
    "{place}{more}",
    ("abrir", "ventana"): "<abre/abrir> [la ventana|las ventanas|la cortina] "
    "{place}{more}",
    ("cerrar", "ventana"): "<cierra/cerrar> [la ventana|las ventanas|la "
    "cortina] {place}{more}",
    ("subir", "volumen"): "<sube/subir> [el volumen|el sonido|la música|la "
    "radio]{more}",
    ("bajar", "volumen"): "<baja/bajar> [el volumen|el sonido|la música|la "
    "radio]{more}",
    ("poner", "música"): "<pon/poner> [música|mi música|una canción|mis "
    "canciones]{more}",
    ("parar", "música"): "<para/parar> [la música|esta música|mi música|la "
    "canción|esta canción]{more}",
    ("traer", "periódico"): "<tráeme/traerme> [el|un|mi] [periódico|diario]"
    "{more}",
    ("traer", "zapatos"): "<tráeme/traerme> [los|mis] [zapatos|botines]{more}",
    ("traer", "zumo"): "<tráeme/traerme> [un|un vaso de|el] zumo{more}",
    ("cambiar", "idioma"): "<cambia/cambiar> el idioma a el [inglés|francés]"
    "{more}",
}
_WITH_ROOMS = ("luces", "calefacción", "ventana")
_START = (
    "[||por favor,|ahora|oye, robot,|hace [frío|calor], así que|está oscuro, "
    "así que]"
)
_ASK = "[puedes|podrías]"
_END = "[||||, por favor|ahora mismo|otra vez|un rato|para los niños]"
_MORE = "[||| ya]"
_SOME = "[||| un poco| ya]"

INTENTS = [
    (action, thing, room)
    for action, thing in _PATTERNS
    for room in (_ROOMS if thing in _WITH_ROOMS else ["ninguno"])
]


def command(intent: tuple[str, str, str], rng: Random) -> str:
    """Draw a phrasing of an intent.

    Example
    -------
    >>> command(("traer", "zumo", "ninguno"), Random(3)).count("zumo")
    1
    """
    action, thing, room = intent
    pattern = _PATTERNS[action, thing]
    more = _SOME if action in ("subir", "bajar") else _MORE
    pattern = pattern.replace("{more}", more).replace("{place}", _ROOMS[room])
    verbs, _, rest = pattern[1:].partition(">")
    told, asked = verbs.split("/")
    if rng.random() < 0.6:
        text = expand(f"{_START} {told}{rest} {_END}", {}, rng, finish)
        return text + "."
    return expand(f"¿{_ASK} {asked}{rest} {_END}?", {}, rng, finish)
