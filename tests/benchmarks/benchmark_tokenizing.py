"""Speed and memory of tokenizing a corpus, stream by stream.

Run from the root of the repository as
``python -m tests.benchmarks.benchmark_tokenizing``; on a GPU as
``python -m tests.benchmarks.benchmark_tokenizing --device cuda
--precision bf16 --seconds 7200 --batch-seconds 1600``. The tokenizer has the
released sizes and random weights; reading audio is not in the figures.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from spiritlm_plugin.dataio.units.units import SAMPLE_RATE
from spiritlm_plugin.lobes.speech_tokenizer import SpeechTokenizer
from tests.benchmarks.benchmark_inference import (
    machine,
    recordings,
    synchronize,
    table,
)
from tests.benchmarks.random_model import HPARAMS, random_model

# Durations of utterances are spread evenly between these, seconds.
_SHORTEST, _LONGEST = 2.0, 16.0
_PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Settings:
    """What is measured.

    Arguments
    ---------
    hparams_file : Path
        The model.
    device : str
        To run on.
    precision : str
        ``"fp32"``, ``"bf16"`` or ``"fp16"``, the last two by autocast.
    seconds : float
        Of audio, in utterances of 2 to 16 s.
    batch_seconds : float
        As of `SpeechTokenizer`.
    repeats : int
        Of each measurement, after a run that does not count.
    """

    hparams_file: Path = HPARAMS / "spiritlm_expressive_base.yaml"
    device: str = "cpu"
    precision: str = "fp32"
    seconds: float = 120.0
    batch_seconds: float = 100.0
    repeats: int = 3


def make_tokenizer(settings: Settings, recording: Tensor) -> SpeechTokenizer:
    """Return the tokenizer alone, on its device."""
    lm = random_model(
        settings.hparams_file, recording, run_opts={"device": settings.device}
    )
    tokenizer: SpeechTokenizer = lm.mods.tokenizer
    tokenizer.batch_seconds = settings.batch_seconds
    del lm
    gc.collect()
    return tokenizer


def utterances(seconds: float) -> list[Tensor]:
    """Return utterances of 2 to 16 s, of so much audio in all."""
    mean = (_SHORTEST + _LONGEST) / 2
    count = max(round(seconds / mean), 1)
    # Neighbours differ in length, as those of a corpus.
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    shares = (order + 0.5) / count
    lengths = _SHORTEST + (_LONGEST - _SHORTEST) * shares
    return recordings(lengths.tolist())


def measure(
    settings: Settings, tokenizer: SpeechTokenizer, wavs: list[Tensor]
) -> list[str]:
    """Return a row: times real time, by the wall and by the CPU, and memory."""
    dtype = _PRECISIONS[settings.precision]
    kind = torch.device(settings.device).type
    seconds = sum(map(len, wavs)) / SAMPLE_RATE
    on_gpu = kind == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    walls, cpus = [], []
    for _ in range(settings.repeats + 1):
        precision = torch.autocast(kind, dtype) if dtype else nullcontext()
        synchronize()
        wall, cpu = time.perf_counter(), time.process_time()
        with torch.inference_mode(), precision:
            tokenizer(wavs)
        synchronize()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    row = [
        f"{seconds / median(walls[1:]):.1f}",
        f"{seconds / median(cpus[1:]):.1f}",
    ]
    memory = torch.cuda.max_memory_allocated() if on_gpu else _peak_memory()
    return [*row, f"{memory / 2**20:,.0f}"]


def _peak_memory() -> int:
    """Return what this process needed at most since it was last asked, bytes."""
    status = Path("/proc/self/status").read_text().splitlines()
    [peak] = [line.split()[1] for line in status if line.startswith("VmHWM")]
    Path("/proc/self/clear_refs").write_text("5")
    return int(peak) * 1024


def report(settings: Settings, command: str) -> str:
    """Measure everything and return it as Markdown."""
    wavs = utterances(settings.seconds)
    tokenizer = make_tokenizer(settings, wavs[0])
    streams = {
        "phonetic": SpeechTokenizer(tokenizer.phonetic),
        "pitch": SpeechTokenizer(tokenizer.pitch),
        "style": SpeechTokenizer(tokenizer.style),
        "all three": tokenizer,
    }
    if settings.device == "cpu":
        _peak_memory()
    rows = []
    for name, part in streams.items():
        part.batch_seconds = settings.batch_seconds
        rows.append([name, *measure(settings, part, wavs)])
        print(f"measured: {name}", file=sys.stderr)
    memory = "MB at most, the process"
    if settings.device != "cpu":
        memory = "MB at most, on the GPU"
    seconds = sum(map(len, wavs)) / SAMPLE_RATE
    return "\n".join(
        [
            f"{machine(settings.device)}. `{command}`, "
            f"{settings.hparams_file.name}: random weights, "
            f"{settings.precision}. {len(wavs)} utterances of {_SHORTEST:g} to "
            f"{_LONGEST:g} s, {seconds:.0f} s in all, in batches of up to "
            f"{settings.batch_seconds:g} s; medians of {settings.repeats} "
            "runs after one that does not count.\n",
            table(
                [
                    "stream",
                    "times real time",
                    "seconds of audio a second of CPU",
                    memory,
                ],
                rows,
            ),
        ]
    )


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.benchmark_tokenizing",
        description="Measure the speed of tokenizing and print it as Markdown.",
    )
    parser.add_argument("--device", default=Settings.device)
    parser.add_argument(
        "--precision", choices=_PRECISIONS, default=Settings.precision
    )
    parser.add_argument("--seconds", type=float, default=Settings.seconds)
    parser.add_argument(
        "--batch-seconds", type=float, default=Settings.batch_seconds
    )
    parser.add_argument("--repeats", type=int, default=Settings.repeats)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--quick",
        action="store_true",
        help="run a tiny model; the times are no measurement",
    )
    options = vars(parser.parse_args(arguments))
    torch.set_num_threads(options["threads"])
    shown = " ".join(
        f"--{name.replace('_', '-')} {value}"
        for name, value in options.items()
        if name != "quick"
    )
    quick = options.pop("quick")
    del options["threads"]
    settings = Settings(**options)
    if quick:
        shown += " --quick"
        tiny = HPARAMS / "spiritlm_expressive_tiny.yaml"
        settings = Settings(tiny, **options)
    print(report(settings, f"{parser.prog} {shown}"))


if __name__ == "__main__":
    main()
