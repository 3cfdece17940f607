"""Train a style encoder, a second at a time, in two stages.

    cd recipes/TinySpeech/style
    python train.py hparams/features.yaml --manifest_folder DIR
    python cluster.py hparams/cluster.yaml --manifest_folder DIR
    python train.py hparams/units.yaml --manifest_folder DIR

The first stage learns features that tell the styles of the corpus apart; the
second, which starts from them, gives noisy audio the clusters of the clean
one. Writes to the output folder the trained part (style/), the same as a
transformers folder (transformers/), and report.json.
"""

import json
from math import ceil
from pathlib import Path

import torch
from speechbrain import Stage
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.utils.data_pipeline import provides, takes
from speechbrain.utils.distributed import if_main_process
from torch import nn
from torch.nn import functional as F

from spiritlm_plugin.dataio.audio.reading import read_audio
from spiritlm_plugin.dataio.corpus.manifests import load_manifest
from spiritlm_plugin.dataio.units.units import SAMPLE_RATE
from spiritlm_plugin.integrations.export import export_style
from spiritlm_plugin.integrations.parts import save_part
from spiritlm_plugin.lobes.masking import frame_mask
from spiritlm_plugin.training.trainer import TrainingBrain, train
from spiritlm_plugin.utils.recipes import load_recipe, run


class Classifier(nn.Module):
    """The scores of a `StyleTokenizer`."""

    def __init__(self, tokenizer):
        super().__init__()
        self.tokenizer = tokenizer
        # Parameters without a gradient stop DistributedDataParallel.
        model = tokenizer.encoder.model
        if hasattr(model, "masked_spec_embed"):
            model.masked_spec_embed.requires_grad_(False)

    def forward(self, wavs, lengths):
        return self.tokenizer.logits(wavs, lengths)


class StyleBrain(TrainingBrain):
    def compute_forward(self, batch, stage):
        batch = batch.to(self.device)
        wavs, relative = batch.wav
        labels = batch.labels.data
        lengths = (relative * wavs.shape[1]).round().long()
        if stage == Stage.TRAIN:
            seconds = self.hparams.segment_seconds
            wavs, lengths, labels = crop(wavs, lengths, labels, seconds)
            relative = lengths / wavs.shape[1]
            wavs, _ = self.hparams.augmentation(wavs, relative)
        logits, lengths = self.modules.classifier(wavs, lengths)
        return logits, lengths, labels[:, : logits.shape[1]]

    def compute_objectives(self, predictions, batch, stage):
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


def crop(wavs, lengths, labels, seconds):
    """Cut a piece of so many seconds out of each longer item.

    It begins at a whole second, so that its labels are those of the item.
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


def make_dataset(hparams, split):
    """Return recordings with a label for each second."""
    items = load_manifest(
        Path(hparams["manifest_folder"]) / f"{split}.json", needs=["style"]
    )
    shortest = hparams["shortest_seconds"]
    items = {n: i for n, i in items.items() if i["duration"] >= shortest}
    labels = read_labels(hparams, split, items)

    @takes("path")
    @provides("wav")
    def audio(path):
        return read_audio(path)

    @takes("id")
    @provides("labels")
    def label(name):
        return torch.tensor(labels[name])

    data = {
        name: {"path": item["wav"], "duration": item["duration"]}
        for name, item in items.items()
    }
    return DynamicItemDataset(data, [audio, label], ["id", "wav", "labels"])


def read_labels(hparams, split, items):
    """Return a label a second: the style, or what cluster.py has found."""
    if hparams["labels_folder"] is not None:
        path = Path(hparams["labels_folder"]) / f"{split}.json"
        if not path.is_file():
            raise FileNotFoundError(f"no {path}; run cluster.py first")
        labels = json.loads(path.read_text(encoding="utf-8"))
        if missing := items.keys() - labels.keys():
            raise ValueError(
                f"{path} has no labels of {min(missing)!r} and "
                f"{len(missing) - 1} more; run cluster.py again"
            )
        return labels
    index = {style: i for i, style in enumerate(hparams["styles"])}
    if unknown := {item["style"] for item in items.values()} - index.keys():
        raise ValueError(
            f"{split}.json has styles that the YAML does not name: "
            f"{sorted(unknown)}; add them to `styles`"
        )
    return {
        name: [index[item["style"]]] * ceil(item["duration"])
        for name, item in items.items()
    }


def evaluate(brain, hparams, datasets):
    """Write how often the best checkpoint is right."""
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


def main(arguments):
    hparams, run_opts = load_recipe(arguments)
    tokenizer = hparams["tokenizer"]
    brain = StyleBrain(
        modules={"classifier": Classifier(tokenizer)},
        opt_class=hparams["opt_class"],
        hparams=hparams,
        run_opts=run_opts,
        checkpointer=hparams["checkpointer"],
    )
    datasets = {
        split: make_dataset(hparams, split)
        for split in ["train", "valid", *hparams["test_splits"]]
    }
    train(brain, hparams, datasets.pop("train"), datasets["valid"])
    evaluate(brain, hparams, datasets)
    if if_main_process():
        folder = Path(hparams["output_folder"])
        save_part(folder / "style", tokenizer.arguments, tokenizer)
        export_style(folder / "transformers", tokenizer)


if __name__ == "__main__":
    run(main)
