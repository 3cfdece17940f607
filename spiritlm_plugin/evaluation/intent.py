"""Few-shot intent classification: how often a model finds the label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from matplotlib.figure import Figure

from spiritlm_plugin.dataio.batching import spread
from spiritlm_plugin.dataio.corpus.manifests import load_manifest
from spiritlm_plugin.evaluation.draws import (
    FewShotSettings,
    FewShotTask,
    Question,
    load_draws,
    over_draws,
    questions_of,
    rows_by_draw,
    sampling_of,
)
from spiritlm_plugin.evaluation.loop import (
    Items,
    dropped_of,
    groups_of,
    load_model,
    model_name,
    predict,
    settings_of,
    settings_shown,
)
from spiritlm_plugin.evaluation.predictions import Rows
from spiritlm_plugin.evaluation.reports import (
    RATES,
    markdown_table,
    percent,
    rates_table,
    settings_section,
    write_report,
)
from spiritlm_plugin.inference import SpiritLM
from spiritlm_plugin.inference.few_shot import Answer, Classifier
from spiritlm_plugin.inference.protocols import InterleavedModel
from spiritlm_plugin.metrics.intervals import percent_interval

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
    manifests = [load_manifest(folder / split) for split in splits]
    commands = [
        {name: item for name, item in items.items() if item.get(key)}
        for items in manifests
    ]
    for split, items in zip(splits, commands):
        if not items:
            raise ValueError(
                f"{folder / split} has no utterance with {key!r}; name "
                "the key of the labels with --label"
            )
    labels = {item[key] for items in commands for item in items.values()}
    names = spread(commands[0], hparams["utterances"])
    return {name: commands[0][name] for name in names}, sorted(labels)


@torch.inference_mode()
def evaluate(
    hparams: IntentSettings, run_opts: Any, lm: SpiritLM | None = None
) -> None:
    """Classify utterances behind shots, and report.

    Arguments
    ---------
    hparams : IntentSettings
        The recipe's.
    run_opts : RunOptions
        As of `load_recipe`.
    lm : SpiritLM, optional
        The model; loaded as ``hparams`` says by default.

    Raises
    ------
    ValueError, FileNotFoundError, ManifestError
        As of `load_commands`, `load_draws` and `load_model`.
    """
    items, labels = load_commands(hparams)
    draws = load_draws(hparams, items, hparams["label"], balanced=True)
    lm = lm or load_model(hparams, run_opts)
    settings = settings_of(hparams, run_opts, lm, items, *draws)
    asked = questions_of(hparams["seed"], items, len(draws))
    make = partial(Classification, hparams, lm, items, draws, labels)
    rows = predict(hparams, settings, asked, make, joined=True)
    if rows is not None:
        report(hparams, rows, draws, labels)


class Classification(FewShotTask):
    """A model that classifies utterances; called with ids, it gives rows.

    Arguments
    ---------
    hparams : IntentSettings
        The recipe's.
    lm : InterleavedModel
        The model.
    items : dict
        The utterances, by id.
    draws : sequence of dict
        The utterances that it is shown in each draw, by id.
    labels : list of str
        All there are, to choose from by likelihood.
    """

    def __init__(
        self,
        hparams: IntentSettings,
        lm: InterleavedModel,
        items: Items,
        draws: Sequence[Items],
        labels: list[str],
    ):
        super().__init__(hparams, items, draws)
        self.hparams, self.lm, self.labels = hparams, lm, labels

    def show(self, shots: Items) -> Classifier:
        """Return the model, shown some utterances with their labels."""
        by_likelihood = self.hparams["method"] == "likelihood"
        key = self.hparams["label"]
        return Classifier(
            self.lm,
            [(item["wav"], item[key]) for item in shots.values()],
            self.labels if by_likelihood else None,
            **sampling_of(self.hparams),
        )

    def ask(
        self, model: Classifier, questions: Sequence[Question]
    ) -> Iterator[tuple[Answer, dict[str, Any]]]:
        """Yield the labels of some utterances."""
        items = [self.items[question.item] for question in questions]
        answers = model(
            [item["wav"] for item in items], [q.seed for q in questions]
        )
        for item, answer in zip(items, answers):
            yield (
                answer,
                {
                    "label": item[self.hparams["label"]],
                    "predicted": answer.text,
                    "answer": answer.generation.text,
                    "scores": answer.scores,
                },
            )


def report(
    hparams: IntentSettings,
    rows: Rows,
    draws: Sequence[Items],
    labels: list[str],
) -> None:
    """Count hits, and write them down.

    Arguments
    ---------
    hparams : IntentSettings
        The recipe's.
    rows : dict
        Of `Classification`, by id.
    draws : sequence of dict
        What the model was to be shown.
    labels : list of str
        All there are.
    """
    folder = Path(hparams["output_folder"])
    answers, by_draw = rows.values(), rows_by_draw(rows)
    counts = {"utterances": len(by_draw[0]), "shots": len(draws[0])}
    said = Counter(row["label"] for row in answers)
    hits = Counter(row["label"] for row in answers if is_right(row))
    groups = groups_of(rows)
    figures = {
        "accuracy": percent(map(is_right, answers)),
        "accuracy_interval": percent_interval(
            [is_right(row) for row in answers],
            groups=[groups[name] for name in rows],
        ),
    }
    compared = {
        "labels": len(labels),
        "chance": 100 / len(labels),
        "most_common": 100 * max(said.values()) / len(rows),
        "no_label": percent(row["predicted"] not in labels for row in answers),
        **dropped_of(answers, len(draws[0])),
    }
    rates: list[dict[str, float | None]] = [
        {"accuracy": percent(map(is_right, some.values()))} for some in by_draw
    ]
    summary = {
        "model": model_name(hparams),
        "split": hparams["split"],
        "method": hparams["method"],
        **counts,
        **figures,
        **compared,
        **over_draws(draws, rates),
        "settings": settings_shown(hparams, **counts, draws=len(draws)),
    }
    draw_confusion(rows, labels, folder / "confusion.png")
    write_report(
        folder,
        summary,
        f"# Labels of {hparams['split']}",
        rates_table(summary, ["accuracy"]),
        markdown_table(["", ""], compared.items()),
        f"`accuracy`: percent that match exactly. {RATES} `chance`: of a label "
        "drawn from all. `most_common`: of the label that is most common. "
        "`no_label`: percent of the answers that are none of the labels. "
        "`shots_dropped`: shots that prompts had no room for. `too_long`: "
        "utterances that no prompt had room for; they count as wrong.",
        "![confusion](confusion.png)",
        markdown_table(
            ["label", "asked", "accuracy"],
            [[n, said[n], 100 * hits[n] / said[n]] for n in sorted(said)],
        ),
        settings_section(summary["settings"]),
    )


def is_right(row: Mapping[str, Any]) -> bool:
    """Tell whether the label that was found matches exactly.

    Example
    -------
    >>> is_right({"label": "bring shoes", "predicted": "bring shoe"})
    False
    """
    return bool(row["label"] == row["predicted"])


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
