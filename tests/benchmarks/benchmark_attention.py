"""Speed of attention in packed rows, by document and behind a mask.

Run from the root of the repository as
``python -m tests.benchmarks.benchmark_attention --device cuda``. A Llama with random
weights goes forward and back over the same packed rows by each; times are medians,
measured in turn. On a CPU short documents attend in float32, which is left out of the
second.
"""

from __future__ import annotations

import argparse
from functools import partial
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

from spiritlm_plugin.dataio.stream.packing import pack
from spiritlm_plugin.dataio.units.text_tokenizers import train_text_tokenizer
from spiritlm_plugin.dataio.units.vocabulary import Vocabulary
from spiritlm_plugin.lobes import document_attention
from spiritlm_plugin.lobes.document_attention import BY_DOCUMENT
from spiritlm_plugin.lobes.language_model import (
    LanguageModel,
    new_language_model,
)
from tests.benchmarks.benchmark_inference import machine, measure, table

_WAYS = {
    "by document": BY_DOCUMENT,
    "by document, all in bfloat16": BY_DOCUMENT,
    "behind a mask": "sdpa",
}


def random_lm(
    hidden: int,
    intermediate: int,
    layers: int,
    heads: int,
    kv_heads: int,
    size: int,
) -> LanguageModel:
    """Return a Llama with random weights."""
    text = train_text_tokenizer(["the cat sat on the mat"], 280)
    config = {
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "max_position_embeddings": size,
    }
    return new_language_model(config, Vocabulary.extend(text, phonetic=500))


def packed_positions(rows: int, size: int, mean: int) -> Tensor:
    """Return the positions of rows of documents, exponential in length."""
    generator = np.random.default_rng(0)
    lengths = generator.exponential(mean, rows * size // mean * 2)
    documents = [np.ones(int(n), np.int32) for n in lengths.clip(1, size)]
    positions = pack(documents, rows, size, generator)[1]
    return torch.from_numpy(positions).long()


def step(lm: LanguageModel, way: str, ids: Tensor, positions: Tensor) -> None:
    """Go forward and back, in bfloat16."""
    lm.model.set_attn_implementation(_WAYS[way])
    short = 0 if way.endswith("bfloat16") else document_attention._SHORT
    # `measure` is for inference; here there are gradients.
    with (
        patch.object(document_attention, "_SHORT", short),
        torch.inference_mode(False),
    ):
        lm.zero_grad()
        with torch.autocast(ids.device.type, torch.bfloat16):
            logits = lm(ids, positions=positions)
        logits.float().logsumexp(-1).mean().backward()


def report(options: argparse.Namespace) -> str:
    """Measure, and return a table in Markdown."""
    size = options.row_tokens
    sizes = (options.hidden_size, options.intermediate_size, options.layers)
    lm = random_lm(
        *sizes, options.heads, options.kv_heads or options.heads, size
    )
    lm.to(options.device).train()
    positions = packed_positions(options.rows, size, options.mean_tokens)
    ids = torch.randint(0, 700, positions.shape, device=options.device)
    steps = {way: partial(step, lm, way, ids, positions) for way in _WAYS}
    medians = measure(steps, options.repeats, budget=float("inf"))
    parameters = sum(p.numel() for p in lm.parameters()) / 1e6
    masked = medians["behind a mask"]
    rows = [
        [way, f"{1e3 * seconds:.1f}", f"{masked / seconds:.2f}"]
        for way, seconds in medians.items()
    ]
    return (
        f"{machine(options.device)}: {parameters:.0f} M parameters, "
        f"{options.rows} rows of {size} tokens, documents of "
        f"{options.mean_tokens} on average, bfloat16, forward and back\n\n"
        + table(["attention", "ms", "ratio"], rows)
    )


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.benchmark_attention",
        description="Measure attention in packed rows; print it as Markdown.",
    )
    parser.add_argument("--device", default="cpu")
    for name, default in (
        ("repeats", 5),
        ("rows", 8),
        ("row-tokens", 4096),
        ("mean-tokens", 500),
        ("hidden-size", 1024),
        ("intermediate-size", 2816),
        ("layers", 20),
        ("heads", 16),
        ("kv-heads", None),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    print(report(parser.parse_args(arguments)))


if __name__ == "__main__":
    main()
