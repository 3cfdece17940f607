"""Comprehension: a model finds what is right likelier than what is wrong.

Compares a word with a non-word, a sentence with one that has a mistake, and the
ending of a story with one that does not fit, by log-likelihood: in speech (S), in
text (T), and for stories speech after text (T2S) and text after speech (S2T).
"""

from __future__ import annotations

import logging
import re
from collections.abc import (
    Hashable,
    Iterable,
    Iterator,
    Sequence,
)
from functools import partial
from statistics import fmean
from typing import Any

import torch

from spiritlm_plugin.dataio.corpus.manifests import ManifestError
from spiritlm_plugin.evaluation.comprehension_groups import (
    MODALITIES,
    RIGHT,
    ComprehensionSettings,
    Groups,
    Task,
    check,
    compares,
    load_groups,
    names_of,
)
from spiritlm_plugin.evaluation.comprehension_scorer import Scorer
from spiritlm_plugin.evaluation.loop import (
    Items,
    load_model,
    model_name,
    predict,
    settings_of,
    settings_shown,
)
from spiritlm_plugin.evaluation.predictions import Rows
from spiritlm_plugin.evaluation.reports import (
    markdown_table,
    settings_section,
    with_interval,
    write_report,
)
from spiritlm_plugin.inference import SpiritLM
from spiritlm_plugin.metrics.intervals import ratio_interval
from spiritlm_plugin.metrics.pair_likelihood import (
    SCORES,
    Scored,
    item_accuracies,
    pair_accuracy,
)

logger = logging.getLogger(__name__)

CHANCE = 50.0
# Which score the tables of Spirit LM's paper are by.
PUBLISHED = "per_token"
# Of each modality accuracies, in percent, with their intervals.
Cells = dict[str, dict[str, Any]]
Figures = dict[str, Cells]
# Of each task, column of the manifest and value in it.
Breakdowns = dict[str, dict[str, Figures]]


@torch.inference_mode()
def evaluate(
    hparams: ComprehensionSettings, run_opts: Any, lm: SpiritLM | None = None
) -> None:
    """Compare what is right with what is wrong, and report.

    Arguments
    ---------
    hparams : ComprehensionSettings
        The recipe's.
    run_opts : RunOptions
        As of `load_recipe`.
    lm : SpiritLM, optional
        The model; loaded as ``hparams`` says by default.

    Raises
    ------
    ValueError, FileNotFoundError, ManifestError
        As of `check`, `load_groups` and `load_model`.
    """
    check(hparams)
    groups = load_groups(hparams)
    lm = lm or load_model(hparams, run_opts)
    items = {n: i for group in groups.values() for n, i in group.items()}
    settings = settings_of(hparams, run_opts, lm, items)
    make = partial(
        Scorer,
        lm,
        groups,
        hparams["modalities"],
        hparams["batch_size"],
        str(hparams.get("scored", "ending")),
    )
    rows = predict(hparams, settings, groups, make)
    if rows is not None:
        report(hparams, rows, groups)


def accuracies(
    hparams: ComprehensionSettings, rows: Rows, groups: Groups | None = None
) -> Figures:
    """Return the figures of each task in each modality.

    Arguments
    ---------
    hparams : ComprehensionSettings
        The recipe's.
    rows : dict
        Of `Scorer`, by the names of groups.
    groups : dict, optional
        As of `load_groups`; without them each group is an item of its own.

    Returns
    -------
    dict
        Of each task and modality ``sum`` and ``per_token``, in percent, each
        with the 95% interval over items as ``sum_interval`` and so on, and the
        numbers of ``groups`` and ``items``. Of a task with ``average`` the
        mean over the values of this column.
    """
    entries = _entries(groups or {})
    figures: Figures = {}
    for name, task in hparams["tasks"].items():
        figures[name] = {}
        for modality in hparams["modalities"]:
            variants = list(scored(task, modality, rows, entries))
            if variants:
                column = task.get("average")
                figures[name][modality] = _cell(variants, entries, column)
    return figures


def breakdowns(
    hparams: ComprehensionSettings, rows: Rows, groups: Groups
) -> Breakdowns:
    """Return the figures of each task by the columns that it names.

    They are those of ``by`` and ``average``; an item has the value of its
    right variant. Arguments are those of `accuracies`.
    """
    entries = _entries(groups)
    found: Breakdowns = {}
    for name, task in hparams["tasks"].items():
        for column in _columns(task):
            of_column: Figures = {}
            for modality in hparams["modalities"]:
                parts = _by_value(
                    scored(task, modality, rows, entries), entries, column
                )
                for value, variants in parts.items():
                    cells = of_column.setdefault(value, {})
                    cells[modality] = _cell(variants, entries)
            if not of_column:
                logger.warning(
                    "%s is not told by %s: test_%s and the like have no "
                    "such column; prepare the manifest again",
                    name,
                    column,
                    task["manifest"],
                )
                continue
            ordered = sorted(of_column, key=_natural)
            found.setdefault(name, {})[column] = {
                value: of_column[value] for value in ordered
            }
    return found


def _columns(task: Task) -> list[str]:
    columns = [*(task.get("by") or ()), task.get("average")]
    return list(dict.fromkeys(c for c in columns if c))


def _natural(value: str) -> tuple[int, str]:
    """Return what sorts by the first number in a text."""
    number = re.search(r"\d+", value)
    return (int(number[0]) if number else -1), value.casefold()


def _entries(groups: Groups) -> dict[str, dict[str, Any]]:
    """Return of each group the entry of its right variant."""
    return {
        name: item
        for name, variants in groups.items()
        for item in variants.values()
        if item["variant"] == RIGHT
    }


def _by_value(
    variants: Iterable[Scored], entries: Items, column: str
) -> dict[str, list[Scored]]:
    """Return the variants of each value of a column."""
    found: dict[str, list[Scored]] = {}
    for variant in variants:
        value = entries.get(str(variant.group), {}).get(column)
        if value is not None:
            found.setdefault(str(value), []).append(variant)
    return found


def _cell(
    variants: Sequence[Scored], entries: Items, average: str | None = None
) -> dict[str, Any]:
    """Return the figures of some variants, or the mean over a column."""
    if average is None:
        parts = [variants]
    else:
        parts = list(_by_value(variants, entries, average).values())
        if sum(map(len, parts)) < len(variants):
            raise ManifestError(
                f"figures are averaged over {average}, but not all entries "
                "have this column; prepare the manifest again"
            )
    means = [pair_accuracy(part) for part in parts]
    items = [item_accuracies(part) for part in parts]
    # Each part weighs the same, so many items as it has.
    weights = [1 / len(part) for part in items for _ in part]
    # What reads the same text is alike, and drawn together.
    texts = {
        _item(variant): entries.get(str(variant.group), {}).get("text_id")
        for variant in variants
    }
    drawn = [texts[name] or name for part in items for name in part]
    cell: dict[str, Any] = {}
    for score in SCORES:
        rates = [item[score] for part in items for item in part.values()]
        centres = [0.0] * len(rates)
        if average is not None:
            # Which parts there are is no chance: drawn are items' deviations.
            centres = [
                found[score] for found, part in zip(means, items) for _ in part
            ]
        mean = fmean(found[score] for found in means)
        interval = ratio_interval(
            [w * (r - c) for w, r, c in zip(weights, rates, centres)],
            weights,
            drawn,
        )
        shift = 0.0 if average is None else mean
        cell[score] = 100 * mean
        cell[f"{score}_interval"] = interval and [
            100 * min(max(end + shift, 0.0), 1.0) for end in interval
        ]
    cell["groups"] = sum(found["groups"] for found in means)
    return cell | {"items": len(weights)}


def _item(variant: Scored) -> Hashable:
    return variant.group if variant.item is None else variant.item


def scored(
    task: Task, modality: str, rows: Rows, entries: Items
) -> Iterator[Scored]:
    """Yield the variants that a task compares in a modality."""
    for name, row in rows.items():
        scores = [s for s in row["scores"] if s["modality"] == modality]
        if compares(task, name, {s["variant"] for s in scores}):
            item = entries.get(name, {}).get("item")
            for s in scores:
                if s["variant"] in (RIGHT, task["wrong"]):
                    right = s["variant"] == RIGHT
                    yield Scored(name, right, s["sum"], s["tokens"], item)


def report(hparams: ComprehensionSettings, rows: Rows, groups: Groups) -> None:
    """Count what is right, and write it down.

    Arguments
    ---------
    hparams : ComprehensionSettings
        The recipe's.
    rows : dict
        Of `Scorer`, by the names of groups.
    groups : dict
        As of `load_groups`.
    """
    figures = accuracies(hparams, rows, groups)
    parts = breakdowns(hparams, rows, groups)
    scores = [s for row in rows.values() for s in row["scores"]]
    shortened = sum(s["dropped"] > 0 for s in scores)
    stories = hparams.get("scored")
    summary = {
        "model": model_name(hparams),
        "split": hparams["split"],
        "chance": CHANCE,
        "published_score": PUBLISHED,
        "scored": len(scores),
        "shortened": shortened,
        "settings": settings_shown(
            hparams,
            modalities=hparams["modalities"],
            groups=len(groups),
            **({"scored": stories} if stories else {}),
        ),
        "accuracy": figures,
        "by": parts,
    }
    write_report(
        hparams["output_folder"],
        summary,
        f"# Comprehension, {hparams['split']}",
        "Percent of the comparisons in which what is right is likelier than "
        "what is wrong; ties count half. The comparisons of an item, such as "
        "its voices, are averaged, then the items. In brackets the 95% "
        "interval over items, by the bootstrap.",
        *_remarks(hparams, figures, groups),
        "By log-likelihood divided by the number of tokens, as in the tables "
        "of the paper:",
        *tables(hparams, figures, parts, "per_token"),
        "By log-likelihood, summed over tokens:",
        *tables(hparams, figures, parts, "sum"),
        f"The beginning of the context was dropped in {shortened} of "
        f"{len(scores)} cases, for want of room.",
        settings_section(summary["settings"]),
    )


def _remarks(
    hparams: ComprehensionSettings, figures: Figures, groups: Groups
) -> list[str]:
    """Return what else decides about figures."""
    remarks = []
    if stories := hparams.get("scored"):
        what = {
            "story": "the whole story",
            "ending": "the ending after its context, where it is known",
        }
        remarks.append(f"In S and T {what[str(stories)]} is scored.")
    for name, cells in figures.items():
        task = hparams["tasks"][name]
        if task.get("average"):
            remarks.append(
                f"{name} is the mean over the values of {task['average']}."
            )
        total = sum(compares(task, n, names_of(g)) for n, g in groups.items())
        for modality in hparams["modalities"]:
            count = cells.get(modality, {"groups": 0})["groups"]
            if 0 < count < total:
                remarks.append(
                    f"{name}, {MODALITIES[modality][0]}: {total - count} of "
                    f"{total} lack what it needs and are left out."
                )
    return remarks


def tables(
    hparams: ComprehensionSettings,
    figures: Figures,
    parts: Breakdowns,
    score: str,
) -> list[str]:
    """Return one of both scores as Markdown, a column for each modality.

    A table of the tasks, and if there are any, one of their breakdowns.
    """
    modalities = hparams["modalities"]
    names = [MODALITIES[m][0] for m in modalities]

    def row(cells: Cells, *start: str) -> list[Any]:
        count = max(cell["groups"] for cell in cells.values())
        shown = [with_interval(cells.get(m) or {}, score) for m in modalities]
        return [*start, count, CHANCE, *shown]

    found = [row(cells, name) for name, cells in figures.items() if cells]
    header = ["task", "comparisons", "chance", *names]
    shown = [markdown_table(header, found)]
    details = [
        row(cells, name, column, value)
        for name, columns in parts.items()
        for column, values in columns.items()
        for value, cells in values.items()
    ]
    if details:
        header = ["task", "by", "", "comparisons", "chance", *names]
        shown.append(markdown_table(header, details))
    return shown
