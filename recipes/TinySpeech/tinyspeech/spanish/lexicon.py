"""The words of the world in Spanish: gender, meaning, and who does what."""

from __future__ import annotations

from functools import cache

MEN = (
    "Luis Pablo Carlos Miguel Diego Javier Andrés Tomás Hugo Mateo Sergio "
    "Antonio"
).split()
WOMEN = (
    "Ana Lucía Marta Elena Sofía Carmen Clara Inés Paula Rosa Julia Laura"
).split()

# Countable nouns of a class: masculine, then feminine.
NOUNS = {
    name: tuple(words.split() for words in both)
    for name, both in {
        "relative": (
            "padre hermano tío abuelo hijo primo amigo",
            "madre hermana tía abuela hija prima amiga",
        ),
        "worker": (
            "profesor médico panadero vecino cocinero jardinero camarero "
            "granjero enfermero escritor pintor conductor rey",
            "profesora médica panadera vecina cocinera jardinera camarera "
            "granjera enfermera escritora pintora conductora reina",
        ),
        "child": ("niño chico alumno", "niña chica alumna"),
        "grown": ("hombre señor", "mujer señora"),
        "pet": ("gato perro conejo loro", "gata perra tortuga"),
        "farm": ("caballo cerdo burro pato", "vaca oveja cabra gallina"),
        "bird": ("pájaro búho", "paloma águila"),
        "wild": (
            "zorro oso lobo león mono elefante tigre",
            "jirafa serpiente",
        ),
        "small_animal": ("ratón gusano", "araña mariposa rana mosca"),
        "dish": (
            "bocadillo pastel huevo",
            "pizza tortilla ensalada tarta salchicha",
        ),
        "fruit": (
            "plátano limón melocotón",
            "manzana naranja pera fresa cereza",
        ),
        "vegetable": ("tomate pimiento", "patata zanahoria cebolla calabaza"),
        "vehicle": ("coche camión autobús taxi tractor", "moto furgoneta"),
        "boat": ("barco velero", "barca"),
        "clothing": (
            "abrigo sombrero vestido zapato guante",
            "camisa falda chaqueta bufanda bota gorra",
        ),
        "furniture": (
            "sofá armario escritorio banco",
            "mesa silla cama lámpara",
        ),
        "instrument": ("piano violín tambor", "guitarra trompeta flauta"),
        "toy": ("balón globo", "muñeca pelota cometa"),
        "device": ("teléfono ordenador reloj televisor", "cámara bicicleta"),
        "tool": ("martillo cuchillo cubo", "pala escalera cuerda escoba"),
        "text": (
            "libro periódico poema mapa diccionario billete",
            "carta revista novela",
        ),
        "picture": ("cuadro dibujo", "foto"),
        "plant": ("árbol rosal", "rosa flor planta"),
        "container": ("vaso plato bolso", "caja botella cesta taza maleta"),
        "building": (
            "hotel castillo puente edificio museo",
            "casa iglesia torre escuela",
        ),
        "opening": ("cajón", "puerta ventana"),
        "event": (
            "concierto partido viaje",
            "fiesta boda reunión película clase",
        ),
        "idea": (
            "problema plan secreto chiste",
            "pregunta respuesta idea mentira",
        ),
        "gift": ("regalo anillo collar premio", "medalla joya"),
    }.items()
}
JOBS = [
    [w for w in words if w not in ("vecino", "vecina", "rey", "reina")]
    for words in NOUNS["worker"]
]
# Nouns that have the article or nothing, and no plural.
MASS = {
    name: tuple(words.split() for words in both)
    for name, both in {
        "food": (
            "pan queso arroz pescado chocolate",
            "pasta sopa mantequilla miel",
        ),
        "drink": ("zumo té café", "leche agua limonada cerveza"),
        "fodder": ("maíz trigo", "hierba"),
        "subject": ("inglés francés", "historia música biología geografía"),
        "sport": ("fútbol tenis baloncesto ajedrez", "natación"),
        "material": ("papel", "madera tela"),
    }.items()
}
GROUPS = {
    "person": "relative worker child grown",
    "adult": "relative worker grown",
    "animal": "pet farm bird wild",
    "edible": "dish fruit vegetable",
    "thing": "clothing furniture toy device tool text container gift picture",
    "portable": "clothing toy text container gift tool",
    "transport": "vehicle boat",
}
PEOPLE = GROUPS["person"].split()
PERSONS = {w for name in PEOPLE for words in NOUNS[name] for w in words}
# What somebody may call his own.
OWNED = (
    "relative worker child pet vehicle clothing instrument toy device tool "
    "text picture container gift idea"
).split()
# Feminine, with "el" and "un" before a stressed "a".
STRESSED_A = ("agua", "águila")

# What somebody or something is, behind the noun and with "ser".
ADJECTIVES = {
    name: words.split()
    for name, words in {
        "person": "alto joven viejo amable inteligente simpático tranquilo "
        "divertido trabajador famoso fuerte valiente tímido rico delgado",
        "child": "alto inteligente simpático tranquilo divertido tímido "
        "pequeño amable listo",
        "animal": "grande pequeño gris marrón negro blanco salvaje lento "
        "joven gordo tranquilo rápido",
        "edible": "fresco grande pequeño barato delicioso",
        "food": "fresco bueno delicioso salado",
        "drink": "frío caliente dulce",
        "fruit": "verde dulce ácido fresco",
        "transport": "rápido lento nuevo viejo caro rojo azul amarillo",
        "clothing": "rojo azul verde amarillo nuevo viejo elegante cómodo",
        "furniture": "antiguo pesado redondo moderno feo cómodo",
        "instrument": "viejo caro bonito",
        "toy": "nuevo bonito rojo azul",
        "device": "moderno barato caro pequeño viejo",
        "tool": "útil pesado largo",
        "text": "largo corto aburrido interesante famoso",
        "picture": "bonito extraño grande famoso",
        "plant": "alto verde bonito",
        "container": "grande pesado redondo pequeño",
        "building": "enorme alto famoso blanco antiguo",
        "opening": "ancho estrecho pequeño",
        "event": "largo maravilloso aburrido importante emocionante",
        "idea": "difícil sencillo tonto importante extraño",
        "gift": "caro bonito pequeño",
        "small_animal": "pequeño negro",
        "thing": "pesado ligero nuevo viejo barato bonito",
        "material": "blanco barato",
    }.items()
}
ADJECTIVES |= {
    part: ADJECTIVES[group]
    for group, parts in GROUPS.items()
    if group in ADJECTIVES
    for part in parts.split()
    if part not in ADJECTIVES
}
# How somebody or something is for a time, with "estar".
STATES = {
    name: words.split()
    for name, words in {
        "person": "cansado contento triste enfermo ocupado enfadado nervioso "
        "preocupado solo despierto",
        "animal": "cansado sucio dormido enfermo mojado",
        "clothing": "sucio limpio mojado seco roto",
        "opening": "abierto cerrado sucio",
        "container": "vacío lleno roto sucio",
        "device": "roto nuevo limpio",
        "transport": "sucio limpio vacío lleno",
        "dish": "frío caliente bueno",
        "fruit": "maduro verde",
        "drink": "frío caliente",
    }.items()
}

# Of which nothing is more, and which nothing is at once.
ABSOLUTE = (
    "gris marrón negro blanco rojo azul amarillo verde delicioso enorme "
    "maravilloso abierto cerrado roto dormido solo despierto"
).split()
OPPOSITES = [
    set(words.split())
    for words in [
        "grande pequeño",
        "frío caliente",
        "nuevo viejo antiguo moderno",
        "largo corto",
        "rápido lento",
        "pesado ligero",
        "joven viejo",
        "caro barato",
        "ancho estrecho",
        "limpio sucio",
        "mojado seco",
        "abierto cerrado",
        "vacío lleno",
        "maduro verde",
        "difícil sencillo",
        "dulce ácido",
        "gordo delgado",
        "aburrido emocionante maravilloso interesante divertido",
        "dormido despierto",
        "contento triste enfadado",
        "feo bonito elegante",
        "gris marrón negro blanco",
        "rojo azul amarillo verde",
        "tímido valiente",
    ]
]

# Where things happen.
PLACES = {
    name: [place.strip() for place in places.split(",")]
    for name, places in {
        "home": "en la cocina, en el dormitorio, en el salón, en el baño, en "
        "el balcón, en casa, en el garaje, en el comedor, en el patio",
        "town": "en el mercado, en la ciudad, en la estación, en el parque, "
        "en la biblioteca, cerca de la iglesia, en la oficina, en el "
        "colegio, detrás del banco, en el aeropuerto, en el pueblo, en la "
        "plaza, en el centro, en la calle, al lado de la panadería, en el "
        "hospital",
        "nature": "en el bosque, junto al río, en la playa, cerca del lago, "
        "en las montañas, debajo de un árbol, en el campo, en el jardín, en "
        "la isla, en el valle",
        "farm": "en la granja, detrás de la granja, en el establo, en el prado",
        "water": "en el lago, en el río, en el mar, en la piscina",
        "air": "sobre el tejado, sobre los árboles, sobre las nubes",
        "top": "en la mesa, en el suelo, debajo de la cama, en el armario, al "
        "lado de la lámpara, junto a la puerta, detrás del sofá",
        "restaurant": "en el restaurante, en la cafetería, en el hotel",
        "stage": "en el teatro, en el concierto, en la fiesta",
        "pitch": "en el estadio, en el parque, en el club",
        "seat": "en el sofá, en el banco, en la silla, en la hierba, cerca "
        "de la ventana",
    }.items()
}
GOALS = (
    "al mercado,a la playa,al museo,al colegio,al hospital,a la biblioteca,"
    "a la estación,a casa,al pueblo,al supermercado,al aeropuerto,"
    "al bosque,al cine,a la cocina,al jardín"
).split(",")

PAST_TIMES = (
    "ayer,anoche,la semana pasada,hace tres días,el verano pasado,"
    "hace una hora,hace muchos años,el domingo pasado,ayer por la tarde,"
    "hace dos semanas,el año pasado"
).split(",")
FUTURE_TIMES = (
    "mañana,la semana que viene,esta noche,el martes,dentro de una hora,"
    "pronto,el mes que viene,mañana por la mañana,el sábado,"
    "después de comer,antes de cenar,el año que viene"
).split(",")
HABIT_TIMES = (
    "todos los días,por la mañana,por la noche,los jueves,en invierno,"
    "dos veces por semana,en primavera,por la tarde,después del desayuno,"
    "en otoño,los domingos"
).split(",")
NOW_TIMES = "ahora,ahora mismo,en este momento,otra vez,todavía".split(",")
TODAY = ["hoy", "esta mañana", "esta semana", "muchas veces"]
FREQUENCY = "siempre,casi siempre,a veces,a menudo,normalmente".split(",")
WITH_MANNER = (
    "dormir nadar bailar cantar trabajar correr caminar hablar descansar"
).split()
MANNER = (
    "despacio,tranquilamente,en silencio,mucho,muy bien,con alegría,un poco"
).split(",")

NUMBERS = "dos tres cuatro cinco seis siete ocho nueve diez once doce".split()
BIG_NUMBERS = (
    "quince,treinta,cuarenta y cinco,cincuenta,sesenta,ochenta,noventa,"
    "cien,veinte,treinta y seis,mil,diecisiete,trece"
).split(",")
MONTHS = "enero marzo abril junio julio agosto octubre diciembre".split()

# Who does what to what, and where: classes joined by "+", "-" for none, a
# preposition behind the verb.
FRAMES = [
    line.split()
    for line in """
    person comer edible+food home+restaurant
    adult preparar food+dish+dish.tarta home+restaurant
    person beber drink home+restaurant
    pet comer food.pescado+food.queso home
    farm comer fodder farm
    bird comer small_animal.gusano+fodder.maíz nature
    wild perseguir small_animal nature
    pet perseguir small_animal+toy.pelota home+nature
    adult conducir vehicle town
    adult reparar transport+device+furniture home+town
    person lavar clothing+vehicle+container home
    person llevar clothing town+stage
    adult comprar thing+edible+food+vehicle town
    adult vender vehicle+clothing+building+picture town
    person buscar portable+gift+pet home+town
    person encontrar portable+gift+pet home+nature+top
    person perder gift+text+clothing town+nature
    person esconder gift+text+toy home+top
    person abrir opening+container.caja+container.maleta home
    person cerrar opening+container.caja+container.maleta home
    person limpiar furniture+opening+vehicle home
    person tocar instrument home+stage
    person jugar:a sport pitch+nature
    person ver event.película+event.partido home
    person visitar building+person town
    person ayudar person town+home
    person llamar person home
    person esperar person+vehicle.autobús town
    person ver person+animal+building town+nature
    person dibujar animal+plant+building home
    person pintar picture+building+opening home
    person escribir text.carta+text.poema+text.novela home
    person leer text home+nature
    adult estudiar subject town
    worker enseñar subject town
    worker construir building+boat town
    person romper device+container.vaso+opening.ventana home
    person plantar plant+vegetable nature
    person regar plant home+nature
    person cortar plant.rosa+plant.flor+food.pan+fruit home
    person recoger fruit+vegetable nature
    adult robar gift+vehicle+picture town
    person olvidar text+container+tool+clothing home+town
    person entender idea -
    adult explicar idea town
    person resolver idea.problema home
    adult organizar event home+town
    person mover furniture+container home
    person pedir dish+drink restaurant
    person elegir gift+clothing+toy town
    person recordar idea+event -
    person contar idea.secreto+idea.chiste+idea.mentira home+town
    person necesitar tool+clothing+device+food -
    person preferir drink+fruit+food -
    person oír bird+instrument+vehicle nature+home
    person seguir person+animal nature+town
    wild asustar person+farm nature
    person cuidar pet+plant home
    person cuidar child home
    person usar tool+device home
    person conocer person+building -
    child querer toy+pet+dish -
    person traer dish+drink+container home
    person hacer picture.foto town+nature
    person tirar toy.pelota+toy.balón nature+pitch
    """.strip().splitlines()
]
INTRANSITIVE = [
    line.split()
    for line in """
    person dormir home
    animal dormir farm+nature
    person nadar water
    farm.pato nadar water
    bird volar air
    person bailar stage+home
    person cantar stage+home
    child llorar home+town
    person trabajar town+home
    person correr town+nature
    animal correr nature+farm
    person caminar town+nature
    person vivir town+nature
    pet jugar home+nature
    child jugar nature+home
    person viajar -
    person descansar home+nature
    person hablar town+home
    wild vivir nature
    plant crecer nature
    pet saltar home+nature
    child saltar nature
    bird cantar nature
    person llegar -
    person cenar restaurant+home
    person desayunar home+restaurant
    person levantarse -
    person acostarse -
    person despertarse -
    person ducharse -
    person sentarse seat
    person esconderse home+nature
    vehicle llegar -
    boat llegar -
    """.strip().splitlines()
]
DITRANSITIVE = [
    line.split()
    for line in """
    dar gift+text+fruit+toy
    enseñar picture+text+gift+building
    mandar text.carta+gift+picture
    ofrecer dish+drink+fruit
    prestar tool+text+vehicle
    traer drink+dish+clothing
    regalar gift+toy+plant.flor
    contar idea.secreto+idea.chiste
    """.strip().splitlines()
]
# Verbs of what lasts or is over at once, which have no progressive.
NOT_PROGRESSIVE = (
    "necesitar preferir conocer querer entender olvidar encontrar recordar "
    "ir volver llegar perder tener ver oír vivir"
).split()
VERBS = {
    frame[column].partition(":")[0]
    for frames, column in ((FRAMES, 1), (INTRANSITIVE, 1), (DITRANSITIVE, 0))
    for frame in frames
} | set(
    [
        "ir",
        "volver",
        "decir",
        "creer",
        "saber",
        "pensar",
        "tener",
        "estar",
        "ser",
    ]
)


@cache
def members(expression: str) -> list[tuple[str, str, bool]]:
    """Return class, noun, and whether it is feminine, for an expression.

    Example
    -------
    >>> members("dish.tarta+drink")[:2]
    [('dish', 'tarta', True), ('drink', 'zumo', False)]
    """
    found = []
    for term in expression.split("+"):
        name, _, noun = term.partition(".")
        for part in GROUPS.get(name, name).split():
            masculine, feminine = NOUNS.get(part) or MASS[part]
            found += [(part, w, False) for w in masculine if noun in ("", w)]
            found += [(part, w, True) for w in feminine if noun in ("", w)]
    return found
