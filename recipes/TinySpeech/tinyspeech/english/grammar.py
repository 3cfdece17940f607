"""Plain sentences of many kinds."""

from __future__ import annotations

from ..templates import transcript
from . import lexicon as lex
from .clauses import Action, Clauses, Phrase
from .inflection import finish, forms, plural

MIN_WORDS, MAX_WORDS = 3, 20
SLIPS = (
    "agreement",
    "determiner",
    "participle",
    "order",
    "case",
    "infinitive",
)


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
        kinds = {
            self._statement: 30,
            self._question: 12,
            self._open_question: 10,
            self._command: 8,
            self._compound: 10,
            self._complex: 12,
            self._description: 12,
            self._existence: 6,
            self._comparison: 6,
            self._passive: 8,
            self._report: 8,
            self._wish: 8,
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
            "present": lex.HABIT_TIMES,
        }
        if self._chance(0.2):
            tense = self.rng.choice(list(fronted))
            return f"{self.rng.choice(fronted[tense])}, {self.clause(tense)}."
        return self.clause() + "."

    def _inverted(self, name: str, subject: Phrase, action: Action) -> str:
        tense = self._tense()
        auxiliary, verb, times = self._verb(subject, action.verb, tense)
        if not auxiliary:
            does = "do" if subject.bare else "does"
            auxiliary = "did" if tense == "past" else does
            verb = action.verb
        head, *rest = auxiliary.split()
        adjunct = self._adjunct(action, times)
        words = [head, subject.text, *rest, verb, action.rest, adjunct]
        return " ".join(w for w in words if w)

    def _question(self) -> str:
        name, subject = self._subject()
        return self._inverted(name, subject, self.action(name)) + "?"

    def _open_question(self) -> str:
        name, subject = self._subject()
        action = self.action(name)
        roll = self.rng.random()
        if roll < 0.25:
            who = self.rng.choice(["who", "which " + self._noun("person")[1]])
            action = self.action("person")
            return f"{who} {self._predicate(Phrase(''), action)}?"
        if roll < 0.45 and action.target:
            action = Action(action.verb, "", action.places)
            return f"what {self._inverted(name, subject, action)}?"
        if roll < 0.55:
            noun = plural(self._noun("portable+edible")[1])
            action = Action(self.rng.choice(["buy", "find", "need"]), "", ())
            subject = self.np("adult", 0)
            inner = self._inverted("adult", subject, action)
            return f"how many {noun} {inner}?"
        word = self.rng.choice(["why", "when", "where", "how often", "how"])
        action = Action(action.verb, action.rest, ())
        return f"{word} {self._inverted(name, subject, action)}?"

    def _command(self) -> str:
        action = self.action("person")
        adjunct = self._adjunct(action, lex.FUTURE_TIMES)
        lead = self.rng.choice(["please", "", "", "don't", "let us", "never"])
        tail = self.rng.choice(["", "", "", ", please"])
        tail = "" if lead == "please" else tail
        return f"{lead} {action.verb} {action.rest} {adjunct}{tail}."

    def _compound(self) -> str:
        word = self.rng.choice(["and", "but", "so", "or", "and then"])
        tense = self.rng.choice(["past", "past", "present", "future"])
        name, subject = self._subject()
        first = self._predicate(subject, self.action(name, 2), tense)
        if self._chance(0.5):
            second = self._predicate(subject, self.action(name, 2), tense)
            return f"{subject.text} {first} and {second}."
        return f"{subject.text} {first}, {word} {self.clause(tense)}."

    def _complex(self) -> str:
        tense = self.rng.choice(["past", "present"])
        words = ["because", "when", "while", "although", "before", "after"]
        word = self.rng.choice([*words, "if", "until", "since"])
        main = self.clause("future" if word == "if" else tense)
        inner = self.clause("present" if word == "if" else tense)
        if self._chance(0.4):
            return f"{word} {inner}, {main}."
        return f"{main} {word} {inner}."

    def _description(self) -> str:
        classes = ["person", "animal", "transport", "clothing", "device"]
        classes += ["building", "event", "food", "furniture", "idea", "fruit"]
        name = self.rng.choice(classes)
        phrase = self.np(name)
        adjectives = lex.ADJECTIVES[name]
        adjective = self.rng.choice(adjectives)
        degree = self.rng.choice(["", "", "very", "too", "quite", "so"])
        be = self._be(phrase, self.rng.choice(["present", "past"]))
        roll = self.rng.random()
        if name == "person" and roll < 0.2 and not phrase.bare:
            return f"{phrase.text} {be} a {self._noun('worker')[1]}."
        if roll < 0.4:
            other = self.rng.choice(adjectives)
            join = self.rng.choice(["and", "but not"])
            if other != adjective:
                adjective = f"{adjective} {join} {other}"
        if roll > 0.9:
            words = f"{phrase.text} {degree} {adjective}?"
            return f"{be} {words}"
        return f"{phrase.text} {be} {degree} {adjective}."

    def _existence(self) -> str:
        name = self.rng.choice(["container", "text", "toy", "animal", "dish"])
        place = "nature" if name == "animal" else "top"
        phrase = self.np(name, 2)
        be = self._be(phrase, self.rng.choice(["present", "past"]))
        where = self.rng.choice(lex.PLACES[place])
        if self._chance(0.25):
            return f"{be} there {phrase.text} {where}?"
        return f"there {be} {phrase.text} {where}."

    def _comparison(self) -> str:
        pairs = [
            ("person", "taller younger older stronger"),
            ("animal", "bigger smaller faster older"),
            ("transport", "faster slower newer cheaper"),
            ("clothing", "warmer cheaper newer"),
            ("building", "taller older bigger"),
            ("fruit", "sweeter cheaper fresher"),
        ]
        name, words = self.rng.choice(pairs)
        adjective = self.rng.choice(words.split())
        one, other = self.np(name, 1), self.np(name, 2)
        if one.text[-4:] == other.text[-4:] or one.first:
            return self._comparison()
        be = self._be(one, self.rng.choice(["present", "past"]))
        much = self.rng.choice(["", "", "much", "a little", "even"])
        if self._chance(0.3) and not one.bare:
            top = adjective[:-1] + "st"
            group = self.rng.choice(["in the village", "of all", "I know"])
            nouns = {"transport": "vehicle", "clothing": "thing"}
            noun = nouns.get(name, name)
            return f"{one.text} {be} the {top} {noun} {group}."
        return f"{one.text} {be} {much} {adjective} than {other.text}."

    def _passive(self) -> str:
        frames = [
            f for f in lex.FRAMES if f[0] in ("person", "adult", "worker")
        ]
        rare = ("enjoy", "wear", "like", "prefer", "need", "love", "play")
        frame = self.rng.choice([f for f in frames if f[1] not in rare])
        phrase = self.np(frame[2].replace("person", "worker"), 1)
        if phrase.first or phrase.text in ("he", "she", "we", "they", "you"):
            phrase = Phrase(self.rng.choice(lex.WOMEN))
        be = self._be(phrase, self.rng.choice(["present", "past", "past"]))
        by = f"by {self.np('adult', 2).text}" if self._chance(0.6) else ""
        action = Action(frame[1], by, tuple(frame[3].split("+")))
        adjunct = self.rng.choice(["", *lex.PAST_TIMES[:6]])
        adjunct = "" if be in ("is", "are", "am") else adjunct
        return f"{phrase.text} {be} {forms(action.verb)[2]} {by} {adjunct}."

    def _report(self) -> str:
        subject = self.np("adult")
        verb = self.rng.choice(["say", "think", "know", "hear", "feel"])
        tense = self.rng.choice(["present", "past"])
        _, word, _ = self._verb(subject, verb, tense)
        if self._chance(0.25):
            does = "do" if subject.bare else "does"
            return f"{does} {subject.text} know whether {self.clause()}?"
        that = self.rng.choice(["that", "that", ""])
        return f"{subject.text} {word} {that} {self.clause()}."

    def _wish(self) -> str:
        subject = self.np("adult")
        verb = self.rng.choice("want try hope decide learn promise".split())
        _, word, _ = self._verb(
            subject, verb, self.rng.choice(["present", "past"])
        )
        action = self.action("person")
        adjunct = self._adjunct(action, lex.FUTURE_TIMES)
        bad = self._slips("infinitive")
        inner = forms(action.verb)[1] if bad else action.verb
        if self._chance(0.25):
            word = "would like"
        elif self._chance(0.15):
            word = "have to" if subject.bare else "has to"
            return f"{subject.text} {word} {inner} {action.rest} {adjunct}."
        return f"{subject.text} {word} to {inner} {action.rest} {adjunct}."

    def _clock(self) -> str:
        hour = self.rng.choice(lex.NUMBERS)
        minute = self.rng.choice(["half past", "quarter past", "quarter to"])
        time = f"{self.rng.choice(['', minute])} {hour}"
        noun = self.rng.choice(["train", "flight", "lesson", "movie", "shop"])
        verb = self.rng.choice(["starts", "ends"])
        verb = {"train": "leaves", "flight": "lands", "shop": "closes"}.get(
            noun, verb
        )
        amount = self.rng.choice(lex.BIG_NUMBERS)
        thing = self._noun("clothing+gift+device+tool")[1]
        age = self.rng.choice(lex.NUMBERS + lex.BIG_NUMBERS)
        name = self.rng.choice(lex.MEN + lex.WOMEN)
        return (
            self.rng.choice(
                [
                    f"it is {time}",
                    f"it is {hour} o'clock",
                    f"the {noun} {verb} at {time}",
                    f"this {thing} costs {amount} dollars",
                    f"{name} is {age} years old",
                    f"the station is {amount} meters from here",
                    f"there are {amount} students in our school",
                    f"{name} was born on the {self._ordinal()} of {self._month()}",
                    f"{hour} and two make {self.rng.choice(lex.NUMBERS)}",
                ]
            )
            + "."
        )

    def _ordinal(self) -> str:
        return self.rng.choice("first second third fifth tenth last".split())

    def _month(self) -> str:
        return self.rng.choice(
            "January March April June July August October December".split()
        )

    def _exclamation(self) -> str:
        name = self.rng.choice(["animal", "building", "event", "clothing"])
        name, noun = self._noun(name)
        adjective = self.rng.choice(lex.ADJECTIVES[name])
        if self._chance(0.5):
            return f"what a {adjective} {noun}!"
        many = self._chance(0.3)
        word = plural(noun) if many else noun
        be = self._be(Phrase("", many), "present")
        return f"how {adjective} the {word} {be}!"

    def _possession(self) -> str:
        subject = self.np("adult")
        _, word, times = self._verb(
            subject, "have", self.rng.choice(["present", "past"])
        )
        thing = self.np("pet+vehicle+device+instrument+gift+clothing", 1)
        if self._chance(0.2):
            does = "do" if subject.bare else "does"
            return f"{does} {subject.text} have {thing.text}?"
        when = self.rng.choice(["", "", self.rng.choice(times)])
        return f"{subject.text} {word} {thing.text} {when}."
