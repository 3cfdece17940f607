"""What a corpus' size costs the training of a language model.

Run from the root of the repository as

    python -m tests.benchmarks.benchmark_scale --utterances 1000 100000 1000000

A tokenized corpus of so many utterances, as long as those of LibriSpeech, is
made up in a temporary folder: shards of 250,000 that hold the same 10,000 over
and over, and are one file on the disk, which is in memory by then: what a slow
disk would add is not measured, nor are imports. In a process of its own each is
opened and mixed as a training does it; ``--forms`` names the documents. Utterances of
60,000 hours are 17,600,000.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow

from spiritlm_plugin.dataio.corpus.checksums import keep_checksum
from spiritlm_plugin.dataio.corpus.shards import (
    make_row,
    make_table,
    write_tables,
)
from spiritlm_plugin.dataio.corpus.stores import DESCRIPTION, shard_path
from spiritlm_plugin.dataio.stream.documents import FORMS, DocumentMaker
from spiritlm_plugin.dataio.stream.mixing import Mixture
from spiritlm_plugin.dataio.stream.packed_loader import PackedLoader
from spiritlm_plugin.dataio.stream.reading import SourceReader
from spiritlm_plugin.dataio.stream.sources import load_corpora, make_sources
from spiritlm_plugin.dataio.units.text_tokenizers import train_text_tokenizer
from spiritlm_plugin.dataio.units.units import SpeechUnits
from spiritlm_plugin.dataio.units.vocabulary import Vocabulary

DIFFERENT, SHARD = 10_000, 250_000
ROW_TOKENS, STEP_ROWS, STEPS = 4096, 64, 2
WORLDS = (1, 8, 64)


def words_of(generator: np.random.Generator) -> list[str]:
    """Return 2,000 words of one to three syllables."""
    syllables = ["ka", "lo", "mi", "ter", "san", "du", "pe", "ri", "on", "el"]
    return [
        "".join(generator.choice(syllables, generator.integers(1, 4)))
        for _ in range(2000)
    ]


def make_utterances(count: int, expressive: bool) -> pyarrow.Table:
    """Return utterances of 12 s, 32 words, and units in runs of 1.6."""
    generator = np.random.default_rng(0)
    known = words_of(generator)
    rows = []
    for index in range(count):
        words = generator.choice(known, generator.integers(20, 45)).tolist()
        ends = generator.uniform(0.2, 0.55, len(words)).cumsum().round(2)
        spans = zip(words, [0.0, *ends], ends)
        frames = int(ends[-1] * 25)
        runs = np.repeat(
            generator.integers(0, 501, frames),
            generator.geometric(1 / 1.6, frames),
        )
        streams = [runs[:frames]]
        if expressive:
            streams.append(generator.integers(0, 64, frames // 2))
            streams.append(generator.integers(0, 100, frames // 25 + 1))
        item = {
            "wav": f"{index}.flac",
            "duration": float(ends[-1]),
            "text": " ".join(words),
            "words": [[w, float(a), float(b)] for w, a, b in spans],
            "group": f"chapter{index // 40}",
            "position": index % 40,
        }
        rows.append(make_row(f"u{index}", item, SpeechUnits(*streams)))
    return make_table(rows)


def make_corpus(folder: Path, utterances: int, base: pyarrow.Table) -> None:
    """Write a tokenized corpus; its whole shards are one file on the disk."""
    folder.mkdir(parents=True)
    whole, rest = divmod(utterances, SHARD)
    sizes = [SHARD] * whole + [rest] * bool(rest)
    for index, size in enumerate(sizes):
        path = shard_path(folder, index)
        if index and size == SHARD:
            os.link(shard_path(folder, 0), path)
            keep_checksum(path, path)
            continue
        copies = [base] * (size // len(base))
        write_tables([*copies, base[: size % len(base)]], path)
    description = {"parts": {"phonetic": "none"}, "utterances": utterances}
    description |= {"shards": len(sizes)}
    (folder / DESCRIPTION).write_text(json.dumps(description))


def peak_memory() -> int:
    """Return the most bytes that this process has held, as Linux counts.

    What `resource` says is what the process that started this one had.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    kilobytes = next(x for x in lines if x.startswith("VmHWM"))
    return int(kilobytes.split()[1]) * 1024


def measure(folder: str, forms: Sequence[str], expressive: bool) -> dict:
    """Return what opening and reading a corpus costs, in this process."""
    words = words_of(np.random.default_rng(0))
    units = {"pitch": 64, "style": 100} if expressive else {}
    vocabulary = Vocabulary.extend(train_text_tokenizer(words, 600), **units)
    start, cpu = time.perf_counter(), time.process_time()
    corpus = load_corpora([folder], "train")
    sources = make_sources(dict.fromkeys(forms, 1.0), corpus)
    maker = DocumentMaker(shots=(2, 10), document_tokens=ROW_TOKENS)
    mixture = Mixture(sources, vocabulary, maker, ROW_TOKENS, seed=0)
    found = {
        "start-up s": time.perf_counter() - start,
        "CPU s": time.process_time() - cpu,
        "memory MB": peak_memory() / 1e6,
    }
    made = []
    encode = SourceReader._encode

    def counted(*arguments):
        made.append(1)
        return encode(*arguments)

    SourceReader._encode = counted
    for world in WORLDS:
        made.clear()
        loader = PackedLoader(mixture, STEP_ROWS, STEPS, world_size=world)
        cpu = time.process_time()
        batches = list(loader)
        if world == 1:
            tokens = sum(batch.ids.numel() for batch in batches)
            rate = tokens / (time.process_time() - cpu) / 1000
            found["K tokens / CPU s"] = rate
            ends = vocabulary.eos_id
            padded = sum(
                int(((b.ids == ends) & (b.positions == 0)).sum())
                for b in batches
            )
            found["full %"] = 100 * (1 - padded / tokens)
        found[f"documents, 1 of {world}"] = len(made)
    return found


def main() -> None:
    """Measure each size, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--utterances", type=int, nargs="+", default=[1000, 100_000, 1_000_000]
    )
    parser.add_argument(
        "--forms",
        nargs="+",
        default=["text", "speech", "interleaved"],
        choices=FORMS,
    )
    parser.add_argument(
        "--expressive", action="store_true", help="with pitch and style"
    )
    parser.add_argument(
        "--folder", help="for the corpora; temporary by default"
    )
    arguments = parser.parse_args()
    # Not above: it would be in the memory of what is measured.
    from tests.benchmarks.benchmark_inference import machine, table

    print(machine("cpu"), flush=True)
    base = make_utterances(DIFFERENT, arguments.expressive)
    context = multiprocessing.get_context("spawn")
    rows = []
    for count in arguments.utterances:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            make_corpus(Path(folder) / "train", count, base)
            with context.Pool(1) as pool:
                found = pool.apply(
                    measure, (folder, arguments.forms, arguments.expressive)
                )
        rows.append([f"{count:,}", *(f"{v:,.1f}" for v in found.values())])
    print(table(["utterances", *found], rows))


if __name__ == "__main__":
    main()
