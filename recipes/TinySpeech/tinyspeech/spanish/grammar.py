"""Plain sentences of Spanish, of many kinds."""

from __future__ import annotations

from collections.abc import Callable

from ..templates import transcript
from . import lexicon as lex
from .clauses import Action, Clauses, Phrase
from .inflection import agree, finish, plural
from .verbs import (
    CLITICS,
    command,
    conjugate,
    is_reflexive,
    participle,
    plain,
)

MIN_WORDS, MAX_WORDS = 3, 20
SLIPS = ("agreement", "gender", "number", "participle", "order", "infinitive")


class Grammar(Clauses):
    """Draws sentences.

    Arguments
    ---------
    rng : random.Random
        Of all choices.
    slip : str or None
        A mistake to make once, where the sentence gives the occasion, one of
        `SLIPS`.
    """

    def sentence(self) -> str:
        """Return a written sentence of 3 to 20 words."""
        kinds: dict[Callable[[], str], int] = {
            self._statement: 34,
            self._question: 12,
            self._open_question: 12,
            self._command: 8,
            self._compound: 10,
            self._complex: 12,
            self._description: 12,
            self._state: 8,
            self._existence: 7,
            self._comparison: 6,
            self._passive: 6,
            self._report: 8,
            self._wish: 10,
            self._liking: 7,
            self._clock: 5,
            self._exclamation: 4,
            self._possession: 6,
        }
        while True:
            (kind,) = self.rng.choices(list(kinds), kinds.values())
            text = finish(kind())
            if MIN_WORDS <= len(transcript(text).split()) <= MAX_WORDS:
                return text

    def _statement(self) -> str:
        fronted = {
            "past": lex.PAST_TIMES,
            "future": lex.FUTURE_TIMES,
            "going": lex.FUTURE_TIMES,
            "present": lex.HABIT_TIMES,
        }
        if self._chance(0.2):
            tense = self.rng.choice(list(fronted))
            when = self.rng.choice(fronted[tense])
            return f"{when} {self.clause(tense, timed=False)}."
        return self.clause() + "."

    def _inverted(
        self, subject: Phrase, action: Action, rest: bool = True
    ) -> str:
        """Return verb, subject and object, as in questions."""
        tense = self._tense(action.verb)
        verb, times = self._verb(subject, action.verb, tense)
        clitic = self._clitic(subject, action)
        words = f"{clitic} {verb} {subject.text} {action.rest}"
        return words + (" " + self._adjunct(action, times) if rest else "")

    def _question(self) -> str:
        name, subject = self._subject()
        action = self.action(name)
        if self._chance(0.3) or len(subject.text.split()) > 3:
            return f"¿{subject.text} {self._predicate(subject, action)}?"
        return f"¿{self._inverted(subject, action)}?"

    def _open_question(self) -> str:
        name, subject = self._subject()
        action = self.action(name)
        roll = self.rng.random()
        if roll < 0.25:
            who = Phrase("", self.rng.choice([2, 2, 4]))
            word = "quiénes" if who.plural else "quién"
            return f"¿{word} {self._predicate(who, self.action('person'))}?"
        if roll < 0.45 and action.target:
            whom = "a quién" if action.target.human else "qué"
            bare = Action(action.verb, "", action.places)
            return f"¿{whom} {self._inverted(subject, bare)}?"
        if roll < 0.55:
            _, noun, feminine = self._noun("portable+edible")
            verb = self.rng.choice(["comprar", "encontrar", "necesitar"])
            buyer = self.np("adult", 0)
            inner = self._inverted(buyer, Action(verb, "", ()), False)
            return f"¿{agree('cuánto', feminine, True)} {plural(noun)} {inner}?"
        words = ["por qué", "cuándo"]
        if action.places and action.verb not in lex.NOT_PROGRESSIVE:
            words += ["dónde", "cómo"]
        word = self.rng.choice(words)
        return f"¿{word} {self._inverted(subject, action, False)}?"

    def _command(self) -> str:
        action = self.action("person")
        while action.clitic or not self._can_be_told(action):
            action = self.action("person")
        adjunct = self._adjunct(action, lex.FUTURE_TIMES)
        rest = f"{action.rest} {adjunct}"
        base = plain(action.verb)
        roll = self.rng.random()
        please = self.rng.choice(["", "", ", por favor"])
        if roll < 0.45:
            return f"{command(action.verb)} {rest}{please}."
        if roll < 0.7:
            return f"no {conjugate(action.verb, 'subjunctive')[1]} {rest}."
        head = self.rng.choice(["vamos a", "hay que", "no hay que"])
        return f"{head} {base} {rest}."

    def _can_be_told(self, action: Action) -> bool:
        feels = action.verb in lex.NOT_PROGRESSIVE and action.verb != "ir"
        return not feels and not is_reflexive(action.verb)

    def _compound(self) -> str:
        tense = self.rng.choice(["past", "past", "present", "future"])
        name, subject = self._subject()
        first = self._predicate(subject, self.action(name, 2), tense)
        if self._chance(0.5):
            second = self._predicate(subject, self.action(name, 2), tense)
            return f"{subject.text} {first} y {second}."
        word = self.rng.choice([" y", ", pero", ", así que"])
        return f"{subject.text} {first}{word} {self.clause(tense)}."

    def _complex(self) -> str:
        """Return a clause with one that depends on it."""
        tense = self.rng.choice(["past", "present"])
        kinds = {
            "porque": (tense, self.rng.choice([tense, "imperfect"])),
            "cuando": (tense, tense),
            "mientras": (tense, "imperfect" if tense == "past" else tense),
            "aunque": (tense, tense),
            "si": ("future", "present"),
            "cuando ": ("future", "subjunctive"),
        }
        if self._chance(0.3):
            return self._purpose()
        word = self.rng.choice(list(kinds))
        main, inner = kinds[word]
        if main == "present" and inner == "imperfect":
            inner = "past"
        one, other = self.clause(main), self.clause(inner)
        if word != "porque" and self._chance(0.4):
            return f"{word} {other}, {one}."
        return f"{one} {word} {other}."

    def _purpose(self) -> str:
        """Return a clause with an infinitive: before, after, or what for."""
        name = self.rng.choice(lex.PEOPLE)
        subject = self.np(name)
        action = self.action("person", 2)
        while is_reflexive(action.verb) or action.clitic:
            action = self.action("person", 2)
        word = self.rng.choice(["antes de", "después de", "para", "sin"])
        main = self._predicate(
            subject,
            self.action(name, 2),
            self.rng.choice(["past", "present", "going"]),
        )
        inner = f"{action.verb} {action.rest}"
        if word != "sin" and self._chance(0.4):
            return f"{word} {inner}, {subject.text} {main}."
        return f"{subject.text} {main} {word} {inner}."

    def _described(self, verb: str, adjectives: dict[str, list[str]]) -> str:
        name = self.rng.choice(list(adjectives))
        if name in lex.GROUPS and name not in ("thing",):
            name = self.rng.choice(lex.GROUPS[name].split())
        group = next(
            (g for g, n in lex.GROUPS.items() if name in n.split()), name
        )
        choices = adjectives.get(name) or adjectives[group]
        phrase = self.np(name, plain=True)
        tense = self.rng.choice(["present", "present", "imperfect"])
        be = conjugate(verb, tense)[self._person(phrase)]
        words = self._some_of(choices, 2)
        degree = self.rng.choice(["", "", "", "muy", "muy", "bastante"])
        if words[0] in lex.ABSOLUTE:
            degree = ""
        if degree or self._chance(0.7):
            words = words[:1]
        join = self.rng.choice([" y ", " pero no "])
        text = join.join(
            agree(w, phrase.feminine, phrase.plural) for w in words
        )
        no = "no" if self._chance(0.12) else ""
        if self._chance(0.12):
            return f"¿{no} {be} {degree} {text} {phrase.text}?"
        return f"{phrase.text} {no} {be} {degree} {text}."

    def _description(self) -> str:
        if self._chance(0.1):
            name = self.rng.randrange(len(lex.MEN))
            woman = self._chance(0.5)
            job = self.rng.choice(lex.JOBS[woman])
            who = (lex.WOMEN if woman else lex.MEN)[name]
            return f"{who} {self.rng.choice(['es', 'era'])} {job}."
        known = {
            name: words
            for name, words in lex.ADJECTIVES.items()
            if name in lex.NOUNS and len(words) > 1
        }
        return self._described("ser", known)

    def _state(self) -> str:
        return self._described("estar", lex.STATES)

    def _existence(self) -> str:
        name = self.rng.choice(
            ["container", "text", "toy", "animal", "dish", "child"]
        )
        place = "nature" if name in ("animal", "child") else "top"
        phrase = self.np(name, 2, definite=False)
        be = self.rng.choice(["hay", "hay", "había"])
        where = self.rng.choice(lex.PLACES[place])
        roll = self.rng.random()
        if roll < 0.2:
            return f"¿{be} {phrase.text} {where}?"
        if roll < 0.5:
            return f"{where} {be} {phrase.text}."
        return f"{be} {phrase.text} {where}."

    def _comparison(self) -> str:
        pairs = [
            ("person", "alto joven viejo fuerte simpático"),
            ("animal", "grande pequeño rápido viejo"),
            ("transport", "rápido lento nuevo barato"),
            ("clothing", "caro barato nuevo bonito"),
            ("building", "alto antiguo grande bonito"),
            ("fruit", "dulce barato fresco"),
        ]
        name, words = self.rng.choice(pairs)
        adjective = self.rng.choice(words.split())
        one, other = self.np(name, 1), self.np(name, 2)
        if one.text[-4:] == other.text[-4:]:
            return self._comparison()
        tense = self.rng.choice(["present", "present", "imperfect"])
        be = conjugate("ser", tense)[self._person(one)]
        word = agree(adjective, one.feminine, one.plural)
        roll = self.rng.random()
        if roll < 0.25:
            article = {
                (False, False): "el",
                (True, False): "la",
                (False, True): "los",
                (True, True): "las",
            }[one.feminine, one.plural]
            group = self.rng.choice(
                ["de el pueblo", "de el mundo", "de la ciudad"]
            )
            return f"{one.text} {be} {article} más {word} {group}."
        if roll < 0.5:
            return f"{one.text} {be} tan {word} como {other.text}."
        much = self.rng.choice(["", "", "mucho", "un poco"])
        more = self.rng.choice(["más", "más", "menos"])
        return f"{one.text} {be} {much} {more} {word} que {other.text}."

    def _passive(self) -> str:
        verbs = {
            "construir": "building",
            "pintar": "picture+opening",
            "escribir": "text.carta+text.poema+text.novela+text.libro",
            "robar": "gift+picture+vehicle",
            "encontrar": "gift+text",
            "reparar": "vehicle+device",
            "vender": "vehicle+building",
        }
        verb = self.rng.choice(list(verbs))
        phrase = self.np(verbs[verb], 2)
        if self._chance(0.3):
            _, noun, _ = self._noun("clothing+edible+toy+text+container")
            where = self.rng.choice(lex.PLACES["town"][:6])
            form = self.rng.choice(["venden", "compran", "necesitan"])
            return f"{where} se {form} {plural(noun)}."
        be = conjugate("ser", "past")[self._person(phrase)]
        word = agree(participle(verb), phrase.feminine, phrase.plural)
        by = f"por {self.np('adult', 1).text}" if self._chance(0.6) else ""
        when = self.rng.choice(lex.PAST_TIMES) if self._chance(0.4) else ""
        return f"{phrase.text} {be} {word} {by} {when}."

    def _report(self) -> str:
        subject = self.np("adult")
        verb = self.rng.choice(["decir", "creer", "saber", "pensar"])
        roll = self.rng.random()
        if roll < 0.2:
            asks = conjugate("saber", "present")[self._person(subject)]
            return f"{subject.text} no {asks} si {self.clause()}."
        if roll < 0.5:
            past = "imperfect" if verb != "decir" else "past"
            word = conjugate(verb, past)[self._person(subject)]
            return f"{subject.text} {word} que {self.clause('imperfect')}."
        word = conjugate(verb, "present")[self._person(subject)]
        return f"{subject.text} {word} que {self.clause()}."

    def _wish(self) -> str:
        subject = self.np("adult")
        if self._chance(0.3):
            return self._hope(subject)
        action = self.action("person")
        heads = (
            "querer,tener que,intentar,preferir,aprender a,acabar de,empezar a"
        )
        head, _, tail = self.rng.choice(heads.split(",")).partition(" ")
        tense = self.rng.choice(["present", "present", "imperfect"])
        if head in ("acabar", "empezar"):
            tense = "present"
        word = conjugate(head, tense)[self._person(subject)]
        inner = plain(action.verb)
        if is_reflexive(action.verb):
            inner += CLITICS[subject.person]
        if self._slips("infinitive"):
            inner = conjugate(action.verb, "present")[subject.person]
        rest = action.rest
        if action.clitic:
            action = self._gift()
            inner, rest = action.verb, action.rest.partition(" a ")[0]
        adjunct = self._adjunct(action, [])
        return f"{subject.text} {word} {tail} {inner} {rest} {adjunct}."

    def _hope(self, subject: Phrase) -> str:
        """Return what somebody wants another one to do."""
        other = self.np("adult", 1)
        action = self.action("person")
        verb = self.rng.choice(["querer", "esperar", "necesitar"])
        word = conjugate(verb, "present")[self._person(subject)]
        inner = conjugate(action.verb, "subjunctive")[other.person]
        clitic = self._clitic(other, action)
        adjunct = self._adjunct(action, lex.FUTURE_TIMES)
        return (
            f"{subject.text} {word} que {other.text} {clitic} {inner} "
            f"{action.rest} {adjunct}."
        )

    def _liking(self) -> str:
        things = self.np("fruit+dish+sport+pet+drink+instrument+event", 2)
        if not set(things.text.split()[:2]) & {"el", "la", "los", "las"}:
            _, noun, feminine = self._noun("fruit+dish+pet+event")
            article = "las" if feminine else "los"
            things = Phrase(f"{article} {plural(noun)}", 4, feminine)
        who = self.np("adult", 1)
        tense = self.rng.choice(["present", "present", "imperfect"])
        form = conjugate("gustar", tense)[self._person(things)]
        much = self.rng.choice(["", "", "mucho"])
        no = "no" if self._chance(0.25) else ""
        if self._chance(0.4):
            clitic = self.rng.choice(["me", "te", "nos"])
            if self._chance(0.3) and not no:
                return f"¿te {form} {things.text}?"
            return f"{no} {clitic} {form} {much} {things.text}."
        clitic = "les" if who.plural else "le"
        return f"a {who.text} {no} {clitic} {form} {much} {things.text}."

    def _clock(self) -> str:
        hour = self.rng.choice(lex.NUMBERS)
        first = self.rng.randrange(len(lex.NUMBERS) - 2)
        minute = self.rng.choice(["", "y media", "y cuarto", "menos cuarto"])
        thing = self.rng.choice(["el tren", "el autobús", "el avión"])
        event = self.rng.choice(["la clase", "la película", "el concierto"])
        verb = self.rng.choice(["empieza", "termina"])
        noun, feminine = self._noun("clothing+gift+device+tool")[1:]
        amount = self.rng.choice(lex.BIG_NUMBERS)
        name = self.rng.choice(lex.MEN + lex.WOMEN)
        this = "esta" if feminine else "este"
        age = self.rng.choice(lex.NUMBERS + lex.BIG_NUMBERS[:7])
        return (
            self.rng.choice(
                [
                    f"son las {hour} {minute}",
                    f"ya son las {hour} {minute}",
                    f"{thing} sale a las {hour} {minute}",
                    f"{event} {verb} a las {hour} {minute}",
                    f"{this} {noun} cuesta {amount} euros",
                    f"{name} tiene {age} años",
                    f"la estación está a {amount} metros de aquí",
                    f"hay {amount} alumnos en nuestro colegio",
                    f"{name} nació el {hour} de {self.rng.choice(lex.MONTHS)}",
                    f"{lex.NUMBERS[first]} y dos son {lex.NUMBERS[first + 2]}",
                ]
            )
            + "."
        )

    def _exclamation(self) -> str:
        name = self.rng.choice(["animal", "building", "event", "clothing"])
        name, noun, feminine = self._noun(name)
        many = self._chance(0.3)
        adjective = self.rng.choice(lex.ADJECTIVES[name])
        word = agree(adjective, feminine, many)
        noun = plural(noun) if many else noun
        if self._chance(0.5):
            return f"¡qué {noun} tan {word}!"
        article = "el" if noun in lex.STRESSED_A else ["el", "la"][feminine]
        if many:
            article = "las" if feminine else "los"
        return f"¡qué {word} {'son' if many else 'es'} {article} {noun}!"

    def _possession(self) -> str:
        subject = self.np("adult")
        word = conjugate("tener", self.rng.choice(["present", "imperfect"]))[
            self._person(subject)
        ]
        thing = self.np(
            "pet+vehicle+device+instrument+gift+clothing", 2, definite=False
        )
        if self._chance(0.2):
            return f"¿{word} {subject.text} {thing.text}?"
        no = "no" if self._chance(0.12) else ""
        return f"{subject.text} {no} {word} {thing.text}."
