"""How soon speech is heard, how fast it goes on, and in what memory.

Run from the root of the repository as
``python -m tests.benchmarks.benchmark_streaming``. The model is the one that
ships with the package. ``--corpus FOLDER``, as ``tinyspeech_prepare.py`` makes
it, tells how many units a latency changes instead.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch
from tqdm import tqdm

from spiritlm_plugin.dataio.audio.reading import read_audio
from spiritlm_plugin.dataio.units.segments import Segment, Speech, Text
from spiritlm_plugin.dataio.units.units import SAMPLE_RATE, SpeechUnits
from spiritlm_plugin.inference import SpiritLM
from spiritlm_plugin.lobes.speech_tokenizer import join_windows
from tests.benchmarks.machine import (
    machine,
    parsed,
    parser_of,
    recordings,
    table,
)

_LATENCIES = (0.25, 0.5, 1.0, 2.0)
_STREAMS = ("phonetic", "pitch", "style")
# Of a microphone's chunks.
_CHUNK = 1600
# Of a corpus, from its first on.
_RECORDINGS = 40


@dataclass(frozen=True)
class Settings:
    """What is measured.

    Arguments
    ---------
    device : str
        To run on.
    prompt, output : float
        Seconds of speech of a prompt and of an output.
    units : float
        Seconds of units to vocode for the memory.
    heard : float
        Seconds of audio to tokenize.
    repeats : int
        Of each measurement, after a run that does not count.
    """

    device: str = "cpu"
    prompt: float = 3.0
    output: float = 10.0
    units: float = 600.0
    heard: float = 30.0
    repeats: int = 5


class Run(NamedTuple):
    """Times of a stream, in seconds, the prompt's encoding left out."""

    first: float
    total: float
    first_chunk: float
    audio: float

    @property
    def rest(self) -> float:
        """Real-time factor of what comes after the first chunk."""
        audio = self.audio - self.first_chunk
        return (self.total - self.first) / max(audio, 1e-9)


def stream(lm: SpiritLM, prompt: list[Segment], seconds: float) -> Run:
    """Return the times of one output of speech."""
    begin = time.perf_counter()
    chunks, times = [], []
    for piece in lm.generate_stream(
        prompt,
        "speech",
        max_new_tokens=900,
        max_seconds=seconds,
        stop=False,
        seed=1,
    ):
        if piece.wav is not None:
            chunks.append(len(piece.wav) / SAMPLE_RATE)
            times.append(time.perf_counter() - begin)
    total = time.perf_counter() - begin
    return Run(times[0], total, chunks[0], sum(chunks))


def first_audio(lm: SpiritLM, settings: Settings) -> str:
    """Measure streams that begin with speech and with text."""
    [recording] = recordings([settings.prompt])
    [heard] = lm.with_units([[Speech(recording)]])
    prompts = {
        f"{settings.prompt:g} s of speech": heard,
        "a text": [Text("the farmer said that")],
    }
    rows = []
    for name, prompt in prompts.items():
        stream(lm, prompt, settings.output)
        runs = [
            stream(lm, prompt, settings.output) for _ in range(settings.repeats)
        ]
        rows.append(
            [
                name,
                f"{1000 * median(run.first for run in runs):.0f}",
                f"{median(run.total for run in runs):.2f}",
                f"{median(run.first / run.total for run in runs):.3f}",
                f"{median(run.rest for run in runs):.2f}",
                f"{runs[0].audio:.2f}",
            ]
        )
    header = [
        "prompt",
        "first audio, ms",
        "all, s",
        "first / all",
        "RTF of the rest",
        "audio, s",
    ]
    return table(header, rows)


def resident() -> float:
    """Return the memory of this process, in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def memory(lm: SpiritLM, settings: Settings) -> str:
    """Measure the memory of a long waveform, a tenth at a time."""
    [recording] = recordings([10.0])
    [units] = lm.encode_batch([recording])

    def pieces() -> Iterator[SpeechUnits]:
        part = units.cut(0, 8)
        for _ in range(int(settings.units // 8)):
            yield part

    begin, heard, part = time.perf_counter(), 0.0, settings.units / 10
    found = []
    for wav in lm.decode_stream(pieces(), speaker=0):
        heard += len(wav) / SAMPLE_RATE
        if heard >= part * (len(found) + 1):
            found.append(resident())
    seconds = time.perf_counter() - begin
    return (
        f"`decode_stream` of {heard:.0f} s: real-time factor "
        f"{seconds / heard:.3f}; MB of memory after each {part:g} s: "
        f"{', '.join(f'{mb:.0f}' for mb in found)}."
    )


def listening(lm: SpiritLM, settings: Settings) -> str:
    """Measure the tokenizer on audio that comes bit by bit."""
    [wav] = recordings([settings.heard])
    rows = []
    for latency in _LATENCIES:
        sent = [0.0]

        def chunks(sent: list[float] = sent) -> Iterator[torch.Tensor]:
            yield from wav.split(_CHUNK)
            sent[0] = time.perf_counter()

        begin = time.perf_counter()
        for _ in lm.encode_stream(chunks(), latency_seconds=latency):
            pass
        end = time.perf_counter()
        rows.append(
            [
                f"{latency:g}",
                f"{(end - begin) / settings.heard:.3f}",
                f"{1000 * (end - sent[0]):.0f}",
            ]
        )
    return table(
        ["latency, s", "real-time factor", "last units after the end, ms"], rows
    )


def changed(lm: SpiritLM, corpus: Path) -> str:
    """Measure the share of units that differ from those of whole files."""
    items = json.loads((corpus / "test.json").read_text(encoding="utf-8"))
    wavs = [
        read_audio(item["wav"].format(data_root=corpus))
        for item in list(items.values())[:_RECORDINGS]
    ]
    wholes = [lm.encode_batch([wav])[0] for wav in wavs]
    rows = []
    for latency in tqdm(_LATENCIES, unit="latency"):
        other, count = dict.fromkeys(_STREAMS, 0), dict.fromkeys(_STREAMS, 0)
        for wav, whole in zip(wavs, wholes):
            parts = lm.encode_stream(wav.split(_CHUNK), SAMPLE_RATE, latency)
            found = join_windows(parts)
            for name in _STREAMS:
                units = getattr(whole, name)
                count[name] += len(units)
                other[name] += int((getattr(found, name) != units).sum())
        shares = [f"{100 * other[n] / count[n]:.1f}" for n in _STREAMS]
        rows.append([f"{latency:g}", *shares])
    return table(["latency, s", *(f"{n}, %" for n in _STREAMS)], rows)


def report(settings: Settings, command: str) -> str:
    """Measure everything and return it as Markdown."""
    lm = SpiritLM.from_hparams(
        "tinyspeech", run_opts={"device": settings.device}
    )
    return "\n\n".join(
        [
            f"{machine(settings.device)}. `{command}`, the model that ships: "
            f"medians of {settings.repeats} runs, by the wall, once a prompt "
            "is encoded.",
            first_audio(lm, settings),
            memory(lm, settings),
            f"`encode_stream` of {settings.heard:g} s, in chunks of "
            f"{_CHUNK / SAMPLE_RATE:g} s:",
            listening(lm, settings),
        ]
    )


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = parser_of(
        "benchmark_streaming", "streams of speech", Settings.repeats
    )
    parser.add_argument("--corpus", type=Path)
    options, command = parsed(parser, arguments)
    if options.corpus:
        print(changed(SpiritLM.from_hparams("tinyspeech"), options.corpus))
        return
    settings = Settings(device=options.device, repeats=options.repeats)
    if options.quick:
        settings = Settings(options.device, 1.0, 2.0, 20.0, 3.0, 1)
    print(report(settings, command))


if __name__ == "__main__":
    main()
