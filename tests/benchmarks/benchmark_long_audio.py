"""What a second of long audio costs, beside one of a short recording.

Run from the root of the repository as
``python -m tests.benchmarks.benchmark_long_audio``. The tokenizer has the
released sizes and random weights; ``whole`` hears 100 s at once, as the
release does, and ``in windows`` what its YAML says.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from torch import Tensor

from spiritlm_plugin.dataio.units.units import WINDOW_SECONDS
from spiritlm_plugin.lobes.speech_tokenizer import SpeechTokenizer
from tests.benchmarks.machine import (
    machine,
    parsed,
    parser_of,
    recordings,
    table,
    timings,
)
from tests.benchmarks.random_model import HPARAMS, random_model

_LENGTHS = (WINDOW_SECONDS, 3 * WINDOW_SECONDS)


@dataclass(frozen=True)
class Settings:
    """What is measured.

    Arguments
    ---------
    hparams_file : Path
        The model.
    device : str
        To run on.
    short : float
        Seconds of the short recording.
    lengths : tuple of float
        Seconds of the long ones.
    window_seconds : float, optional
        Of the windows, where not those of the YAML.
    repeats : int
        Of each measurement, after a run that does not count.
    """

    hparams_file: Path = HPARAMS / "spiritlm_expressive_base.yaml"
    device: str = "cpu"
    short: float = 10.0
    lengths: tuple[float, ...] = _LENGTHS
    window_seconds: float | None = None
    repeats: int = 3


def run(tokenizer: SpeechTokenizer, wav: Tensor, window: float | None) -> None:
    """Tokenize a recording in windows of that length."""
    for part in (tokenizer.phonetic, tokenizer.style):
        if part is not None:
            part.window_seconds = window
    tokenizer([wav])


def measure(
    settings: Settings, tokenizer: SpeechTokenizer, windows: float
) -> list[list[str]]:
    """Return rows: CPU and wall seconds a second of audio, and the ratio."""
    lengths: dict[str, tuple[float, float | None]] = {
        f"{settings.short:g} s": (settings.short, None)
    }
    for seconds in settings.lengths:
        lengths[f"{seconds:g} s, whole"] = (seconds, None)
        lengths[f"{seconds:g} s, in windows"] = (seconds, windows)
    found = timings(
        {
            name: partial(run, tokenizer, *recordings([seconds]), window)
            for name, (seconds, window) in lengths.items()
        },
        settings.repeats,
    )
    each = {
        name: timing.per(lengths[name][0]) for name, timing in found.items()
    }
    [short, *_] = each.values()
    return [
        [name, f"{t.wall:.4f}", f"{t.cpu:.4f}", t.over(short)]
        for name, t in each.items()
    ]


def report(settings: Settings, command: str) -> str:
    """Measure everything and return it as Markdown."""
    [recording] = recordings([settings.short])
    lm = random_model(
        settings.hparams_file, recording, run_opts={"device": settings.device}
    )
    tokenizer = lm.mods.tokenizer
    window = settings.window_seconds or tokenizer.phonetic.window_seconds
    streams = {
        "phonetic": SpeechTokenizer(tokenizer.phonetic),
        "all three": tokenizer,
    }
    rows = [
        [f"{stream}, {name}", *row]
        for stream, part in streams.items()
        for name, *row in measure(settings, part, window)
    ]
    header = ["", "wall s", "CPU s", f"of {settings.short:g} s, wall / CPU"]
    return "\n".join(
        [
            f"{machine(settings.device)}. `{command}`, "
            f"{settings.hparams_file.name}: random weights, float32. Windows "
            f"of {window:g} s. Seconds of computing for a second of audio: "
            f"medians by the wall, the least by the CPU, of "
            f"{settings.repeats} runs in turn.\n",
            table(header, rows),
        ]
    )


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = parser_of(
        "benchmark_long_audio", "the cost of long audio", Settings.repeats
    )
    parser.add_argument("--window-seconds", type=float)
    options, command = parsed(parser, arguments)
    settings = Settings(
        window_seconds=options.window_seconds,
        repeats=options.repeats,
        device=options.device,
    )
    if options.quick:
        tiny = HPARAMS / "spiritlm_expressive_tiny.yaml"
        settings = replace(
            settings, hparams_file=tiny, lengths=(30.0,), short=3.0
        )
    print(report(settings, command))


if __name__ == "__main__":
    main()
