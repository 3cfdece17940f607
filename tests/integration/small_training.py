"""A small training of a language model by the recipe's Brain, in processes.

Its rows are made here, so that the losses depend on the model and the trainer
and on nothing else. A server that has everything imported forks the processes:
they start at once.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import torch
import torch.distributed as dist
from hyperpyyaml import load_hyperpyyaml
from safetensors.torch import save_file
from speechbrain.dataio.dataloader import LoopedLoader
from speechbrain.utils.distributed import ddp_init_group
from torch import Tensor
from torch.utils.data import DataLoader

from spiritlm_plugin.dataio.stream.packed_loader import PackedBatch
from spiritlm_plugin.dataio.units.text_tokenizers import SentencePieceText
from spiritlm_plugin.dataio.units.vocabulary import Vocabulary
from spiritlm_plugin.lobes.language_model import new_language_model
from spiritlm_plugin.metrics.modalities import ModalityFigures
from spiritlm_plugin.training.pretraining import LanguageModelBrain
from spiritlm_plugin.training.sharding import full_state, hold
from spiritlm_plugin.training.trainer import unwrap
from spiritlm_plugin.utils.processes import rank_and_world_size

ROOT = Path(__file__).resolve().parents[2]
HPARAMS = ROOT / "recipes/TinySpeech/pretraining/hparams/expressive.yaml"
TOKENIZER = (
    ROOT / "tests/conformance/small/checkpoints/spiritlm_model"
    "/spirit-lm-base-7b/tokenizer.model"
)
UNITS = {"phonetic": 501, "pitch": 64, "style": 100}
ROWS, SIZE = 4, 32
# Rows are of so many ids, of which each says what follows, but for some.
_LETTERS, _RULE, _NOISE = 48, 7, 0.1


@dataclass(frozen=True)
class Training:
    """A training.

    Arguments
    ---------
    folder : Path
        Gets what a recipe's output folder gets, and when it is over
        ``losses.json`` and ``weights.safetensors``.
    kind : str
        ``"single"``, ``"ddp"`` or ``"fsdp"``; the latter two are of two
        processes.
    epochs, steps : int
        How many epochs, and the steps of each.
    width, layers : int
        Of the model.
    lr : float
        The learning rate.
    limit : int, optional
        Steps after which it stops early.
    save : bool
        Whether a checkpoint is saved after each step.
    room : int, optional
        Bytes that a file may have.
    """

    folder: Path
    kind: str = "single"
    epochs: int = 2
    steps: int = 16
    width: int = 16
    layers: int = 1
    lr: float = 0.0005
    limit: int | None = None
    save: bool = False
    room: int | None = None

    @property
    def processes(self) -> int:
        """How many there are."""
        return 1 if self.kind == "single" else 2

    def losses(self) -> dict[str, float]:
        """Return the losses by step, of the run that came to the end."""
        return json.loads((self.folder / "losses.json").read_text())

    def log(self) -> dict[str, str]:
        """Return the log's lines by epoch."""
        lines = (self.folder / "train_log.txt").read_text().splitlines()
        return {line.partition(",")[0]: line for line in lines}

    def weights(self) -> bytes:
        """Return the final weights, as a file has them."""
        return (self.folder / "weights.safetensors").read_bytes()


class Rows(LoopedLoader):
    """The rows of a process; the next ones follow from how many there were."""

    def __init__(self, vocabulary: Vocabulary, steps: int):
        super().__init__(None, steps)
        self.vocabulary = vocabulary

    def __iter__(self) -> Rows:
        if self.iterator is None:
            self.iterator = self._batches(self.total_steps)
        return self

    def _batches(self, step: int) -> Iterator[PackedBatch]:
        rank, size = rank_and_world_size()
        own = slice(rank * ROWS // size, (rank + 1) * ROWS // size)
        while True:
            ids, positions = make_rows(step, len(self.vocabulary))
            yield PackedBatch(ids[own], positions[own], ROWS * (SIZE - 1), size)
            step += 1


def make_rows(step: int, tokens: int) -> tuple[Tensor, Tensor]:
    """Return ids that follow each other by a rule and noise, in documents."""
    random = Random(step)
    alphabet = range(3, tokens, tokens // _LETTERS)
    letters, positions = [], []
    for place in range(ROWS * SIZE):
        begins = place % SIZE == 0 or random.random() < 1 / SIZE
        drawn = begins or random.random() < _NOISE
        letter = random.randrange(_LETTERS) if drawn else letters[-1] + _RULE
        letters.append(letter % _LETTERS)
        positions.append(0 if begins else positions[-1] + 1)
    ids = [alphabet[letter] for letter in letters]
    shape = ROWS, SIZE
    return torch.tensor(ids).view(shape), torch.tensor(positions).view(shape)


class WatchedBrain(LanguageModelBrain):
    """Keeps its losses, and says when it begins a step."""

    watcher: Any = None

    def on_fit_batch_start(self, batch, should_step):
        if self.watcher is not None:
            self.watcher.send(self.optimizer_step)
        super().on_fit_batch_start(batch, should_step)

    def on_fit_batch_end(self, batch, outputs, loss, should_step):
        super().on_fit_batch_end(batch, outputs, loss, should_step)
        loss = loss.detach().clone()
        if dist.is_initialized():
            dist.all_reduce(loss)
            loss /= dist.get_world_size()
        self.losses[self.optimizer_step - 1] = float(loss)


def make_brain(training: Training) -> tuple[WatchedBrain, Any]:
    """Return a Brain and its loader, by the recipe's YAML file."""
    overrides = {
        "output_folder": str(training.folder),
        "corpus_folders": None,
        "pretrained": None,
        "number_of_epochs": training.epochs,
        "epoch_steps": training.steps,
        "warmup_steps": 4,
        "lr": training.lr,
        "fsdp": training.kind == "fsdp",
        "tensorboard_logger": None,
        "model": {
            "hidden_size": training.width,
            "intermediate_size": 3 * training.width,
            "num_hidden_layers": training.layers,
            "num_attention_heads": 4,
            "max_position_embeddings": SIZE,
        },
    }
    with open(HPARAMS, encoding="utf-8") as file:
        hparams = load_hyperpyyaml(file, overrides)
    vocabulary = Vocabulary.extend(SentencePieceText(TOKENIZER), **UNITS)
    torch.manual_seed(hparams["seed"])
    lm = (hold if hparams["fsdp"] else _call)(
        lambda: new_language_model(hparams["model"], vocabulary)
    )
    loader = Rows(vocabulary, training.steps)
    hparams["checkpointer"].add_recoverable("loader", loader)
    brain = WatchedBrain(
        modules={"model": lm},
        opt_class=hparams["opt_class"],
        hparams=hparams,
        run_opts={
            "device": "cpu",
            "distributed_backend": "gloo",
            "noprogressbar": True,
            "ckpt_interval_steps": int(training.save),
            "optimizer_step_limit": training.limit,
        },
        checkpointer=hparams["checkpointer"],
    )
    brain.figures = ModalityFigures(vocabulary, hparams["loss_weights"])
    brain.entropies, brain.sampler, brain.losses = {}, None, {}
    return brain, loader


def _call(make: Any) -> Any:
    return make()


def train(training: Training, rank: int, port: int, watcher: Any) -> None:
    """Train in this process, and leave it."""
    torch.set_num_threads(1)
    if training.room is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (training.room,) * 2)
    if training.processes > 1:
        size = str(training.processes)
        ranks = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        os.environ.update({"WORLD_SIZE": size, **ranks, **address})
        ddp_init_group({"distributed_backend": "gloo"})
    brain, loader = make_brain(training)
    brain.watcher = watcher
    valid = [
        PackedBatch(
            *make_rows(-1, len(loader.vocabulary)), ROWS * (SIZE - 1), 1
        )
    ]
    try:
        brain.fit(
            brain.hparams.epoch_counter,
            loader,
            DataLoader(valid, batch_size=None),
        )
    except OSError as error:
        if watcher is not None:
            watcher.send(f"{type(error).__name__}: {error}")
        os._exit(1)
    finish(brain, training)
    if dist.is_initialized():
        dist.barrier()
    os._exit(0)  # as recipes leave; see `spiritlm_plugin.utils.recipes.run`


def finish(brain: WatchedBrain, training: Training) -> None:
    """Write the losses and the weights."""
    lm = unwrap(brain.modules.model)
    sharded = training.kind == "fsdp"
    state = full_state(lm) if sharded else lm.model.state_dict()
    if rank_and_world_size()[0]:
        return
    state.pop("lm_head.weight")  # which is the embedding
    save_file(state, training.folder / "weights.safetensors")
    (training.folder / "losses.json").write_text(json.dumps(brain.losses))


class Run:
    """Processes that train.

    Arguments
    ---------
    training : Training
        What they do.
    """

    def __init__(self, training: Training):
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])
        training.folder.mkdir(parents=True, exist_ok=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.watcher, theirs = context.Pipe(duplex=False)
        self.processes = [
            context.Process(
                target=train,
                args=(training, rank, port, None if rank else theirs),
            )
            for rank in range(training.processes)
        ]
        for process in self.processes:
            process.start()
        theirs.close()

    def steps(self) -> Iterator[Any]:
        """Yield the number of each step that begins, or what went wrong."""
        with suppress(EOFError):
            while True:
                yield self.watcher.recv()

    def kill(self) -> None:
        """Kill all processes, as a machine that fails does."""
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.join()

    def finish(self) -> None:
        """Wait until they are done."""
        for _ in self.steps():
            pass
        for process in self.processes:
            process.join()
            assert process.exitcode == 0


def run(training: Training, **changes: Any) -> Training:
    """Train to the end."""
    training = replace(training, **changes)
    Run(training).finish()
    return training
