"""Prompts: texts of all scripts, speech of all forms, right and wrong ones."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch

from spiritlm_plugin import Speech, SpeechUnits, SpiritLM, Text
from spiritlm_plugin.dataio.units.segments import (
    Break,
    Reading,
    Segment,
    Transcript,
)
from spiritlm_plugin.dataio.units.units import Kind, SpeechStream
from spiritlm_plugin.dataio.units.vocabulary import Vocabulary
from spiritlm_plugin.pretrained.folders import local_folder
from tests.fuzz.harness import Case, WrongResult

# First and last characters of some blocks, of one to four bytes in UTF-8.
_BLOCKS = [
    *((0x00, 0x1F), (0x20, 0x7E), (0x80, 0x24F), (0x300, 0x36F)),
    *((0x370, 0x5FF), (0x600, 0x6FF), (0x900, 0x97F), (0xE00, 0xE7F)),
    *((0x2000, 0x206F), (0x2500, 0x259F), (0x3040, 0x30FF), (0x4E00, 0x9FFF)),
    *((0xAC00, 0xD7A3), (0xE000, 0xF8FF), (0xFE00, 0xFFFF)),
    *((0x1F300, 0x1FAFF), (0x20000, 0x2A6DF), (0xE0000, 0x10FFFF)),
]
_SNIPPETS = [
    *("[Text]", "[Speech]", "[ASR]", "[Hu12]", "[Pi3]", "[St5]", "[Hu", "0]"),
    *("<s>", "</s>", "<unk>", "<0x0A>", "<START Transcript>", "<END>", "A:"),
    *(" ", "  ", "\n", "\r\n", "\t", "\0", "\u2028", "\ufeff", "é", "e\u0301"),
    *("the cat ", "he said ", "👩‍👩‍👧", "🇩🇪", "ﷺ", "\u202e", "\u200d"),
]
_WORDS = [
    "the",
    "cat",
    " sat",
    " on",
    " a",
    " mat",
    ",",
    " two boats",
    "é",
    "\n",
]


def prepare() -> SpiritLM:
    """Load the model that ships, in a precision in which batches are exact."""
    torch.set_num_threads(1)
    options = {"language_model_dtype": "float32"}
    return SpiritLM.from_hparams("tinyspeech", overrides=options)


@cache
def _vocabulary() -> Vocabulary:
    folder = local_folder("tinyspeech", "hyperparams.yaml")
    return Vocabulary.load(folder / "language_model")


def make_case(rng: np.random.Generator, folder: Path) -> Case:
    """Draw a prompt, or what is none."""
    kind = str(rng.choice(list(_KINDS), p=[_KINDS[k][1] for k in _KINDS]))
    return _KINDS[kind][0](rng, kind)


def run_case(case: Case, tools: SpiritLM) -> None:
    """Check what is known of a prompt, or that it is refused."""
    check, *arguments = case.content
    check(tools, *arguments)


def _text(rng: np.random.Generator, longest: int = 12) -> str:
    parts = []
    for _ in range(rng.integers(1, longest)):
        if rng.random() < 0.4:
            parts.append(str(rng.choice(_SNIPPETS)))
            continue
        first, last = _BLOCKS[rng.integers(len(_BLOCKS))]
        codes = rng.integers(first, last, rng.integers(1, 9), endpoint=True)
        parts.append("".join(map(chr, codes)))
    return "".join(parts)


def _stream(rng: np.random.Generator, longest: int = 20) -> SpeechStream:
    kinds = rng.integers(len(Kind), size=rng.integers(1, longest))
    counts = [_vocabulary().unit_count(Kind(kind)) for kind in kinds]
    return SpeechStream(kinds, rng.integers(counts))


def _segment(rng: np.random.Generator) -> Segment | tuple[str, Any]:
    """Draw a segment, or a tuple that means one."""
    kind = rng.choice(["text", "speech", "asr", "tts", "break"])
    if kind in ("speech", "tts"):
        content: Any = _stream(rng)
        if rng.random() < 0.5:
            content = content.split()
    else:
        content = "".join(rng.choice(_WORDS, rng.integers(1, 6)))
    if rng.random() < 0.4:
        return str(kind), content
    classes = {"speech": Speech, "tts": Reading, "asr": Transcript}
    return {**classes, "text": Text, "break": Break}[str(kind)](content)


def _prompt(rng: np.random.Generator) -> list[Any]:
    parts = [_segment(rng) for _ in range(rng.integers(1, 6))]
    first = Text("so ") if rng.random() < 0.5 else Speech(_stream(rng))
    return [first, *parts]


def _a_text(rng: np.random.Generator, kind: str) -> Case:
    content = _text(rng, 12 if rng.random() < 0.8 else 400)
    return Case(kind, (_check_text, content), ("text",), is_valid=True)


def _check_text(lm: SpiritLM, text: str) -> None:
    ids = torch.tensor(lm.vocabulary.encode([Text(text)]))
    back = lm.vocabulary.decode(ids)
    # SentencePiece writes a space so, and cannot tell the two apart.
    _expect(_written(back), [("text", text.replace("▁", " "))])
    own = lm.vocabulary.encode_text(text)
    _expect(set(lm.vocabulary.kinds[own].tolist()), {-1})


def _a_prompt(rng: np.random.Generator, kind: str) -> Case:
    output = str(rng.choice(["text", "speech", "any", "asr", "tts"]))
    settings = {
        "output": output,
        "max_new_tokens": int(rng.integers(1, 7)),
        "temperature": float(rng.choice([0, 0.8, 1.5])),
        "seed": int(rng.integers(2**31)),
    }
    prompts = [_prompt(rng) for _ in range(rng.integers(2, 4))]
    return Case(
        kind, (_check_prompts, prompts, settings), ("prompt",), is_valid=True
    )


def _check_prompts(
    lm: SpiritLM, prompts: list[Any], settings: dict[str, Any]
) -> None:
    for prompt in prompts:
        ids = lm.vocabulary.encode(prompt)
        back = _written(lm.vocabulary.decode(ids))
        _expect(back, _written(map(_as_segment, prompt)))
    batch = lm.generate([iter(prompt) for prompt in prompts], **settings)
    last = len(prompts) - 1
    seed = settings.pop("seed") + last
    alone = lm.generate(tuple(prompts[last]), seed=seed, **settings)
    _expect(_shown(batch[last]), _shown(alone))
    sums, counts = lm.log_likelihood(prompts, prompts[::-1])
    one, count = lm.log_likelihood(prompts[last], prompts[0])
    _expect(int(counts[last]), int(count))
    if not torch.allclose(sums[last:], one, atol=1e-2, rtol=1e-4):
        raise WrongResult(f"{sums[last]} in a batch, {one} alone")


def _a_string(rng: np.random.Generator, kind: str) -> Case:
    parts: list[Segment] = []
    for _ in range(rng.integers(1, 8)):
        if rng.random() < 0.5:
            parts.append(Text(_text(rng).replace("[", "(")))
        else:
            parts.append(Speech(_stream(rng)))
    return Case(kind, (_check_string, parts), ("prompt",), is_valid=True)


def _check_string(lm: SpiritLM, parts: list[Segment]) -> None:
    string = "".join(map(_bracketed, parts))
    apart = [piece for part in parts for piece in (part, Break())]
    _expect(lm.vocabulary.encode_string(string), lm.vocabulary.encode(apart))


def _a_bad_string(rng: np.random.Generator, kind: str) -> Case:
    unit = 10 ** int(rng.integers(4, 18))
    string = str(
        rng.choice(
            [
                "",
                f"(Text){_text(rng)}",
                f"x[Text]{_text(rng)}",
                "[Hu1]",
                f"[Speech]{_text(rng)}x",
                "[Speech][Hu1] [Hu2]",
                "[Text]a[TTS][Hu01]",
                f"[Speech][Hu{unit}]",
                f"[Speech][Pi{unit}]",
                f"[Speech][Hu{unit**9}]",
            ]
        )
    )
    return Case(kind, (_refuse_string, string), ("bracket", "part", "unit"))


def _refuse_string(lm: SpiritLM, string: str) -> None:
    lm.vocabulary.encode_string(string)
    raise WrongResult(f"{string!r:.80} was taken")


# Makers of what is no segment, or of none that can be used.
_NO_SEGMENTS: list[Callable[[], Any]] = [
    *(lambda: None, lambda: 3, lambda: 0.5, lambda: True, lambda: object()),
    *(lambda: "the cat", lambda: b"the cat", lambda: "", lambda: ["text", "a"]),
    *(lambda: ("text",), lambda: ("text", "a", "b"), lambda: ("words", "a")),
    *(lambda: ("text", 3), lambda: ("text", None), lambda: ("speech", 3)),
    *(lambda: (None, "a"), lambda: ([], "a"), lambda: ("speech", None)),
    *(lambda: {"text": "a"}, lambda: {"text"}, lambda: np.zeros(3)),
    *(lambda: torch.zeros(2, 2), lambda: SpeechUnits([1]), lambda: Text),
    *(lambda: Text(3), lambda: Text(None), lambda: Text("a\udcff")),
    *(lambda: Speech(None), lambda: Speech({}), lambda: Speech([0.0])),
    *(lambda: Speech(SpeechUnits([10**6])), lambda: [Text("a")]),
    *(lambda: Speech(SpeechUnits([1], pitch=[10**6])), lambda: Exception),
    *(lambda: Speech(SpeechUnits([-1])), lambda: Speech(SpeechUnits([0.5]))),
    *(lambda: Speech(np.zeros(1279)), lambda: Speech(np.full(2000, np.nan))),
    *(lambda: Speech(np.zeros((2, 2, 2000))), lambda: Speech(np.zeros(0))),
    *(lambda: Speech("no such file.wav"), lambda: Speech(b"no file")),
    *(lambda: Speech(np.zeros(2000), sample_rate=0),),
    *(lambda: Speech({"bytes": None, "path": None}),),
]
# What is no prompt, and no list of prompts.
_NO_PROMPTS: list[Callable[[], Any]] = [
    *(lambda: None, lambda: 3, lambda: "the cat", lambda: b"the cat"),
    *(lambda: {"text": "a"}, lambda: {1, 2}, lambda: object(), lambda: Text),
    *(lambda: ("text", "a"), lambda: [[]], lambda: [()], lambda: [Text("")]),
    *(lambda: [[Text("a")], [Text("")]], lambda: [Break("a"), Text("b")]),
    *(lambda: [[Text("a")], None], lambda: SpeechUnits([1]), lambda: [[[]]]),
    *(lambda: np.array(3), lambda: np.zeros((2, 2)), lambda: ["a", "b"]),
]
_NAMES = ("prompt", "segment", "unit", "waveform", "sample_rate", "file")
_NAMES = (*_NAMES, "recording", "audio")


def _a_bad_prompt(rng: np.random.Generator, kind: str) -> Case:
    call = str(rng.choice(["generate", "log_likelihood", "continuation"]))
    if rng.random() < 0.4:
        make = _NO_PROMPTS[rng.integers(len(_NO_PROMPTS))]
        return Case(kind, (_refuse, call, make), _NAMES)
    wrong = _NO_SEGMENTS[rng.integers(len(_NO_SEGMENTS))]
    before, behind, batched = _prompt(rng), _prompt(rng), rng.random() < 0.5

    def make() -> Any:
        prompt = [*before, wrong(), *behind]
        return [before, prompt] if batched else prompt

    return Case(kind, (_refuse, call, make), _NAMES)


def _refuse(lm: SpiritLM, call: str, make: Callable[[], Any]) -> None:
    if call == "generate":
        found = lm.generate(make(), "text", max_new_tokens=1)
    elif call == "log_likelihood":
        found = lm.log_likelihood(make(), [[Text("a")]] * 2)
    else:
        found = lm.log_likelihood([[Text("a")]], [make()])
    raise WrongResult(f"it was taken: {found!r:.80}")


def _a_long_prompt(rng: np.random.Generator, kind: str) -> Case:
    size = int(10 ** rng.uniform(4, 6.3))
    prompt: Segment = Speech(SpeechUnits(np.arange(size) % 7))
    if rng.random() < 0.7:
        text = _text(rng)
        prompt = Text(text * -(-size // len(text)))
    return Case(kind, (_refuse, "generate", lambda: [prompt]), ("context",))


def _as_segment(part: Segment | tuple[str, Any]) -> Segment:
    if not isinstance(part, tuple):
        return part
    is_text = part[0] in ("text", "asr", "break")
    return Text(part[1]) if is_text else Speech(part[1])


def _written(segments: Any) -> list[tuple[str, str]]:
    """Write segments down, neighbours of one modality as one."""
    parts = [
        ("text", s.text)
        if isinstance(s, Text)
        else ("speech", s.stream.to_string())
        for s in segments
    ]
    return [
        (kind, "".join(content for _, content in same))
        for kind, same in groupby(
            [part for part in parts if part[1]], key=lambda part: part[0]
        )
    ]


def _bracketed(part: Segment) -> str:
    if isinstance(part, Text):
        return f"[Text]{part.text}"
    return f"[Speech]{part.stream.to_string()}"


def _shown(generation: Any) -> tuple[Any, ...]:
    wav = generation.wav
    size = None if wav is None else len(wav)
    return _written(generation), generation.end_reason, size


def _expect(found: Any, expected: Any) -> None:
    if found != expected:
        raise WrongResult(f"{found!r:.300}\n  instead of {expected!r:.300}")


# Each with its share.
_KINDS: dict[str, tuple[Callable[[np.random.Generator, str], Case], float]] = {
    "a text": (_a_text, 0.2),
    "a prompt": (_a_prompt, 0.25),
    "a bracket string": (_a_string, 0.1),
    "a bad bracket string": (_a_bad_string, 0.1),
    "a bad prompt": (_a_bad_prompt, 0.3),
    "a long prompt": (_a_long_prompt, 0.05),
}
