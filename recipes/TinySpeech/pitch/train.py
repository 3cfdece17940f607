"""Train a pitch quantizer: a VQ-VAE over F0 (Polyak et al. 2021).

    python recipes/TinySpeech/pitch/train.py \
        recipes/TinySpeech/pitch/hparams/train.yaml --manifest_folder DIR

Finds the F0 of the corpus first and keeps it. Writes to the output folder the
trained part (pitch/), the same in the released form (release/), what the units
keep of F0 (report.json, report.txt) and examples of it (contours.png).
"""

import json
from pathlib import Path

import torch
from matplotlib.figure import Figure
from speechbrain import Stage
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.utils.data_pipeline import provides, takes
from speechbrain.utils.distributed import if_main_process
from torch.nn import functional as F

from spiritlm_plugin.dataio.audio.f0_cache import F0Cache
from spiritlm_plugin.dataio.corpus.manifests import load_manifest
from spiritlm_plugin.integrations.export import export_pitch
from spiritlm_plugin.integrations.parts import save_part
from spiritlm_plugin.lobes.masking import frame_mask
from spiritlm_plugin.lobes.pitch import center_f0
from spiritlm_plugin.metrics.pitch import PitchErrorStats
from spiritlm_plugin.metrics.usage import unit_usage
from spiritlm_plugin.training.trainer import TrainingBrain, train, unwrap
from spiritlm_plugin.utils.recipes import load_recipe, run

FRAME_RATE = 200
DRAWN = 6


class PitchBrain(TrainingBrain):
    def compute_forward(self, batch, stage):
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

    def compute_objectives(self, predictions, batch, stage):
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

    def on_stage_start(self, stage, epoch=None):
        super().on_stage_start(stage, epoch)
        self.errors, self.units = PitchErrorStats(), []

    def on_stage_end(self, stage, stage_loss, epoch=None):
        super().on_stage_end(stage, stage_loss, epoch)
        if stage == Stage.TEST:
            self.test_stats = self.summarize()

    def on_valid_end(self, stats, epoch):
        stats.update(self.summarize())

    def summarize(self):
        units = self.hparams.quantizer["units"]
        usage = unit_usage(torch.cat(self.units), units)
        return self.errors.summarize() | usage


def crop(features, lengths, frames):
    """Cut a random piece of so many frames out of each longer item."""
    if features.shape[-1] <= frames:
        return features, lengths
    spare = (lengths - frames).clamp(min=0)
    starts = (torch.rand(len(lengths)).to(spare.device) * (spare + 1)).long()
    positions = starts[:, None] + torch.arange(frames, device=spare.device)
    pieces = features.gather(2, positions[:, None].expand(-1, 2, -1))
    return pieces, lengths.clamp(max=frames)


def make_dataset(hparams, split, device):
    """Return F0 and voicing of the utterances that have a unit at least."""
    items = load_manifest(Path(hparams["manifest_folder"]) / f"{split}.json")
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
    def contour(name):
        yield from cache[name]

    return DynamicItemDataset(items, [contour], ["id", "f0", "voiced"])


def evaluate(brain, hparams, datasets):
    """Write what the best checkpoint keeps of F0."""
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


def draw_contours(brain, data, path):
    """Draw some contours, what their units make of them, and the units."""
    step = max(len(data) // DRAWN, 1)
    batch = PaddedBatch([data[i] for i in range(0, len(data), step)][:DRAWN])
    brain.modules.eval()
    with torch.no_grad():
        result, f0, voiced, mean = brain.compute_forward(batch, Stage.TEST)
    figure = Figure(figsize=(12, 2.2 * len(f0)), layout="constrained")
    axes = figure.subplots(len(f0), squeeze=False)[:, 0]
    for i, (axis, name) in enumerate(zip(axes, batch.id)):
        n = int(result.lengths[i])
        seconds = torch.arange(n) / FRAME_RATE
        for label, contour, is_voiced in (
            ("F0", f0, voiced > 0),
            ("from units", result.f0, result.voicing > 0),
        ):
            hertz = contour[i] + mean[i]
            hertz = hertz.masked_fill(~is_voiced[i], torch.nan)[:n]
            axis.plot(seconds, hertz.cpu(), label=label)
        units = result.units[i][result.units[i] >= 0].tolist()
        hop = n / FRAME_RATE / len(units)
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
        axis.set(title=name, ylabel="Hz", xlim=(0, n / FRAME_RATE))
    axes[0].legend(loc="upper right")
    axes[-1].set_xlabel("seconds; pitch units in grey")
    figure.savefig(path, dpi=120)


def main(arguments):
    hparams, run_opts = load_recipe(arguments)
    brain = PitchBrain(
        modules=hparams["modules"],
        opt_class=hparams["opt_class"],
        hparams=hparams,
        run_opts=run_opts,
        checkpointer=hparams["checkpointer"],
    )
    datasets = {
        split: make_dataset(hparams, split, brain.device)
        for split in ["train", "valid", *hparams["test_splits"]]
    }
    train(brain, hparams, datasets.pop("train"), datasets["valid"])
    evaluate(brain, hparams, datasets)
    if if_main_process():
        quantizer = unwrap(brain.modules.vqvae).export()
        arguments = {"center": hparams["center"], **hparams["quantizer"]}
        folder = Path(hparams["output_folder"])
        save_part(folder / "pitch", arguments, quantizer)
        export_pitch(folder / "release", arguments, quantizer)


if __name__ == "__main__":
    run(main)
