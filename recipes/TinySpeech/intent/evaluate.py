"""Measure how well a language model classifies spoken commands.

python evaluate.py hparams/evaluate.yaml --manifest_folder FOLDER --model MODEL

Shows the model some utterances with their labels, and has the next one
generated (exact match) or chosen from all labels by likelihood (--method
likelihood). Writes predictions.jsonl, summary.json, report.md and confusion.png.
Runs under torchrun, and goes on where it was stopped.
"""

from collections import Counter
from pathlib import Path

import torch
from matplotlib.figure import Figure
from sklearn.metrics import confusion_matrix

from spiritlm_plugin.dataio.batching import spread
from spiritlm_plugin.dataio.corpus.manifests import load_manifest
from spiritlm_plugin.evaluation.loop import (
    answer_row,
    item_seeds,
    load_model,
    load_shots,
    sampling_of,
    settings_of,
)
from spiritlm_plugin.evaluation.predictions import Predictions
from spiritlm_plugin.evaluation.reports import (
    markdown_table,
    percent,
    write_report,
)
from spiritlm_plugin.inference.few_shot import TOO_LONG, Classifier
from spiritlm_plugin.utils.recipes import load_recipe, run

METHODS = ("generation", "likelihood")
OTHER = "(no label)"


def load_commands(hparams):
    """Return the utterances to classify, and all labels of both splits."""
    if hparams["method"] not in METHODS:
        raise ValueError(
            f"method is one of {', '.join(METHODS)}, got {hparams['method']!r}"
        )
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


def predict(hparams, lm, items, shots, labels, predictions):
    """Let the model classify what is not classified yet."""
    key = hparams["label"]
    classify = Classifier(
        lm,
        [(item["wav"], item[key]) for item in shots.values()],
        labels if hparams["method"] == "likelihood" else None,
        **sampling_of(hparams),
    )
    for names in predictions.batches(hparams["batch_size"]):
        seeds = item_seeds(hparams["seed"], names)
        answers = classify([items[name]["wav"] for name in names], seeds)
        predictions.add(
            answer_row(name, seed, shots, answer)
            | {
                "label": items[name][key],
                "predicted": answer.text,
                "answer": answer.generation.text,
                "scores": answer.scores,
            }
            for name, seed, answer in zip(names, seeds, answers)
        )


def report(hparams, rows, shots, labels):
    """Count hits, and write them down."""
    folder = Path(hparams["output_folder"])
    asked, answers = len(shots), rows.values()
    counts = Counter(row["label"] for row in answers)
    hits = Counter(r["label"] for r in answers if r["label"] == r["predicted"])
    summary = {
        "model": hparams["model"] or hparams["release"],
        "split": hparams["split"],
        "method": hparams["method"],
        "utterances": len(rows),
        "labels": len(labels),
        "shots": asked,
        "accuracy": 100 * hits.total() / len(rows),
        "chance": 100 / len(labels),
        "most_common": 100 * max(counts.values()) / len(rows),
        "no_label": percent(row["predicted"] not in labels for row in answers),
        "shots_dropped": sum(asked - len(row["shots"]) for row in answers),
        "too_long": sum(row["end_reason"] == TOO_LONG for row in answers),
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


def draw_confusion(rows, labels, path):
    """Draw which labels are taken for which."""
    true = [row["label"] for row in rows.values()]
    found = [row["predicted"] for row in rows.values()]
    found = [label if label in labels else OTHER for label in found]
    names = [*labels, OTHER]
    matrix = confusion_matrix(true, found, labels=names, normalize="true")
    size = 3 + 0.22 * len(names)
    figure = Figure(figsize=(size, size), layout="constrained")
    axis = figure.subplots()
    axis.imshow(matrix[:-1], cmap="Blues", vmin=0, vmax=1)
    axis.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
    axis.set_yticks(range(len(labels)), labels, fontsize=7)
    axis.set(xlabel="predicted", ylabel="spoken")
    figure.savefig(path, dpi=120)


@torch.inference_mode()
def main(arguments):
    hparams, run_opts = load_recipe(arguments)
    items, labels = load_commands(hparams)
    shots = load_shots(hparams, items, hparams["label"], balanced=True)
    lm = load_model(hparams, run_opts)
    settings = settings_of(hparams, run_opts, lm, items, shots)
    predictions = Predictions(hparams["output_folder"], settings, items)
    predict(hparams, lm, items, shots, labels, predictions)
    rows = predictions.gather()
    if rows is not None:
        report(hparams, rows, shots, labels)


if __name__ == "__main__":
    run(main)
