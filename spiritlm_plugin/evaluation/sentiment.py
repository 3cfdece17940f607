"""Sentiment preservation: whether a model keeps the sentiment of prompts (STSP).

The model continues texts and voices in text and in speech, behind no shots and
behind some, in several runs; classifiers of sentiment judge what it says.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from matplotlib.figure import Figure
from speechbrain.utils.distributed import infer_device

from spiritlm_plugin.dataio.audio.reading import read_audio
from spiritlm_plugin.dataio.corpus.stsp import (
    DIRECTIONS,
    SENTIMENTS,
)
from spiritlm_plugin.evaluation.loop import (
    dropped_of,
    load_model,
    model_name,
    predict,
)
from spiritlm_plugin.evaluation.predictions import Rows
from spiritlm_plugin.evaluation.reports import (
    interval_cell,
    markdown_table,
    percent,
    settings_section,
    write_report,
)
from spiritlm_plugin.evaluation.sentiment_benchmark import (
    Benchmark,
    Classifiers,
    Condition,
    SentimentSettings,
    classifier_sources,
    load_classifiers,
    settings_of,
)
from spiritlm_plugin.evaluation.sentiment_continuation import (
    NO_WORDS,
    Continuation,
)
from spiritlm_plugin.inference import SpiritLM
from spiritlm_plugin.metrics.sentiment import (
    most_common,
    sentiment_accuracy,
    sentiment_intervals,
    write_predictions,
)

# By direction and number of shots.
Figures = dict[str, dict[int, dict[str, Any]]]
# What decides about the figures, as reports say it.
_DECISIVE = (
    "split",
    "text_datasets",
    "speech_datasets",
    "prompts",
    "runs",
    "seed",
    "text_labels",
    "text_tokenizer",
    "speech_labels",
    "context",
    "max_new_tokens",
    "temperature",
    "top_p",
    "speaker",
    "tries",
    "judge_empty",
    "released_settings",
    "dtype",
)


@torch.inference_mode()
def evaluate(
    hparams: SentimentSettings, run_opts: Any, lm: SpiritLM | None = None
) -> None:
    """Have prompts continued and judged, and report.

    Arguments
    ---------
    hparams : SentimentSettings
        The recipe's.
    run_opts : RunOptions
        As of `load_recipe`.
    lm : SpiritLM, optional
        The model; loaded as ``hparams`` says by default.

    Raises
    ------
    ValueError, FileNotFoundError, ArchiveError
        As of `Benchmark`, `load_classifiers` and `load_model`.
    """
    benchmark = Benchmark(hparams)
    device = run_opts.get("device") or infer_device()
    classifiers = load_classifiers(hparams, device)
    lm = lm or load_model(hparams, run_opts)
    settings = settings_of(hparams, run_opts, lm, classifiers, benchmark)
    make = partial(Continuation, hparams, lm, classifiers, benchmark)
    rows = predict(hparams, settings, benchmark.questions, make)
    if rows is not None:
        report(hparams, benchmark, rows, classifiers)


def score(benchmark: Benchmark, rows: Rows, folder: str | Path) -> Figures:
    """Return the figures of each direction and number of shots.

    Arguments
    ---------
    benchmark : Benchmark
        What was asked.
    rows : dict
        Of `Continuation`, by question.
    folder : str or Path
        Gets ``predictions/``, as the benchmark wants them.
    """
    folder = Path(folder) / "predictions"
    folder.mkdir(exist_ok=True)
    runs: dict[tuple[str, int], list[Rows]] = {}
    for condition in benchmark.conditions:
        records = benchmark.records[DIRECTIONS[condition.direction].prompt]
        run = {
            record.id: rows[f"{condition.name}/{record.id}"]
            for record in records
        }
        runs.setdefault(condition[:2], []).append(run)
        write_predictions(folder / f"{condition.name}.jsonl", predicted_of(run))
    figures: Figures = {}
    for (direction, count), found in runs.items():
        records = benchmark.records[DIRECTIONS[direction].prompt]
        predicted = [predicted_of(run) for run in found]
        answers = [row for run in found for row in run.values()]
        shown = len(benchmark.shots[Condition(direction, count, 0)])
        asked = [row for row in answers if row["end_reason"] != NO_WORDS]
        figures.setdefault(direction, {})[count] = {
            "accuracy": sentiment_accuracy(records, predicted),
            "interval": sentiment_intervals(records, predicted),
            "predicted": {
                s: percent(row["predicted"] == s for row in answers)
                for s in SENTIMENTS
            },
            "empty": percent(row["predicted"] is None for row in answers),
            **dropped_of(asked, shown),
        }
    return figures


def predicted_of(run: Rows) -> dict[str, str | None]:
    """Return what was predicted of each record."""
    return {name: row["predicted"] for name, row in run.items()}


def judge_prompts(
    benchmark: Benchmark, classifiers: Classifiers, batch_size: int
) -> dict[str, dict[str, Any]]:
    """Return how often the classifiers are right about the prompts."""
    figures = {}
    for modality, records in benchmark.records.items():
        found: dict[str, str | None] = {}
        for start in range(0, len(records), batch_size):
            some = records[start : start + batch_size]
            prompts: list[Any] = [record.prompt for record in some]
            if modality == "speech":
                prompts = [read_audio(path) for path in prompts]
            verdicts = classifiers[modality](prompts)
            found |= zip((r.id for r in some), verdicts)
        figures[modality] = {
            "records": len(records),
            "without_words": sum(not r.has_words for r in records),
            "accuracy": sentiment_accuracy(records, [found]),
            "interval": sentiment_intervals(records, [found]),
            "most_common": most_common(records),
        }
    return figures


def report(
    hparams: SentimentSettings,
    benchmark: Benchmark,
    rows: Rows,
    classifiers: Classifiers,
) -> None:
    """Count what is right, and write it down.

    Arguments
    ---------
    hparams : SentimentSettings
        The recipe's.
    benchmark : Benchmark
        What was asked.
    rows : dict
        Of `Continuation`, by question.
    classifiers : dict
        By modality; they judge the prompts, too.
    """
    folder = hparams["output_folder"]
    prompts = judge_prompts(benchmark, classifiers, hparams["batch_size"])
    figures = score(benchmark, rows, folder)
    chance = 100 / len(SENTIMENTS)
    summary: dict[str, Any] = {
        "model": model_name(hparams),
        "split": hparams["split"],
        "runs": hparams["runs"],
        "settings": settings_shown(hparams),
        "chance": chance,
        "prompts": prompts,
        "directions": figures,
    }
    draw_shots(figures, chance, Path(folder) / "shots.png")
    write_report(
        folder,
        summary,
        f"# Sentiment preservation, {hparams['split']}",
        f"Accuracy in percent, mean ± standard deviation of {hparams['runs']} "
        "runs, for each of which the shots are drawn anew; of several datasets "
        "the mean. In brackets the 95% interval over prompts, those of a "
        "speaker drawn together where the archive names one.",
        accuracy_table(hparams, figures, prompts, chance),
        "`prompts`: of the same classifiers on the prompts themselves. "
        "`chance`: of a sentiment drawn from all. `most common`: of who "
        "always says the most common one.",
        "![accuracy by shots](shots.png)",
        detail_table(figures),
        "`95%`: the interval. `empty`: percent of the continuations without "
        "a verdict, which count as wrong. `dropped`: shots that prompts had no "
        "room for. `too long`: prompts that the model has no room for.",
        "Prompts without words, which are not continued: "
        f"{sum(p['without_words'] for p in prompts.values())}.",
        settings_section(summary["settings"]),
    )


def settings_shown(hparams: SentimentSettings) -> dict[str, Any]:
    """Return what decides about the figures, by the names of the options."""
    values: Mapping[str, Any] = hparams
    judges = {
        f"{modality}_classifier": source
        for modality, source in classifier_sources(hparams).items()
    }
    shown = {name: values[name] for name in _DECISIVE}
    return {"model": model_name(hparams), **judges, **shown}


def accuracy_table(
    hparams: SentimentSettings,
    figures: Figures,
    prompts: Mapping[str, Mapping[str, Any]],
    chance: float,
) -> str:
    """Return the main table, a column for each direction."""
    rows: list[list[Any]] = []
    for count in hparams["shots"]:
        found = [by_shots[count]["accuracy"] for by_shots in figures.values()]
        cells = [
            accuracy_cell(by_shots[count]) for by_shots in figures.values()
        ]
        mean = fmean(a["all"]["mean"] for a in found)
        rows.append([f"{count} shots", *cells, mean])
    sources = [prompts[DIRECTIONS[d].prompt] for d in figures]
    judged = [s["accuracy"]["all"]["mean"] for s in sources]
    cells = [accuracy_cell(source, deviates=False) for source in sources]
    common = [s["most_common"] for s in sources]
    rows.append(["prompts", *cells, fmean(judged)])
    rows.append(["chance", *[chance] * (len(figures) + 1)])
    rows.append(["most common", *common, fmean(common)])
    names = [DIRECTIONS[direction].name for direction in figures]
    return markdown_table(["", *names, "mean"], rows)


def accuracy_cell(found: Mapping[str, Any], deviates: bool = True) -> str:
    """Return the mean of the datasets, over runs if wanted, with its interval.

    Example
    -------
    >>> accuracy = {"all": {"mean": 50.0, "std": 2.0}}
    >>> accuracy_cell({"accuracy": accuracy, "interval": {"all": (40, 60)}})
    '50.0 ± 2.0 (40.0 to 60.0)'
    """
    accuracy = found["accuracy"]["all"]
    interval = interval_cell(found["interval"]["all"])
    deviation = f" ± {accuracy['std']:.1f}" if deviates else ""
    within = f" ({interval})" if interval else ""
    return f"{accuracy['mean']:.1f}{deviation}{within}"


def detail_table(figures: Figures) -> str:
    """Return a row for each direction, number of shots and dataset."""
    rows = [
        [
            DIRECTIONS[direction].name,
            str(count),
            dataset,
            accuracy["mean"],
            accuracy["std"],
            interval_cell(found["interval"][dataset]),
            *found["predicted"].values(),
            found["empty"],
            found["shots_dropped"],
            found["too_long"],
        ]
        for direction, by_shots in figures.items()
        for count, found in by_shots.items()
        for dataset, accuracy in found["accuracy"].items()
        if dataset != "all"
    ]
    heard = [f"says {sentiment}" for sentiment in SENTIMENTS]
    header = ["", "shots", "dataset", "accuracy", "±", "95%", *heard]
    return markdown_table([*header, "empty", "dropped", "too long"], rows)


def draw_shots(figures: Figures, chance: float, path: Path) -> None:
    """Draw the accuracy by the number of shots."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axis = figure.subplots()
    for direction, by_shots in figures.items():
        found = [f["accuracy"]["all"] for f in by_shots.values()]
        axis.errorbar(
            list(by_shots),
            [accuracy["mean"] for accuracy in found],
            [accuracy["std"] for accuracy in found],
            marker="o",
            capsize=3,
            label=DIRECTIONS[direction].name,
        )
    axis.axhline(chance, color="grey", linestyle=":", label="chance")
    counts = sorted({n for by_shots in figures.values() for n in by_shots})
    axis.set_xticks(counts)
    axis.set(xlabel="shots", ylabel="accuracy (%)", ylim=(0, 100))
    axis.legend()
    figure.savefig(path, dpi=120)
