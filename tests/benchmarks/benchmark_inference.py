"""Speed of inference, against what it would be without this package.

Run from the root of the repository as
``python -m tests.benchmarks.benchmark_inference``. The model has the released
tokenizer's and vocoder's sizes and random weights. All is run in turn, so that
a busy machine slows all alike; wall time is the median of the runs, CPU time the
least of them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path

import torch
from torch import Tensor

from spiritlm_plugin.dataio.units.segments import Speech
from spiritlm_plugin.dataio.units.units import SAMPLE_RATE
from spiritlm_plugin.inference import SpiritLM
from spiritlm_plugin.lobes.packed_linear import can_quantize
from spiritlm_plugin.lobes.speech_tokenizer import SpeechTokenizer
from tests.benchmarks.machine import (
    Contenders,
    Timing,
    machine,
    parsed,
    parser_of,
    recordings,
    table,
    timings,
)
from tests.benchmarks.machine import (
    measure as measure,
)
from tests.benchmarks.machine import (
    synchronize as synchronize,
)
from tests.benchmarks.plain_forms import STREAMS, Plain
from tests.benchmarks.random_model import HPARAMS, random_model

_PROMPT_SECONDS = 3.2  # about 100 tokens
_SHORTEST = 0.2  # of the items of a batch, as a share of the longest
_SIDE = 1536  # of the matrices whose product says how fast products can be


@dataclass(frozen=True)
class Settings:
    """What is measured.

    Arguments
    ---------
    hparams_file : Path
        The model.
    seconds : float
        Of the single recording; those of a batch have 20 to 100% of it.
    repeats : int
        Of each measurement, after a run that does not count.
    budget : float
        Seconds after which a measurement is repeated no more, if it has been
        made twice.
    batches : tuple of int
        Items to run together.
    new_tokens : int
        To generate.
    device : str
        To run on.
    """

    hparams_file: Path = HPARAMS / "spiritlm_expressive_base.yaml"
    seconds: float = 10.0
    repeats: int = 5
    budget: float = 15.0
    batches: tuple[int, ...] = (8, 32)
    new_tokens: int = 100
    device: str = "cpu"


def batch_seconds(size: int, longest: float) -> list[float]:
    """Return the durations of a batch's items, between 20 and 100%."""
    shares = torch.linspace(1, _SHORTEST, min(size, 8)).tolist()
    return [longest * share for share in islice(cycle(shares), size)]


class Benchmark:
    """The measurements, each a row or more of a Markdown table.

    Arguments
    ---------
    settings : Settings
        What to measure.
    """

    def __init__(self, settings: Settings):
        self.settings = settings
        [recording] = recordings([settings.seconds])
        run_opts = {"device": settings.device, "precision": "fp32"}
        self.lm = random_model(
            settings.hparams_file, recording, run_opts=run_opts
        )
        self.bf16 = SpiritLM(
            dict(self.lm.mods.items()), {}, {**run_opts, "precision": "bf16"}
        )
        self.int8: SpiritLM | None = None
        if settings.device == "cpu" and can_quantize():
            self.int8 = self._quantized(run_opts)
        self.plain = Plain(settings.hparams_file, settings.device)
        frames = len(self.lm.encode_batch([recording])[0])
        self.units = torch.randint(4, (4, frames))
        self.operations = self.plain.operations(recording, self.units)
        self.plain.choose(recording, self.units)
        sides = torch.randn(2, _SIDE, _SIDE, device=settings.device)
        self.product = partial(torch.mm, *sides)
        self.wav = recording
        # The largest batch takes too long to be measured twice.
        self.bf16_sizes = (1, *settings.batches[:1])
        self.batches = {
            size: recordings(batch_seconds(size, settings.seconds))
            for size in settings.batches
        }

    def _quantized(self, run_opts: dict) -> SpiritLM:
        """Return the same model with encoders in 8 bits."""
        whole = self.lm.mods.tokenizer
        tokenizer = SpeechTokenizer(
            deepcopy(whole.phonetic), whole.pitch, deepcopy(whole.style)
        )
        tokenizer.prepare_for_inference()
        tokenizer.quantize("int8")
        modules = {**dict(self.lm.mods.items()), "tokenizer": tokenizer}
        return SpiritLM(modules, {}, run_opts)

    def tokenizing(self) -> list[list[str]]:
        """Return real-time factors of the tokenizer and its parts."""
        parts = {
            "Base tokenizer (phonetic)": "phonetic",
            "style alone": "style",
            "pitch alone": "pitch",
            "Expressive tokenizer (all three)": "expressive",
        }
        return [self._tokenizing(*part) for part in parts.items()]

    def _tokenizing(self, label: str, name: str) -> list[str]:
        def run(wavs: list[Tensor], lm: SpiritLM):
            tokenizer = lm.mods.tokenizer
            if name != "expressive":
                tokenizer = SpeechTokenizer(getattr(tokenizer, name))
            with lm.inference_ctx:
                return tokenizer(wavs)

        return self._row(
            label,
            name,
            partial(getattr(self.plain, name), self.wav),
            run,
            {1: [self.wav], **self.batches},
            lambda wavs: sum(map(len, wavs)) / SAMPLE_RATE,
            self.int8,
        )

    def vocoding(self) -> list[list[str]]:
        """Return real-time factors of the vocoder, from full-rate units."""
        items = {1: [self.wav], **self.batches}
        items = {n: self.lm.encode_batch(wavs) for n, wavs in items.items()}
        row = self._row(
            "vocoder",
            "vocode",
            partial(self.plain.vocode, self.units),
            lambda units, lm: lm.decode_batch(units),
            items,
            lambda units: sum(item.duration for item in units),
        )
        return [row]

    def _row(
        self,
        label: str,
        name: str,
        plain: Callable[[], object],
        run: Callable[[list, SpiritLM], object],
        items: dict[int, list],
        audio_seconds: Callable[[list], float],
        int8: SpiritLM | None = None,
    ) -> list[str]:
        """Measure one task: plain, ours in batches, in bfloat16, in int8."""
        contenders: Contenders = {
            "plain": plain,
            "1": partial(run, items[1], self.lm),
            "product": self.product,
        }
        if int8 is not None:
            contenders["1 int8"] = partial(run, items[1], int8)
        for size, batch in items.items():
            contenders[str(size)] = partial(run, batch, self.lm)
            if size in self.bf16_sizes:
                contenders[f"{size} bf16"] = partial(run, batch, self.bf16)
        times = self._measure(contenders)
        seconds = {size: audio_seconds(batch) for size, batch in items.items()}
        plain, ours = times["plain"], times["1"]
        products = self.operations[name] / (2 * _SIDE**3)
        limit = times["product"].per(seconds[1] / products)
        batches = [str(size) for size in self.batches]
        batches += [f"{size} bf16" for size in self.bf16_sizes]
        reduced = []
        for form in ("1 bf16", "1 int8"):
            reduced.append(plain.over(times[form]) if form in times else "-")
        last = "-"
        if int8 is not None:
            last = _per_second(times["1 int8"], seconds[1])
        print(f"measured: {label}", file=sys.stderr)
        return [
            label,
            _per_second(plain, seconds[1]),
            _per_second(ours, seconds[1]),
            plain.over(ours),
            _per_second(limit, 1),
            *(
                _per_second(times[form], seconds[int(form.split()[0])])
                for form in batches
            ),
            last,
            *reduced,
        ]

    def generating(self) -> list[list[str]]:
        """Return tokens a second of sampling speech."""
        [prompt] = self.lm.encode_batch(recordings([_PROMPT_SECONDS]))
        ids = self.lm.vocabulary.encode([Speech(prompt)], "speech")
        tokens = self.settings.new_tokens
        contenders: Contenders = {
            "plain": partial(self.plain.generate, self.lm, ids, tokens)
        }
        sizes = (1, *self.settings.batches)
        for size in sizes:
            contenders[str(size)] = partial(
                self.lm.generate,
                [[Speech(prompt)]] * size,
                "speech",
                max_new_tokens=tokens,
                stop=False,
                seed=0,
                vocode=False,
                batch_size=size,
            )
        times = self._measure(contenders)
        rates = {n: _rate(times[n], tokens * int(n)) for n in map(str, sizes)}
        print("measured: generation", file=sys.stderr)
        return [
            [
                f"generation after {len(ids)} tokens",
                _rate(times["plain"], tokens),
                rates["1"],
                times["plain"].over(times["1"]),
                *(rates[str(size)] for size in self.batches),
            ]
        ]

    def precision(self) -> list[list[str]]:
        """Return the shares of units that bfloat16 and int8 change."""
        wavs = self.batches[min(self.batches)]
        exact, *others = (
            None if lm is None else lm.encode_batch(wavs)
            for lm in (self.lm, self.bf16, self.int8)
        )
        rows = []
        for stream in STREAMS:
            units = torch.cat([getattr(item, stream) for item in exact])
            row = [stream, str(len(units)), str(len(units.unique()))]
            for other in others:
                if other is None:
                    row.append("-")
                    continue
                found = torch.cat([getattr(item, stream) for item in other])
                share = (found != units).double().mean()
                row.append(f"{100 * float(share):.1f}%")
            rows.append(row)
        return rows

    def _measure(self, contenders: Contenders) -> dict[str, Timing]:
        settings = self.settings
        return timings(contenders, settings.repeats, settings.budget)


def _per_second(timing: Timing, seconds: float) -> str:
    """Return the computing for a second of audio, by the wall and the CPU."""
    return f"{timing.wall / seconds:.4f} / {timing.cpu / seconds:.4f}"


def _rate(timing: Timing, tokens: int) -> str:
    """Return tokens a second, by the wall and by the CPU."""
    return f"{tokens / timing.wall:.0f} / {tokens / timing.cpu:.0f}"


def report(settings: Settings, command: str) -> str:
    """Measure everything and return it as Markdown."""
    benchmark = Benchmark(settings)
    batches = [f"ours, batch of {size}" for size in settings.batches]
    bf16 = ["bf16", f"bf16, batch of {settings.batches[0]}"]
    chosen = ", ".join(f"{n}: {f}" for n, f in benchmark.plain.chosen.items())
    reduced = [*bf16, "int8", "plain / bf16", "plain / int8"]
    columns = ["plain", "ours", "plain / ours", "limit", *batches, *reduced]
    speech = [*benchmark.tokenizing(), *benchmark.vocoding()]
    generation = benchmark.generating()
    rates = ["plain", "ours", "ours / plain", *batches]
    return "\n".join(
        [
            f"{machine(settings.device)}. `{command}`, "
            f"{settings.hparams_file.name}: random weights, float32 unless it "
            "says bf16 (autocast) or int8 (transformers and the longest "
            "convolutions of the encoders, their other products in bf16 where "
            f"there is one). Items of {settings.seconds:g} s, in "
            f"batches of {_SHORTEST * settings.seconds:g} to "
            f"{settings.seconds:g} s. Wall / CPU time: the median and the least "
            f"of {settings.repeats} runs, in turn, after one that does not "
            "count; ratios are the median of those of each turn, and that of "
            "the least; of fewer, at least 2, where they take more than "
            f"{settings.budget:g} s.",
            "\nSeconds of computing for a second of audio; plain is "
            "transformers' HuBERT and wav2vec 2.0 (sdpa), torchfcpe and a "
            "HiFi-GAN of Conv1d, weight norms removed, one file at a time, each "
            f"in its fastest form here ({chosen}). The limit is what its products "
            "would take in float32 if all were as fast as one of matrices of "
            f"{_SIDE} rows and columns in the same run:\n",
            table(["", *columns], speech),
            f"\nTokens a second, sampling {settings.new_tokens} tokens of "
            "speech; plain is transformers' generate:\n",
            table(["", *rates], generation),
            "\nUnits that are others than in float32. With random "
            "weights the scores of units are closer to each other than with "
            "trained ones:\n",
            table(
                ["stream", "units", "different ones", "by bf16", "by int8"],
                benchmark.precision(),
            ),
        ]
    )


def quick_settings(device: str = "cpu") -> Settings:
    """Return settings that show that everything runs."""
    return Settings(
        hparams_file=HPARAMS / "spiritlm_expressive_tiny.yaml",
        seconds=1.0,
        repeats=1,
        batches=(2, 4),
        new_tokens=8,
        device=device,
    )


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = parser_of(
        "benchmark_inference", "the speed of inference", Settings.repeats
    )
    parser.add_argument("--seconds", type=float, default=Settings.seconds)
    options, command = parsed(parser, arguments)
    settings = Settings(
        seconds=options.seconds,
        repeats=options.repeats,
        device=options.device,
    )
    if options.quick:
        settings = quick_settings(options.device)
    print(report(settings, command))


if __name__ == "__main__":
    main()
