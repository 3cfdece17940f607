"""Phonetic parts compared: what their units say, and how steady they are."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from speechbrain.augment.augmenter import Augmenter
from torch import Tensor
from tqdm import tqdm

from spiritlm_plugin.dataio.audio.reading import read_audio
from spiritlm_plugin.dataio.corpus.manifests import load_manifest
from spiritlm_plugin.dataio.units.units import PHONETIC_RATE
from spiritlm_plugin.evaluation.loop import Items
from spiritlm_plugin.metrics.units import (
    cluster_purity,
    frame_labels,
    joint_counts,
    phone_purity,
    pnmi,
    unit_edit_distance,
)
from spiritlm_plugin.metrics.usage import unit_usage
from spiritlm_plugin.utils.configuration import Settings
from spiritlm_plugin.utils.seeds import derive_seed

_DEBUG_UTTERANCES = 4


class PhoneticSettings(Settings):
    """What the evaluation of phonetic parts reads."""

    manifest_folder: str
    splits: list[str]
    parts: dict[str, str]
    shortest_seconds: float
    augmentations: dict[str, Any]


def load_split(
    hparams: PhoneticSettings, split: str, debug: bool
) -> tuple[Items, str]:
    """Return the usable utterances of a split and what they are labelled with.

    Phones where all have them, else words.

    Raises
    ------
    FileNotFoundError, ManifestError
        As of `load_manifest`.
    ValueError
        If not all have one of them.
    """
    items = load_manifest(Path(hparams["manifest_folder"]) / f"{split}.json")
    shortest = hparams["shortest_seconds"]
    items = {n: i for n, i in items.items() if i["duration"] >= shortest}
    if debug:
        items = dict(list(items.items())[:_DEBUG_UTTERANCES])
    for key in ("phones", "words"):
        if all(item.get(key) for item in items.values()):
            return items, key
    raise ValueError(
        f"not all utterances of {split}.json have phones or words with times; "
        "align the corpus"
    )


def versions_of(hparams: PhoneticSettings, items: Items) -> dict[str, list]:
    """Return the recordings as they are (``clean``), and changed by each.

    Arguments
    ---------
    hparams : PhoneticSettings
        The recipe's.
    items : dict
        The utterances, by id.
    """
    wavs = [read_audio(item["wav"]) for item in items.values()]
    versions = {"clean": wavs}
    for name, augmentation in hparams["augmentations"].items():
        versions[name] = change(wavs, augmentation, items, hparams["seed"])
    return versions


def change(
    wavs: Sequence[Tensor],
    augmentation: Callable,
    names: Iterable[str],
    seed: int,
) -> list[Tensor]:
    """Return changed recordings, each by random numbers of its own."""
    augmenter = Augmenter(
        augmentations=[augmentation], min_augmentations=1, max_augmentations=1
    )
    changed = []
    for name, wav in zip(names, tqdm(wavs, desc="changing", leave=False)):
        torch.manual_seed(derive_seed(seed, name))
        changed.append(augmenter(wav[None], torch.ones(1))[0][0])
    return changed


def count_labels(
    items: Items, key: str, units: Sequence[Tensor], unit_count: int
) -> tuple[list[str], Tensor]:
    """Return label names, and counts of labels and units in all frames."""
    labels = [
        frame_labels(item[key], len(stream))
        for item, stream in zip(items.values(), units)
    ]
    names = sorted({label for row in labels for label in row})
    index = {name: i for i, name in enumerate(names)}
    numbers = torch.tensor([index[label] for row in labels for label in row])
    stream = torch.cat(list(units))
    return names, joint_counts(stream, numbers, unit_count, len(names))


def measure(
    units: Sequence[Tensor], unit_count: int, counts: Tensor
) -> dict[str, float]:
    """Return what the units of clean audio are like.

    Arguments
    ---------
    units : sequence of Tensor
        Streams, each of shape (frames,).
    unit_count : int
        Of the codebook.
    counts : Tensor
        As of `joint_counts`.

    Example
    -------
    >>> counts = joint_counts(
    ...     torch.tensor([0, 0, 1]), torch.tensor([0, 0, 1]), 2, 2
    ... )
    >>> found = measure([torch.tensor([0, 0, 1])], 2, counts)
    >>> found["phone_purity"], round(found["deduplicated_units_per_second"], 1)
    (1.0, 16.7)
    """
    distinct = sum(len(stream.unique_consecutive()) for stream in units)
    stream = torch.cat(list(units))
    return {
        **unit_usage(stream, unit_count),
        "PNMI": pnmi(counts),
        "phone_purity": phone_purity(counts),
        "cluster_purity": cluster_purity(counts),
        "units_per_second": PHONETIC_RATE,
        "deduplicated_units_per_second": PHONETIC_RATE * distinct / len(stream),
    }


def draw_units(
    matrices: Mapping[str, Tensor], label_names: Sequence[str], path: Path
) -> None:
    """Draw how likely each label is while each unit sounds."""
    figure = Figure(figsize=(12, 6 * len(matrices)), layout="constrained")
    axes = figure.subplots(len(matrices), squeeze=False)[:, 0]
    for axis, (name, counts) in zip(axes, matrices.items()):
        used = counts[:, counts.sum(0) > 0]
        shares = used / used.sum(0)
        # Units in the order of their likeliest label.
        order = sorted(
            range(shares.shape[1]),
            key=lambda u: (
                int(shares[:, u].argmax()),
                -float(shares[:, u].max()),
            ),
        )
        image = axis.imshow(
            shares[:, order].numpy(),
            aspect="auto",
            cmap="magma_r",
            vmin=0,
            vmax=1,
        )
        axis.set_yticks(range(len(label_names)), label_names, fontsize=6)
        axis.set(title=name, xlabel="unit, by its likeliest label")
    figure.colorbar(image, ax=list(axes), label="P(label | unit)", shrink=0.5)
    figure.savefig(path, dpi=110)


def table(figures: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """Return figures as Markdown, a column for each part."""
    lines = []
    for split, parts in figures.items():
        lines += [f"| {split} | " + " | ".join(parts) + " |"]
        lines += ["|---" * (1 + len(parts)) + "|"]
        for name in next(iter(parts.values())):
            cells = (f"{found[name]:.3f}" for found in parts.values())
            title = name.replace("_", " ")
            lines += [f"| {title} | " + " | ".join(cells) + " |"]
        lines += [""]
    return "\n".join(lines)


def evaluate(
    tokenizer: Any, versions: Mapping[str, list], items: Items, key: str
) -> tuple[dict[str, float], list[str], Tensor]:
    """Return the measures of a part, label names and counts.

    Arguments
    ---------
    tokenizer : SpeechTokenizer
        With the part.
    versions : dict
        As of `versions_of`.
    items : dict
        The utterances, by id.
    key : str
        Of their labels.
    """
    streams = {
        name: [units.phonetic for units in tokenizer(wavs)]
        for name, wavs in versions.items()
    }
    clean = streams.pop("clean")
    # The blank, too, is a unit of what is blank throughout.
    unit_count = tokenizer.phonetic.quantizer.units + 1
    names, counts = count_labels(items, key, clean, unit_count)
    measures = measure(clean, unit_count, counts)
    for name, changed in streams.items():
        measures[f"changed_by_{name}"] = unit_edit_distance(clean, changed)
    return measures, names, counts


def report(
    folder: str | Path,
    figures: Mapping[str, Mapping[str, Mapping[str, float]]],
) -> None:
    """Write down the figures of all splits, by part, and print them."""
    folder = Path(folder)
    text = json.dumps(figures, indent=2)
    (folder / "report.json").write_text(text, encoding="utf-8")
    (folder / "report.md").write_text(table(figures), encoding="utf-8")
    print(table(figures))
