"""Style units: whether they tell the style, and not the speaker.

Units of the training split are counted; from these counts style and speaker of
the test splits are told, for a second by the likeliest style of its unit, for an
utterance by naive Bayes over its units.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from spiritlm_plugin.dataio.audio.recordings import map_recordings
from spiritlm_plugin.dataio.corpus.manifests import load_manifest
from spiritlm_plugin.evaluation.loop import Items
from spiritlm_plugin.evaluation.reports import with_interval
from spiritlm_plugin.metrics.intervals import ratio_interval, speaker_groups
from spiritlm_plugin.metrics.usage import unit_usage, units_of_labels
from spiritlm_plugin.utils.configuration import Settings
from spiritlm_plugin.utils.files import write_file

TRAITS = ("style", "speaker")


class StyleSettings(Settings):
    """What the evaluation of style units reads."""

    manifest_folder: str
    style_folder: str
    test_splits: list[str]
    train_utterances: int
    noises: dict[str, Any]


def load_split(hparams: StyleSettings, split: str) -> Items:
    """Return the utterances of a split; of training so many, drawn.

    Raises
    ------
    FileNotFoundError, ManifestError
        As of `load_manifest`.
    """
    path = Path(hparams["manifest_folder"]) / split
    items = load_manifest(path, needs=TRAITS)
    if split == "train" and len(items) > hparams["train_utterances"]:
        drawn = random.Random(hparams["seed"]).sample(
            list(items), hparams["train_utterances"]
        )
        items = {name: items[name] for name in drawn}
    return items


class Units:
    """Style units of a split, and what is known of its utterances.

    Arguments
    ---------
    tokenizer : StyleTokenizer
        Makes the units.
    items : dict
        The utterances, by id.
    device : str or torch.device
        To run on.
    progress : str
        Title of the progress bar.
    """

    def __init__(
        self, tokenizer: Any, items: Items, device: Any, progress: str
    ):
        streams = map_recordings(tokenizer, items, device, progress=progress)
        self.streams = {name: units.numpy() for name, units in streams}
        self.items = items
        size = tokenizer.classifier.out_features
        self.seconds = np.concatenate(list(self.streams.values()))
        self.histograms = np.stack(
            [np.bincount(s, minlength=size) for s in self.streams.values()]
        )

    def labels(self, trait: str) -> tuple[np.ndarray, np.ndarray]:
        """Return a label for each utterance and each second."""
        labels = [self.items[name][trait] for name in self.streams]
        lengths = [len(stream) for stream in self.streams.values()]
        return np.array(labels), np.repeat(labels, lengths)


class Teller:
    """Tells a trait from units, by how often they meet in training.

    Arguments
    ---------
    train : Units
        Of the training split.
    trait : str
        Of `TRAITS`.
    """

    def __init__(self, train: Units, trait: str):
        from sklearn.naive_bayes import MultinomialNB

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

    def tell(self, units: Units) -> np.ndarray:
        """Return the trait of each utterance."""
        return self.bayes.predict(units.histograms)

    def accuracies(self, units: Units) -> dict[str, Any]:
        """Return how often the trait is told rightly, with 95% intervals.

        These are over speakers, or over utterances where there is but one.
        """
        utterances, seconds = units.labels(self.trait)
        speakers = speaker_groups(
            dict(zip(units.streams, units.labels("speaker")[0]))
        )
        counts = [len(stream) for stream in units.streams.values()]
        groups = np.repeat([*map(str, speakers.values())], counts)
        guesses = {
            "a_second": (self.likeliest[units.seconds], seconds),
            "an_utterance": (self.tell(units), utterances),
            "by_chance": (self.most_common, seconds),
        }
        figures: dict[str, Any] = {}
        for name, (guess, true) in guesses.items():
            hits = guess == true
            of_each = groups if len(hits) == len(groups) else speakers.values()
            figures[f"{self.trait}_{name}"] = float(hits.mean())
            figures[f"{self.trait}_{name}_interval"] = ratio_interval(
                hits, groups=[*of_each]
            )
        return figures


def kept_under_noise(
    tokenizer: Any, noise: Callable, clean: Units, device: Any
) -> float:
    """Return the share of units that noise does not change.

    Arguments
    ---------
    tokenizer : StyleTokenizer
        Makes the units.
    noise : callable
        Of waveforms and their relative lengths; such as SpeechBrain's.
    clean : Units
        Without noise.
    device : str or torch.device
        To run on.
    """

    def tokenize(wavs: Tensor, lengths: Tensor) -> Any:
        torch.manual_seed(0)
        return tokenizer(noise(wavs, lengths / wavs.shape[1]), lengths)

    noisy = dict(map_recordings(tokenize, clean.items, device))
    same = [noisy[n].numpy() == units for n, units in clean.streams.items()]
    return float(np.concatenate(same).mean())


def figures_of(
    hparams: StyleSettings,
    tokenizer: Any,
    tellers: Mapping[str, Teller],
    units: Units,
    device: Any,
) -> dict[str, Any]:
    """Return what the units of a test split tell, and how steady they are.

    Arguments
    ---------
    hparams : StyleSettings
        The recipe's.
    tokenizer : StyleTokenizer
        Made the units.
    tellers : dict
        By trait. Who speaks is told if training had all of the speakers.
    units : Units
        Of the split.
    device : str or torch.device
        To run on.
    """
    figures = tellers["style"].accuracies(units)
    if set(units.labels("speaker")[0]) <= set(tellers["speaker"].names):
        figures |= tellers["speaker"].accuracies(units)
    figures |= unit_usage(
        torch.from_numpy(units.seconds), units.histograms.shape[1]
    )
    for name, noise in hparams["noises"].items():
        kept = kept_under_noise(tokenizer, noise, units, device)
        figures[f"kept_with_{name}"] = kept
    return figures


def report(
    folder: str | Path, figures: Mapping[str, Mapping[str, Any]]
) -> None:
    """Write down the figures of all splits, and print them."""
    folder = Path(folder)
    text = json.dumps(figures, indent=2)
    write_file(folder / "report.json", text)
    rows = [["", *figures]]
    for name in max(figures.values(), key=len):
        if not name.endswith("_interval"):
            cells = [with_interval(f, name, 4) for f in figures.values()]
            rows.append([name, *(cell or "" for cell in cells)])
    table = "\n".join("".join(f"{x:>32}" for x in row) for row in rows)
    write_file(folder / "report.txt", table + "\n")
    print(table)


def write_units(folder: str | Path, train: Units) -> None:
    """Write down the units that tell each style, for `UnitVocoder`'s styles."""
    told = units_of_labels(train.streams.values(), train.labels("style")[0])
    write_file(Path(folder) / "styles.json", json.dumps(told))


def draw_confusion(
    teller: Teller, splits: Mapping[str, Units], path: Path
) -> None:
    """Draw which styles are taken for which, an utterance at a time."""
    from sklearn.metrics import confusion_matrix

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
