"""Noun phrases and clauses of Spanish: gender, number, person, and sense."""

from __future__ import annotations

import re
from dataclasses import dataclass
from random import Random

from . import lexicon as lex
from .inflection import agree, plural
from .verbs import CLITICS, conjugate, gerund, is_reflexive, participle, plain

_PRONOUNS = {
    "yo": (0, False),
    "tú": (1, False),
    "él": (2, False),
    "ella": (2, False),
    "nosotros": (3, True),
    "ellos": (4, True),
    "ellas": (4, True),
}
_DROPPED = {"yo": 0.8, "tú": 0.7, "nosotros": 0.8}
_OWNERS = ("mi", "tu", "su", "nuestro")
_MODALS = ("poder", "querer", "deber", "tener que")


@dataclass(frozen=True)
class Phrase:
    """A noun phrase, and what its verb and its pronouns need to know.

    ``text`` is empty for a pronoun that is not said; ``person`` counts yo, tú,
    él, nosotros, ellos.
    """

    text: str
    person: int = 2
    feminine: bool = False
    human: bool = False

    @property
    def plural(self) -> bool:
        """Whether adjectives are plural."""
        return self.person > 2

    @property
    def object(self) -> str:
        """The phrase as an object: people have "a" before them."""
        if not self.human:
            return self.text
        names = self.text[0].isupper()
        text = self.text.replace(" y ", " y a ") if names else self.text
        return f"a {text}"

    @property
    def clitic(self) -> str:
        """What stands for the object: lo, la, los, las."""
        return ("la" if self.feminine else "lo") + "s" * self.plural


@dataclass(frozen=True)
class Action:
    """A verb, what stands before it and what follows it."""

    verb: str
    rest: str
    places: tuple[str, ...]
    clitic: str = ""
    target: Phrase | None = None


def _feminine(words: str) -> str:
    """Return a plural determiner with its feminine endings."""
    return re.sub(r"\b(?!dos\b)(\w+)os\b", r"\1as", words)


class Clauses:
    """Draws the parts of sentences, and makes mistakes when asked to."""

    def __init__(self, rng: Random, slip: str | None = None):
        self.rng = rng
        self.slip = slip

    def _chance(self, probability: float) -> bool:
        return self.rng.random() < probability

    def _slips(self, kind: str) -> bool:
        if self.slip != kind:
            return False
        self.slip = None
        return True

    def _noun(self, expression: str) -> tuple[str, str, bool]:
        """Draw a class, then a noun, so that small classes are heard too."""
        found = lex.members(expression)
        name = self.rng.choice(sorted({c for c, _, _ in found}))
        return self.rng.choice([f for f in found if f[0] == name])

    def np(
        self,
        expression: str,
        depth: int = 0,
        definite: bool = True,
        plain: bool = False,
    ) -> Phrase:
        """Draw a noun phrase of a class, ``plain`` without adjectives."""
        name, noun, feminine = self._noun(expression)
        human = name in lex.PEOPLE
        if human and definite and depth < 2 and self._chance(0.5):
            return self._who(depth)
        if name in lex.MASS:
            text = self._mass(name, noun, feminine, plain)
            return Phrase(text, feminine=feminine)
        many = self._chance(0.35)
        word = plural(noun) if many else noun
        owned = name in lex.OWNED
        determiner = self._determiner(noun, feminine, many, definite, owned)
        adjective = "" if plain else self._adjectives(name, feminine, many)
        exact = determiner in ("el", "la", "los", "las") and not plain
        if word != noun or not many:
            determiner, word = self._misplace(
                determiner, word, noun, feminine, many
            )
        text = f"{determiner} {word} {adjective}"
        if not adjective and exact:
            text += self._postmodifier(name, many, depth)
        person = 4 if many else 2
        return Phrase(" ".join(text.split()), person, feminine, human)

    def _misplace(
        self, determiner: str, word: str, noun: str, feminine: bool, many: bool
    ) -> tuple[str, str]:
        """Make a mistake of gender, number or order, if one is wanted."""
        opposite = {"el": "la", "la": "el", "los": "las", "las": "los"}
        opposite |= {"un": "una", "una": "un", "este": "esta", "esta": "este"}
        opposite |= {"muchos": "muchas", "muchas": "muchos"}
        person = noun in lex.PERSONS
        if determiner in opposite and not person and self._slips("gender"):
            return opposite[determiner], word
        if determiner and self._slips("number"):
            return determiner, noun if many else plural(noun)
        if determiner and self._slips("order"):
            return word, determiner
        return determiner, word

    def _mass(self, name: str, noun: str, feminine: bool, plain: bool) -> str:
        if name in ("subject", "sport"):
            return ("la " if feminine else "el ") * (name == "sport") + noun
        article = "el" if plain else self.rng.choice(["el", "", "", "mucho"])
        if feminine:
            stressed = noun in lex.STRESSED_A
            article = {"el": "el" if stressed else "la", "mucho": "mucha"}.get(
                article, article
            )
        adjective = "" if plain else self._adjectives(name, feminine, False)
        return " ".join(f"{article} {noun} {adjective}".split())

    def _adjectives(self, name: str, feminine: bool, many: bool) -> str:
        choices = lex.ADJECTIVES.get(name, [])
        count = self.rng.choices([0, 1, 2], [66, 30, 4])[0]
        words = self._some_of(choices, count)
        chosen = [agree(word, feminine, many) for word in words]
        degree = len(words) == 1 and words[0] not in lex.ABSOLUTE
        if degree and self._chance(0.12):
            return f"muy {chosen[0]}"
        return " y ".join(chosen)

    def _some_of(self, choices: list[str], count: int) -> list[str]:
        """Draw adjectives that go together."""
        words = self.rng.sample(choices, min(count, len(choices)))
        if any(len(pair & set(words)) > 1 for pair in lex.OPPOSITES):
            return words[:1]
        return words

    def _determiner(
        self,
        noun: str,
        feminine: bool,
        many: bool,
        definite: bool,
        owned: bool,
    ) -> str:
        if many:
            choices = ["algunos", "muchos", "varios"]
            choices += [self.rng.choice(lex.NUMBERS) for _ in range(3)]
            if definite:
                choices += ["los"] * 6 + ["estos", "esos", "todos los"]
                owner = plural(self.rng.choice(_OWNERS))
                choices.append(owner if owned else "los")
            word = self.rng.choice(choices)
            return _feminine(word) if feminine else word
        choices = ["un"] * 5 + ["otro"]
        if definite:
            choices += ["el"] * 8 + ["este", "ese"]
            owners = [self.rng.choice(_OWNERS) for _ in range(3)]
            choices += owners if owned else ["el"]
        word = self.rng.choice(choices)
        if not feminine:
            return word
        if noun in lex.STRESSED_A and word in ("el", "un"):
            return word
        changed = {"el": "la", "un": "una", "este": "esta", "ese": "esa"}
        return changed.get(word) or agree(word, True)

    def _postmodifier(self, name: str, many: bool, depth: int) -> str:
        if depth > 1:
            return ""
        roll = self.rng.random()
        if name in lex.PEOPLE:
            if roll < 0.12:
                inner = Phrase("", 4 if many else 2)
                return (
                    f" que {self._predicate(inner, self.action('person', 2))}"
                )
            return ""
        if roll < 0.15 and name in [
            "pet",
            "device",
            "clothing",
            "text",
            "vehicle",
        ]:
            return f" de {self._owner()}"
        if roll < 0.22 and name in ("clothing", "gift", "text", "device"):
            buyer = self.np("adult", 2)
            verb = self.rng.choice(["comprar", "encontrar", "perder"])
            return f" que {conjugate(verb, 'past')[buyer.person]} {buyer.text}"
        return ""

    def _owner(self) -> str:
        if self._chance(0.6):
            return self.rng.choice(lex.MEN + lex.WOMEN)
        _, noun, feminine = self._noun("worker")
        return f"{'la' if feminine else 'el'} {noun}"

    def _who(self, depth: int) -> Phrase:
        """Draw a person by name or pronoun, or two."""
        roll = self.rng.random()
        if roll < 0.35:
            return Phrase(self.rng.choice(lex.MEN), human=True)
        if roll < 0.7:
            name = self.rng.choice(lex.WOMEN)
            return Phrase(name, feminine=True, human=True)
        if roll < 0.9 and depth == 0:
            word = self.rng.choice(list(_PRONOUNS))
            person, _ = _PRONOUNS[word]
            feminine = word in ("ella", "ellas")
            if word in ("yo", "tú"):
                feminine = self._chance(0.5)
            dropped = self._chance(_DROPPED.get(word, 0))
            return Phrase("" if dropped else word, person, feminine, True)
        one, other = self.rng.sample(lex.MEN + lex.WOMEN, 2)
        women = one in lex.WOMEN and other in lex.WOMEN
        return Phrase(f"{one} y {other}", 4, women, True)

    def action(self, subject: str, depth: int = 1) -> Action:
        """Draw what somebody of a class may do."""
        mine = [
            subject,
            *(g for g, n in lex.GROUPS.items() if subject in n.split()),
        ]
        if subject in ("person", "adult"):
            mine = ["person", "adult", "worker"]
        roll = self.rng.random()
        if "person" in mine:
            if roll < 0.09:
                return self._gift()
            if roll < 0.15:
                verb = self.rng.choice(["ir", "volver"])
                return Action(verb, self.rng.choice(lex.GOALS), ())
        options = [f for f in lex.FRAMES if f[0] in mine]
        if roll > 0.72 or not options:
            options = [f for f in lex.INTRANSITIVE if f[0] in mine] or options
        *_, places = frame = self.rng.choice(options)
        where = tuple(places.split("+")) if places != "-" else ()
        if len(frame) == 3:
            return Action(frame[1], "", where)
        verb, _, preposition = frame[1].partition(":")
        target = self.np(frame[2], max(depth, 1))
        if preposition:
            return Action(verb, f"{preposition} {target.text}", where)
        words = set(target.text.split()[:2])
        definite = words & {"el", "la", "los", "las"}
        if (definite or target.human) and self._chance(0.12):
            return Action(verb, "", where, target.clitic)
        return Action(verb, target.object, where, target=target)

    def _gift(self) -> Action:
        verb, things = self.rng.choice(lex.DITRANSITIVE)
        if self._chance(0.35):
            clitic = self.rng.choice(["me", "te", "nos", "le", "les"])
            return Action(verb, self.np(things, 2).text, (), clitic)
        person = self.np("adult", 1)
        clitic = "les" if person.plural else "le"
        return Action(
            verb, f"{self.np(things, 2).text} a {person.text}", (), clitic
        )

    def _adjunct(self, action: Action, times: list[str]) -> str:
        parts = []
        if action.places and self._chance(0.35):
            name = self.rng.choice(action.places)
            parts.append(self.rng.choice(lex.PLACES[name]))
        if times and self._chance(0.3):
            parts.append(self.rng.choice(times))
        return " ".join(parts)

    def _tense(self, verb: str) -> str:
        tenses = {"present": 26, "past": 28, "perfect": 9, "future": 7}
        tenses |= {"going": 8, "modal": 9, "imperfect": 6, "progressive": 10}
        if plain(verb) in lex.NOT_PROGRESSIVE:
            tenses.pop("progressive")
        return self.rng.choices(list(tenses), tenses.values())[0]

    def _person(self, subject: Phrase) -> int:
        """Return the person of the verb, or a wrong one."""
        if subject.text and self._slips("agreement"):
            return {0: 2, 1: 2, 2: 4, 3: 4, 4: 2}[subject.person]
        return subject.person

    def _verb(
        self, subject: Phrase, verb: str, tense: str
    ) -> tuple[str, list[str]]:
        """Return the verb in a tense, and times that suit it."""
        person = self._person(subject)
        base = plain(verb)
        if tense == "perfect":
            form = participle(verb)
            form = base if self._slips("participle") else form
            return f"{conjugate('haber', 'present')[person]} {form}", lex.TODAY
        if tense == "progressive":
            when = self.rng.choice(["present", "present", "imperfect"])
            times = lex.NOW_TIMES if when == "present" else []
            form = gerund(verb)
            form = base if self._slips("participle") else form
            return f"{conjugate('estar', when)[person]} {form}", times
        if tense in ("going", "modal"):
            inner = base
            if self._slips("infinitive"):
                inner = conjugate(verb, "present")[person]
            helper = "ir a"
            if tense == "modal":
                helper = self.rng.choice(_MODALS)
            head, _, tail = helper.partition(" ")
            word = conjugate(head, "present")[person]
            return f"{word} {tail} {inner}", lex.FUTURE_TIMES
        times = {
            "present": lex.HABIT_TIMES,
            "past": lex.PAST_TIMES,
            "future": lex.FUTURE_TIMES,
            "imperfect": lex.HABIT_TIMES,
            "subjunctive": lex.FUTURE_TIMES,
        }
        return conjugate(verb, tense)[person], times[tense]

    def _clitic(self, subject: Phrase, action: Action) -> str:
        if is_reflexive(action.verb):
            return CLITICS[subject.person]
        same = {0: "me", 1: "te", 3: "nos"}.get(subject.person)
        return "le" if action.clitic == same else action.clitic

    def _predicate(
        self,
        subject: Phrase,
        action: Action,
        tense: str | None = None,
        timed: bool = True,
    ) -> str:
        """Return the verb in a tense, with all that stands around it."""
        tense = tense or self._tense(action.verb)
        verb, times = self._verb(subject, action.verb, tense)
        before = ""
        if self._chance(0.12):
            rare = "todavía no" if tense == "perfect" else "nunca"
            before = self.rng.choice(["no", "no", "no", rare])
            if before != "no":
                times = []
        elif tense in ("present", "imperfect") and self._chance(0.12):
            before = self.rng.choice(lex.FREQUENCY)
            times = []
        elif tense == "perfect" and self._chance(0.25):
            before = "ya"
        manner = ""
        if action.verb in lex.WITH_MANNER and self._chance(0.25):
            manner = self.rng.choice(lex.MANNER)
        clitic = self._clitic(subject, action)
        adjunct = self._adjunct(action, times if timed else [])
        words = f"{before} {clitic} {verb} {manner} {action.rest} {adjunct}"
        return " ".join(words.split())

    def _subject(self) -> tuple[str, Phrase]:
        classes = {"person": 70, "pet": 9, "wild": 5, "bird": 5, "farm": 5}
        classes |= {"vehicle": 2, "plant": 2, "boat": 1}
        (name,) = self.rng.choices(list(classes), classes.values())
        if name == "person":
            name = self.rng.choice(lex.PEOPLE)
        return name, self.np(name)

    def clause(self, tense: str | None = None, timed: bool = True) -> str:
        """Return a clause without its full stop."""
        name, subject = self._subject()
        if self._chance(0.05):
            subject = self._some()
            name = "person"
        action = self.action(name)
        return (
            f"{subject.text} {self._predicate(subject, action, tense, timed)}"
        )

    def _some(self) -> Phrase:
        """Draw nobody, everybody, or some of a group."""
        if self._chance(0.4):
            return Phrase(self.rng.choice(["todo el mundo", "alguien"]))
        _, noun, feminine = self._noun("worker+child")
        word = self.rng.choice(["algunos", "muchos", "la mitad", "dos"])
        the = "los"
        if feminine:
            word, the = _feminine(word), "las"
        return Phrase(f"{word} de {the} {plural(noun)}", 4, feminine, True)
