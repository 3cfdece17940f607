"""Arguments: every method of a model, all of its values right, or one wrong."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch

from spiritlm_plugin import Speech, SpeechUnits, SpiritLM, Text
from spiritlm_plugin.inference.few_shot import Classifier, Reader, Transcriber
from spiritlm_plugin.inference.generation import Generation
from tests.fuzz import prompts
from tests.fuzz.harness import Case, WrongResult

Rng = np.random.Generator
Make = Callable[[Rng], Any]
prepare = prompts.prepare


def make_case(rng: Rng, folder: Path) -> Case:
    """Draw a call with values that are right, or all but one."""
    name = str(rng.choice(list(_METHODS)))
    call, required, options = _METHODS[name]
    values = {key: _RIGHT[kind](rng) for key, kind in required.items()}
    for key, kind in options.items():
        if rng.random() < 0.5:
            values[key] = _RIGHT[kind](rng)
    _settle(values, rng)
    if rng.random() < 0.45:
        return Case(name, (call, values), ("",), is_valid=True)
    kinds = {**required, **options}
    key = str(rng.choice(list(kinds)))
    wrong = _WRONG[kinds[key]]
    values[key] = wrong[rng.integers(len(wrong))]
    names = (key, *_OTHER_NAMES.get(kinds[key], ()))
    return Case(f"{name}, {key} wrong", (call, values), names)


def run_case(case: Case, tools: SpiritLM) -> None:
    """Call the method, twice where all is right."""
    call, values = case.content
    found = call(tools, **_made(values))
    if not case.is_valid:
        raise WrongResult(f"it was taken: {values!r:.300}")
    _check(found, values)
    if not _same(found, call(tools, **_made(values))):
        raise WrongResult(f"another result the second time: {values!r:.300}")


class _Once:
    """A generator, made anew for each call."""

    def __init__(self, items: list[Any]):
        self.items = items

    def __repr__(self) -> str:
        return f"iter({self.items!r})"


def _made(values: dict[str, Any]) -> dict[str, Any]:
    return {
        key: iter(value.items) if isinstance(value, _Once) else value
        for key, value in values.items()
    }


def _settle(values: dict[str, Any], rng: Rng) -> None:
    """Leave no two values that do not go together."""
    if values.get("num_beams", 1) != 1:
        values["temperature"] = 0
        values.pop("max_seconds", None)
    count = _count(values)
    for key in ("seed", "seeds"):
        if key in values and (key == "seeds" or rng.random() < 0.2):
            seeds = rng.integers(2**31, size=count)
            values[key] = [*seeds.tolist()] if rng.random() < 0.5 else seeds
    if "continuations" in values:
        values["continuations"] = [[Text("b"), Text("c")]] * count


def _count(values: dict[str, Any]) -> int:
    """Return how many results there should be."""
    items = next(v for k, v in values.items() if k in _ITEMS)
    return len(items.items if isinstance(items, _Once) else items)


def _whole(low: int, high: int) -> Make:
    """Draw a whole number, in one of its types."""

    def make(rng: Rng) -> Any:
        value = int(rng.integers(low, high))
        types = [int, int, np.int64, np.int16, np.uint8, np.array, torch.tensor]
        return types[rng.integers(len(types))](value)

    return make


def _decimal(*choices: float) -> Make:
    """Draw a number, in one of its types."""

    def make(rng: Rng) -> Any:
        value = choices[rng.integers(len(choices))]
        types = [float, float, np.float64, np.array, _tensor, Fraction]
        if value == float(np.float32(value)):
            types.append(np.float32)
        return types[rng.integers(len(types))](value)

    return make


def _tensor(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


def _one_of(*values: Any) -> Make:
    return lambda rng: values[rng.integers(len(values))]


def _several(make: Make, most: int = 3, least: int = 0) -> Make:
    """Draw a list, in one of its types."""

    def several(rng: Rng) -> Any:
        items = [make(rng) for _ in range(rng.integers(least, most + 1))]
        array = np.empty(len(items), dtype=object)
        array[:] = items
        return [items, items, tuple(items), array, _Once(items)][
            rng.integers(5)
        ]

    return several


def _word(rng: Rng) -> str:
    return str(rng.choice(["the cat", "two boats", "a", "1 é\n", "[Hu1]"]))


def _units(rng: Rng) -> SpeechUnits:
    return SpeechUnits(rng.integers(9, size=rng.integers(1, 30)))


def _spoken(rng: Rng) -> SpeechUnits:
    """Draw units that an Expressive vocoder speaks."""
    count = int(rng.integers(1, 30))
    pitch = rng.integers(9, size=-(-count // 2))
    return SpeechUnits(rng.integers(9, size=count), pitch, [3])


def _recording(rng: Rng) -> Any:
    samples = rng.normal(size=rng.integers(4000, 9000)) / 9
    return [
        samples,
        samples.astype(np.float32),
        torch.from_numpy(samples),
        (samples * 2**12).astype(np.int16),
        {"array": samples, "sampling_rate": 16000},
    ][rng.integers(5)]


def _heard(rng: Rng) -> Any:
    """Draw speech as the tasks take it."""
    if rng.random() < 0.7:
        return _units(rng)
    return Speech(_recording(rng))


def _pair(rng: Rng) -> Any:
    pair = (_heard(rng), _word(rng))
    return list(pair) if rng.random() < 0.5 else pair


# Makers of right values, and wrong values, by the kind of an argument.
_RIGHT: dict[str, Make] = {
    "prompts": _several(lambda rng: prompts._prompt(rng)),
    "continuations": _several(lambda rng: [Text("b")]),
    "output": _one_of("text", "speech", "any", "asr", "tts"),
    "tokens": _whole(1, 9),
    "temperature": _decimal(0, 0.5, 1, 1e-320, 1e-31, 1e-10, 7, 1e30),
    "top_p": _decimal(1e-300, 0.1, 0.5, 0.95, 1),
    "beams": _one_of(1, 1, 2, np.int64(3), 20),
    "seed": _one_of(0, 7, -1, 2**31, 2**63, -(2**63), np.int64(-5), None),
    "seeds": _one_of([]),
    "flag": _one_of(True, False, np.bool_(True), 0, 1),
    "seconds": _decimal(1e-300, 0.1, 0.5, 3, 1e9),
    "least": _whole(0, 30),
    "batch_size": _one_of(1, 2, 16, 10**30, np.int64(3), torch.tensor(2)),
    "context": _one_of(None, 200, np.int64(300), 10**30),
    "speaker": _one_of(None, 0, np.int64(1), "anna", np.str_("anna")),
    "texts": _several(_word),
    "labels": _several(_word, least=1),
    "shots": _several(_pair, most=2, least=1),
    "heard": _several(_heard),
    "stop_word": _units,
    "candidates": _whole(1, 3),
    "recordings": _several(_recording, least=1),
    "rate": _one_of(16000, np.int64(16000), 8000, 44100),
    "units": _several(_spoken),
    "global_style": _one_of(None),
    "style": _one_of(None, 0, np.int64(1), "sad", np.str_("happy")),
}
_NO_NUMBERS: list[Any] = [
    *("1", "x", b"1", [], [1], (1,), {}, {1}, object(), 1 + 2j, True, False),
    *(float("nan"), float("inf"), float("-inf"), -1, -0.5, np.nan, -(10**400)),
    *(np.array([1, 2]), np.array("1"), np.bool_(True), torch.zeros(2), Text),
    *(np.datetime64("2020"), np.timedelta64(3, "s"), torch.tensor(True)),
]
_NO_COUNTS = [*_NO_NUMBERS, None, 0, 1.0, 2.5, np.float64(3), Fraction(1)]
_NO_LISTS: list[Any] = [None, 3, 0.5, True, b"the cat", object(), {1, 2}, Text]
_WRONG: dict[str, list[Any]] = {
    "prompts": [*_NO_LISTS, "the cat", {"text": "a"}, [None], ["a"], [[3]]],
    "continuations": [*_NO_LISTS, "a", {"text": "a"}, [[Text("b")]] * 9],
    "output": [*_NO_LISTS, "", "Text", "audio", "break", ["text"]],
    "tokens": _NO_COUNTS,
    "temperature": [*_NO_NUMBERS, None, 1e31, 10**400],
    "top_p": [*_NO_NUMBERS, None, 0, 1.001, 10**400, np.float32(2)],
    "beams": [*_NO_COUNTS, 257, 10_000, 10**30],
    "seed": ["1", "x", b"1", {}, {1}, object(), 1j, True, 0.5, [[1]] * 9, Text]
    + [float("nan"), float("inf"), 2**64, -(2**63) - 1, 10**400, [1] * 9],
    "seeds": [
        0.5,
        b"1",
        object(),
        {1},
        Text,
        "ab",
        [0.5] * 9,
        [1] * 9,
        {"a": 1},
    ],
    "flag": ["no", "", b"", None, 2, -1, 0.5, [], {}, object(), np.ones(2)],
    "seconds": [*_NO_NUMBERS, 0, 1e10, 10**400],
    "least": [n for n in _NO_COUNTS if not (isinstance(n, int) and n == 0)]
    + [False],
    "batch_size": _NO_COUNTS,
    "context": [n for n in _NO_COUNTS if n is not None],
    "speaker": [-1, 99, 10**30, 0.5, "nobody", "", b"anna", [0], {}, object()]
    + [True, False, np.bool_(True), float("nan"), Text],
    "texts": [*_NO_LISTS, "the cat", {"a": 1}, [None], ["a", 3], [["a"]]],
    "labels": [*_NO_LISTS, "the cat", {"a": 1}, [], [None], ["a", 3]],
    "shots": [3, 0.5, True, object(), {1, 2}, "ab", {"a.wav": "b"}, ["ab"]]
    + [[None], [3], [("a.wav",)], [(SpeechUnits([1]), "a"), "ab"], [{}]]
    + [[(SpeechUnits([1]), 3)], [(None, "a")], [("a", SpeechUnits([1]))]]
    + [[(SpeechUnits([1]), "a", "b")], [(SpeechUnits([1]), None)], [[]]],
    "heard": [*_NO_LISTS, "a.wav", [None], [3], [[0.5]], [{}], [Text("a")]],
    "stop_word": [3, 0.5, True, object(), [1], {}, Text("a")],
    "candidates": _NO_COUNTS,
    "recordings": [*_NO_LISTS, "a.wav", [None], [3], [{}], [np.zeros(3)]]
    + [np.zeros(2000), np.zeros((2, 2, 2000)), [SpeechUnits([1])], ["a.wav"]],
    "rate": ["16000", 0, -1, 0.5, None, [16000], float("nan"), 10**30, True],
    "units": [*_NO_LISTS, "ab", {"a": 1}, [None], [3], ["ab"], [[1, 2]]]
    + [[Text("a")], SpeechUnits([1]), [SpeechUnits([10**6], [1], [1])]],
    "global_style": [n for n in _NO_COUNTS if n is not None] + [99, 10**30],
    "style": [-1, 99, 10**30, 0.5, "nobody", "", b"sad", [0], {}, object()]
    + [True, False, np.bool_(True), float("nan"), Text],
}
# What an error may name instead of the argument.
_OTHER_NAMES = {
    "prompts": ("prompt", "segment"),
    "continuations": ("prompt", "continuation"),
    "shots": ("shot",),
    "heard": ("recordings", "speech segment"),
    "stop_word": ("speech segment",),
    "recordings": ("waveform", "a recording", "padded batch", "a.wav"),
    "units": ("unit",),
    "seeds": ("seed",),
    "global_style": ("global style",),
}
_ITEMS = ("prompts", "texts", "wavs", "recordings", "units")
_TASK = {
    "max_new_tokens": "tokens",
    "context": "context",
    "temperature": "temperature",
    "top_p": "top_p",
    "batch_size": "batch_size",
    "num_beams": "beams",
}


def _generate(lm: SpiritLM, **values: Any) -> Any:
    values = {"max_new_tokens": 5, "seed": 1, **values}
    return lm.generate(**values)


def _transcribe(lm: SpiritLM, **values: Any) -> Any:
    return lm.transcribe_batch(**{"max_new_tokens": 5, **values})


def _synthesize(lm: SpiritLM, stop_word: Any = None, **values: Any) -> Any:
    values = {"max_new_tokens": 5, **values}
    return lm.synthesize(stop=stop_word, **values)


def _transcriber(
    lm: SpiritLM, recordings: Any, seeds: Any, **values: Any
) -> Any:
    task = Transcriber(lm, **{"max_new_tokens": 5, **values})
    return [answer.text for answer in task(recordings, seeds)]


def _reader(
    lm: SpiritLM, texts: Any, seeds: Any, stop_word: Any, **values: Any
) -> Any:
    task = Reader(lm, stop=stop_word, **{"max_new_tokens": 5, **values})
    return [answer.generation for answer in task(texts, seeds)]


def _classifier(
    lm: SpiritLM, recordings: Any, seeds: Any, **values: Any
) -> Any:
    task = Classifier(lm, **{"max_new_tokens": 5, **values})
    return [answer.text for answer in task(recordings, seeds)]


def _decode(lm: SpiritLM, **values: Any) -> Any:
    return lm.decode_batch(**{"seed": 3, **values})


# How each is called, with the kinds of what it needs and what it may have.
_METHODS: dict[str, tuple[Callable[..., Any], dict[str, str], dict[str, str]]]
_METHODS = {
    "generate": (
        _generate,
        {"prompts": "prompts"},
        {
            "output": "output",
            **{k: v for k, v in _TASK.items() if k != "context"},
            "speaker": "speaker",
            "stop": "flag",
            "max_seconds": "seconds",
            "min_speech_units": "least",
            "vocode": "flag",
            "style": "style",
        },
    ),
    "log_likelihood": (
        SpiritLM.log_likelihood,
        {"prompts": "prompts", "continuations": "continuations"},
        {"batch_size": "batch_size"},
    ),
    "encode_batch": (
        SpiritLM.encode_batch,
        {"wavs": "recordings"},
        {"sample_rate": "rate"},
    ),
    "decode_batch": (
        _decode,
        {"units": "units"},
        {"speaker": "speaker", "global_style": "global_style"},
    ),
    "transcribe_batch": (
        _transcribe,
        {"wavs": "heard"},
        {"shots": "shots", **_TASK},
    ),
    "synthesize": (
        _synthesize,
        {"texts": "texts"},
        {
            "speaker": "speaker",
            "style": "style",
            "candidates": "candidates",
            **_TASK,
        },
    ),
    "classify": (
        SpiritLM.classify,
        {"wavs": "heard", "labels": "labels", "shots": "shots"},
        {"batch_size": "batch_size", "context": "context"},
    ),
    "Transcriber": (
        _transcriber,
        {"recordings": "heard", "seeds": "seeds", "shots": "shots"},
        _TASK,
    ),
    "Reader": (
        _reader,
        {
            "texts": "texts",
            "seeds": "seeds",
            "shots": "shots",
            "stop_word": "stop_word",
        },
        _TASK,
    ),
    "Classifier": (
        _classifier,
        {"recordings": "heard", "seeds": "seeds", "shots": "shots"},
        _TASK,
    ),
}


def _check(found: Any, values: dict[str, Any]) -> None:
    """Check what a result must be, whatever the model says."""
    count = _count(values)
    outputs = found if isinstance(found, list) else list(found[0])
    if len(outputs) != count:
        raise WrongResult(f"{len(outputs)} results for {count} items")
    for output in outputs:
        wav = output.wav if isinstance(output, Generation) else output
        if isinstance(wav, torch.Tensor) and not bool(wav.isfinite().all()):
            raise WrongResult(f"a result is not finite: {wav!r:.80}")


def _same(first: Any, second: Any) -> bool:
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, Generation):
        return prompts._shown(first) == prompts._shown(second)
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(map(_same, first, second))
    return bool(first == second)
