"""Spanish sentences whose words are positive or negative."""

from __future__ import annotations

from random import Random

from ..templates import expand
from . import lexicon as lex
from .inflection import agree, finish

# Masculine, then feminine.
_NOUNS = {
    "food": ("pastel,café,pan,chocolate,bocadillo", "sopa,tarta,pizza,pasta"),
    "event": (
        "concierto,baile,partido,festival",
        "fiesta,película,boda,clase",
    ),
    "place": ("hotel,museo,restaurante,jardín,parque", "playa,ciudad"),
    "thing": (
        "coche,teléfono,abrigo,piano,ordenador",
        "bicicleta,cámara,guitarra,casa,camisa",
    ),
}
_COMMON = {
    "kin": "madre,hermana,tía,abuela,prima,padre,hermano,tío,abuelo",
    "worker": "el profesor,la médica,el camarero,la vecina,el conductor",
    "pet": "perro,gato,caballo,loro,conejo",
    "when": "hoy,ayer,esta semana,el domingo,esta mañana,anoche",
    "so": "tan,muy,realmente",
}
WORDS = {
    "positive": {
        "nice": "maravilloso,estupendo,increíble,excelente,perfecto,precioso",
        "tasty": "delicioso,riquísimo,perfecto,excelente",
        "love": "me encanta,me gusta mucho,adoro,no hay nada mejor que",
        "feel": "feliz,contento,orgulloso,ilusionado,alegre",
        "kind": "amable,simpático,generoso,divertido",
        "deed": "ganó un premio,encontró un amigo,se curó,me hizo un regalo,"
        "aprobó el examen",
    },
    "negative": {
        "nice": "horrible,terrible,espantoso,feo,desagradable,aburrido",
        "tasty": "asqueroso,malísimo,horrible,repugnante",
        "love": "odio,detesto,no soporto,no me gusta nada",
        "feel": "triste,enfadado,decepcionado,desesperado,preocupado",
        "kind": "cruel,antipático,egoísta,grosero",
        "deed": "lo perdió todo,se rompió una pierna,desapareció,me olvidó,"
        "suspendió el examen",
    },
}
FEELINGS = {
    sentiment: [
        agree(phrase, feminine).split()
        for phrases in slots.values()
        for phrase in phrases.split(",")
        for feminine in (False, True)
    ]
    for sentiment, slots in WORDS.items()
}
# Behind an adjective stands what it agrees with.
_PATTERNS = (
    "{the food} de {the place} [está|estaba] {tasty food}.",
    "{love} {the event} de {the place}.",
    "¡Qué {event} tan {nice event}!",
    "{name} está muy {feel name} porque su {pet} {deed}.",
    "[Estoy|Estaba] muy {feel me} porque mi {kin} {deed} {when}.",
    "{worker} fue {so} {kind worker} [conmigo|con nosotros|con {name}] {when}.",
    "{name} cree que {the thing} es {nice thing}.",
    "Mi {kin} tiene {a thing} {nice thing}.",
    "{when} {the event} [en {the place}|] fue {nice event}.",
    "¡Qué {nice thing} es {the thing} de {name}!",
    "{name} estaba {so} {feel name} después de {the event} {when}.",
    "Nunca he visto {a place} tan {nice place}.",
    "Todos dicen que {worker} es {kind worker} y que {the place} es "
    "{nice place}.",
    "{love} {the thing} de mi {kin}.",
    "Fue {the event} más {nice event} de el año.",
    "[Creo que|Sé que] {name} {deed} {when}.",
)


def opinion(sentiment: str, rng: Random) -> str:
    """Draw a sentence that is "positive" or "negative" by its words."""
    common = {k: rng.choice(v.split(",")) for k, v in _COMMON.items()}
    words = {k: v.split(",") for k, v in WORDS[sentiment].items()}
    slots = common | {k: rng.choice(words[k]) for k in ("love", "deed")}
    woman = rng.random() < 0.5
    slots["name"] = rng.choice(lex.WOMEN if woman else lex.MEN)
    female = {"name": woman, "me": rng.random() < 0.5}
    female["worker"] = common["worker"].startswith("la ")
    for kind, both in _NOUNS.items():
        female[kind] = rng.random() < 0.5
        noun = rng.choice(both[female[kind]].split(","))
        slots[kind] = noun
        slots[f"the {kind}"] = ("la " if female[kind] else "el ") + noun
        slots[f"a {kind}"] = ("una " if female[kind] else "un ") + noun
    for word in ("nice", "tasty", "feel", "kind"):
        for kind, feminine in female.items():
            adjective = agree(rng.choice(words[word]), feminine)
            slots[f"{word} {kind}"] = adjective
    return expand(rng.choice(_PATTERNS), slots, rng, finish)
