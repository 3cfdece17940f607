"""Speed of the evaluations, one item at a time and in batches.

Run from the root of the repository as
``python -m tests.benchmarks.benchmark_evaluation MANIFEST_FOLDER``. Items a second
from recordings to transcripts, and to the likelihoods of the stories' endings.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from spiritlm_plugin.dataio.batching import spread
from spiritlm_plugin.dataio.corpus.manifests import load_manifest
from spiritlm_plugin.evaluation.comprehension_groups import read_groups
from spiritlm_plugin.evaluation.comprehension_scorer import Scorer
from spiritlm_plugin.inference import SpiritLM
from spiritlm_plugin.inference.few_shot import Transcriber
from tests.benchmarks.benchmark_inference import machine, measure, table

_BUDGET = 120.0  # seconds, after which a measurement is not repeated


def transcribing(
    lm: SpiritLM, folder: Path, count: int, size: int
) -> Callable[[], None]:
    """Return what transcribes so many test utterances in batches."""
    items = load_manifest(folder / "test.json", ["text"])
    wavs = [items[name]["wav"] for name in spread(items, count)]
    transcribe = Transcriber(lm, trained=True, batch_size=size)

    def run() -> None:
        for start in range(0, count, size):
            batch = wavs[start : start + size]
            transcribe(batch, seeds=[0] * len(batch))

    return run


def comprehending(
    lm: SpiritLM, folder: Path, count: int, size: int
) -> Callable[[], None]:
    """Return what scores the endings of so many stories in batches."""
    groups = read_groups(folder / "test_storycloze.json")
    names = spread(groups, count)
    score = Scorer(lm, groups, ["S", "T", "T2S", "S2T"], size)

    def run() -> None:
        for start in range(0, count, size):
            score(names[start : start + size])

    return run


TASKS = {
    "ASR, utterances": transcribing,
    "StoryCloze in four modalities, stories": comprehending,
}


def report(
    lm: SpiritLM, folder: Path, count: int, sizes: Sequence[int], repeats: int
) -> str:
    """Measure both, and return a Markdown table."""
    rows = []
    for name, make in TASKS.items():
        runs = {str(size): make(lm, folder, count, size) for size in sizes}
        seconds = measure(runs, repeats, _BUDGET)
        rates = [count / seconds[str(size)] for size in sizes]
        cells = [f"{rate:.2f}" for rate in rates]
        rows.append([name, *cells, f"{rates[-1] / rates[0]:.2f}"])
    columns = [f"batch of {size}" for size in sizes]
    return table(["items a second", *columns, "ratio"], rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.benchmark_evaluation",
        description="Measure the speed of evaluations, print it as Markdown.",
    )
    parser.add_argument(
        "manifest_folder", type=Path, help="TinySpeech, as it was prepared"
    )
    parser.add_argument("--model", default="tinyspeech")
    parser.add_argument("--items", type=int, default=48)
    parser.add_argument("--batch_sizes", type=int, nargs=2, default=[1, 16])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args(arguments)
    lm = SpiritLM.from_hparams(
        options.model, run_opts={"device": options.device}
    )
    found = report(
        lm,
        options.manifest_folder,
        options.items,
        options.batch_sizes,
        options.repeats,
    )
    words = " ".join(sys.argv[1:] if arguments is None else arguments)
    print(f"{machine(options.device)}. `{parser.prog} {words}`\n\n{found}")


if __name__ == "__main__":
    main()
