"""Classifiers of the sentiment of texts, and of voices."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import torch
from speechbrain import Stage
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.utils.data_pipeline import provides, takes
from speechbrain.utils.distributed import if_main_process
from torch import Tensor
from torch.nn import functional as F
from transformers import BatchEncoding, BatchFeature, PreTrainedModel
from typing_extensions import NotRequired

from spiritlm_plugin.dataio.audio.reading import read_audio
from spiritlm_plugin.dataio.corpus.stsp import SENTIMENTS, STSPArchive
from spiritlm_plugin.dataio.units.units import SAMPLE_RATE
from spiritlm_plugin.lobes.voice_changes import change_in_float32
from spiritlm_plugin.metrics.sentiment_classifiers import extract, tokenize
from spiritlm_plugin.training.trainer import (
    LoaderSettings,
    TrainingBrain,
    unwrap,
)


class ClassifierSettings(LoaderSettings):
    """What the training of a classifier reads."""

    data_folder: str
    modality: Literal["text", "speech"]
    datasets: list[str]
    processor: Any
    model: Any
    segment_seconds: NotRequired[float]
    label_smoothing: float
    augmentation: NotRequired[Any]
    opt_class: Any


class SentimentBrain(TrainingBrain):
    """Learns the sentiments of prompts; subclasses read them."""

    def read(self, batch: Any, stage: Stage) -> BatchEncoding | BatchFeature:
        """Return the inputs of the model."""
        raise NotImplementedError

    def compute_forward(self, batch: Any, stage: Stage) -> Tensor:
        """Return the scores of sentiments."""
        inputs = self.read(batch, stage).to(self.device)
        return self.modules.model(**inputs).logits

    def compute_objectives(
        self, logits: Tensor, batch: Any, stage: Stage
    ) -> Tensor:
        """Return the cross-entropy."""
        labels = batch.label.to(self.device)
        accuracy = (logits.argmax(-1) == labels).float().mean()
        self.record(len(labels), accuracy=accuracy)
        return F.cross_entropy(
            logits, labels, label_smoothing=self.hparams.label_smoothing
        )


class TextBrain(SentimentBrain):
    """Reads texts."""

    def read(self, batch: Any, stage: Stage) -> BatchEncoding:
        """Return tokens."""
        return tokenize(self.hparams.processor, batch.prompt)


class VoiceBrain(SentimentBrain):
    """Hears voices; pieces of them, changed, in training."""

    def read(self, batch: Any, stage: Stage) -> BatchFeature:
        """Return waveforms as the model takes them."""
        wavs, relative = batch.prompt
        if stage == Stage.TRAIN:
            lengths = (relative * wavs.shape[1]).round().long()
            limit = self.hparams.segment_seconds * SAMPLE_RATE
            wavs = crop(wavs, lengths, min(int(lengths.min()), limit))
            changes = self.hparams.augmentation
            wavs, _ = change_in_float32(changes, wavs, torch.ones(len(wavs)))
        return extract(self.hparams.processor, wavs)


def crop(wavs: Tensor, lengths: Tensor, samples: int) -> Tensor:
    """Cut a piece of so many samples out of each item.

    All are of the same length, so that models that hear padding hear none.
    """
    spare = (lengths - samples).float()
    starts = (torch.rand(len(lengths)) * (spare + 1)).long()
    return wavs.gather(1, starts[:, None] + torch.arange(samples))


def make_dataset(
    hparams: ClassifierSettings, archive: STSPArchive, split: str
) -> DynamicItemDataset:
    """Return prompts with the numbers of their sentiments."""
    records = archive.records(hparams["datasets"], split, hparams["modality"])
    is_speech = hparams["modality"] == "speech"
    data = {
        record.id: {
            "content": str(record.prompt),
            "label": SENTIMENTS.index(record.sentiment),
        }
        for record in records
    }

    @takes("content")
    @provides("prompt")
    def prompt(content: str) -> Tensor | str:
        return read_audio(content) if is_speech else content

    return DynamicItemDataset(data, [prompt], ["id", "prompt", "label"])


def check(hparams: ClassifierSettings) -> None:
    """Raise ValueError if recordings would be validated with padding."""
    padded = hparams["valid_loader"].get("batch_size") != 1
    if hparams["modality"] == "speech" and padded:
        raise ValueError(
            "recordings are validated one by one, without padding: set "
            "valid_loader to {batch_size: 1}"
        )


def name_labels(model: PreTrainedModel) -> None:
    """Write the sentiments into a model's configuration."""
    if model.config.num_labels != len(SENTIMENTS):
        raise ValueError(
            f"the model has {model.config.num_labels} outputs, not one for "
            f"each of {', '.join(SENTIMENTS)}; set num_labels: 3"
        )
    model.config.id2label = dict(enumerate(SENTIMENTS))
    model.config.label2id = {s: i for i, s in enumerate(SENTIMENTS)}
    for name, parameter in model.named_parameters():
        # Without a gradient it would stop DistributedDataParallel.
        if name.endswith("masked_spec_embed"):
            parameter.requires_grad_(False)


def evaluate(
    brain: SentimentBrain,
    hparams: ClassifierSettings,
    data: DynamicItemDataset,
) -> None:
    """Write how often the best checkpoint is right, and the classifier."""
    brain.evaluate(
        data, max_key="accuracy", test_loader_kwargs=hparams["valid_loader"]
    )
    if if_main_process():
        folder = Path(hparams["output_folder"])
        text = json.dumps({"test": brain.test_stats}, indent=2)
        (folder / "report.json").write_text(text, encoding="utf-8")
        print(text)
        unwrap(brain.modules.model).save_pretrained(folder / "classifier")
        hparams["processor"].save_pretrained(folder / "classifier")
