"""A pitch quantizer: a VQ-VAE over F0."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from speechbrain import Stage
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.utils.data_pipeline import provides, takes
from speechbrain.utils.distributed import if_main_process
from torch import Tensor
from torch.nn import functional as F

from spiritlm_plugin.dataio.audio.f0_cache import F0Cache
from spiritlm_plugin.dataio.corpus.manifests import load_manifest
from spiritlm_plugin.lobes.masking import frame_mask
from spiritlm_plugin.lobes.pitch import center_f0
from spiritlm_plugin.lobes.pitch_vqvae import Reconstruction
from spiritlm_plugin.metrics.pitch import PitchErrorStats
from spiritlm_plugin.metrics.usage import unit_usage
from spiritlm_plugin.training.trainer import LoaderSettings, TrainingBrain

_FRAME_RATE = 200
_DRAWN = 6


class PitchSettings(LoaderSettings):
    """What the training of a pitch quantizer reads."""

    manifest_folder: str
    f0_folder: str
    test_splits: list[str]
    f0_min: float
    f0_extractor: Any
    center: bool
    shortest_seconds: float
    quantizer: dict[str, Any]
    f0_scale: float
    modules: dict[str, Any]
    segment_frames: int
    unvoiced_weight: float
    voicing_weight: float
    commitment_weight: float
    opt_class: Any


class PitchBrain(TrainingBrain):
    """Learns to say F0 and voicing again through units.

    Source: Polyak et al., "Speech Resynthesis from Discrete Disentangled
    Self-Supervised Representations", 2021, section 2.
    """

    def compute_forward(
        self, batch: Any, stage: Stage
    ) -> tuple[Reconstruction, Tensor, Tensor, Tensor]:
        """Return what units make of F0, and F0, voicing and mean as they are."""
        batch = batch.to(self.device)
        f0, relative = batch.f0
        voiced = batch.voiced.data
        lengths = (relative * f0.shape[1]).round().long()
        mean = torch.zeros_like(f0[:, :1])
        if self.hparams.center:
            f0, mean = center_f0(f0, voiced)
        features = torch.stack([f0, voiced], 1)
        if stage == Stage.TRAIN:
            features, lengths = crop(
                features, lengths, self.hparams.segment_frames
            )
        result = self.modules.vqvae(features, lengths)
        f0, voiced = features[..., : result.f0.shape[1]].unbind(1)
        return result, f0, voiced, mean

    def compute_objectives(
        self,
        predictions: tuple[Reconstruction, Tensor, Tensor, Tensor],
        batch: Any,
        stage: Stage,
    ) -> Tensor:
        """Return the loss of F0, where voiced above all, voicing and units."""
        result, f0, voiced, mean = predictions
        mask = frame_mask(result.lengths, f0.shape[1])
        inside = torch.ones_like(f0) if mask is None else mask.to(f0)
        weight = inside * voiced.clamp(min=self.hparams.unvoiced_weight)
        error = F.smooth_l1_loss(
            result.f0 / self.hparams.f0_scale,
            f0 / self.hparams.f0_scale,
            reduction="none",
        )
        f0_loss = (error * weight).sum() / weight.sum()
        voicing_loss = F.binary_cross_entropy_with_logits(
            result.voicing, voiced, inside, reduction="sum"
        )
        voicing_loss = voicing_loss / inside.sum()
        self.record(
            f0_loss=f0_loss,
            voicing_loss=voicing_loss,
            commitment=result.commitment,
        )
        if stage != Stage.TRAIN:
            self.errors.append(
                batch.id,
                (result.f0 + mean).clamp(min=self.hparams.f0_min),
                result.voicing > 0,
                f0 + mean,
                voiced,
                result.lengths,
            )
            self.units.append(result.units[result.units >= 0].cpu())
        return (
            f0_loss
            + self.hparams.voicing_weight * voicing_loss
            + self.hparams.commitment_weight * result.commitment
        )

    def on_stage_start(self, stage: Stage, epoch: int | None = None) -> None:
        """Begin to count."""
        super().on_stage_start(stage, epoch)
        self.errors = PitchErrorStats()
        self.units: list[Tensor] = []

    def on_stage_end(
        self, stage: Stage, stage_loss: float, epoch: int | None = None
    ) -> None:
        """Keep what a test has counted."""
        super().on_stage_end(stage, stage_loss, epoch)
        if stage == Stage.TEST:
            self.test_stats = self.summarize()

    def on_valid_end(self, stats: dict[str, float], epoch: int) -> None:
        """Add what units keep of F0."""
        stats.update(self.summarize())

    def summarize(self) -> dict[str, float]:
        """Return errors of F0 and voicing, and how units are used."""
        units = self.hparams.quantizer["units"]
        usage = unit_usage(torch.cat(self.units), units)
        return self.errors.summarize() | usage


def crop(
    features: Tensor, lengths: Tensor, frames: int
) -> tuple[Tensor, Tensor]:
    """Cut a random piece of so many frames out of each longer item.

    Arguments
    ---------
    features : Tensor
        Shape (batch, 2, frames).
    lengths : Tensor
        In frames, shape (batch,).
    frames : int
        Of a piece.

    Example
    -------
    >>> pieces, lengths = crop(torch.zeros(2, 2, 9), torch.tensor([9, 3]), 5)
    >>> pieces.shape, lengths.tolist()
    (torch.Size([2, 2, 5]), [5, 3])
    """
    if features.shape[-1] <= frames:
        return features, lengths
    spare = (lengths - frames).clamp(min=0)
    starts = (torch.rand(len(lengths)).to(spare.device) * (spare + 1)).long()
    positions = starts[:, None] + torch.arange(frames, device=spare.device)
    pieces = features.gather(2, positions[:, None].expand(-1, 2, -1))
    return pieces, lengths.clamp(max=frames)


def make_dataset(
    hparams: PitchSettings, split: str, device: str | torch.device
) -> DynamicItemDataset:
    """Return F0 and voicing of the utterances that have a unit at least.

    F0 is found first, and kept in ``f0_folder``.

    Arguments
    ---------
    hparams : PitchSettings
        The recipe's.
    split : str
        Of the manifests.
    device : str or torch.device
        On which F0 is found.
    """
    items = load_manifest(Path(hparams["manifest_folder"]) / split)
    items = {
        name: item
        for name, item in items.items()
        if item["duration"] >= hparams["shortest_seconds"]
    }
    folder = Path(hparams["f0_folder"]) / split
    cache = F0Cache(folder, items, hparams["f0_extractor"])
    cache.fill(device)

    @takes("id")
    @provides("f0", "voiced")
    def contour(name: str) -> Iterator[Tensor]:
        yield from cache[name]

    return DynamicItemDataset(items, [contour], ["id", "f0", "voiced"])


def evaluate(
    brain: PitchBrain,
    hparams: PitchSettings,
    datasets: Mapping[str, DynamicItemDataset],
) -> None:
    """Write what the best checkpoint keeps of F0: tables and contours.

    Arguments
    ---------
    brain : PitchBrain
        Trained.
    hparams : PitchSettings
        The recipe's.
    datasets : dict
        Of `make_dataset`, by split.
    """
    report = {}
    for split, data in datasets.items():
        brain.evaluate(
            data,
            min_key="loss",
            test_loader_kwargs=hparams["valid_loader"],
        )
        report[split] = brain.test_stats
    if not if_main_process():
        return
    folder = Path(hparams["output_folder"])
    text = json.dumps(report, indent=2)
    (folder / "report.json").write_text(text, encoding="utf-8")
    rows = [["", *report]]
    for name in next(iter(report.values())):
        figures = (f"{stats[name]:.4f}" for stats in report.values())
        rows.append([name, *figures])
    table = "\n".join("".join(f"{x:>24}" for x in row) for row in rows)
    (folder / "report.txt").write_text(table + "\n", encoding="utf-8")
    print(table)
    split = [*hparams["test_splits"], "valid"][0]
    draw_contours(brain, datasets[split], folder / "contours.png")


def draw_contours(
    brain: PitchBrain, data: DynamicItemDataset, path: Path
) -> None:
    """Draw some contours, what their units make of them, and the units."""
    step = max(len(data) // _DRAWN, 1)
    batch = PaddedBatch([data[i] for i in range(0, len(data), step)][:_DRAWN])
    brain.modules.eval()
    with torch.no_grad():
        result, f0, voiced, mean = brain.compute_forward(batch, Stage.TEST)
    figure = Figure(figsize=(12, 2.2 * len(f0)), layout="constrained")
    axes = figure.subplots(len(f0), squeeze=False)[:, 0]
    for i, (axis, name) in enumerate(zip(axes, batch.id)):
        n = int(result.lengths[i])
        seconds = torch.arange(n) / _FRAME_RATE
        for label, contour, is_voiced in (
            ("F0", f0, voiced > 0),
            ("from units", result.f0, result.voicing > 0),
        ):
            hertz = contour[i] + mean[i]
            hertz = hertz.masked_fill(~is_voiced[i], torch.nan)[:n]
            axis.plot(seconds, hertz.cpu(), label=label)
        units = result.units[i][result.units[i] >= 0].tolist()
        hop = n / _FRAME_RATE / len(units)
        for j, unit in enumerate(units):
            axis.text(
                (j + 0.5) * hop,
                0.02,
                unit,
                transform=axis.get_xaxis_transform(),
                ha="center",
                fontsize=6,
                color="grey",
            )
        axis.set(title=name, ylabel="Hz", xlim=(0, n / _FRAME_RATE))
    axes[0].legend(loc="upper right")
    axes[-1].set_xlabel("seconds; pitch units in grey")
    figure.savefig(path, dpi=120)
