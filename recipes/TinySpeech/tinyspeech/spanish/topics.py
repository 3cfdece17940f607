"""What Spanish stories are about.

Beside the slots of a topic there are ``hero`` and ``friend``, ``o`` and ``u``
for the endings of their genders, ``os`` for both, and ``lo`` for the hero.
"""

from __future__ import annotations

from random import Random

from ..stories import Story, Topic, tell
from . import lexicon as lex
from .inflection import finish

TOPICS = {
    "cocina": Topic(
        {
            "dish": "la sopa,la pasta,la tortilla,la ensalada",
            "food": "las cebollas,los tomates,los huevos,las patatas",
        },
        (
            "{hero} quería preparar [una gran cena|la cena] para {friend}.",
            "[Primero|En la cocina] [lavó|cortó] {food} y [buscó|encontró] "
            "[pimienta|mantequilla|queso].",
            "[Después|Luego] preparó {dish} en una olla [grande|vieja].",
        ),
        (
            (
                "{hero} [olvidó la olla|habló por teléfono] y {dish} se quemó.",
                "[{hero} tiró {dish} y pidió|Tuvieron que tirar {dish} y "
                "pidieron] una pizza.",
            ),
            (
                "{friend} probó {dish} y [sonrió|estaba muy content{u}].",
                "[{friend} quería más|Se lo comieron todo junt{os}].",
            ),
        ),
    ),
    "playa": Topic(
        {
            "toy": "pelota,cometa,guitarra",
            "drink": "limonada,zumo,agua fría",
        },
        (
            "[El verano pasado|El domingo] {hero} fue a la playa con {friend}.",
            "Llevaron una {toy}, dos toallas y {drink}.",
            "[En la arena|Allí] [construyeron un castillo|jugaron con la {toy}] "
            "[toda la mañana|durante horas].",
        ),
        (
            (
                "[De repente|Entonces] llegaron nubes negras y empezó a llover.",
                "{hero} y {friend} [corrieron a casa|volvieron a casa] con la "
                "ropa mojada.",
            ),
            (
                "[El sol calentaba mucho|Hacía mucho calor] y el mar estaba "
                "[tranquilo|caliente].",
                "{hero} y {friend} nadaron en el mar hasta la noche.",
            ),
        ),
    ),
    "cumpleaños": Topic(
        {
            "gift": "una cámara,una bicicleta,una guitarra,un reloj,un perro",
            "age": "siete,nueve,diez",
        },
        (
            "[Ayer|El sábado] {hero} cumplió {age} años.",
            "{friend} [vino a la fiesta|{lo} visitó] con un regalo [grande|"
            "pequeño].",
            "{hero} lo abrió [despacio|rápido] y encontró {gift}.",
        ),
        (
            (
                "Siempre había querido {gift}.",
                "{hero} [le dio las gracias a {friend}|estaba tan content{o} "
                "que empezó a bailar].",
            ),
            (
                "Pero ya tenía {gift}.",
                "{hero} devolvió [el regalo|su regalo] a la tienda.",
            ),
        ),
    ),
    "escuela": Topic(
        {"subject": "historia,inglés,francés,biología,música"},
        (
            "{hero} tenía un examen [importante|difícil] de {subject} [el "
            "lunes|en el colegio].",
            "Le pidió [un libro|un diccionario] a {friend}.",
            "[El día antes|Por la tarde] {friend} [{lo} llamó|{lo} visitó].",
        ),
        (
            (
                "{hero} estudió con {friend} [hasta medianoche|toda la noche].",
                "[Al final|En el examen] {hero} [sabía todas las respuestas|"
                "escribió el mejor examen].",
            ),
            (
                "{hero} [vio la televisión|jugó] con {friend} y no estudió.",
                "[Al final|En el examen] {hero} [no sabía nada|suspendió].",
            ),
        ),
    ),
    "jardín": Topic(
        {
            "plant": "las rosas,las fresas,las zanahorias,las calabazas,"
            "las flores"
        },
        (
            "En primavera {hero} plantó {plant} en el jardín.",
            "{friend} le [prestó|regaló] [una pala|una pala nueva].",
            "[Pronto|Dos semanas después] crecieron hojas verdes [al sol|"
            "detrás de la casa].",
        ),
        (
            (
                "{hero} regó {plant} [todos los días|todas las tardes].",
                "[En verano|Al final] {plant} eran grandes y bonitas.",
            ),
            (
                "{hero} [viajó|se fue] un mes y nadie regó {plant}.",
                "[En verano|Al final] {plant} estaban [secas|muertas].",
            ),
        ),
    ),
    "viaje": Topic(
        {"city": "Madrid,París,Roma,Berlín", "way": "tren,autobús,barco"},
        (
            "{hero} [planeó un viaje|quería viajar] a {city} con {friend}.",
            "Compraron [los billetes|dos billetes] de {way}.",
            "[Por la mañana|Antes de el desayuno] {hero} hizo una maleta "
            "[pesada|grande].",
        ),
        (
            (
                "[Se despertaron tarde|El taxi era muy lento] y el {way} salió "
                "sin ell{os}.",
                "{hero} y {friend} [se quedaron en casa|volvieron a casa] y no "
                "vieron {city}.",
            ),
            (
                "[Llegaron temprano|El taxi era rápido] y encontraron un buen "
                "sitio.",
                "[Por la tarde|Al día siguiente] caminaron por {city} e "
                "hicieron muchas fotos.",
            ),
        ),
    ),
    "enfermedad": Topic(
        {
            "pain": "fiebre,tos,dolor de cabeza",
            "drink": "sopa,leche,té",
        },
        (
            "{hero} se sentía [muy mal|mal] [ayer|el lunes por la mañana].",
            "Tenía {pain} y se quedó en la cama.",
            "{friend} le [trajo|dio] {drink} y llamó a la médica.",
        ),
        (
            (
                "{hero} tomó la medicina y durmió [bien|todo el día].",
                "[Al día siguiente|Dos días después] {hero} estaba san{o} y fue "
                "a trabajar.",
            ),
            (
                "{hero} [no tomó|tiró] la medicina y salió a bailar.",
                "[Al día siguiente|Dos días después] {hero} estaba [peor|en el "
                "hospital].",
            ),
        ),
    ),
    "fútbol": Topic(
        {"place": "el estadio,el parque,el club"},
        (
            "{hero} [juega|jugaba] al fútbol en {place}.",
            "El domingo su equipo tenía un partido importante.",
            "{friend} fue a ver el partido con [muchos|sus] amigos.",
        ),
        (
            (
                "{hero} marcó tres goles en [diez minutos|el último minuto].",
                "Su equipo ganó el partido y [lo celebró|levantó la copa].",
            ),
            (
                "{hero} [se cayó|llegó tarde] y perdió [el balón|todos los "
                "balones].",
                "Su equipo perdió el partido y [volvió triste a casa|nadie "
                "habló].",
            ),
        ),
    ),
    "perro": Topic(
        {
            "pet": "perro,gato,conejo",
            "place": "el bosque,el parque,el pueblo",
        },
        (
            "{hero} tiene un {pet} [pequeño|marrón|blanco].",
            "[Un día|La semana pasada] el {pet} se escapó a {place}.",
            "{hero} y {friend} [lo buscaron|lo llamaron] [durante horas|por "
            "todas partes].",
        ),
        (
            (
                "[Al final|De repente] oyeron a el {pet} [detrás de un árbol|"
                "debajo de un banco].",
                "{hero} llevó a el {pet} a casa y le dio de comer.",
            ),
            (
                "Era [de noche|medianoche] y el {pet} no aparecía.",
                "{hero} lloró porque había perdido a su {pet}.",
            ),
        ),
    ),
    "ladrón": Topic(
        {"gift": "anillo,collar,cuadro,reloj,premio"},
        (
            "[Una noche|El viernes] un ladrón entró en la casa de {hero}.",
            "[Abrió|Rompió] una ventana y robó un {gift}.",
            "{friend} lo [vio|oyó] y llamó a la policía.",
        ),
        (
            (
                "La policía [siguió|persiguió] a el ladrón y lo encontró.",
                "{hero} [recuperó|estaba feliz de tener otra vez] el {gift}.",
            ),
            (
                "La policía llegó tarde y el ladrón ya no estaba.",
                "{hero} nunca volvió a ver el {gift}.",
            ),
        ),
    ),
    "música": Topic(
        {"tool": "la guitarra,el piano,el violín,la trompeta,el tambor"},
        (
            "{hero} [toca|aprende a tocar] {tool}.",
            "{friend} {lo} invitó a tocar en [un concierto|una boda].",
            "{hero} estaba [nervios{o}|muy nervios{o}] antes de [la fiesta|"
            "tocar].",
        ),
        (
            (
                "Practicó [todas las tardes|muchas horas].",
                "Su música era preciosa y todo el mundo [aplaudió|cantó].",
            ),
            (
                "No practicó [nada|y salió con {friend}].",
                "Su música era horrible y todo el mundo [se fue|se rio].",
            ),
        ),
    ),
    "coche": Topic(
        {"car": "coche,camión,tractor"},
        (
            "{hero} conducía un {car} viejo [a el trabajo|a la ciudad].",
            "En [la calle|el puente] el {car} [se paró|hizo un ruido].",
            "{hero} llamó a {friend}, que repara [coches|camiones].",
        ),
        (
            (
                "{friend} [vino|llegó] con un martillo y reparó el {car}.",
                "{hero} le dio las gracias a {friend} y siguió su camino.",
            ),
            (
                "{friend} dijo que nadie podía reparar el {car}.",
                "{hero} vendió el {car} y compró uno nuevo.",
            ),
        ),
    ),
    "invierno": Topic(
        {
            "thing": "los guantes,las botas,la bufanda,el abrigo",
            "place": "a el lago,a la montaña,a el bosque",
        },
        (
            "[Nevó|Había nevado] [toda la noche|en el valle].",
            "{hero} fue {place} con {friend}.",
            "Allí hicieron un muñeco de nieve [muy grande|redondo].",
        ),
        (
            (
                "{hero} había olvidado {thing} y tenía frío.",
                "Volvieron a casa y bebieron [leche|té] caliente.",
            ),
            (
                "Salió el sol y hacía calor.",
                "[Por la tarde|Pronto] el muñeco era solo agua.",
            ),
        ),
    ),
    "campo": Topic(
        {
            "food": "los bocadillos,los pasteles,los huevos",
            "animal": "pato,burro,perro",
        },
        (
            "{hero} y {friend} comieron [junto a el lago|en el prado].",
            "Llevaron {food} en una cesta.",
            "[Mientras hablaban|Pronto] llegó un {animal} [hambriento|grande].",
        ),
        (
            (
                "El {animal} se comió [todo|casi todo].",
                "{hero} y {friend} volvieron a casa con hambre.",
            ),
            (
                "{friend} [asustó|persiguió] a el {animal}.",
                "{hero} y {friend} comieron {food} con alegría.",
            ),
        ),
    ),
    "biblioteca": Topic(
        {"book": "una novela,una revista"},
        (
            "{hero} pidió {book} en la biblioteca.",
            "La [leyó|estudió] [en el autobús|en el parque] con {friend}.",
            "[Dos semanas después|El viernes] tenía que devolverla.",
        ),
        (
            (
                "Pero [no la encontraba|la había perdido].",
                "{hero} tuvo que pagar {book} nueva.",
            ),
            (
                "La encontró [en casa|en la mesa] y fue allí [temprano|rápido].",
                "{hero} pidió otra novela.",
            ),
        ),
    ),
    "pesca": Topic(
        {"way": "trajo,compró,buscó", "water": "el lago,el río,el mar"},
        (
            "{hero} quería pescar en {water}.",
            "Por la mañana temprano {friend} {way} una barca.",
            "Esperaron [en silencio|durante horas] en {water}.",
        ),
        (
            (
                "[Al final|De repente] {hero} pescó un pez [enorme|grande].",
                "Prepararon el pescado [en el fuego|para la cena].",
            ),
            (
                "[De repente|Entonces] entró agua en la barca.",
                "Nadaron hasta la playa y perdieron la barca.",
            ),
        ),
    ),
}


def story(rng: Random) -> Story:
    """Draw a story with its fitting and unfitting endings."""
    hero, friend = rng.sample(lex.MEN + lex.WOMEN, 2)
    o, u = ("a" if name in lex.WOMEN else "o" for name in (hero, friend))
    people = {"hero": hero, "friend": friend, "o": o, "u": u, "lo": f"l{o}"}
    people["os"] = "as" if o == u == "a" else "os"
    return tell(TOPICS, people, rng, finish)
