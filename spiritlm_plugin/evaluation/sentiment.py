"""Sentiment preservation: whether a model keeps the sentiment of prompts (STSP).

The model continues texts and voices in text and in speech, behind no shots and
behind some, in several runs; classifiers of sentiment judge what it says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from statistics import fmean
from typing import Any, Literal, NamedTuple

import soundfile
from matplotlib.figure import Figure
from torch import Tensor

from spiritlm_plugin.dataio.audio.reading import read_audio
from spiritlm_plugin.dataio.batching import spread
from spiritlm_plugin.dataio.checkpoints import digest_weights
from spiritlm_plugin.dataio.corpus.stsp import (
    DIRECTIONS,
    SENTIMENTS,
    Record,
    STSPArchive,
)
from spiritlm_plugin.dataio.units.segments import Segment, Speech, Text
from spiritlm_plugin.dataio.units.units import SAMPLE_RATE
from spiritlm_plugin.evaluation import loop
from spiritlm_plugin.evaluation.loop import (
    Items,
    ModelSettings,
    answer_row,
    dropped_of,
    item_seeds,
    model_name,
)
from spiritlm_plugin.evaluation.predictions import Rows
from spiritlm_plugin.evaluation.reports import (
    markdown_table,
    percent,
    write_report,
)
from spiritlm_plugin.inference import SpeechCodec
from spiritlm_plugin.inference.continuation import Continuer
from spiritlm_plugin.inference.generation import speech_of
from spiritlm_plugin.inference.protocols import InterleavedModel
from spiritlm_plugin.metrics.sentiment import (
    most_common,
    sentiment_accuracy,
    write_predictions,
)
from spiritlm_plugin.metrics.sentiment_classifiers import (
    find_classifier,
    load_classifier,
)
from spiritlm_plugin.utils.seeds import derive_seed

# Classifiers by modality: of contents, texts or waveforms, to sentiments.
Classifiers = Mapping[str, Any]
# By direction and number of shots.
Figures = dict[str, dict[int, dict[str, Any]]]


class SentimentSettings(ModelSettings):
    """What the evaluation of sentiment preservation reads."""

    data_folder: str
    directions: list[Literal["t2t", "t2s", "s2s", "s2t"]]
    text_datasets: list[str]
    speech_datasets: list[str]
    prompts: int | None
    shots: list[int]
    runs: int
    text_classifier: str | None
    text_labels: list[str] | None
    speech_classifier: str | None
    speech_labels: list[str] | None
    context: int | None
    max_new_tokens: dict[str, int]
    temperature: float
    top_p: float
    speaker: int | str | None
    sample_count: int


class Condition(NamedTuple):
    """A run in a direction behind so many shots."""

    direction: str
    shots: int
    run: int

    @property
    def name(self) -> str:
        """As files of predictions are called."""
        return f"{self.direction}_{self.shots}shot_run{self.run}"


class Benchmark:
    """What is asked, in all conditions.

    Arguments
    ---------
    hparams : SentimentSettings
        The recipe's.

    Raises
    ------
    FileNotFoundError, ArchiveError
        As of `STSPArchive`.
    ValueError
        If nothing is asked.
    """

    def __init__(self, hparams: SentimentSettings):
        _check(hparams)
        archive = STSPArchive(hparams["data_folder"])
        modalities = {DIRECTIONS[d].prompt for d in hparams["directions"]}
        datasets = {
            "text": hparams["text_datasets"],
            "speech": hparams["speech_datasets"],
        }
        self.records = {}
        for modality in sorted(modalities):
            found = archive.records(
                datasets[modality], hparams["split"], modality
            )
            # So that some of them are balanced, too.
            found.sort(key=lambda record: (record.dataset, record.sentiment))
            self.records[modality] = spread(found, hparams["prompts"])
        self.conditions = [
            Condition(direction, count, run)
            for direction in hparams["directions"]
            for count in hparams["shots"]
            for run in range(hparams["runs"])
        ]
        self.shots = {
            c: archive.draw_shots(
                c.direction, c.shots, derive_seed(hparams["seed"], c.run)
            )
            for c in self.conditions
        }
        # By the id of each question its condition and its record.
        self.questions = {
            f"{c.name}/{record.id}": (c, record)
            for c in self.conditions
            for record in self.records[DIRECTIONS[c.direction].prompt]
        }

    def asked(self) -> tuple[Items, Items]:
        """Return what decides about answers, as plain values."""
        records: Items = {
            f"{modality} {record.id}": {
                "sentiment": record.sentiment,
                "prompt": str(record.prompt),
            }
            for modality, records in self.records.items()
            for record in records
        }
        shots: Items = {
            c.name: {"shots": str(s)} for c, s in self.shots.items()
        }
        return records, shots


def _check(hparams: SentimentSettings) -> None:
    """Raise ValueError for no direction, number of shots or run."""
    if not hparams["directions"]:
        raise ValueError(
            f"directions are some of {', '.join(DIRECTIONS)}, got none"
        )
    shots = hparams["shots"]
    if not shots or min(shots) < 0:
        raise ValueError(
            f"shots are numbers such as [0, 3, 6, 9], got {shots!r}"
        )
    if hparams["runs"] < 1:
        raise ValueError(f"there is 1 run at least, got {hparams['runs']}")


def load_classifiers(hparams: SentimentSettings, device: Any) -> Classifiers:
    """Return the classifiers by modality, of all that is to be judged.

    Raises
    ------
    FileNotFoundError
        If none is named and the archive has none.
    """
    named = {
        "text": (hparams["text_classifier"], hparams["text_labels"]),
        "speech": (hparams["speech_classifier"], hparams["speech_labels"]),
    }
    needed = {
        modality
        for name in hparams["directions"]
        for modality in DIRECTIONS[name][1:]
    }
    classifiers = {}
    for modality in sorted(needed):
        source, labels = named[modality]
        classifiers[modality] = load_classifier(
            source
            or find_classifier(
                Path(hparams["data_folder"]) / "model", modality
            ),
            modality,
            device,
            labels,
        )
    return classifiers


def settings_of(
    hparams: SentimentSettings,
    run_opts: Any,
    lm: SpeechCodec,
    classifiers: Classifiers,
    benchmark: Benchmark,
) -> dict[str, Any]:
    """Return all that decides what is answered, and how it is judged."""
    settings = loop.settings_of(hparams, run_opts, lm, *benchmark.asked())
    settings["classifiers"] = {
        modality: digest_weights(classifier.model)
        for modality, classifier in classifiers.items()
    }
    return settings


class Continuation:
    """A model that continues prompts, judged; called with ids: rows.

    Arguments
    ---------
    hparams : SentimentSettings
        The recipe's.
    lm : InterleavedModel
        The model.
    classifiers : dict
        By modality.
    benchmark : Benchmark
        What is asked.
    """

    def __init__(
        self,
        hparams: SentimentSettings,
        lm: InterleavedModel,
        classifiers: Classifiers,
        benchmark: Benchmark,
    ):
        self.hparams, self.lm = hparams, lm
        self.classifiers = classifiers
        self.benchmark = benchmark
        self.folder = Path(hparams["output_folder"]) / "wavs"
        self.folder.mkdir(exist_ok=True)
        self._units: dict[Path, Segment] = {}
        self._continuer: tuple[Condition, Continuer] | None = None
        self._kept = {
            record.id
            for records in benchmark.records.values()
            for record in spread(records, hparams["sample_count"])
        }

    def __call__(self, names: list[str]) -> Iterator[dict[str, Any]]:
        """Yield the answers to some questions."""
        for condition, some in groupby(
            names, key=lambda name: self.benchmark.questions[name][0]
        ):
            yield from self.ask(condition, list(some))

    def ask(
        self, condition: Condition, names: list[str]
    ) -> Iterator[dict[str, Any]]:
        """Yield the answers to questions of one condition."""
        hparams, output = self.hparams, DIRECTIONS[condition.direction].output
        records = [self.benchmark.questions[name][1] for name in names]
        seeds = item_seeds(hparams["seed"], names)
        answers = self._continuer_of(condition)(
            self._segments(records), seeds, hparams["speaker"]
        )
        said: list[Any] = [
            a.text if output == "text" else a.generation.wav for a in answers
        ]
        found = self.classifiers[output](said)
        shown = [shot.id for shot in self.benchmark.shots[condition]]
        for i, record in enumerate(records):
            if output == "speech" and not condition.run:
                self._keep(condition, record, said[i])
            yield answer_row(names[i], seeds[i], shown, answers[i]) | {
                "dataset": record.dataset,
                "sentiment": record.sentiment,
                "predicted": found[i],
                "continuation": said[i]
                if output == "text"
                else speech_of(answers[i].generation).to_string(),
            }

    def _continuer_of(self, condition: Condition) -> Continuer:
        if self._continuer is None or self._continuer[0] != condition:
            direction = DIRECTIONS[condition.direction]
            shots = [
                (
                    half(shot.prompt, direction.prompt, 0),
                    half(shot.generation, direction.output, 1),
                )
                for shot in self.benchmark.shots[condition]
            ]
            continuer = Continuer(
                self.lm,
                shots,
                direction.output,
                self.hparams["max_new_tokens"][condition.direction],
                temperature=self.hparams["temperature"],
                context=self.hparams["context"],
                top_p=self.hparams["top_p"],
                batch_size=self.hparams["batch_size"],
            )
            self._continuer = condition, continuer
        return self._continuer[1]

    def _segments(self, records: Sequence[Record]) -> list[Segment]:
        """Return prompts; recordings are tokenized once for all runs."""
        prompts = [record.prompt for record in records]
        spoken = [prompt for prompt in prompts if isinstance(prompt, Path)]
        new = [path for path in spoken if path not in self._units]
        [units] = self.lm.with_units([[Speech(path) for path in new]])
        self._units |= zip(new, units)
        return [
            self._units[prompt] if isinstance(prompt, Path) else Text(prompt)
            for prompt in prompts
        ]

    def _keep(
        self, condition: Condition, record: Record, wav: Tensor | None
    ) -> None:
        if record.id in self._kept and wav is not None and len(wav):
            name = f"{condition.name}_{record.id}.wav".replace("/", "_")
            path = self.folder / name
            soundfile.write(path, wav.cpu().numpy(), SAMPLE_RATE)


def half(content: Any, modality: str, which: int) -> Segment:
    """Return a text, or the first or second half of a recording."""
    if modality == "text":
        return Text(content)
    wav = read_audio(content)
    middle = len(wav) // 2
    return Speech(wav[middle:] if which else wav[:middle])


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
        accuracy = sentiment_accuracy(records, [*map(predicted_of, found)])
        answers = [row for run in found for row in run.values()]
        figures.setdefault(direction, {})[count] = {
            "accuracy": accuracy,
            "predicted": {
                s: percent(row["predicted"] == s for row in answers)
                for s in SENTIMENTS
            },
            "empty": percent(row["predicted"] is None for row in answers),
            **dropped_of(answers, count),
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
            "accuracy": sentiment_accuracy(records, [found]),
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
    summary = {
        "model": model_name(hparams),
        "split": hparams["split"],
        "runs": hparams["runs"],
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
        "runs; of several datasets the mean.",
        accuracy_table(hparams, figures, prompts, chance),
        "`prompts`: of the same classifiers on the prompts themselves. "
        "`chance`: of a sentiment drawn from all. `most common`: of who "
        "always says the most common one.",
        "![accuracy by shots](shots.png)",
        detail_table(figures),
        "`empty`: percent of the continuations with nothing to judge; they "
        "count as wrong. `dropped`: shots that prompts had no room for. "
        "`too long`: prompts that the model has no room for.",
    )


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
            f"{a['all']['mean']:.1f} ± {a['all']['std']:.1f}" for a in found
        ]
        mean = fmean(a["all"]["mean"] for a in found)
        rows.append([f"{count} shots", *cells, mean])
    sources = [prompts[DIRECTIONS[d].prompt] for d in figures]
    judged = [s["accuracy"]["all"]["mean"] for s in sources]
    common = [s["most_common"] for s in sources]
    rows.append(["prompts", *judged, fmean(judged)])
    rows.append(["chance", *[chance] * (len(figures) + 1)])
    rows.append(["most common", *common, fmean(common)])
    names = [DIRECTIONS[direction].name for direction in figures]
    return markdown_table(["", *names, "mean"], rows)


def detail_table(figures: Figures) -> str:
    """Return a row for each direction, number of shots and dataset."""
    rows = [
        [
            DIRECTIONS[direction].name,
            str(count),
            dataset,
            accuracy["mean"],
            accuracy["std"],
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
    header = ["", "shots", "dataset", "accuracy", "±", *heard]
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
