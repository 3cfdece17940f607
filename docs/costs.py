#!/usr/bin/env python3
"""Time, memory and disk of each step at size, computed from a few rates.

    python docs/costs.py --hours 60000 --gpus 64 --tokenizing 800 --mfu 0.45

prints the tables of at_size.md for your corpus, machines and rates.
"""

import argparse
import os
import sys
from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Rate(NamedTuple):
    """A number that everything is computed from."""

    value: float
    what: str
    source: str


RATES = {
    "audio_mb": Rate(
        57.9,
        "MB of FLAC, an hour",
        "measured: a file of LibriSpeech",
    ),
    "manifest_bytes": Rate(
        106,
        "bytes of a manifest with word times, a second of audio",
        "measured: a shard of 10,000 rows, 3 words a second",
    ),
    "unit_bytes": Rate(
        186,
        "bytes of a manifest with units of three streams, a second of audio",
        "measured: the same (Base: 157)",
    ),
    "utterance_seconds": Rate(
        12.3,
        "seconds of an utterance",
        "published: 281,241 of LibriSpeech-960",
    ),
    "speech_tokens": Rate(
        17.1,
        "tokens of speech, deduplicated, a second of audio",
        "published: 28.2 B of 458 K hours",
    ),
    "decoding": Rate(
        4700,
        "seconds of FLAC that a core decodes in a second",
        "measured: a core of an AMD EPYC",
    ),
    "disk": Rate(2, "GB that all machines read in a second", "assumed"),
    "cores": Rate(16, "cores beside each GPU", "assumed"),
    "aligning": Rate(
        1000, "seconds of audio that a GPU aligns in a second", "assumed"
    ),
    "tokenizing": Rate(
        1000,
        "seconds of audio that a GPU makes units of in a second",
        "assumed; measured on two cores of an AMD EPYC: 12",
    ),
    "mfu": Rate(
        0.3,
        "share of the peak, as the trainings of language models log it",
        "assumed: 0.4, of which activations made anew take a quarter",
    ),
    "hubert_mfu": Rate(0.1, "the same of a HuBERT", "assumed"),
    "peak": Rate(
        989e12, "operations of a GPU in a second, bfloat16", "H100, published"
    ),
}


class Model(NamedTuple):
    """A configuration of recipes/LibriSpeech/pretraining."""

    name: str
    parameters: float
    layers: int
    width: int
    tokens: float  # of the whole training
    batch_rows: int
    sharded: bool  # by FSDP2


ROW_TOKENS = 4096
MODELS = (
    Model("smollm2_360m", 0.362e9, 32, 960, 2.62e9, 8, False),
    Model("llama2_7b", 6.74e9, 32, 4096, 104.9e9, 2, True),
)
# recipes/LibriSpeech/phonetic/hparams/hubert.yaml: width, frames a second, and the
# kernel, frames a second and channels of each convolution.
HUBERT_SECONDS = 250_000 * 32 * 87.5
HUBERT_LAYERS, HUBERT_WIDTH, HUBERT_FRAMES = 12, 768, 25
HUBERT_CONVOLUTIONS = (
    (10, 3200, 1),
    (3, 1600, 512),
    (3, 800, 512),
    (3, 400, 512),
    (3, 200, 512),
    (2, 100, 512),
    (2, 50, 512),
    (2, 25, 512),
)


def training_seconds(model: Model, gpus: int, rates: dict[str, float]) -> float:
    """Return the time of a training, of six operations a parameter and token."""
    operations = 6 * model.parameters * model.tokens
    return operations / (gpus * rates["mfu"] * rates["peak"])


def hubert_seconds(gpus: int, rates: dict[str, float]) -> float:
    """Return the time of a round of HuBERT: six operations a product's weight."""
    products = 12 * HUBERT_LAYERS * HUBERT_WIDTH**2 * HUBERT_FRAMES
    for kernel, frames, channels in HUBERT_CONVOLUTIONS:
        products += kernel * frames * channels * 512
    operations = 6 * products * HUBERT_SECONDS
    return operations / (gpus * rates["hubert_mfu"] * rates["peak"])


def step_seconds(
    hours: float, gpus: int, rates: dict[str, float]
) -> dict[str, float]:
    """Return the time of each step that reads all recordings, or of reading."""
    seconds = hours * 3600
    reading = hours * rates["audio_mb"] / 1000 / rates["disk"]
    working = {
        "preparation": seconds / (rates["decoding"] * rates["cores"] * gpus),
        "word times": seconds / (rates["aligning"] * gpus),
        "units": seconds / (rates["tokenizing"] * gpus),
    }
    return {step: max(reading, time) for step, time in working.items()}


def time_of(seconds: float) -> str:
    """Write a time.

    Example
    -------
    >>> time_of(40), time_of(7000), time_of(86400 * 21)
    ('under a minute', '1.9 h', '21 days')
    """
    if seconds < 60:
        return "under a minute"
    for size, unit in ((86400, "days"), (3600, "h")):
        if seconds >= 1.5 * size:
            number = seconds / size
            return f"{number:.{0 if number >= 10 else 1}f} {unit}"
    return f"{seconds / 60:.0f} min"


def size_of(size: float) -> str:
    """Write a number of bytes.

    Example
    -------
    >>> size_of(3.47e12), size_of(24e9), size_of(0.36e9)
    ('3.5 TB', '24 GB', '0.36 GB')
    """
    if size >= 1e12:
        return f"{size / 1e12:.2g} TB"
    return f"{size / 1e9:.{0 if size >= 1e10 else 2}{'f' if size >= 1e10 else 'g'}} GB"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of Markdown, its first column on the left."""
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def tables(
    hours: Sequence[float], gpus: Sequence[int], rates: dict[str, float]
) -> list[str]:
    """Return the tables of sizes, times, memory, and of the rates."""
    corpora = [f"{h:,.0f} h" for h in hours]
    seconds = [h * 3600 for h in hours]
    disk = {
        "recordings, FLAC": [h * rates["audio_mb"] * 1e6 for h in hours],
        "manifests": [s * rates["manifest_bytes"] for s in seconds],
        "units": [s * rates["unit_bytes"] for s in seconds],
    }
    rows = [[name, *map(size_of, sizes)] for name, sizes in disk.items()]
    utterances = [s / rates["utterance_seconds"] / 1e6 for s in seconds]
    rows.append(["utterances, millions", *(f"{n:.3g}" for n in utterances)])
    tokens = [s * rates["speech_tokens"] / 1e9 for s in seconds]
    rows.append(["tokens of speech, billions", *(f"{n:.2g}" for n in tokens)])

    times = [
        [
            step,
            corpus,
            *(time_of(step_seconds(h, n, rates)[step]) for n in gpus),
        ]
        for step in step_seconds(1, 1, rates)
        for corpus, h in zip(corpora, hours)
    ]
    rounds = [time_of(hubert_seconds(n, rates)) for n in gpus]
    times.append(["HuBERT, a round", "any", *rounds])
    for model in MODELS:
        some = [time_of(training_seconds(model, n, rates)) for n in gpus]
        times.append([f"`{model.name}`", "any", *some])
    on = [f"{n} GPU{'s' * (n > 1)}" for n in gpus]
    return [
        table(["", *corpora], rows),
        table(["step", "recordings", *on], times),
        table(["a GPU holds", *on, "a checkpoint"], memory(gpus)),
        table(["rate", "", "", "which is"], given(rates)),
    ]


def memory(gpus: Sequence[int]) -> Iterable[list[str]]:
    """Yield what a GPU holds of each model, and the size of a checkpoint.

    Weights, gradients and AdamW's two moments are 16 bytes a parameter; a
    checkpoint has no gradients.
    """
    for model in MODELS:
        kept = model.layers * model.batch_rows * ROW_TOKENS * model.width * 2
        states = [
            16 * model.parameters / (n if model.sharded else 1) for n in gpus
        ]
        yield [
            f"`{model.name}`",
            *(f"{size_of(s)} + {size_of(kept)}" for s in states),
            size_of(12 * model.parameters),
        ]


def given(rates: dict[str, float]) -> Iterable[list[str]]:
    """Yield what the other tables are computed from."""
    for name, rate in RATES.items():
        source = rate.source if rates[name] == rate.value else "given"
        yield [f"`--{name}`", f"{rates[name]:g}", rate.what, source]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--hours", type=float, nargs="+", default=[960, 44_500, 60_000]
    )
    parser.add_argument("--gpus", type=int, nargs="+", default=[1, 8, 64])
    for name, rate in RATES.items():
        parser.add_argument(
            f"--{name}",
            type=float,
            default=rate.value,
            help=f"{rate.what}; default {rate.value:g}, {rate.source}",
        )
    options = vars(parser.parse_args())
    hours, gpus = options.pop("hours"), options.pop("gpus")
    try:
        print("\n\n".join(tables(hours, gpus, options)), flush=True)
    except BrokenPipeError:  # what reads the tables, such as head, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
