"""Speed of generation with quantized weights, against float32 by transformers.

Run from the root of the repository as
``python -m tests.benchmarks.benchmark_quantized``. The model is that of
`tests.benchmarks.benchmark_generation`, one prompt, the likeliest tokens of
speech; all forms in turn.
"""

from __future__ import annotations

import argparse
import copy
from functools import partial

import torch

from spiritlm_plugin.lobes.language_model import LanguageModel
from spiritlm_plugin.lobes.quantized_weights import FORMS
from tests.benchmarks.benchmark_generation import (
    QUICK,
    Settings,
    build,
    draw_ids,
    ours,
    plainly,
)
from tests.benchmarks.machine import machine, table, timings

HEADER = [
    "",
    "plain float32, tokens/s",
    "ours, tokens/s",
    "ours / plain, by wall / CPU",
    "MB of weights",
]


def quantized_rows(settings: Settings) -> list[list[str]]:
    """Return a row for each form of weights.

    Arguments
    ---------
    settings : Settings
        Of the model, the prompt and the tokens to generate.
    """
    exact = build(settings, torch.float32)
    forms = {"float32": exact}
    for form in FORMS:
        forms[form] = copy.deepcopy(exact)
        forms[form].quantize(form)
    prompts = [[1, *draw_ids(settings.prompt, 0)]]
    arguments = (prompts, settings.new_tokens, 0.0, False)
    runs = {form: partial(ours, lm, *arguments) for form, lm in forms.items()}
    runs["plain"] = partial(plainly, exact, *arguments)
    times = timings(runs, settings.repeats)
    plain, tokens = times["plain"], settings.new_tokens
    return [
        [
            f"one prompt, {form}",
            f"{tokens / plain.wall:.1f}",
            f"{tokens / times[form].wall:.1f}",
            plain.over(times[form]),
            f"{megabytes(lm):.1f}",
        ]
        for form, lm in forms.items()
    ]


def megabytes(lm: LanguageModel) -> float:
    """Return the size of a model's weights, the embedding with them."""
    tensors = lm.state_dict().values()
    return sum(x.numel() * x.element_size() for x in tensors) / 1e6


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tiny model")
    parser.add_argument("--threads", type=int, help="of PyTorch")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    settings = QUICK if arguments.quick else Settings()
    print(machine(settings.device))
    print(table(HEADER, quantized_rows(settings)))


if __name__ == "__main__":
    main()
