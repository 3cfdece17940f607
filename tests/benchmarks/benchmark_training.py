"""Speed of pretraining, beside the Trainer of transformers.

Run from the root of the repository as
``python -m tests.benchmarks.benchmark_training``. The same model is trained on
the same documents, with random weights: by the Trainer, each document a row
padded to the longest of its batch; by the Trainer on packed rows; and by the
Brain of the pretraining recipe, which makes its packed rows while it trains.
Times are medians, measured in turn so that a busy machine slows all alike.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

import numpy as np
import torch
import transformers
from hyperpyyaml import load_hyperpyyaml
from torch import Tensor, nn
from transformers import (
    DataCollatorForLanguageModeling,
    PreTrainedTokenizerFast,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    default_data_collator,
)

from spiritlm_plugin.dataio.corpus.stores import load_corpus
from spiritlm_plugin.dataio.corpus.unit_store import fingerprints
from spiritlm_plugin.dataio.stream.mixing import Mixture
from spiritlm_plugin.dataio.stream.packed_loader import PackedLoader
from spiritlm_plugin.dataio.stream.sources import make_sources
from spiritlm_plugin.dataio.units.text_tokenizers import train_text_tokenizer
from spiritlm_plugin.dataio.units.units import PHONETIC_RATE
from spiritlm_plugin.dataio.units.vocabulary import Vocabulary
from spiritlm_plugin.inference import SpeechCodec
from spiritlm_plugin.lobes.language_model import new_language_model
from spiritlm_plugin.metrics.modalities import ModalityFigures
from spiritlm_plugin.training.pretraining import (
    LanguageModelBrain,
    weight_groups,
)
from tests.benchmarks.benchmark_inference import machine, synchronize, table

RECIPE = Path(__file__).resolve().parents[2] / "recipes/TinySpeech/pretraining"
_MAX_GRAD_NORM = 5.0  # SpeechBrain's default
_SYLLABLES = "ba de ki lo mu na pe ri so tu va wen zal ter min dor".split()
# Of synthetic speech: frames of a word, and of a phonetic and a pitch unit.
_WORD_FRAMES = (4, 12)
_PHONETIC_FRAMES = (1, 4)
_PITCH_FRAMES = (1, 6)
_TEXTS = 4000  # that the text tokenizer is trained on
_STORIES = 0.15  # of the synthetic utterances; they have five sentences


@dataclass(frozen=True)
class Settings:
    """What is measured.

    Arguments
    ---------
    device : str
        To train on.
    precision : str
        ``"fp32"``, or ``"bf16"`` for autocast.
    repeats : int
        Of each measurement, after a run that does not count.
    steps : int
        Optimizer steps of a run.
    step_rows, row_tokens : int
        Packed rows of an optimizer step, and tokens of a row.
    hidden_size, intermediate_size, layers, heads : int
        Of the Llama that is trained.
    workers : int
        Processes that make packed rows for the Brain.
    corpus : Path, optional
        A tokenized corpus, such as ``units/train``; by default one of random
        units and words.
    utterances : int
        Of the random corpus.
    """

    device: str = "cpu"
    precision: str = "fp32"
    repeats: int = 3
    steps: int = 4
    step_rows: int = 16
    row_tokens: int = 512
    hidden_size: int = 256
    intermediate_size: int = 704
    layers: int = 6
    heads: int = 4
    workers: int = 0
    corpus: Path | None = None
    utterances: int = 4000


@dataclass(frozen=True)
class Run:
    """A training that is over.

    Arguments
    ---------
    seconds : float
        From before its first batch to after its last step.
    model : nn.Module
        What was trained.
    """

    seconds: float
    model: nn.Module


class Clock(TrainerCallback):
    """Measures an epoch; a callback of the Trainer."""

    seconds = 0.0

    def start(self) -> None:
        """Start the clock."""
        synchronize()
        self._start = time.perf_counter()

    def stop(self) -> None:
        """Stop the clock."""
        synchronize()
        self.seconds = time.perf_counter() - self._start

    def on_epoch_begin(self, *args, **kwargs):
        """Start the clock."""
        self.start()

    def on_epoch_end(self, *args, **kwargs):
        """Stop the clock."""
        self.stop()


def synthetic_corpus(
    counts: dict[str, int], utterances: int, seed: int = 0
) -> list[dict[str, Any]]:
    """Return rows as of `load_corpus`: words of syllables, units in runs.

    Sentences have 3 to 20 words, as in TinySpeech, and some utterances are
    stories of five sentences.

    Arguments
    ---------
    counts : dict of str to int
        Units of each stream.
    utterances : int
        How many.
    seed : int
        Of all that is random.
    """
    random = Random(seed)
    return [
        _utterance(counts, random, f"random{index}")
        for index in range(utterances)
    ]


def _utterance(counts: dict[str, int], random: Random, name: str) -> dict:
    sentences = 5 if random.random() < _STORIES else 1
    length = sum(random.randint(3, 20) for _ in range(sentences))
    words, end = [], 0
    for _ in range(length):
        start, end = end, end + random.randint(*_WORD_FRAMES)
        word = "".join(random.choices(_SYLLABLES, k=random.randint(1, 3)))
        times = {"start": start / PHONETIC_RATE, "end": end / PHONETIC_RATE}
        words.append({"word": word, **times})
    return {
        "utterance": name,
        "text": " ".join(word["word"] for word in words),
        "words": words,
        "phonetic_units": _runs(
            counts["phonetic"], end, _PHONETIC_FRAMES, random
        ),
        "pitch_units": _runs(
            counts["pitch"], -(-end // 2), _PITCH_FRAMES, random
        ),
        "style_units": [random.randrange(counts["style"])] * -(-end // 25),
    }


def _runs(
    count: int, frames: int, lengths: tuple[int, int], random: Random
) -> list[int]:
    units: list[int] = []
    while len(units) < frames:
        units += [random.randrange(count)] * random.randint(*lengths)
    return units[:frames]


class Benchmark:
    """The contenders, on the same model and the same documents.

    Arguments
    ---------
    settings : Settings
        What to measure.
    """

    def __init__(self, settings: Settings):
        self.settings = settings
        tokenizer = SpeechCodec.from_hparams("tinyspeech").mods.tokenizer
        counts = tokenizer.unit_counts()
        if settings.corpus is None:
            corpus = synthetic_corpus(counts, settings.utterances)
        else:
            corpus = load_corpus(settings.corpus, fingerprints(tokenizer))
        with tempfile.TemporaryDirectory() as folder:
            hparams = self._hparams(folder)
        some = (corpus[i] for i in range(min(len(corpus), _TEXTS)))
        texts = [row["text"] for row in some if row["text"]]
        text = train_text_tokenizer(texts, hparams["text_pieces"])
        torch.manual_seed(0)
        self.lm = new_language_model(
            hparams["model"], Vocabulary.extend(text, **counts)
        )
        self.mixture = Mixture(
            make_sources(hparams["shares"]["all"], corpus),
            self.lm.vocabulary,
            hparams["documents"],
            settings.row_tokens,
            hparams["seed"],
        )
        batches = list(self.loader())
        self.ids = torch.cat([batch.ids for batch in batches])
        self.positions = torch.cat([batch.positions for batch in batches])
        self.documents = [
            ids
            for row in zip(self.ids, self.positions)
            for ids in split_documents(*row)
        ]
        self.tokens = sum(map(len, self.documents))

    def loader(self) -> PackedLoader:
        """Return the stream from its beginning."""
        return PackedLoader(
            self.mixture,
            self.settings.step_rows,
            self.settings.steps,
            workers=self.settings.workers,
        )

    def loading(self) -> float:
        """Return the seconds that the loader takes alone."""
        start = time.perf_counter()
        for _ in self.loader():
            pass
        return time.perf_counter() - start

    def padded(self) -> Run:
        """Train by the Trainer, with a row for each document."""
        dataset = [{"input_ids": ids} for ids in self.documents]
        collator = DataCollatorForLanguageModeling(self._pads(), mlm=False)
        return self._train_by_trainer(dataset, collator, self.padded_rows)

    def packed(self) -> Run:
        """Train by the Trainer, on packed rows."""
        labels = self.ids.masked_fill(self.positions == 0, -100)
        names = ("input_ids", "position_ids", "labels")
        dataset = [
            dict(zip(names, row))
            for row in zip(self.ids, self.positions, labels)
        ]
        rows = self.settings.step_rows
        return self._train_by_trainer(dataset, default_data_collator, rows)

    def ours(self) -> Run:
        """Train by the recipe's Brain."""
        lm, clock = deepcopy(self.lm), Clock()
        with tempfile.TemporaryDirectory() as folder:
            hparams = self._hparams(folder)
            brain = _timed(LanguageModelBrain, clock)(
                modules={"model": lm},
                opt_class=hparams["opt_class"],
                hparams=hparams | {"scheduler": lambda *arguments: None},
                run_opts={
                    "device": self.settings.device,
                    "precision": self.settings.precision,
                    "max_grad_norm": _MAX_GRAD_NORM,
                    "noprogressbar": True,
                },
                checkpointer=hparams["checkpointer"],
            )
            brain.figures = ModalityFigures(lm.vocabulary)
            brain.fit(hparams["epoch_counter"], self.loader())
        return Run(clock.seconds, lm.model)

    @property
    def padded_rows(self) -> int:
        """Documents of a padded step, so that all take as many steps."""
        return -(-len(self.documents) // self.settings.steps)

    def padded_share(self) -> float:
        """Return the share of tokens in padded rows that are not padding."""
        lengths = list(map(len, self.documents))
        size = self.padded_rows
        batches = [lengths[i : i + size] for i in range(0, len(lengths), size)]
        return sum(lengths) / sum(max(b) * len(b) for b in batches)

    def packed_share(self) -> float:
        """Return the share of tokens in packed rows that are not padding."""
        return self.tokens / self.ids.numel()

    def _hparams(self, folder: str) -> dict[str, Any]:
        """Return the recipe's hyperparameters, for a run in a folder."""
        settings = self.settings
        overrides = {
            "output_folder": folder,
            "corpus_folders": None,
            "pretrained": None,
            "number_of_epochs": 1,
            "model": {
                "hidden_size": settings.hidden_size,
                "intermediate_size": settings.intermediate_size,
                "num_hidden_layers": settings.layers,
                "num_attention_heads": settings.heads,
                "max_position_embeddings": settings.row_tokens,
            },
        }
        path = RECIPE / "hparams" / "expressive.yaml"
        with open(path, encoding="utf-8") as file:
            return load_hyperpyyaml(file, overrides)

    def _pads(self) -> PreTrainedTokenizerFast:
        """Return a tokenizer that can do nothing but pad."""
        from tokenizers import Tokenizer
        from tokenizers.models import WordLevel

        words = {str(index): index for index in range(self.lm.rows)}
        return PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer(WordLevel(words)),
            pad_token=str(self.lm.vocabulary.eos_id),
        )

    def _train_by_trainer(self, dataset: list, collator, rows: int) -> Run:
        settings, clock = self.settings, Clock()
        model = deepcopy(self.lm.model)
        model.set_attn_implementation("sdpa")  # as the Trainer has it
        with tempfile.TemporaryDirectory() as folder:
            groups = weight_groups(model)
            optimizer = self._hparams(folder)["opt_class"](groups)
            arguments = TrainingArguments(
                folder,
                num_train_epochs=1,
                per_device_train_batch_size=rows,
                max_grad_norm=_MAX_GRAD_NORM,
                bf16=settings.precision == "bf16",
                use_cpu=settings.device == "cpu",
                dataloader_pin_memory=settings.device != "cpu",
                train_sampling_strategy="sequential",
                # With a cache, attention would not stay inside documents.
                use_cache=False,
                save_strategy="no",
                logging_strategy="no",
                report_to="none",
                disable_tqdm=True,
            )
            constant = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1)
            trainer = Trainer(
                model,
                arguments,
                collator,
                dataset,
                callbacks=[clock],
                optimizers=(optimizer, constant),
            )
            trainer.remove_callback(PrinterCallback)
            trainer.train()
        return Run(clock.seconds, model)


def _timed(brain_class: type, clock: Clock) -> type:
    """Return a Brain that measures its epoch."""

    class TimedBrain(brain_class):
        def on_stage_start(self, *args, **kwargs):
            super().on_stage_start(*args, **kwargs)
            clock.start()

        def on_stage_end(self, *args, **kwargs):
            clock.stop()
            super().on_stage_end(*args, **kwargs)

    return TimedBrain


def split_documents(ids: Tensor, positions: Tensor) -> Iterator[Tensor]:
    """Yield the documents of a packed row; each filler is one of its own."""
    starts = np.flatnonzero(positions == 0)
    for document in np.split(ids, starts[1:]):
        if len(document) > 1:
            yield document


def measure(benchmark: Benchmark) -> dict[str, float]:
    """Return the median seconds of each, run in turn after one warm-up."""
    contenders = {
        "padded": lambda: benchmark.padded().seconds,
        "packed": lambda: benchmark.packed().seconds,
        "ours": lambda: benchmark.ours().seconds,
        "loader": benchmark.loading,
    }
    times = defaultdict(list)
    for repeat in range(benchmark.settings.repeats + 1):
        for name, run in contenders.items():
            seconds = run()
            if repeat:
                times[name].append(seconds)
        print(f"repeat {repeat} is done", file=sys.stderr)
    return {name: median(values) for name, values in times.items()}


def report(settings: Settings, command: str) -> str:
    """Measure everything and return it as Markdown."""
    benchmark = Benchmark(settings)
    times = measure(benchmark)
    packed = benchmark.packed_share()
    shares = {
        "padded": ("Trainer, padded documents", benchmark.padded_share()),
        "packed": ("Trainer, packed rows", packed),
        "ours": ("ours", packed),
        "loader": ("our loader alone", packed),
    }
    rows = [
        [
            label,
            f"{benchmark.tokens / times[name]:.0f}",
            f"{times['padded'] / times[name]:.2f}",
            f"{100 * share:.1f}%",
        ]
        for name, (label, share) in shares.items()
    ]
    weights = sum(p.numel() for p in benchmark.lm.parameters()) / 1e6
    documents = len(benchmark.documents)
    columns = ["tokens a second", "times padded", "not padding"]
    return (
        f"{machine(settings.device)}, accelerate "
        f"{importlib.metadata.version('accelerate')}. `{command}`: "
        f"{weights:.2f} M parameters, {settings.precision}, {settings.steps} "
        f"steps of {settings.step_rows} rows of {settings.row_tokens} tokens, "
        f"or of {benchmark.padded_rows} padded documents; "
        f"{benchmark.tokens} tokens in {documents} documents of "
        f"{benchmark.tokens / documents:.0f} on average and "
        f"{max(map(len, benchmark.documents))} at most. Median of "
        f"{settings.repeats} runs, in turn, after one that does not count. "
        "Padding is not counted among the tokens. The Trainer gets documents "
        "that are ready; ours makes them of utterances while it trains.\n\n"
        + table(["", *columns], rows)
    )


def quick_settings(device: str = "cpu") -> Settings:
    """Return settings that show that everything runs."""
    return Settings(
        device=device,
        repeats=1,
        steps=3,
        step_rows=4,
        row_tokens=256,
        hidden_size=32,
        intermediate_size=64,
        layers=2,
        heads=2,
        utterances=60,
    )


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.benchmark_training",
        description="Measure the speed of pretraining; print it as Markdown.",
    )
    names = [
        "repeats",
        "steps",
        "step-rows",
        "row-tokens",
        "hidden-size",
    ]
    names += ["intermediate-size", "layers", "heads", "workers"]
    for name in names:
        default = getattr(Settings, name.replace("-", "_"))
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default=Settings.device)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument(
        "--corpus", type=Path, help="a tokenized corpus, such as units/train"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="run everything once with a tiny model; the times are no "
        "measurement",
    )
    arguments = sys.argv[1:] if arguments is None else arguments
    options = vars(parser.parse_args(arguments))
    torch.set_num_threads(options.pop("threads"))
    quick = options.pop("quick")
    settings = Settings(**options)
    if quick:
        settings = quick_settings(settings.device)
    transformers.logging.set_verbosity_error()
    print(report(settings, " ".join([parser.prog, *arguments])))


if __name__ == "__main__":
    main()
