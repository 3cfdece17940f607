"""A language model of text, speech and both interleaved."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from speechbrain import Stage
from speechbrain.utils.distributed import if_main_process, run_on_main
from torch import Tensor, nn
from torch.utils.data import DataLoader
from typing_extensions import NotRequired

from spiritlm_plugin.dataio.audio.writing import write_wav
from spiritlm_plugin.dataio.stream.packed_loader import (
    PackedBatch,
)
from spiritlm_plugin.dataio.stream.sources import (
    load_corpora,
    load_texts,
)
from spiritlm_plugin.dataio.units.text_tokenizers import train_text_tokenizer
from spiritlm_plugin.dataio.units.units import SAMPLE_RATE
from spiritlm_plugin.dataio.units.vocabulary import Vocabulary
from spiritlm_plugin.inference import SpeechCodec, SpiritLM
from spiritlm_plugin.lobes.adapters import add_adapters
from spiritlm_plugin.lobes.language_model import (
    LanguageModel,
    new_language_model,
)
from spiritlm_plugin.lobes.language_model_start import start_language_model
from spiritlm_plugin.lobes.packed_rows import keep_documents_apart
from spiritlm_plugin.metrics.modalities import ModalityFigures
from spiritlm_plugin.training.pretraining_stream import (
    StreamSettings,
    shares_of,
)
from spiritlm_plugin.training.samples import Sampler
from spiritlm_plugin.training.sharding import ShardedState, hold, shard
from spiritlm_plugin.training.speed import operations_of
from spiritlm_plugin.training.trainer import TrainingBrain, unwrap
from spiritlm_plugin.utils.files import safe_file_name

logger = logging.getLogger(__name__)


class PretrainingSettings(StreamSettings):
    """What the training of a language model reads."""

    codec: str
    codec_hparams: str
    pretrained: str | None
    random_weights: bool
    rope_theta: float | None
    context: int | None
    text_pieces: NotRequired[int]
    model: NotRequired[dict[str, Any]]
    lora: dict[str, Any]
    activation_checkpointing: bool
    fsdp: bool
    loss_weights: dict[str, float]
    sample_count: int
    judged_count: int
    export_dtype: str | None
    opt_class: Any


class LanguageModelBrain(TrainingBrain):
    """Trains a `LanguageModel` on packed rows of documents.

    ``codec``, ``figures``, ``entropies`` and ``sampler`` are set after it is
    made; see `prepare_validation`.

    Source: Nguyen et al., "SpiRit-LM", 2025, section 3.
    """

    codec: SpeechCodec
    figures: ModalityFigures
    entropies: dict[str, float]
    sampler: Sampler | None

    def _wrap_distributed(self) -> None:
        """Share the weights out among the processes, or copy them to all."""
        if not self.hparams.fsdp:
            super()._wrap_distributed()
            return
        shard(self.modules.model, self.precision, self.device)

    def init_optimizers(self) -> None:
        """Make the optimizer; sharded weights are saved with its state."""
        model = self.modules.model
        self._operations = operations_of(unwrap(model).model)
        self.optimizer = self.opt_class(weight_groups(unwrap(model).model))
        self.optimizers_dict = {"optimizer": self.optimizer}
        states = {"model": unwrap(model), "optimizer": self.optimizer}
        if self.hparams.fsdp:
            states = {"sharded": ShardedState(model, self.optimizer)}
        self.checkpointer.add_recoverables(states)

    def on_fit_batch_start(self, batch: PackedBatch, should_step: bool) -> None:
        """Set the seed, and the rate of this step."""
        super().on_fit_batch_start(batch, should_step)
        self.hparams.scheduler(self.optimizer, self.optimizer_step + 1)
        tokens = batch.ids.numel()
        attended = float((batch.positions + 1).sum())
        of_token, of_pair = self._operations
        self.speed.count(of_token * tokens + of_pair * attended, tokens=tokens)

    @contextmanager
    def no_sync(self, use: bool = True) -> Iterator[None]:
        """Add gradients up over processes in the last batch of a step alone."""
        with super().no_sync(use):
            if self.hparams.fsdp:
                self.modules.model.model.set_requires_gradient_sync(not use)
            yield

    def go_on_with_schedule(self) -> None:
        """Leave the rate, which is set before the step."""

    def compute_forward(
        self, batch: PackedBatch, stage: Stage
    ) -> tuple[Tensor, dict[str, tuple[int, float, float]]]:
        """Return the summed loss and its figures, documents kept apart."""
        ids = batch.ids.to(self.device, non_blocking=True)
        labels = batch.labels
        score = partial(
            self.figures, labels=labels.to(self.device, non_blocking=True)
        )
        return self.modules.model(ids, positions=batch.positions, score=score)

    def compute_objectives(
        self,
        predictions: tuple[Tensor, dict[str, tuple[int, float, float]]],
        batch: PackedBatch,
        stage: Stage,
    ) -> Tensor:
        """Return the loss, so that all tokens of a step count alike.

        Gradients are averaged over processes and batches, which hold
        different numbers of tokens.
        """
        loss, figures = predictions
        for name, (count, mean, accuracy) in figures.items():
            self.record(
                count,
                **{"loss": mean, f"loss_{name}": mean},
                **{f"accuracy_{name}": accuracy},
            )
        return loss * batch.shares / batch.step_targets

    def on_valid_end(self, stats: dict[str, float], epoch: int) -> None:
        """Compare with unigrams, and let the model say something."""
        for name, entropy in self.entropies.items():
            stats[f"unigram_{name}"] = entropy
        if self.sampler is None:
            return
        speaking = self.speaking_model()
        stats |= self.sampler.judge(speaking)
        samples = self.sampler.sample(speaking)
        run_on_main(self.write_samples, args=[samples, epoch])

    def speaking_model(self) -> SpiritLM:
        """Return the model as users call it."""
        modules = {
            "tokenizer": self.codec.mods.tokenizer,
            "vocoder": self.codec.mods.vocoder,
            "language_model": unwrap(self.modules.model),
        }
        return SpiritLM(
            modules,
            {},
            run_opts={"device": str(self.device)},
            freeze_params=False,
        )

    def write_samples(self, samples: list[dict[str, Any]], epoch: int) -> None:
        """Write what the model says as JSON lines and wavs."""
        folder = Path(self.hparams.output_folder) / "samples" / f"epoch{epoch}"
        folder.mkdir(parents=True, exist_ok=True)
        tensorboard = getattr(self.hparams, "tensorboard_logger", None)
        with open(folder / "samples.jsonl", "w", encoding="utf-8") as file:
            for sample in samples:
                wav = sample.pop("wav", None)
                if wav is not None and len(wav):
                    name = f"{sample['utterance']}_{sample['task']}"
                    sample["file"] = f"{safe_file_name(name)}.wav"
                    write_wav(folder / sample["file"], wav)
                    if tensorboard is not None:
                        tensorboard.log_audio(name, wav, SAMPLE_RATE)
                file.write(json.dumps(sample, ensure_ascii=False) + "\n")


def weight_groups(model: nn.Module) -> list[dict[str, Any]]:
    """Return the weights that learn, as an optimizer takes them.

    Norms, biases and embeddings do not decay: there is nothing to keep small
    in what only scales, shifts or looks up.

    Source: as Radford et al. and most others train them, such as nanoGPT.

    Arguments
    ---------
    model : nn.Module
        Tied weights count as embeddings.

    Returns
    -------
    list of dict
        What decays as the optimizer says, and what does not.

    Example
    -------
    >>> model = torch.nn.Sequential(torch.nn.Embedding(3, 2), torch.nn.Linear(2, 2))
    >>> decays, stays = weight_groups(model)
    >>> [len(group["params"]) for group in (decays, stays)]
    [1, 2]
    """
    embeddings = {
        weight
        for module in model.modules()
        if isinstance(module, nn.Embedding)
        for weight in module.parameters()
    }
    groups: list[dict[str, Any]] = [
        {"params": []},
        {"params": [], "weight_decay": 0.0},
    ]
    for weight in model.parameters():
        if weight.requires_grad:
            stays = weight.ndim < 2 or weight in embeddings
            groups[stays]["params"].append(weight)
    return [group for group in groups if group["params"]]


def make_language_model(
    hparams: PretrainingSettings, units: Mapping[str, int]
) -> LanguageModel:
    """Start from a text model, or from nothing.

    Arguments
    ---------
    hparams : PretrainingSettings
        The recipe's. With ``fsdp`` the weights wait in the main process until
        they are shared out; see `hold`.
    units : dict
        How many there are of each stream.

    Raises
    ------
    ValueError
        If rows are longer than the context, adapters are to be sharded, or a
        model is whose documents run apart.
    """
    lm = load_to_train(partial(_start, hparams, units), hparams)
    if hparams["row_tokens"] > lm.context:
        raise ValueError(
            f"row_tokens {hparams['row_tokens']} are more than the model's "
            f"context of {lm.context}; lower it, or raise context"
        )
    return lm


def load_to_train(
    load: Callable[[], LanguageModel], hparams: Mapping[str, Any]
) -> LanguageModel:
    """Load a model in the way that it is trained.

    Arguments
    ---------
    load : callable
        Returns the model.
    hparams : dict
        Of a recipe: ``lora``, ``fsdp`` and ``activation_checkpointing``.

    Raises
    ------
    ValueError
        If adapters are to be sharded.

    Example
    -------
    >>> hparams = {
    ...     "lora": {"r": 2, "target_modules": ["q_proj"]},
    ...     "fsdp": False,
    ...     "activation_checkpointing": False,
    ... }
    >>> folder = f"{checkpoints}/spiritlm_model/spirit-lm-base-7b"
    >>> lm = load_to_train(lambda: load_language_model(folder), hparams)
    >>> type(lm.model).__name__
    'PeftModelForCausalLM'
    """
    if hparams["lora"]["r"] and hparams["fsdp"]:
        raise ValueError(
            "lora and fsdp do not go together: adapters are for models that "
            "one GPU holds; choose one of them"
        )
    lm = hold(load) if hparams["fsdp"] else load()
    if hparams["activation_checkpointing"]:
        lm.model.gradient_checkpointing_enable()
    if hparams["lora"]["r"]:
        add_adapters(lm, hparams["lora"])
    return lm


def _start(
    hparams: PretrainingSettings, units: Mapping[str, int]
) -> LanguageModel:
    lm = _make(hparams, units)
    keep_documents_apart(lm)
    if hparams["attend_across"] or not lm.apart:
        lm.apart = False
        return lm
    kind = lm.model.config.model_type
    if hparams["fsdp"]:
        raise ValueError(
            f"in a packed row a {kind} model sees other documents, and where "
            "each runs by itself processes do not call it equally often, as "
            "fsdp has to; train with fsdp false, or attend_across true"
        )
    if if_main_process():
        logger.warning(
            "In a packed row a %s model sees other documents. So each runs by "
            "itself, in batches of like length: losses are right, steps slower",
            kind,
        )
    return lm


def _make(
    hparams: PretrainingSettings, units: Mapping[str, int]
) -> LanguageModel:
    if hparams["pretrained"]:
        return start_language_model(
            hparams["pretrained"],
            units,
            hparams["rope_theta"],
            hparams["context"],
            random_weights=hparams["random_weights"],
        )
    texts = load_texts(hparams["text_files"] or ())["text"]
    text = train_text_tokenizer(texts, hparams["text_pieces"])
    sizes = {"max_position_embeddings": hparams["context"]}
    return new_language_model(
        hparams["model"] | sizes, Vocabulary.extend(text, **units)
    )


def prepare_validation(
    brain: LanguageModelBrain,
    codec: SpeechCodec,
    valid_loader: DataLoader,
    parts: Mapping[str, str],
) -> None:
    """Give a Brain what it validates with: figures, unigrams and samples.

    Arguments
    ---------
    brain : LanguageModelBrain
        Whose attributes are set.
    codec : SpeechCodec
        With which the model speaks.
    valid_loader : DataLoader
        Of `make_loaders`.
    parts : dict
        `fingerprints` of its tokenizer.
    """
    hparams: Any = vars(brain.hparams)
    vocabulary = unwrap(brain.modules.model).vocabulary
    brain.codec = codec.to(brain.device)
    brain.figures = ModalityFigures(vocabulary, hparams["loss_weights"])
    brain.entropies = brain.figures.unigram_entropy(
        batch.labels for batch in valid_loader
    )
    brain.sampler = None
    if hparams["sample_count"] and hparams["corpus_folders"]:
        rows = load_corpora(hparams["corpus_folders"], "valid", parts)
        counts = hparams["sample_count"], hparams["judged_count"]
        brain.sampler = Sampler(rows, shares_of(hparams), *counts)
