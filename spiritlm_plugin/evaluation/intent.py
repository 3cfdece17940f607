"""Few-shot intent classification: how often a model finds the label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from matplotlib.figure import Figure

from spiritlm_plugin.dataio.batching import spread
from spiritlm_plugin.dataio.corpus.manifests import load_manifest
from spiritlm_plugin.evaluation.loop import (
    FewShotSettings,
    Items,
    answer_row,
    dropped_of,
    item_seeds,
    model_name,
    sampling_of,
)
from spiritlm_plugin.evaluation.predictions import Rows
from spiritlm_plugin.evaluation.reports import (
    markdown_table,
    percent,
    write_report,
)
from spiritlm_plugin.inference.few_shot import Classifier
from spiritlm_plugin.inference.protocols import InterleavedModel

_OTHER = "(no label)"


class IntentSettings(FewShotSettings):
    """What the evaluation of intent classification reads."""

    label: str
    method: Literal["generation", "likelihood"]


def load_commands(hparams: IntentSettings) -> tuple[Items, list[str]]:
    """Return the utterances to classify, and all labels of both splits.

    Raises
    ------
    FileNotFoundError, ManifestError
        As of `load_manifest`.
    ValueError
        If a split has no labels.
    """
    key = hparams["label"]
    splits = [hparams["split"], hparams["shot_split"]]
    folder = Path(hparams["manifest_folder"])
    manifests = [load_manifest(folder / f"{split}.json") for split in splits]
    commands = [
        {name: item for name, item in items.items() if item.get(key)}
        for items in manifests
    ]
    for split, items in zip(splits, commands):
        if not items:
            raise ValueError(
                f"{folder / split}.json has no utterance with {key!r}; name "
                "the key of the labels with --label"
            )
    labels = {item[key] for items in commands for item in items.values()}
    names = spread(commands[0], hparams["utterances"])
    return {name: commands[0][name] for name in names}, sorted(labels)


class Classification:
    """A model that classifies utterances; called with ids, it gives rows.

    Arguments
    ---------
    hparams : IntentSettings
        The recipe's.
    lm : InterleavedModel
        The model.
    items : dict
        The utterances, by id.
    shots : dict
        The utterances that it is shown, by id.
    labels : list of str
        All there are, to choose from by likelihood.
    """

    def __init__(
        self,
        hparams: IntentSettings,
        lm: InterleavedModel,
        items: Items,
        shots: Items,
        labels: list[str],
    ):
        self.seed, self.key = hparams["seed"], hparams["label"]
        self.items, self.shots = items, shots
        self.classify = Classifier(
            lm,
            [(item["wav"], item[self.key]) for item in shots.values()],
            labels if hparams["method"] == "likelihood" else None,
            **sampling_of(hparams),
        )

    def __call__(self, names: list[str]) -> Iterator[dict[str, Any]]:
        """Yield the labels of some utterances."""
        seeds = item_seeds(self.seed, names)
        wavs = [self.items[name]["wav"] for name in names]
        for name, seed, answer in zip(names, seeds, self.classify(wavs, seeds)):
            yield answer_row(name, seed, self.shots, answer) | {
                "label": self.items[name][self.key],
                "predicted": answer.text,
                "answer": answer.generation.text,
                "scores": answer.scores,
            }


def report(
    hparams: IntentSettings, rows: Rows, shots: Items, labels: list[str]
) -> None:
    """Count hits, and write them down.

    Arguments
    ---------
    hparams : IntentSettings
        The recipe's.
    rows : dict
        Of `Classification`, by id.
    shots : dict
        What the model was to be shown.
    labels : list of str
        All there are.
    """
    folder = Path(hparams["output_folder"])
    answers = rows.values()
    counts = Counter(row["label"] for row in answers)
    hits = Counter(r["label"] for r in answers if r["label"] == r["predicted"])
    summary = {
        "model": model_name(hparams),
        "split": hparams["split"],
        "method": hparams["method"],
        "utterances": len(rows),
        "labels": len(labels),
        "shots": len(shots),
        "accuracy": 100 * hits.total() / len(rows),
        "chance": 100 / len(labels),
        "most_common": 100 * max(counts.values()) / len(rows),
        "no_label": percent(row["predicted"] not in labels for row in answers),
        **dropped_of(answers, len(shots)),
    }
    draw_confusion(rows, labels, folder / "confusion.png")
    write_report(
        folder,
        summary,
        f"# Labels of {hparams['split']}",
        markdown_table(["", ""], summary.items()),
        "`accuracy`: percent that match exactly. `chance`: of a label drawn "
        "from all. `most_common`: of the label that is most common. "
        "`no_label`: percent of the answers that are none of the labels. "
        "`shots_dropped`: shots that prompts had no room for. `too_long`: "
        "utterances that no prompt had room for; they count as wrong.",
        "![confusion](confusion.png)",
        markdown_table(
            ["label", "utterances", "accuracy"],
            [[n, counts[n], 100 * hits[n] / counts[n]] for n in sorted(counts)],
        ),
    )


def draw_confusion(rows: Rows, labels: list[str], path: Path) -> None:
    """Draw which labels are taken for which."""
    from sklearn.metrics import confusion_matrix

    true = [row["label"] for row in rows.values()]
    found = [row["predicted"] for row in rows.values()]
    found = [label if label in labels else _OTHER for label in found]
    names = [*labels, _OTHER]
    matrix = confusion_matrix(true, found, labels=names, normalize="true")
    size = 3 + 0.22 * len(names)
    figure = Figure(figsize=(size, size), layout="constrained")
    axis = figure.subplots()
    axis.imshow(matrix[:-1], cmap="Blues", vmin=0, vmax=1)
    axis.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
    axis.set_yticks(range(len(labels)), labels, fontsize=7)
    axis.set(xlabel="predicted", ylabel="spoken")
    figure.savefig(path, dpi=120)
