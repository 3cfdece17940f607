"""Measure what style units tell: the style, and not the speaker.

    cd recipes/TinySpeech/style
    python evaluate.py hparams/evaluate.yaml --manifest_folder DIR

Units of the training split are counted; from these counts style and speaker
of the test splits are told, for a second by the likeliest style of its unit,
for an utterance by naive Bayes over its units. Writes report.json, report.txt
and confusion.png to the output folder.
"""

import json
import random
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from sklearn.metrics import confusion_matrix
from sklearn.naive_bayes import MultinomialNB
from speechbrain.utils.distributed import infer_device

from spiritlm_plugin.dataio.audio.recordings import map_recordings
from spiritlm_plugin.dataio.corpus.manifests import load_manifest
from spiritlm_plugin.integrations.parts import load_part
from spiritlm_plugin.metrics.usage import unit_usage
from spiritlm_plugin.utils.recipes import load_recipe, run

TRAITS = ("style", "speaker")


class Units:
    """Style units of a split, and what is known of its utterances."""

    def __init__(self, tokenizer, items, device, progress):
        streams = map_recordings(tokenizer, items, device, progress=progress)
        self.streams = {name: units.numpy() for name, units in streams}
        self.items = items
        size = tokenizer.classifier.out_features
        self.seconds = np.concatenate(list(self.streams.values()))
        self.histograms = np.stack(
            [np.bincount(s, minlength=size) for s in self.streams.values()]
        )

    def labels(self, trait):
        """Return a label for each utterance and each second."""
        labels = [self.items[name][trait] for name in self.streams]
        lengths = [len(stream) for stream in self.streams.values()]
        return np.array(labels), np.repeat(labels, lengths)


class Teller:
    """Tells a trait from units, by how often they meet in training."""

    def __init__(self, train, trait):
        self.trait = trait
        utterances, seconds = train.labels(trait)
        self.names, counts = np.unique(seconds, return_counts=True)
        self.most_common = self.names[counts.argmax()]
        meetings = [
            np.bincount(
                train.seconds[seconds == name],
                minlength=train.histograms.shape[1],
            )
            for name in self.names
        ]
        self.likeliest = self.names[np.argmax(meetings, 0)]
        self.bayes = MultinomialNB().fit(train.histograms, utterances)

    def tell(self, units):
        return self.bayes.predict(units.histograms)

    def accuracies(self, units):
        utterances, seconds = units.labels(self.trait)
        guesses = {
            "a_second": (self.likeliest[units.seconds], seconds),
            "an_utterance": (self.tell(units), utterances),
            "by_chance": (self.most_common, seconds),
        }
        return {
            f"{self.trait}_{name}": float((guess == true).mean())
            for name, (guess, true) in guesses.items()
        }


def kept_under_noise(tokenizer, noise, clean, device):
    """Return the share of units that noise does not change."""

    def tokenize(wavs, lengths):
        torch.manual_seed(0)
        return tokenizer(noise(wavs, lengths / wavs.shape[1]), lengths)

    noisy = dict(map_recordings(tokenize, clean.items, device))
    same = [noisy[n].numpy() == units for n, units in clean.streams.items()]
    return float(np.concatenate(same).mean())


def draw_confusion(teller, splits, path):
    """Draw which styles are taken for which, an utterance at a time."""
    figure = Figure(figsize=(4 * len(splits), 4), layout="constrained")
    names = teller.bayes.classes_
    axes = figure.subplots(1, len(splits), squeeze=False)[0]
    for axis, (split, units) in zip(axes, splits.items()):
        true, _ = units.labels("style")
        matrix = confusion_matrix(
            true, teller.tell(units), labels=names, normalize="true"
        )
        axis.imshow(matrix, cmap="Blues", vmin=0, vmax=1)
        for i, row in enumerate(matrix):
            for j, share in enumerate(row):
                colour = "white" if share > 0.5 else "black"
                axis.text(j, i, f"{share:.2f}", ha="center", color=colour)
        axis.set_xticks(range(len(names)), names, rotation=45)
        axis.set_yticks(range(len(names)), names)
        axis.set(title=split, xlabel="told from units", ylabel="spoken")
    figure.savefig(path, dpi=120)


def main(arguments):
    hparams, run_opts = load_recipe(arguments)
    device = run_opts.get("device") or infer_device()
    tokenizer = load_part("style", hparams["style_folder"]).to(device)
    splits = {}
    for split in ["train", *hparams["test_splits"]]:
        items = load_manifest(
            Path(hparams["manifest_folder"]) / f"{split}.json", needs=TRAITS
        )
        if split == "train" and len(items) > hparams["train_utterances"]:
            drawn = random.Random(hparams["seed"]).sample(
                list(items), hparams["train_utterances"]
            )
            items = {name: items[name] for name in drawn}
        splits[split] = Units(tokenizer, items, device, split)
    tellers = {trait: Teller(splits["train"], trait) for trait in TRAITS}
    del splits["train"]
    report = {}
    for split, units in splits.items():
        known = set(units.labels("speaker")[0]) <= set(tellers["speaker"].names)
        report[split] = tellers["style"].accuracies(units)
        if known:
            report[split] |= tellers["speaker"].accuracies(units)
        report[split] |= unit_usage(
            torch.from_numpy(units.seconds), units.histograms.shape[1]
        )
        for name, noise in hparams["noises"].items():
            report[split][f"kept_with_{name}"] = kept_under_noise(
                tokenizer, noise, units, device
            )
    folder = Path(hparams["output_folder"])
    text = json.dumps(report, indent=2)
    (folder / "report.json").write_text(text, encoding="utf-8")
    rows = [["", *report]]
    for name in max(report.values(), key=len):
        figures = [stats.get(name) for stats in report.values()]
        rows.append([name, *("" if x is None else f"{x:.4f}" for x in figures)])
    table = "\n".join("".join(f"{x:>24}" for x in row) for row in rows)
    (folder / "report.txt").write_text(table + "\n", encoding="utf-8")
    print(table)
    draw_confusion(tellers["style"], splits, folder / "confusion.png")


if __name__ == "__main__":
    run(main)
