"""What benchmarks share: the machine, measuring, tables, recordings."""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch
import transformers
from torch import Tensor

from spiritlm_plugin.dataio.audio.reading import read_audio
from spiritlm_plugin.dataio.units.units import SAMPLE_RATE

AUDIO = Path(__file__).resolve().parents[1] / "conformance/small/audio"
_NOISE = 0.003
# Those that matrix products are fast by, as /proc/cpuinfo calls them.
_INSTRUCTIONS = (
    "avx2 fma avx512f avx512bw avx_vnni avx512_vnni avx512_bf16 avx512_fp16 "
    "amx_tile amx_int8 amx_bf16 asimd asimddp bf16 i8mm sve sve2"
).split()

Contenders = dict[str, Callable[[], object]]


class Timing(NamedTuple):
    """Seconds of runs.

    Arguments
    ---------
    walls : tuple of float
        By the wall, of each run.
    cpus : tuple of float
        Of all threads, of each run.
    """

    walls: tuple[float, ...]
    cpus: tuple[float, ...]

    @property
    def wall(self) -> float:
        """The median by the wall."""
        return median(self.walls)

    @property
    def cpu(self) -> float:
        """The least of the CPU: neighbours on a shared machine only add to it."""
        return min(self.cpus)

    def per(self, amount: float) -> Timing:
        """Return the times of one of so many."""
        return Timing(*(tuple(t / amount for t in times) for times in self))

    def over(self, other: Timing) -> str:
        """Return how many times as long as another, by the wall and the CPU.

        By the wall it is the median of the ratios of runs that followed each
        other, which a machine that is slow for a while slows alike.
        """
        ratios = (a / b for a, b in zip(self.walls, other.walls))
        return f"{median(ratios):.2f} / {self.cpu / other.cpu:.2f}"


def timings(
    contenders: Contenders, repeats: int, budget: float = float("inf")
) -> dict[str, Timing]:
    """Return the times of contenders, run in turn after one warm-up.

    Arguments
    ---------
    contenders : dict
        What runs, without gradients.
    repeats : int
        Runs of each.
    budget : float
        Seconds of wall time after which a contender is run no more, if it has
        been run twice.
    """
    for run in contenders.values():
        _time(run)
    runs: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for _ in range(repeats):
        for name, run in contenders.items():
            spent = sum(wall for wall, _ in runs[name])
            if len(runs[name]) < 2 or spent < budget:
                runs[name].append(_time(run))
    return {name: Timing(*zip(*times)) for name, times in runs.items()}


def measure(
    contenders: Contenders, repeats: int, budget: float
) -> dict[str, float]:
    """Return the median seconds of each, run in turn after one warm-up."""
    found = timings(contenders, repeats, budget)
    return {name: timing.wall for name, timing in found.items()}


def fastest(contenders: Contenders, repeats: int = 3) -> str:
    """Return the name of the contender that needs the least CPU time."""
    found = timings(contenders, repeats)
    return min(found, key=lambda name: found[name].cpu)


def _time(run: Callable[[], object]) -> tuple[float, float]:
    """Return the seconds of a run, by the wall and of the CPU."""
    synchronize()
    wall, cpu = time.perf_counter(), time.process_time()
    with torch.inference_mode():
        run()
    synchronize()
    return time.perf_counter() - wall, time.process_time() - cpu


def synchronize() -> None:
    """Wait for the GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def parser_of(
    name: str, measured: str, repeats: int
) -> argparse.ArgumentParser:
    """Return what reads the arguments that benchmarks have in common.

    Arguments
    ---------
    name : str
        Of the module.
    measured : str
        As in "the speed of generation".
    repeats : int
        Runs of each measurement, if nothing else is asked.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m tests.benchmarks.{name}",
        description=f"Measure {measured} and print it as Markdown.",
    )
    parser.add_argument("--repeats", type=int, default=repeats)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="run everything once with a tiny model; the times are no "
        "measurement",
    )
    return parser


def parsed(
    parser: argparse.ArgumentParser, arguments: Sequence[str] | None
) -> tuple[argparse.Namespace, str]:
    """Read arguments; return them, and the command that repeats the run."""
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    # oneDNN keeps 1,024 kernels, of which a vocoder takes a hundred for each
    # length: what runs in turn would push out what the others have prepared.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "100000")
    words = [parser.prog]
    for name, value in vars(options).items():
        if name == "quick":
            words += ["--quick"] if value else []
        elif value is not None:
            words += [f"--{name.replace('_', '-')}", f"{value}"]
    return options, " ".join(words)


def table(header: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table; all columns but the first are numbers."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def machine(device: str) -> str:
    """Return the processor, what it and PyTorch can do, and the versions."""
    info = _processor()
    name = info.get("model name") or platform.processor()
    has = (info.get("flags") or info.get("Features") or "").split()
    instructions = " ".join(i for i in _INSTRUCTIONS if i in has)
    libraries = [
        name
        for name, backend in (
            ("MKL", torch.backends.mkl),
            ("oneDNN", torch.backends.mkldnn),
        )
        if backend.is_available()
    ]
    described = (
        f"{name or platform.machine()}, {os.cpu_count()} cores, "
        f"{torch.get_num_threads()} threads ({instructions}), torch "
        f"{torch.__version__} ({torch.backends.cpu.get_cpu_capability()} "
        f"kernels, {', '.join(libraries)}), transformers "
        f"{transformers.__version__}"
    )
    if device == "cpu":
        return described
    return f"{torch.cuda.get_device_name(device)}; {described}"


def _processor() -> dict[str, str]:
    """Return what Linux says of the first processor."""
    with contextlib.suppress(OSError):
        first = Path("/proc/cpuinfo").read_text().partition("\n\n")[0]
        pairs = (line.partition(":") for line in first.splitlines())
        return {key.strip(): value.strip() for key, _, value in pairs}
    return {}


def recordings(seconds: list[float]) -> list[Tensor]:
    """Return speech-like recordings of these durations, all different."""
    names = ("boats.wav", "listen.wav")
    speech = torch.cat([read_audio(AUDIO / name) for name in names])
    items = []
    for index, duration in enumerate(seconds):
        generator = torch.Generator().manual_seed(index)
        samples = int(duration * SAMPLE_RATE)
        start = int(torch.randint(len(speech), (1,), generator=generator))
        repeats = samples // len(speech) + 1
        item = speech.roll(-start).repeat(repeats)[:samples]
        noise = torch.randn(samples, generator=generator)
        items.append(item + _NOISE * noise)
    return items
