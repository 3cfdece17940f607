"""Noun phrases and clauses: agreement, tense, and sense."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from . import lexicon as lex
from .inflection import forms, plural

_BE = {"present": ("is", "are"), "past": ("was", "were")}
_OWNERS = "my your his her our their".split()
_MODALS = "can could will should must might would".split()


@dataclass(frozen=True)
class Phrase:
    """A noun phrase, and what its verb and its pronouns need to know."""

    text: str
    plural: bool = False
    pronoun: str = "it"
    first: bool = False  # "I", which takes "am" and a bare verb

    @property
    def bare(self) -> bool:
        """Whether a present verb has no "-s"."""
        return self.plural or self.first


@dataclass(frozen=True)
class Action:
    """A verb and what follows it."""

    verb: str
    rest: str
    places: tuple[str, ...]
    target: Phrase | None = None


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

    def _noun(self, expression: str) -> tuple[str, str]:
        """Draw a class, then a noun, so that small classes are heard too."""
        found = lex.members(expression)
        name = self.rng.choice(sorted({c for c, _ in found}))
        return name, self.rng.choice([n for c, n in found if c == name])

    def np(self, expression: str, depth: int = 0) -> Phrase:
        """Draw a noun phrase of a class."""
        name, noun = self._noun(expression)
        human = name in lex.GROUPS["person"].split()
        if human and depth < 2 and self._chance(0.5):
            return self._who(depth)
        mass = name in lex.MASS
        adjectives = self._adjectives(name, noun)
        if mass:
            bare = name in ("subject", "sport")
            some = "" if bare else self.rng.choice(["the", "some", "", "his"])
            text = noun if bare else f"{some} {adjectives} {noun}"
            return Phrase(" ".join(text.split()))
        many = self._chance(0.35)
        determiner = self._determiner(many, depth)
        word = plural(noun) if many else noun
        if self._slips_determiner(determiner):
            word = noun if many else plural(noun)
        core = f"{adjectives} {word}".strip()
        if adjectives and self._slips("order"):
            core = f"{word} {adjectives}"
        text = f"{determiner} {core}{self._postmodifier(name, many, depth)}"
        pronoun = "it"
        if human:
            pronoun = "she" if name == "woman" or noun in lex.WOMEN else "he"
        return Phrase(text, many, "they" if many else pronoun)

    def _slips_determiner(self, determiner: str) -> bool:
        counts = {"this", "these", "that", "those", "every", "a", "many"}
        counts |= {"several", "each", "both", *lex.NUMBERS}
        return determiner in counts and self._slips("determiner")

    def _adjectives(self, name: str, noun: str) -> str:
        choices = lex.ADJECTIVES.get(name, [])
        count = self.rng.choices([0, 1, 2], [60, 34, 6])[0]
        chosen = self.rng.sample(choices, min(count, len(choices)))
        if len(chosen) == 2 and self._chance(0.4):
            return " and ".join(chosen)
        degree = self.rng.choice(["very", "really", "rather"])
        if len(chosen) == 1 and self._chance(0.1):
            return f"{degree} {chosen[0]}"
        return " ".join(chosen)

    def _determiner(self, many: bool, depth: int) -> str:
        if depth < 2 and self._chance(0.12):
            return self._owner()
        if many:
            return self.rng.choice(
                ["the"] * 6
                + ["these", "those", "some", "many", "several", "both", "all"]
                + ["a few", "most", self.rng.choice(_OWNERS)]
                + [self.rng.choice(lex.NUMBERS) for _ in range(3)]
            )
        return self.rng.choice(
            ["the"] * 8
            + ["a"] * 6
            + ["this", "that", "every", "another"]
            + [self.rng.choice(_OWNERS) for _ in range(3)]
        )

    def _owner(self) -> str:
        if self._chance(0.5):
            return self.rng.choice(lex.MEN + lex.WOMEN) + "'s"
        owners = "teacher doctor neighbor king farmer child mother baker"
        return f"the {self.rng.choice(owners.split())}'s"

    def _who(self, depth: int) -> Phrase:
        """Draw a person by name or pronoun, or two."""
        roll = self.rng.random()
        if roll < 0.35:
            return Phrase(self.rng.choice(lex.MEN), pronoun="he")
        if roll < 0.7:
            return Phrase(self.rng.choice(lex.WOMEN), pronoun="she")
        if roll < 0.9 and depth == 0:
            word = self.rng.choice("I you he she we they".split())
            return Phrase(
                word, word in ("you", "we", "they"), word, word == "I"
            )
        one, other = self.rng.sample(lex.MEN + lex.WOMEN, 2)
        if self._chance(0.3):
            other = f"{self.rng.choice(_OWNERS)} {self._noun('man+woman')[1]}"
        return Phrase(f"{one} and {other}", True, "they")

    def _postmodifier(self, name: str, many: bool, depth: int) -> str:
        if depth > 1:
            return ""
        roll = self.rng.random()
        human = name in lex.GROUPS["person"].split()
        if roll < 0.07 and human:
            return f" with {self.np('clothing', 2).text}"
        if roll < 0.1 and name in lex.NOUNS and not human:
            if name in ("furniture", "container", "picture", "text", "toy"):
                return " " + self.rng.choice(lex.PLACES["top"])
        if roll < 0.17 and human:
            subject = Phrase("", many)
            return f" who {self._predicate(subject, self.action('person', 2))}"
        if roll < 0.17 and name in ("clothing", "gift", "text", "device"):
            buyer = self.np("adult", 2)
            verb = self.rng.choice(["bought", "found", "lost", "forgot"])
            return f" that {buyer.text} {verb}"
        return ""

    def action(self, subject: str, depth: int = 1) -> Action:
        """Draw what somebody of a class may do."""
        groups = lex.GROUPS.items()
        mine = [subject, *(g for g, n in groups if subject in n.split())]
        if subject in ("person", "adult"):
            mine = ["person", "adult", "worker"]
        roll = self.rng.random()
        if "person" in mine:
            if roll < 0.09:
                _, verb, things = self.rng.choice(lex.DITRANSITIVE)
                thing = self.np(things, 2)
                person = self._object(depth)
                if self._chance(0.5):
                    return Action(verb, f"{person} {thing.text}", ())
                return Action(verb, f"{thing.text} to {person}", ())
            if roll < 0.15:
                goal = self.rng.choice(lex.GOALS)
                return Action(self.rng.choice(["go", "walk", "come"]), goal, ())
        options = [f for f in lex.FRAMES if f[0] in mine]
        if roll > 0.75 or not options:
            options = [f for f in lex.INTRANSITIVE if f[0] in mine] or options
        *_, places = frame = self.rng.choice(options)
        where = tuple(places.split("+")) if places != "-" else ()
        if len(frame) == 3:
            return Action(frame[1], "", where)
        target = self.np(frame[2], depth)
        if target.text in "I you he she we they".split():
            target = Phrase(self._object(depth))
        return Action(frame[1], target.text, where, target)

    def _object(self, depth: int) -> str:
        """Draw a person as an object."""
        pronouns = {"me": "I", "him": "he", "her": "she", "us": "we"}
        pronouns["them"] = "they"
        if self._chance(0.5):
            word = self.rng.choice(list(pronouns))
            return pronouns[word] if self._slips("case") else word
        return self.np("adult", 2).text

    def _adjunct(self, action: Action, times: list[str]) -> str:
        parts = []
        if action.places and self._chance(0.35):
            name = self.rng.choice(action.places)
            parts.append(self.rng.choice(lex.PLACES[name]))
        if self._chance(0.3):
            parts.append(self.rng.choice(times))
        return " ".join(parts)

    def _predicate(
        self, subject: Phrase, action: Action, tense: str | None = None
    ) -> str:
        """Return the verb in a tense, with all that follows it."""
        tense = tense or self._tense()
        auxiliary, verb, times = self._verb(subject, action.verb, tense)
        negative = self._chance(0.12)
        if negative:
            auxiliary, verb = self._negate(subject, auxiliary, verb, action)
        elif auxiliary and self._chance(0.08):
            auxiliary += " " + self.rng.choice(["probably", "also", "already"])
        elif tense == "present" and self._chance(0.12):
            verb = f"{self.rng.choice(lex.FREQUENCY)} {verb}"
        manner = ""
        if not action.rest and self._chance(0.2):
            manner = self.rng.choice(lex.MANNER)
        adjunct = self._adjunct(action, times)
        return " ".join(
            f"{auxiliary} {verb} {action.rest} {manner} {adjunct}".split()
        )

    def _tense(self) -> str:
        tenses = {"present": 24, "past": 30, "progressive": 14, "perfect": 9}
        tenses |= {"future": 8, "modal": 9, "going": 6}
        return self.rng.choices(list(tenses), tenses.values())[0]

    def _be(self, subject: Phrase, tense: str) -> str:
        many = subject.plural
        if self._slips("agreement"):
            return _BE[tense][not many]
        if subject.first:
            return "am" if tense == "present" else "was"
        return _BE[tense][many]

    def _verb(
        self, subject: Phrase, verb: str, tense: str
    ) -> tuple[str, str, list[str]]:
        """Return the auxiliary, the verb, and times that suit the tense."""
        third, past, participle, ing = forms(verb)
        wrong = tense in ("perfect", "future", "modal", "progressive")
        if wrong and self._slips("participle"):
            participle, ing, base = third, verb, ing
        else:
            base = verb
        if tense == "present":
            bare = subject.bare != self._slips("agreement")
            return "", verb if bare else third, lex.HABIT_TIMES
        if tense == "past":
            return "", past, lex.PAST_TIMES
        if tense == "progressive":
            when = self.rng.choice(["present", "past"])
            times = lex.NOW_TIMES[:4] if when == "present" else lex.PAST_TIMES
            return self._be(subject, when), ing, times
        if tense == "perfect":
            bare = subject.bare != self._slips("agreement")
            return "have" if bare else "has", participle, ["today", "again"]
        if tense == "future":
            return "will", base, lex.FUTURE_TIMES
        if tense == "going":
            be = self._be(subject, "present")
            return f"{be} going to", base, lex.FUTURE_TIMES
        return self.rng.choice(_MODALS), base, lex.FUTURE_TIMES

    def _negate(
        self, subject: Phrase, auxiliary: str, verb: str, action: Action
    ) -> tuple[str, str]:
        if auxiliary:
            head, *rest = auxiliary.split()
            return " ".join([head, "not", *rest]), verb
        if verb == forms(action.verb)[1]:
            return "didn't", action.verb
        bare = subject.bare != self._slips("agreement")
        return "don't" if bare else "doesn't", action.verb

    def _subject(self) -> tuple[str, Phrase]:
        classes = {"person": 70, "pet": 9, "wild": 5, "bird": 5, "farm": 5}
        classes |= {"vehicle": 2, "plant": 2, "boat": 1}
        (name,) = self.rng.choices(list(classes), classes.values())
        if name != "person":
            return name, self.np(name)
        name = self.rng.choice(lex.GROUPS["person"].split())
        return name, self.np(name)

    def clause(self, tense: str | None = None) -> str:
        """Return a clause without its full stop."""
        name, subject = self._subject()
        text = subject.text
        if self._chance(0.06):
            text = f"{self._quantity()} of the {plural(self._noun(name)[1])}"
            subject = Phrase(text, True, "they")
        predicate = self._predicate(subject, self.action(name), tense)
        return f"{text} {predicate}"

    def _quantity(self) -> str:
        return self.rng.choice(
            ["most", "some", "many", "half", "a lot", "two", "none", "three"]
        )
