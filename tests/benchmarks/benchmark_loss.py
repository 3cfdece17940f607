"""Memory and time of the loss of a language model, beside all logits at once.

Run from the root of the repository as ``python -m tests.benchmarks.benchmark_loss``.
Each form is run in a process of its own for its peak memory, and then both in turn,
so that a busy machine slows them alike.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor
from torch.nn import functional as F

from spiritlm_plugin.lobes.linear_cross_entropy import (
    Scores,
    cross_entropy,
    linear_cross_entropy,
)
from tests.benchmarks.benchmark_inference import machine, table

Form = Callable[[Tensor, Tensor, Tensor, Tensor], Scores]


def whole(
    hidden: Tensor, weight: Tensor, labels: Tensor, weights: Tensor
) -> Scores:
    """Return the loss of all logits, as most trainers make it."""
    return cross_entropy(F.linear(hidden, weight), labels, weights)


def ours(
    hidden: Tensor, weight: Tensor, labels: Tensor, weights: Tensor
) -> Scores:
    """Return the loss of logits that are made in parts."""
    return linear_cross_entropy(hidden, weight, None, labels, weights)


FORMS: dict[str, Form] = {"all logits": whole, "in parts": ours}


def make(tokens: int, width: int, rows: int) -> list[Tensor]:
    """Return hidden states, a projection, labels and their weights."""
    torch.manual_seed(0)
    return [
        torch.randn(tokens, width, requires_grad=True),
        (torch.randn(rows, width) / width**0.5).requires_grad_(),
        torch.randint(rows, (tokens,)),
        torch.ones(tokens),
    ]


def step(form: Form, inputs: list[Tensor]) -> None:
    """Make a loss and its gradients."""
    for tensor in inputs[:2]:
        tensor.grad = None
    form(*inputs).loss.backward()


def _peak(name: str, sizes: tuple[int, int, int], connection) -> None:
    inputs = make(*sizes)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    step(FORMS[name], inputs)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    connection.send((after - before) / 1024)


def memory(name: str, sizes: tuple[int, int, int]) -> float:
    """Return what a step of a form takes beyond its inputs, in MB."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_peak, args=(name, sizes, theirs))
    process.start()
    found = ours.recv()
    process.join()
    return found


def times(sizes: tuple[int, int, int], repeats: int) -> dict[str, list[float]]:
    """Return seconds of steps of each form, wall and CPU, in turn."""
    inputs = make(*sizes)
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in FORMS}
    for _ in range(repeats + 1):
        for name, form in FORMS.items():
            start = time.perf_counter(), time.process_time()
            step(form, inputs)
            found[name].append(
                (
                    time.perf_counter() - start[0],
                    time.process_time() - start[1],
                )
            )
    # The first one warms up.
    return {n: [median(x) for x in zip(*f[1:])] for n, f in found.items()}


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--rows", type=int, default=49792)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    sizes = options.tokens, options.width, options.rows
    print(machine("cpu"))
    print(f"{sizes[0]} tokens, width {sizes[1]}, {sizes[2]} ids\n")
    # First: a process inherits the peak of the one that starts it.
    megabytes = {name: memory(name, sizes) for name in FORMS}
    seconds = times(sizes, options.repeats)
    print(
        table(
            ["loss and gradients", "MB", "seconds", "CPU seconds"],
            [
                [
                    name,
                    f"{megabytes[name]:.0f}",
                    *(f"{s:.2f}" for s in both),
                ]
                for name, both in seconds.items()
            ],
        )
    )


if __name__ == "__main__":
    main()
