"""What the integration tests compare with."""

from __future__ import annotations

from spiritlm_plugin import Text

RATE = 16000


VARIANTS = ("base", "expressive")


# Recordings of these many samples; 1280 are the fewest.
LENGTHS = (20000, 1280, 31000, 1281, 16000)


def shown(generation) -> tuple:
    """Return what a generation holds, comparable."""
    segments = [
        s.text if isinstance(s, Text) else s.stream.to_string()
        for s in generation
    ]
    return segments, generation.end_reason


def assert_same_wavs(actual, expected) -> None:
    assert actual.shape == expected.shape
    assert float((actual - expected).abs().max()) <= 1e-4 * float(
        expected.abs().max()
    )


def script_ids(vocabulary, script: str) -> list[int]:
    """Return ids of a string in which brackets and ``</s>`` are tokens."""
    tokens = {**vocabulary.speech_tokens(), "</s>": vocabulary.eos_id}
    ids = []
    for part in (
        script.replace("[", "\0[").replace("</s>", "\0</s>").split("\0")
    ):
        end = part.find("]") + 1 or (4 if part.startswith("</s>") else 0)
        if part[:end]:
            ids.append(tokens[part[:end]])
        ids += vocabulary.encode_text(part[end:])
    return ids


def units_string(first: int, count: int) -> str:
    return "".join(f"[Hu{i}]" for i in range(first, first + count))


def greedily(lm, prompt, output, **options):
    options = {"temperature": 0, "min_speech_units": 0, **options}
    return lm.generate(prompt, output, **options)
