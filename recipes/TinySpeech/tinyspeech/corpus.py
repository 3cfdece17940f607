"""What the corpus says, by whom and how: everything but the sound."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from random import Random

from .language import load_language
from .pairs import nonwords, sentence_pair
from .stories import Story
from .styles import STYLES
from .templates import transcript

# Utterances of each kind; stories and pairs count once, not per ending.
SIZES = {
    "debug": {
        "train": {"sentence": 9, "command": 3, "sentiment": 4, "story": 1},
        "valid": {"sentence": 3, "command": 1, "sentiment": 2},
        "test": {"sentence": 3, "command": 1, "sentiment": 2},
        "test_unseen_voice": {"sentence": 3, "command": 1, "sentiment": 2},
        "valid_storycloze": {"cloze": 1},
        "test_storycloze": {"cloze": 1},
        "valid_lexical": {"lexical": 2},
        "test_lexical": {"lexical": 2},
        "valid_syntactic": {"syntactic": 1},
        "test_syntactic": {"syntactic": 2},
        "text": {"line": 300},
    },
    "small": {
        "train": {
            "sentence": 270,
            "command": 128,
            "sentiment": 120,
            "story": 32,
        },
        "valid": {"sentence": 54, "command": 32, "sentiment": 30, "story": 4},
        "test": {"sentence": 72, "command": 32, "sentiment": 36, "story": 4},
        "test_unseen_voice": {"sentence": 36, "command": 16, "sentiment": 18},
        "valid_storycloze": {"cloze": 8},
        "test_storycloze": {"cloze": 16},
        "valid_lexical": {"lexical": 48},
        "test_lexical": {"lexical": 96},
        "valid_syntactic": {"syntactic": 30},
        "test_syntactic": {"syntactic": 60},
        "text": {"line": 20_000},
    },
    "full": {
        "train": {
            "sentence": 3600,
            "command": 1280,
            "sentiment": 1200,
            "story": 540,
        },
        "valid": {
            "sentence": 180,
            "command": 128,
            "sentiment": 120,
            "story": 12,
        },
        "test": {
            "sentence": 360,
            "command": 192,
            "sentiment": 180,
            "story": 24,
        },
        "test_unseen_voice": {
            "sentence": 180,
            "command": 96,
            "sentiment": 90,
        },
        "valid_storycloze": {"cloze": 40},
        "test_storycloze": {"cloze": 100},
        "valid_lexical": {"lexical": 120},
        "test_lexical": {"lexical": 400},
        "valid_syntactic": {"syntactic": 90},
        "test_syntactic": {"syntactic": 300},
        "text": {"line": 200_000},
    },
}
# Of a sentence with a sentiment, spoken in the style of that sentiment.
MATCHED = 0.85
_PATIENCE = 10_000
_STYLE_OF = {"positive": "happy", "negative": "sad"}


@dataclass(frozen=True)
class Utterance:
    """One recording to make."""

    name: str
    kind: str
    sentences: tuple[str, ...]
    speaker: str
    style: str
    key: str  # of its variations; the endings of a story share one
    sentiment: str = "neutral"
    intent: str | None = None
    extra: dict = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The words of all sentences."""
        return transcript(" ".join(self.sentences))


def share_of(text: str) -> str:
    """Return the one of "train", "valid" and "test" that may have a text.

    The text alone decides, so the shares are disjoint whatever is drawn.
    """
    share = int(hashlib.sha1(text.encode()).hexdigest()[:8], 16) % 20
    return {0: "test", 1: "test", 2: "valid"}.get(share, "train")


def plan(
    size: str,
    seed: int,
    language: str = "en",
    speakers: Sequence[str] = (),
    voices: str = "espeak",
) -> dict[str, list[Utterance]]:
    """Return the utterances of every manifest.

    Arguments
    ---------
    size : str
        Of `SIZES`.
    seed : int
        Of all that is random.
    language : str
        Of `LANGUAGES`.
    speakers : sequence of str
        Who speaks all of it; none for those of ``voices``.
    voices : str
        Of `VOICES`; the texts are the same whoever speaks.
    """
    used: set[str] = set()
    cast = load_language(language).cast(voices)
    sizes = dict(SIZES[size])
    del sizes["text"]
    if not speakers and "test_unseen_natural" in cast:
        sizes["test_unseen_natural"] = sizes["test_unseen_voice"]

    def who(manifest: str) -> list[str]:
        return list(speakers or cast.get(manifest, cast[""]))

    return {
        manifest: [
            utterance
            for kind, count in kinds.items()
            for utterance in _KINDS[kind](
                _Draw(manifest, kind, seed, used, language, who(manifest)),
                count,
            )
        ]
        for manifest, kinds in sizes.items()
    }


def text_lines(size: str, seed: int, language: str = "en") -> Iterator[str]:
    """Yield a sentence or a story a line, none from valid or test."""
    rng = Random(f"{seed} text")
    world = load_language(language)
    grammar = world.grammar(rng)
    for _ in range(SIZES[size]["text"]["line"]):
        while True:
            roll = rng.random()
            if roll < 0.7:
                text = shared = transcript(grammar.sentence())
            elif roll < 0.85:
                told = world.story(rng)
                shared = _context(told)
                text = f"{shared} {transcript(told.ending)}"
            elif roll < 0.95:
                mood = rng.choice(list(_STYLE_OF))
                text = shared = transcript(world.opinion(mood, rng))
            else:
                intent = rng.choice(world.intents)
                text = shared = transcript(world.command(intent, rng))
            if share_of(shared) == "train":
                yield text
                break


@cache
def world_words(language: str = "en", lines: int = 10_000) -> frozenset[str]:
    """Return the words that occur in so many lines of each kind."""
    rng = Random(0)
    world = load_language(language)
    grammar = world.grammar(rng)
    words: set[str] = set()
    for i in range(lines):
        told = world.story(rng)
        texts = [*told.context, told.ending, grammar.sentence()]
        intent = world.intents[i % len(world.intents)]
        texts.append(world.command(intent, rng))
        texts += [world.opinion(mood, rng) for mood in _STYLE_OF]
        words.update(transcript(" ".join(texts)).split())
    return frozenset(words)


class _Draw:
    """What the kinds of one manifest draw from."""

    def __init__(
        self,
        manifest: str,
        kind: str,
        seed: int,
        used: set[str],
        language: str,
        speakers: list[str],
    ):
        self.manifest, self.kind, self.seed = manifest, kind, seed
        self.used, self.code = used, language
        self.language = load_language(language)
        self.speakers = speakers
        self.share = manifest.split("_")[0]

    def rng(self, index: int) -> Random:
        return Random(f"{self.seed} {self.manifest} {self.kind} {index}")

    def fresh(self, draw: Callable, shared: Callable = transcript):
        """Draw until the text belongs to this share and is new."""
        for _ in range(_PATIENCE):
            drawn = draw()
            text = shared(drawn)
            if share_of(text) == self.share and text not in self.used:
                self.used.add(text)
                return drawn
        raise RuntimeError(f"no new text for {self.manifest}, {self.kind}")

    def utterance(
        self, index: int, sentences: tuple[str, ...], ending="", **rest
    ) -> Utterance:
        """Give sentences a voice and a style, all of them equally often."""
        name = f"{self.manifest}_{self.kind}_{index:05d}"
        voices, styles = len(self.speakers), list(STYLES)
        turn, place = divmod(index, voices)
        step = (voices + 1) % len(styles) or 1  # else a voice has one style
        defaults = {
            "name": f"{name}_{ending}" if ending else name,
            "kind": "story" if self.kind == "cloze" else self.kind,
            "sentences": sentences,
            "speaker": self.speakers[place],
            "style": styles[(place + step * turn) % len(styles)],
            "key": f"{self.seed} {name}",
        }
        return Utterance(**(defaults | rest))


def _sentences(draw: _Draw, count: int) -> Iterator[Utterance]:
    for i in range(count):
        grammar = draw.language.grammar(draw.rng(i))
        yield draw.utterance(i, (draw.fresh(grammar.sentence),))


def _commands(draw: _Draw, count: int) -> Iterator[Utterance]:
    world = draw.language
    for i in range(count):
        rng = draw.rng(i)
        intent = world.intents[i % len(world.intents)]
        text = draw.fresh(lambda: world.command(intent, rng))  # noqa: B023
        yield draw.utterance(i, (text,), intent=" ".join(intent))


def _opinions(draw: _Draw, count: int) -> Iterator[Utterance]:
    for i in range(count):
        rng = draw.rng(i)
        mood = ("positive", "negative")[(i + i // 6) % 2]
        text = draw.fresh(lambda: draw.language.opinion(mood, rng))  # noqa: B023
        others = [s for s in STYLES if s != _STYLE_OF[mood]]
        matched = rng.random() < MATCHED
        style = _STYLE_OF[mood] if matched else rng.choice(others)
        yield draw.utterance(i, (text,), sentiment=mood, style=style)


def _stories(draw: _Draw, count: int) -> Iterator[Utterance]:
    for i in range(count):
        rng = draw.rng(i)
        told = draw.fresh(lambda: draw.language.story(rng), _context)  # noqa: B023
        yield draw.utterance(i, (*told.context, told.ending))


def _cloze(draw: _Draw, count: int) -> Iterator[Utterance]:
    for i in range(count):
        rng = draw.rng(i)
        told = draw.fresh(lambda: draw.language.story(rng), _context)  # noqa: B023
        endings = {
            "correct": told.ending,
            "incorrect": told.incorrect,
            "topic": told.other_topic,
        }
        for ending, sentence in endings.items():
            extra = {
                "story": f"{draw.manifest}_{i:05d}",
                "ending": ending,
                "context_text": _context(told),
                "ending_text": transcript(sentence),
            }
            yield draw.utterance(
                i,
                (*told.context, sentence),
                ending,
                style="neutral",
                extra=extra,
            )


def _context(told: Story) -> str:
    return transcript(" ".join(told.context))


def _lexical(draw: _Draw, count: int) -> Iterator[Utterance]:
    world = draw.language
    words = world_words(draw.code).union(world.more_words)
    long = [w for w in words if len(w) >= 5 and "'" not in w]
    choices = {
        word: [n for n in new if n not in words]
        for word, new in nonwords(long, world.consonants, world.silent).items()
    }
    real = sorted(word for word, new in choices.items() if new)
    Random(f"{draw.seed} lexical").shuffle(real)
    half = real[draw.share == "test" :: 2]
    for i, word in enumerate(half[:count]):
        pair = (word, draw.rng(i).choice(choices[word]))
        yield from _pair(draw, i, pair)


def _syntactic(draw: _Draw, count: int) -> Iterator[Utterance]:
    world = draw.language
    for i in range(count):
        rng = draw.rng(i)
        slip = world.slips[i % len(world.slips)]
        pair = draw.fresh(
            lambda: sentence_pair(world.grammar, slip, rng),  # noqa: B023
            lambda pair: transcript(pair[0]),
        )
        yield from _pair(draw, i, pair, phenomenon=slip)


def _pair(
    draw: _Draw, index: int, pair: tuple[str, str], **extra
) -> Iterator[Utterance]:
    for correct, text in zip((True, False), pair):
        about = {"pair": f"{draw.manifest}_{index:05d}", "correct": correct}
        yield draw.utterance(
            index,
            (text,),
            "right" if correct else "wrong",
            style="neutral",
            extra=about | extra,
        )


_KINDS = {
    "sentence": _sentences,
    "command": _commands,
    "sentiment": _opinions,
    "story": _stories,
    "cloze": _cloze,
    "lexical": _lexical,
    "syntactic": _syntactic,
}
