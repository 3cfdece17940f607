"""Compare phonetic parts: what their units say, and how steady they are.

    python recipes/TinySpeech/phonetic/evaluate.py \
        recipes/TinySpeech/phonetic/hparams/evaluate.yaml \
        --manifest_folder DIR --parts '{MFCC: DIR, k-means: DIR, linear: DIR}'

Writes report.json, report.md and a picture of what is said while a unit
sounds, units_<split>.png.
"""

import json
from pathlib import Path

import torch
from matplotlib.figure import Figure
from speechbrain.augment.augmenter import Augmenter
from tqdm import tqdm

from spiritlm_plugin.dataio.audio.reading import read_audio
from spiritlm_plugin.dataio.corpus.manifests import load_manifest
from spiritlm_plugin.dataio.units.units import PHONETIC_RATE
from spiritlm_plugin.integrations.parts import load_tokenizer
from spiritlm_plugin.metrics.units import (
    cluster_purity,
    frame_labels,
    joint_counts,
    phone_purity,
    pnmi,
    unit_edit_distance,
)
from spiritlm_plugin.metrics.usage import unit_usage
from spiritlm_plugin.utils.recipes import load_recipe, run
from spiritlm_plugin.utils.seeds import derive_seed

DEBUG_UTTERANCES = 4


def load_split(hparams, split, debug):
    """Return the usable utterances of a split and what they are labelled with.

    Phones where all have them, else words.
    """
    items = load_manifest(Path(hparams["manifest_folder"]) / f"{split}.json")
    shortest = hparams["shortest_seconds"]
    items = {n: i for n, i in items.items() if i["duration"] >= shortest}
    if debug:
        items = dict(list(items.items())[:DEBUG_UTTERANCES])
    for key in ("phones", "words"):
        if all(item.get(key) for item in items.values()):
            return items, key
    raise ValueError(
        f"not all utterances of {split}.json have phones or words with times; "
        "align the corpus"
    )


def change(wavs, augmentation, names, seed):
    """Return changed recordings, each by random numbers of its own."""
    augmenter = Augmenter(
        augmentations=[augmentation], min_augmentations=1, max_augmentations=1
    )
    changed = []
    for name, wav in zip(names, tqdm(wavs, desc="changing", leave=False)):
        torch.manual_seed(derive_seed(seed, name))
        changed.append(augmenter(wav[None], torch.ones(1))[0][0])
    return changed


def count_labels(items, key, units, unit_count):
    """Return label names, and counts of labels and units in all frames."""
    labels = [
        frame_labels(item[key], len(stream))
        for item, stream in zip(items.values(), units)
    ]
    names = sorted({label for row in labels for label in row})
    index = {name: i for i, name in enumerate(names)}
    labels = torch.tensor([index[label] for row in labels for label in row])
    return names, joint_counts(torch.cat(units), labels, unit_count, len(names))


def measure(units, unit_count, counts):
    """Return what the units of clean audio are like."""
    distinct = sum(len(stream.unique_consecutive()) for stream in units)
    stream = torch.cat(units)
    return {
        **unit_usage(stream, unit_count),
        "PNMI": pnmi(counts),
        "phone_purity": phone_purity(counts),
        "cluster_purity": cluster_purity(counts),
        "units_per_second": PHONETIC_RATE,
        "deduplicated_units_per_second": PHONETIC_RATE * distinct / len(stream),
    }


def draw(matrices, label_names, path):
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


def table(report):
    """Return a report as Markdown, a column for each part."""
    lines = []
    for split, parts in report.items():
        lines += [f"| {split} | " + " | ".join(parts) + " |"]
        lines += ["|---" * (1 + len(parts)) + "|"]
        for name in next(iter(parts.values())):
            figures = (f"{figure[name]:.3f}" for figure in parts.values())
            title = name.replace("_", " ")
            lines += [f"| {title} | " + " | ".join(figures) + " |"]
        lines += [""]
    return "\n".join(lines)


def evaluate(tokenizer, versions, items, key):
    """Return the measures of a part, label names and counts."""
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


@torch.inference_mode()
def main(arguments):
    hparams, run_opts = load_recipe(arguments)
    device = run_opts["device"] or "cpu"
    tokenizers = {
        name: load_tokenizer(part).to(device)
        for name, part in hparams["parts"].items()
    }
    report = {}
    for split in hparams["splits"]:
        items, key = load_split(hparams, split, run_opts["debug"])
        wavs = [read_audio(item["wav"]) for item in items.values()]
        versions = {"clean": wavs}
        for name, augmentation in hparams["augmentations"].items():
            versions[name] = change(wavs, augmentation, items, hparams["seed"])
        report[split], matrices = {}, {}
        for part, tokenizer in tokenizers.items():
            report[split][part], names, matrices[part] = evaluate(
                tokenizer, versions, items, key
            )
        folder = Path(hparams["output_folder"])
        draw(matrices, names, folder / f"units_{split}.png")
    text = json.dumps(report, indent=2)
    (folder / "report.json").write_text(text, encoding="utf-8")
    (folder / "report.md").write_text(table(report), encoding="utf-8")
    print(table(report))


if __name__ == "__main__":
    run(main)
