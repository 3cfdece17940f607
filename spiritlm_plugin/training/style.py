"""A style encoder: the style of each second, then clusters of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import ceil
from pathlib import Path
from typing import Any

import torch
from speechbrain import Stage
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.utils.data_pipeline import provides, takes
from speechbrain.utils.distributed import if_main_process
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import NotRequired

from spiritlm_plugin.dataio.audio.reading import read_audio
from spiritlm_plugin.dataio.corpus.manifests import load_manifest
from spiritlm_plugin.dataio.units.units import SAMPLE_RATE
from spiritlm_plugin.lobes.masking import frame_mask
from spiritlm_plugin.lobes.style import StyleTokenizer
from spiritlm_plugin.lobes.voice_changes import change_in_float32
from spiritlm_plugin.training.trainer import LoaderSettings, TrainingBrain
from spiritlm_plugin.utils.files import read_json


class StyleSettings(LoaderSettings):
    """What the training of a style encoder reads."""

    manifest_folder: str
    test_splits: list[str]
    styles: NotRequired[list[str]]
    labels_folder: str | None
    shortest_seconds: float
    tokenizer: Any
    segment_seconds: int
    label_smoothing: float
    augmentation: Any
    opt_class: Any


class Classifier(nn.Module):
    """The scores of a `StyleTokenizer`."""

    def __init__(self, tokenizer: StyleTokenizer):
        super().__init__()
        self.tokenizer = tokenizer
        # Parameters without a gradient stop DistributedDataParallel.
        model = tokenizer.encoder.model
        if hasattr(model, "masked_spec_embed"):
            model.masked_spec_embed.requires_grad_(False)

    def forward(self, wavs: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return scores, (batch, seconds, units), and seconds of each item."""
        return self.tokenizer.logits(wavs, lengths)


class StyleBrain(TrainingBrain):
    """Learns the label of each second: a style, or a cluster."""

    def compute_forward(
        self, batch: Any, stage: Stage
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return scores, lengths and labels; of changed pieces in training."""
        batch = batch.to(self.device)
        wavs, relative = batch.wav
        labels = batch.labels.data
        lengths = (relative * wavs.shape[1]).round().long()
        if stage == Stage.TRAIN:
            seconds = self.hparams.segment_seconds
            wavs, lengths, labels = crop(wavs, lengths, labels, seconds)
            relative = lengths / wavs.shape[1]
            changes = self.hparams.augmentation
            wavs, _ = change_in_float32(changes, wavs, relative)
        logits, lengths = self.modules.classifier(wavs, lengths)
        return logits, lengths, labels[:, : logits.shape[1]]

    def compute_objectives(
        self,
        predictions: tuple[Tensor, Tensor, Tensor],
        batch: Any,
        stage: Stage,
    ) -> Tensor:
        """Return the cross-entropy of all seconds."""
        logits, lengths, labels = predictions
        mask = frame_mask(lengths, logits.shape[1])
        if mask is not None:
            labels = labels.masked_fill(~mask, -1)
        logits, labels = logits[labels >= 0], labels[labels >= 0]
        accuracy = (logits.argmax(-1) == labels).float().mean()
        self.record(len(labels), accuracy=accuracy)
        return F.cross_entropy(
            logits, labels, label_smoothing=self.hparams.label_smoothing
        )


def crop(
    wavs: Tensor, lengths: Tensor, labels: Tensor, seconds: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Cut a piece of so many seconds out of each longer item.

    It begins at a whole second, so that its labels are those of the item.

    Arguments
    ---------
    wavs : Tensor
        Shape (batch, samples).
    lengths : Tensor
        In samples, shape (batch,).
    labels : Tensor
        Shape (batch, seconds).
    seconds : int
        Of a piece.
    """
    samples = seconds * SAMPLE_RATE
    if wavs.shape[1] <= samples:
        return wavs, lengths, labels
    spare = (lengths - samples).clamp(min=0).float() / SAMPLE_RATE
    draw = torch.rand(len(lengths)).to(spare.device)
    starts = (draw * (spare.ceil() + 1)).long().clamp(max=spare.ceil().long())
    device = wavs.device
    at = starts[:, None] * SAMPLE_RATE + torch.arange(samples, device=device)
    inside = at < lengths[:, None]
    wavs = wavs.gather(1, at.clamp(max=wavs.shape[1] - 1)) * inside
    at = starts[:, None] + torch.arange(seconds, device=device)
    labels = labels.gather(1, at.clamp(max=labels.shape[1] - 1))
    return wavs, inside.sum(1), labels


def make_dataset(hparams: StyleSettings, split: str) -> DynamicItemDataset:
    """Return the recordings of a split with a label for each second."""
    items = load_manifest(Path(hparams["manifest_folder"]) / split, ["style"])
    shortest = hparams["shortest_seconds"]
    items = {n: i for n, i in items.items() if i["duration"] >= shortest}
    labels = read_labels(hparams, split, items)

    @takes("path")
    @provides("wav")
    def audio(path: str) -> Tensor:
        return read_audio(path)

    @takes("id")
    @provides("labels")
    def label(name: str) -> Tensor:
        return torch.tensor(labels[name])

    data = {
        name: {"path": item["wav"], "duration": item["duration"]}
        for name, item in items.items()
    }
    return DynamicItemDataset(data, [audio, label], ["id", "wav", "labels"])


def read_labels(
    hparams: StyleSettings, split: str, items: Mapping[str, Mapping[str, Any]]
) -> dict[str, list[int]]:
    """Return a label a second: the style, or what cluster.py has found.

    Raises
    ------
    FileNotFoundError, ValueError
        If clusters or styles are missing.
    """
    if hparams["labels_folder"] is not None:
        path = Path(hparams["labels_folder"]) / f"{split}.json"
        if not path.is_file():
            raise FileNotFoundError(f"no {path}; run cluster.py first")
        labels = read_json(path, "run cluster.py again")
        if missing := items.keys() - labels.keys():
            raise ValueError(
                f"{path} has no labels of {min(missing)!r} and "
                f"{len(missing) - 1} more; run cluster.py again"
            )
        return labels
    index = {style: i for i, style in enumerate(hparams["styles"])}
    if unknown := {item["style"] for item in items.values()} - index.keys():
        raise ValueError(
            f"{split} has styles that the YAML does not name: "
            f"{sorted(unknown)}; add them to `styles`"
        )
    return {
        name: [index[item["style"]]] * ceil(item["duration"])
        for name, item in items.items()
    }


def evaluate(
    brain: StyleBrain,
    hparams: StyleSettings,
    datasets: Mapping[str, DynamicItemDataset],
) -> None:
    """Write how often the best checkpoint is right in each split."""
    report = {}
    for split, data in datasets.items():
        brain.evaluate(
            data,
            max_key="accuracy",
            test_loader_kwargs=hparams["valid_loader"],
        )
        report[split] = brain.test_stats
    if if_main_process():
        text = json.dumps(report, indent=2)
        path = Path(hparams["output_folder"]) / "report.json"
        path.write_text(text, encoding="utf-8")
        print(text)
