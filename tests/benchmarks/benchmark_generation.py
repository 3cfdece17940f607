"""Speed of generation, against plain transformers in batches.

Run from the root of the repository as
``python -m tests.benchmarks.benchmark_generation``. The model is a Llama of 110
million parameters, with random weights and the vocabulary of Llama 2 with speech
units. Plain is transformers' ``generate``, under the same constraint and with the
same random numbers, for prompts of like length in batches of 16, each batch until
its last output has ended. All is run in turn, so that a busy machine slows all
alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import nn

from spiritlm_plugin.dataio.batching import sized_batches
from spiritlm_plugin.dataio.units.text_tokenizers import train_text_tokenizer
from spiritlm_plugin.dataio.units.vocabulary import Vocabulary
from spiritlm_plugin.decoders.constrained import Decoded, decode
from spiritlm_plugin.decoders.engines import TransformersEngine
from spiritlm_plugin.lobes.language_model import (
    LanguageModel,
    new_language_model,
)
from tests.benchmarks.machine import (
    Timing,
    machine,
    parsed,
    parser_of,
    table,
    timings,
)

_UNITS = 501
_BATCH = 16
_LIKELIER_END = 2.0


@dataclass(frozen=True)
class Settings:
    """What is measured.

    Arguments
    ---------
    sizes : dict
        Of the model's configuration.
    rows : int
        Of its embedding.
    prompt : int
        Tokens of the single prompt, and of a shot.
    new_tokens : int
        To generate at most.
    prompts : int
        Of unequal length.
    items : int
        Of an evaluation behind ten shots.
    repeats : int
        Of each measurement, after a run that does not count.
    device : str
        To run on.
    """

    sizes: tuple[tuple[str, int], ...] = (
        ("hidden_size", 768),
        ("intermediate_size", 2048),
        ("num_hidden_layers", 12),
        ("num_attention_heads", 12),
        ("max_position_embeddings", 4096),
    )
    rows: int = 32768
    prompt: int = 100
    new_tokens: int = 100
    prompts: int = 32
    items: int = 200
    repeats: int = 3
    device: str = "cpu"


QUICK = Settings(
    sizes=(
        ("hidden_size", 32),
        ("intermediate_size", 64),
        ("num_hidden_layers", 2),
        ("num_attention_heads", 2),
        ("max_position_embeddings", 2048),
    ),
    rows=1024,
    prompt=20,
    new_tokens=12,
    prompts=6,
    items=6,
    repeats=1,
)


def build(settings: Settings, dtype: torch.dtype) -> LanguageModel:
    """Return a model that ends its speech after about 50 tokens.

    With random weights each token is about as likely as any other.
    """
    text = train_text_tokenizer(["the cat sat on the mat"], 280)
    torch.manual_seed(0)
    lm = new_language_model(
        {
            "model_type": "llama",
            "tie_word_embeddings": False,
            "vocab_size": settings.rows,
            **dict(settings.sizes),
        },
        Vocabulary.extend(text, phonetic=_UNITS),
    )
    lm.to(settings.device, dtype)
    return lm


def likelier_end(lm: LanguageModel, nats: float) -> None:
    """Make the end of a sequence likelier by so much."""
    head = lm.model.get_output_embeddings()
    bias = torch.zeros(lm.rows, dtype=head.weight.dtype, device=lm.device)
    bias[lm.vocabulary.eos_id] = nats
    head.bias = nn.Parameter(bias, requires_grad=False)


def draw_ids(count: int, seed: int) -> list[int]:
    """Return some speech."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(300, 700, (count,), generator=generator).tolist()


def plainly(
    lm: LanguageModel,
    prompts: Sequence[list[int]],
    new_tokens: int,
    temperature: float,
    stop: bool,
) -> list[Decoded]:
    """Continue prompts in batches of 16 by transformers' generate."""
    found: dict[int, Decoded] = {}
    for chosen in sized_batches([len(p) for p in prompts], _BATCH):
        outputs = decode(
            lm,
            [prompts[i] for i in chosen],
            "speech",
            new_tokens,
            temperature,
            seeds=chosen,
            stop=stop,
        )
        found.update(zip(chosen, outputs))
    return [found[i] for i in range(len(prompts))]


def ours(
    lm: LanguageModel,
    prompts: Sequence[list[int]],
    new_tokens: int,
    temperature: float,
    stop: bool,
) -> list[Decoded]:
    """Continue prompts, 16 at a time, by this package."""
    return TransformersEngine(lm).decode(
        prompts,
        "speech",
        new_tokens,
        temperature,
        seeds=range(len(prompts)),
        stop=stop,
        batch_size=_BATCH,
    )


def same(first: Sequence[Decoded], second: Sequence[Decoded]) -> str:
    """Return how many outputs are the same."""
    equal = [
        torch.equal(a.ids, b.ids) and a.end_reason == b.end_reason
        for a, b in zip(first, second)
    ]
    return f"{sum(equal)} of {len(equal)}"


def quantized(lm: LanguageModel, form: str) -> LanguageModel | None:
    """Return the model with weights in a form, where that can be done."""
    try:
        lm.quantize(form)
    except (ValueError, ImportError):
        return None
    return lm


class Benchmark:
    """The measurements, each a row of a Markdown table.

    Arguments
    ---------
    settings : Settings
        What to measure.
    """

    def __init__(self, settings: Settings):
        self.settings = settings
        self.lm = build(settings, torch.float32)

    def one_prompt(self) -> list[list[str]]:
        """Return tokens a second for one prompt, in all forms of weights.

        All are compared with plain transformers in float32.
        """
        settings = self.settings
        prompts = [[1, *draw_ids(settings.prompt, 0)]]
        arguments = (prompts, settings.new_tokens, 0.0, False)
        half = build(settings, torch.bfloat16)
        forms = {
            "float32": self.lm,
            "bfloat16": half,
            **{
                form: quantized(build(settings, torch.float32), form)
                for form in ("bf16", "int8")
            },
        }
        runs = {
            "plain": partial(plainly, self.lm, *arguments),
            "plain, bfloat16": partial(plainly, half, *arguments),
            **{
                name: partial(ours, lm, *arguments)
                for name, lm in forms.items()
                if lm is not None
            },
        }
        expected = runs["plain"]()
        equal = {name: same(run(), expected) for name, run in runs.items()}
        times = timings(runs, settings.repeats)
        return [
            self._row(
                f"one prompt, {name}",
                settings.new_tokens,
                times["plain"],
                times[name],
                equal[name],
            )
            for name in runs
        ]

    def unequal_prompts(self) -> list[list[str]]:
        """Return the same for prompts, and outputs, of unequal length."""
        settings = self.settings
        lengths = torch.linspace(0.2, 2, settings.prompts) * settings.prompt
        prompts = [
            [1, *draw_ids(int(length), i)] for i, length in enumerate(lengths)
        ]
        likelier_end(self.lm, _LIKELIER_END)
        rows = []
        for stop, name in (
            (True, "outputs end by themselves"),
            (False, "outputs of one length"),
        ):
            arguments = (self.lm, prompts, settings.new_tokens, 0.8, stop)
            label = f"{settings.prompts} prompts, {name}"
            rows.append(self._compare(label, *arguments))
        return rows

    def ten_shots(self) -> list[list[str]]:
        """Return the same for items behind ten shots."""
        settings = self.settings
        shots = draw_ids(10 * settings.prompt, 0)
        prompts = [
            [1, *shots, *draw_ids(settings.prompt * (4 + i % 5) // 8, i + 1)]
            for i in range(settings.items)
        ]
        likelier_end(self.lm, _LIKELIER_END)
        arguments = (self.lm, prompts, settings.new_tokens, 0.8, True)
        label = f"{settings.items} items behind ten shots"
        return [self._compare(label, *arguments)]

    def _compare(self, name: str, *arguments) -> list[str]:
        runs = {
            "plain": partial(plainly, *arguments),
            "ours": partial(ours, *arguments),
        }
        outputs = runs["ours"]()
        tokens = sum(len(out.ids) for out in outputs)
        times = timings(runs, self.settings.repeats)
        return self._row(
            name,
            tokens,
            times["plain"],
            times["ours"],
            same(runs["plain"](), outputs),
        )

    def _row(
        self, name: str, tokens: int, plain: Timing, own: Timing, equal: str
    ) -> list[str]:
        rates = [
            f"{tokens / t.wall:.1f} / {tokens / t.cpu:.1f}"
            for t in (plain, own)
        ]
        return [name, *rates, plain.over(own), equal]


def report(settings: Settings, command: str) -> str:
    """Measure everything and return it as Markdown."""
    benchmark = Benchmark(settings)
    parameters = sum(p.numel() for p in benchmark.lm.parameters())
    rows = [
        *benchmark.one_prompt(),
        *benchmark.unequal_prompts(),
        *benchmark.ten_shots(),
    ]
    columns = ["", "plain", "ours", "ours / plain", "same outputs"]
    return "\n".join(
        [
            f"{machine(settings.device)}. `{command}`, Llama, "
            f"{parameters / 1e6:.0f} M parameters, random weights. Speech of "
            f"{settings.new_tokens} tokens at most; greedy for one prompt, else drawn; "
            f"{settings.prompts} prompts of {0.2 * settings.prompt:.0f} to "
            f"{2 * settings.prompt} tokens. Plain is transformers' generate in "
            f"batches of {_BATCH}, in float32; ours has {_BATCH} rows. Tokens a "
            "second by wall / CPU time: the median and the least of "
            f"{settings.repeats} runs, in turn, after one that does not count.\n",
            table(columns, rows),
        ]
    )


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = parser_of(
        "benchmark_generation", "the speed of generation", Settings.repeats
    )
    parser.add_argument("--items", type=int, default=Settings.items)
    options, command = parsed(parser, arguments)
    settings = Settings(items=options.items, repeats=options.repeats)
    if options.quick:
        settings = QUICK
    print(report(replace(settings, device=options.device), command))


if __name__ == "__main__":
    main()
