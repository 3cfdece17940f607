"""Speed of inference, against what it would be without this package.

Run from the root of the repository as
``python -m tests.benchmarks.benchmark_inference``. The model has the released
tokenizer's and vocoder's sizes and random weights. Times are medians, measured
in turn so that a busy machine slows all alike.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import platform
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from statistics import median

import torch
import transformers
from hyperpyyaml import load_hyperpyyaml
from torch import Tensor, nn
from torch.nn import functional as F

from spiritlm_plugin.dataio.audio.reading import read_audio
from spiritlm_plugin.dataio.units.segments import Speech
from spiritlm_plugin.dataio.units.units import SAMPLE_RATE
from spiritlm_plugin.decoders.constrained import AllowedTokens
from spiritlm_plugin.inference import SpiritLM
from spiritlm_plugin.lobes.speech_tokenizer import SpeechTokenizer
from tests.benchmarks.random_model import HPARAMS, random_model

AUDIO = Path(__file__).resolve().parents[1] / "conformance/small/audio"
STREAMS = ("phonetic", "pitch", "style")
_NOISE = 0.003
_PROMPT_SECONDS = 3.2  # about 100 tokens
_SHORTEST = 0.2  # of the items of a batch, as a share of the longest

Contenders = dict[str, Callable[[], object]]


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


class PlainVocoder(nn.Module):
    """HiFi-GAN as it is usually written, weight norms fused."""

    def __init__(self, streams: int, embedding_dim: int, generator: dict):
        super().__init__()
        channels = generator["channels"]
        self.embeddings = nn.ModuleList(
            nn.Embedding(501, embedding_dim) for _ in range(streams)
        )
        self.input = nn.Conv1d(streams * embedding_dim, channels, 7, padding=3)
        self.upsamplers, self.blocks = nn.ModuleList(), nn.ModuleList()
        sizes = zip(generator["upsample_rates"], generator["upsample_kernels"])
        for rate, kernel in sizes:
            padding = (kernel - rate) // 2
            self.upsamplers.append(
                nn.ConvTranspose1d(
                    channels, channels // 2, kernel, rate, padding
                )
            )
            channels //= 2
            self.blocks.append(
                nn.ModuleList(
                    PlainBlock(channels, size, dilations)
                    for size, dilations in zip(
                        generator["resblock_kernels"],
                        generator["resblock_dilations"],
                    )
                )
            )
        self.output = nn.Conv1d(channels, 1, 7, padding=3)

    def forward(self, units: Tensor) -> Tensor:
        """Return a waveform of units, (batch, streams, frames)."""
        embedded = [e(units[:, i]) for i, e in enumerate(self.embeddings)]
        x = self.input(torch.cat(embedded, -1).transpose(1, 2))
        for upsampler, blocks in zip(self.upsamplers, self.blocks):
            x = upsampler(F.leaky_relu(x, 0.1))
            x = sum(block(x) for block in blocks) / len(blocks)
        return self.output(F.leaky_relu(x)).tanh()


class PlainBlock(nn.Module):
    """A residual block of HiFi-GAN."""

    def __init__(self, channels: int, kernel: int, dilations: list[int]):
        super().__init__()

        def conv(dilation):
            return nn.Conv1d(
                channels,
                channels,
                kernel,
                dilation=dilation,
                padding=(kernel - 1) * dilation // 2,
            )

        self.dilated = nn.ModuleList(conv(dilation) for dilation in dilations)
        self.plain = nn.ModuleList(conv(1) for _ in dilations)

    def forward(self, x: Tensor) -> Tensor:
        """Return a tensor of the same shape."""
        for dilated, plain in zip(self.dilated, self.plain):
            y = plain(F.leaky_relu(dilated(F.leaky_relu(x, 0.1)), 0.1))
            x = x + y
        return x


class Plain:
    """What one would write without this package, for one file at a time.

    Arguments
    ---------
    hparams_file : Path
        For the sizes; the weights are others.
    device : str
        To run on.
    """

    def __init__(self, hparams_file: Path, device: str):
        import torchfcpe

        with open(hparams_file, encoding="utf-8") as file:
            # Without references: plain values.
            sizes = load_hyperpyyaml(_without_objects(file.read()))
        hubert = transformers.HubertConfig(**sizes["phonetic"]["hubert"])
        wav2vec2 = transformers.Wav2Vec2Config(**sizes["style"]["wav2vec2"])
        quantizer, vocoder = sizes["quantizer"], sizes["vocoder"]
        widths = [
            quantizer["input_dim"],
            *quantizer["hidden_dims"],
            quantizer["units"] + 1,
        ]
        self.hubert = transformers.HubertModel(hubert)
        self.quantizer = nn.Sequential(
            *(nn.Linear(a, b) for a, b in zip(widths, widths[1:]))
        )
        self.wav2vec2 = transformers.Wav2Vec2Model(wav2vec2)
        self.vocoder = PlainVocoder(
            4, vocoder["embedding_dim"], vocoder["generator"]
        )
        for module in vars(self).values():
            module.eval().to(device)
        self.device = device
        with contextlib.redirect_stdout(io.StringIO()):
            self.fcpe = torchfcpe.spawn_bundled_infer_model(device)

    def phonetic(self, wav: Tensor) -> Tensor:
        """Run HuBERT and the quantizer on (samples,)."""
        wav = wav.to(self.device)
        features = self.hubert(wav[None]).last_hidden_state
        return self.quantizer(features).argmax(-1).cpu()

    def style(self, wav: Tensor) -> Tensor:
        """Run wav2vec 2.0, which is nearly all of the style classifier."""
        wav = wav.to(self.device)
        wav = (wav - wav.mean()) / (wav.var(correction=0) + 1e-7).sqrt()
        return self.wav2vec2(wav[None]).last_hidden_state.cpu()

    def pitch(self, wav: Tensor) -> Tensor:
        """Run FCPE, which is nearly all of the pitch tokenizer."""
        f0 = self.fcpe.infer(
            wav[None, :, None].to(self.device),
            sr=SAMPLE_RATE,
            decoder_mode="local_argmax",
            threshold=0.05,
            f0_min=50,
            f0_max=1100,
            interp_uv=True,
            output_interp_target_length=len(wav) // 80 + 1,
        )
        return f0.cpu()

    def expressive(self, wav: Tensor) -> list[Tensor]:
        """Run all three."""
        return [getattr(self, stream)(wav) for stream in STREAMS]

    def vocode(self, units: Tensor) -> Tensor:
        """Run the vocoder on units at 25 Hz, (streams, frames)."""
        return self.vocoder(units[None].to(self.device)).cpu()

    @staticmethod
    def generate(lm: SpiritLM, ids: list[int], new_tokens: int) -> Tensor:
        """Sample speech with transformers alone."""
        language_model = lm.mods.language_model
        allowed = lm.vocabulary.allowed("speech", language_model.rows, False)
        return language_model.model.generate(
            torch.tensor([ids], device=lm.device),
            do_sample=True,
            temperature=0.8,
            top_p=0.95,
            max_new_tokens=new_tokens,
            pad_token_id=lm.vocabulary.eos_id,
            logits_processor=[AllowedTokens(allowed.to(lm.device))],
        )


def _without_objects(yaml: str) -> str:
    """Turn the objects of a HyperPyYAML text into the arguments they take."""
    lines = []
    for line in yaml.splitlines():
        before, tag, _ = line.partition("!")
        if line.startswith("__") or "!ref" in line or " {}" in line:
            continue
        lines.append(before if tag else line)
    return "\n".join(lines)


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


def batch_seconds(size: int, longest: float) -> list[float]:
    """Return the durations of a batch's items, between 20 and 100%."""
    shares = torch.linspace(1, _SHORTEST, min(size, 8)).tolist()
    return [longest * share for share in islice(cycle(shares), size)]


def measure(
    contenders: Contenders, repeats: int, budget: float
) -> dict[str, float]:
    """Return the median seconds of each, run in turn after one warm-up."""
    for run in contenders.values():
        _seconds(run)
    times = defaultdict(list)
    for _ in range(repeats):
        for name, run in contenders.items():
            if len(times[name]) < 2 or sum(times[name]) < budget:
                times[name].append(_seconds(run))
    return {name: median(values) for name, values in times.items()}


def _seconds(run: Callable[[], object]) -> float:
    synchronize()
    start = time.perf_counter()
    with torch.inference_mode():
        run()
    synchronize()
    return time.perf_counter() - start


def synchronize() -> None:
    """Wait for the GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


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
        self.plain = Plain(settings.hparams_file, settings.device)
        self.wav = recording
        # The largest batch takes too long to be measured twice.
        self.bf16_sizes = (1, *settings.batches[:1])
        self.batches = {
            size: recordings(batch_seconds(size, settings.seconds))
            for size in settings.batches
        }

    def tokenizing(self) -> list[list[str]]:
        """Return real-time factors of the tokenizer and its parts."""
        whole = self.lm.mods.tokenizer
        parts = {
            "Base tokenizer (phonetic)": ("phonetic", whole.phonetic),
            "style alone": ("style", whole.style),
            "pitch alone": ("pitch", whole.pitch),
            "Expressive tokenizer (all three)": ("expressive", None),
        }
        rows = []
        for label, (name, part) in parts.items():
            tokenizer = whole if part is None else SpeechTokenizer(part)
            rows.append(self._tokenizing(label, name, tokenizer))
        return rows

    def _tokenizing(
        self, label: str, name: str, tokenizer: nn.Module
    ) -> list[str]:
        def run(wavs: list[Tensor], lm: SpiritLM):
            with lm.inference_ctx:
                return tokenizer(wavs)

        plain = getattr(self.plain, name)
        return self._row(
            label,
            partial(plain, self.wav),
            run,
            {1: [self.wav], **self.batches},
            lambda wavs: sum(map(len, wavs)) / SAMPLE_RATE,
        )

    def vocoding(self) -> list[list[str]]:
        """Return real-time factors of the vocoder, from full-rate units."""
        items = {1: [self.wav], **self.batches}
        items = {n: self.lm.encode_batch(wavs) for n, wavs in items.items()}
        frames = len(items[1][0])
        units = torch.randint(4, (4, frames))
        row = self._row(
            "vocoder",
            partial(self.plain.vocode, units),
            lambda units, lm: lm.decode_batch(units),
            items,
            lambda units: sum(item.duration for item in units),
        )
        return [row]

    def _row(
        self,
        label: str,
        plain: Callable[[], object],
        run: Callable[[list, SpiritLM], object],
        items: dict[int, list],
        audio_seconds: Callable[[list], float],
    ) -> list[str]:
        """Measure one task: plain, ours in batches, and in bfloat16."""
        contenders: Contenders = {"plain": plain}
        for size, batch in items.items():
            contenders[str(size)] = partial(run, batch, self.lm)
            if size in self.bf16_sizes:
                contenders[f"{size} bf16"] = partial(run, batch, self.bf16)
        times = self._measure(contenders)
        single = audio_seconds(items[1])
        plain, ours = times["plain"] / single, times["1"] / single
        batches = [str(size) for size in self.batches]
        batches += [f"{size} bf16" for size in self.bf16_sizes]
        factors = [
            times[name] / audio_seconds(items[int(name.split()[0])])
            for name in batches
        ]
        print(f"measured: {label}", file=sys.stderr)
        ratio = f"{plain / ours:.2f}"
        return [
            label,
            f"{plain:.4f}",
            f"{ours:.4f}",
            ratio,
            *(f"{factor:.4f}" for factor in factors),
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
        rates = {n: tokens * int(n) / times[n] for n in map(str, sizes)}
        plain = tokens / times["plain"]
        print("measured: generation", file=sys.stderr)
        return [
            [
                f"generation after {len(ids)} tokens",
                f"{plain:.0f}",
                f"{rates['1']:.0f}",
                f"{rates['1'] / plain:.2f}",
                *(f"{rates[str(size)]:.0f}" for size in self.batches),
            ]
        ]

    def precision(self) -> list[list[str]]:
        """Return the share of units that bfloat16 changes."""
        wavs = self.batches[min(self.batches)]
        exact, other = (lm.encode_batch(wavs) for lm in (self.lm, self.bf16))
        rows = []
        for stream in STREAMS:
            pairs = [
                (getattr(a, stream), getattr(b, stream))
                for a, b in zip(exact, other)
            ]
            different = sum(int((a != b).sum()) for a, b in pairs)
            total = sum(len(a) for a, _ in pairs)
            used = len(torch.cat([a for a, _ in pairs]).unique())
            rows.append(
                [
                    stream,
                    str(total),
                    str(used),
                    f"{100 * different / total:.1f}%",
                ]
            )
        return rows

    def _measure(self, contenders: Contenders) -> dict[str, float]:
        return measure(contenders, self.settings.repeats, self.settings.budget)


def table(header: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table; all columns but the first are numbers."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def report(settings: Settings, command: str) -> str:
    """Measure everything and return it as Markdown."""
    benchmark = Benchmark(settings)
    batches = [f"ours, batch of {size}" for size in settings.batches]
    bf16 = ["bf16", f"bf16, batch of {settings.batches[0]}"]
    columns = ["plain", "ours", "plain / ours", *batches, *bf16]
    speech = [*benchmark.tokenizing(), *benchmark.vocoding()]
    generation = benchmark.generating()
    rates = ["plain", "ours", "ours / plain", *batches]
    return "\n".join(
        [
            f"{machine(settings.device)}. `{command}`, "
            f"{settings.hparams_file.name}: random weights, float32 unless it "
            f"says bf16 (autocast). Items of {settings.seconds:g} s, in "
            f"batches of {_SHORTEST * settings.seconds:g} to "
            f"{settings.seconds:g} s. Median of {settings.repeats} runs, in "
            "turn, after one that does not count; of fewer, at least 2, where "
            f"they take more than {settings.budget:g} s.",
            "\nSeconds of computing for a second of audio; plain is "
            "transformers' HuBERT and wav2vec 2.0, torchfcpe and a HiFi-GAN "
            "of Conv1d, one file at a time:\n",
            table(["", *columns], speech),
            f"\nTokens a second, sampling {settings.new_tokens} tokens of "
            "speech; plain is transformers' generate:\n",
            table(["", *rates], generation),
            "\nUnits that differ between bfloat16 and float32. With random "
            "weights the scores of units are closer to each other than with "
            "trained ones:\n",
            table(
                ["stream", "units", "different ones", "changed by bf16"],
                benchmark.precision(),
            ),
        ]
    )


def machine(device: str) -> str:
    """Return the processor, its threads and the version of torch."""
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        line = next(line for line in lines if line.startswith("model name"))
        name = line.partition(":")[2].strip()
    name = f"{name}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
    if device != "cpu":
        name = f"{torch.cuda.get_device_name(device)}; {name}"
    return (
        f"{name}, torch {torch.__version__}, transformers "
        f"{transformers.__version__}"
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
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.benchmark_inference",
        description="Measure the speed of inference and print it as Markdown.",
    )
    parser.add_argument("--seconds", type=float, default=Settings.seconds)
    parser.add_argument("--repeats", type=int, default=Settings.repeats)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default=Settings.device)
    parser.add_argument(
        "--quick",
        action="store_true",
        help="run everything once with a tiny model on a second of audio; "
        "the times are no measurement",
    )
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    settings = Settings(
        seconds=options.seconds,
        repeats=options.repeats,
        device=options.device,
    )
    if options.quick:
        settings = quick_settings(options.device)
    command = f"{parser.prog} --threads {options.threads}"
    command += f" --device {options.device}"
    command += (
        " --quick"
        if options.quick
        else f" --seconds {options.seconds:g} --repeats {options.repeats}"
    )
    print(report(settings, command))


if __name__ == "__main__":
    main()
