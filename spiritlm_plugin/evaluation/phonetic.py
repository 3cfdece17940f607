"""Phonetic parts compared: what their units say, and how steady they are."""

from __future__ import annotations

import json
from collections.abc import (
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from pathlib import Path
from typing import Any

import ruamel.yaml
import torch
from hyperpyyaml import resolve_references
from matplotlib.figure import Figure
from speechbrain.augment.augmenter import Augmenter
from torch import Tensor
from tqdm import tqdm

from spiritlm_plugin.dataio.audio.reading import read_audio
from spiritlm_plugin.dataio.corpus.manifests import load_manifest
from spiritlm_plugin.dataio.units.units import PHONETIC_RATE
from spiritlm_plugin.evaluation.loop import Items
from spiritlm_plugin.evaluation.reports import with_interval
from spiritlm_plugin.metrics.intervals import ratio_interval, speaker_groups
from spiritlm_plugin.metrics.units import (
    cluster_purity,
    frame_labels,
    joint_counts,
    phone_purity,
    pnmi,
    unit_edits,
)
from spiritlm_plugin.metrics.usage import unit_usage
from spiritlm_plugin.utils.configuration import Settings
from spiritlm_plugin.utils.files import write_file
from spiritlm_plugin.utils.seeds import derive_seed

_DEBUG_UTTERANCES = 4
# What SpeechBrain writes a run's YAML to.
_HYPERPARAMS = "hyperparams.yaml"
# What goes with a figure in a report.
_BESIDE = ("_interval", "_training")
_CAPTION = (
    "In brackets the 95% interval over speakers, or over utterances where all "
    "are by one. Behind it what the YAML of the part's training says of an "
    "augmentation: seen, seen with other settings, or unseen."
)


class PhoneticSettings(Settings):
    """What the evaluation of phonetic parts reads."""

    manifest_folder: str
    splits: list[str]
    parts: dict[str, str]
    trainings: dict[str, str]
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
    items = load_manifest(Path(hparams["manifest_folder"]) / split)
    shortest = hparams["shortest_seconds"]
    items = {n: i for n, i in items.items() if i["duration"] >= shortest}
    if debug:
        items = dict(list(items.items())[:_DEBUG_UTTERANCES])
    for key in ("phones", "words"):
        if all(item.get(key) for item in items.values()):
            return items, key
    raise ValueError(
        f"not all utterances of {split} have phones or words with times; "
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


def seen_in_training(hparams: PhoneticSettings, part: str) -> dict[str, str]:
    """Return how each augmentation stands to those that a part learned of.

    The YAML of the part's training tells: the one that is named for it, or
    that the training has written beside the part's folder.

    Arguments
    ---------
    hparams : PhoneticSettings
        The recipe's, whose own YAML is in the output folder.
    part : str
        Name of the part.

    Returns
    -------
    dict
        By augmentation ``"seen"``, ``"seen with other settings"`` or
        ``"unseen"``; empty where there is no YAML that tells.

    Raises
    ------
    FileNotFoundError
        If the file that is named is not there.
    """
    named = hparams["trainings"].get(part)
    beside = Path(hparams["parts"][part]).resolve().parent / _HYPERPARAMS
    if named is None and not beside.is_file():
        return {}
    trained = _read_yaml(beside if named is None else Path(named))
    if "augmenter" in trained:
        known = list(_changes_of(trained["augmenter"]))
    elif "kmeans" in trained:
        known = []
    else:
        return {}
    own = _read_yaml(Path(hparams["output_folder"]) / _HYPERPARAMS)
    return {
        name: relation(augmentation, known)
        for name, augmentation in own["augmentations"].items()
    }


def _changes_of(augmenter: Any) -> Iterator[Any]:
    """Yield what an augmenter of SpeechBrain or of ours is made of."""
    for change in augmenter.get("augmentations", []):
        yield change
        yield from _changes_of(change)
    for change in augmenter.get("changes", {}).values():
        yield change
        yield from _changes_of(change)


def relation(augmentation: Any, known: Iterable[Any]) -> str:
    """Return how an augmentation stands to others, as YAML has them.

    Example
    -------
    >>> known, same, other = ruamel.yaml.YAML().load(
    ...     "[!new:Clip {low: 1}, !new:Clip {low: 1}, !new:Clip {low: 2}]"
    ... )
    >>> [relation(a, [known]) for a in (same, other)], relation(same, [])
    (['seen', 'seen with other settings'], 'unseen')
    """
    kin = [k for k in known if k.tag.value == augmentation.tag.value]
    if augmentation in kin:
        return "seen"
    return "seen with other settings" if kin else "unseen"


def _read_yaml(path: Path) -> dict[str, Any]:
    """Return what a YAML says, references resolved and nothing built."""
    text = path.read_text("utf-8").replace("!PLACEHOLDER", "null")
    return ruamel.yaml.YAML().load(resolve_references(text))


def number_labels(
    items: Items, key: str, units: Sequence[Tensor]
) -> tuple[list[str], list[Tensor]]:
    """Return label names, and the number of each frame's, by utterance."""
    labels = [
        frame_labels(item[key], len(stream))
        for item, stream in zip(items.values(), units)
    ]
    names = sorted({label for row in labels for label in row})
    index = {name: i for i, name in enumerate(names)}
    return names, [torch.tensor([index[x] for x in row]) for row in labels]


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


def table(figures: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """Return figures as Markdown, a column for each part.

    Example
    -------
    >>> found = {"PNMI": 0.5, "changed_by_noise": 0.25,
    ...          "changed_by_noise_interval": [0.2, 0.3],
    ...          "changed_by_noise_training": "seen"}
    >>> print(table({"test": {"linear": found}}))
    | test | linear |
    |---|---|
    | PNMI | 0.500 |
    | changed by noise | 0.250 (0.200 to 0.300), seen |
    <BLANKLINE>
    """
    lines = []
    for split, parts in figures.items():
        lines += [f"| {split} | " + " | ".join(parts) + " |"]
        lines += ["|---" * (1 + len(parts)) + "|"]
        for name in next(iter(parts.values())):
            if name.endswith(_BESIDE):
                continue
            cells = [_cell(found, name) for found in parts.values()]
            title = name.replace("_", " ")
            lines += [f"| {title} | " + " | ".join(cells) + " |"]
        lines += [""]
    return "\n".join(lines)


def _cell(found: Mapping[str, Any], name: str) -> str:
    training = found.get(f"{name}_training")
    shown = [with_interval(found, name, 3) or "", training or ""]
    return ", ".join(filter(None, shown))


def evaluate(
    tokenizer: Any,
    versions: Mapping[str, list],
    items: Items,
    key: str,
    seen: Mapping[str, str],
) -> tuple[dict[str, Any], list[str], Tensor]:
    """Return the measures of a part, label names and counts.

    Rates have their 95% interval beside them, as ``<name>_interval``, and
    those of augmentations what ``seen`` says, as ``<name>_training``.

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
    seen : dict
        As of `seen_in_training`.
    """
    streams = {
        name: [units.phonetic for units in tokenizer(wavs)]
        for name, wavs in versions.items()
    }
    clean = streams.pop("clean")
    # The blank, too, is a unit of what is blank throughout.
    unit_count = tokenizer.phonetic.quantizer.units + 1
    names, labels = number_labels(items, key, clean)
    counts = joint_counts(
        torch.cat(clean), torch.cat(labels), unit_count, len(names)
    )
    speakers = {name: item.get("speaker") for name, item in items.items()}
    groups = list(speaker_groups(speakers).values())
    measures: dict[str, Any] = measure(clean, unit_count, counts)
    frames = [len(stream) for stream in clean]
    for name, right in (
        ("phone_purity", _right(counts.argmax(0), clean, labels)),
        ("cluster_purity", _right(counts.argmax(1), labels, clean)),
    ):
        measures[f"{name}_interval"] = ratio_interval(right, frames, groups)
    for augmentation, changed in streams.items():
        edits, lengths = zip(*map(unit_edits, clean, changed))
        name = f"changed_by_{augmentation}"
        measures[name] = sum(edits) / sum(lengths)
        measures[f"{name}_interval"] = ratio_interval(edits, lengths, groups)
        measures[f"{name}_training"] = seen.get(augmentation)
    return measures, names, counts


def _right(
    likeliest: Tensor, given: Sequence[Tensor], wanted: Sequence[Tensor]
) -> list[int]:
    """Count by utterance the frames where the likeliest is what is wanted."""
    return [
        int((likeliest[one] == other).sum())
        for one, other in zip(given, wanted)
    ]


def report(
    folder: str | Path,
    figures: Mapping[str, Mapping[str, Mapping[str, Any]]],
) -> None:
    """Write down the figures of all splits, by part, and print them."""
    folder = Path(folder)
    write_file(folder / "report.json", json.dumps(figures, indent=2))
    shown = f"{table(figures)}\n{_CAPTION}\n"
    write_file(folder / "report.md", shown)
    print(shown)
