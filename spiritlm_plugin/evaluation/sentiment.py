"""Sentiment preservation: whether a model keeps the sentiment of prompts (STSP).

The model continues texts and voices in text and in speech, behind no shots and
behind some, in several runs; classifiers of sentiment judge what it says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from statistics import fmean
from typing import Any, Literal, NamedTuple, cast

import torch
from matplotlib.figure import Figure
from speechbrain.utils.distributed import infer_device
from torch import Tensor

from spiritlm_plugin.dataio.audio.reading import read_audio
from spiritlm_plugin.dataio.audio.writing import write_wav
from spiritlm_plugin.dataio.batching import spread
from spiritlm_plugin.dataio.checkpoints import digest_weights
from spiritlm_plugin.dataio.corpus.stsp import (
    DIRECTIONS,
    SENTIMENTS,
    Record,
    STSPArchive,
)
from spiritlm_plugin.dataio.units.segments import Segment, Speech, Text
from spiritlm_plugin.dataio.units.units import MIN_SAMPLES
from spiritlm_plugin.evaluation import loop
from spiritlm_plugin.evaluation.loop import (
    Items,
    ModelSettings,
    answer_row,
    dropped_of,
    item_seeds,
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
from spiritlm_plugin.inference import SpeechCodec, SpiritLM
from spiritlm_plugin.inference.continuation import Continuer
from spiritlm_plugin.inference.few_shot import TOO_LONG, Answer
from spiritlm_plugin.inference.generation import Generation, speech_of
from spiritlm_plugin.inference.protocols import InterleavedModel
from spiritlm_plugin.metrics.sentiment import (
    most_common,
    sentiment_accuracy,
    sentiment_intervals,
    write_predictions,
)
from spiritlm_plugin.metrics.sentiment_classifiers import (
    find_classifier,
    load_classifier,
)
from spiritlm_plugin.utils.files import safe_file_name
from spiritlm_plugin.utils.seeds import derive_seed

# Classifiers by modality: of contents, texts or waveforms, to sentiments.
Classifiers = Mapping[str, Any]
# By direction and number of shots.
Figures = dict[str, dict[int, dict[str, Any]]]

# What the benchmark's own script is run with.
RELEASED: dict[str, Any] = {
    "max_new_tokens": {"t2t": 50, "t2s": 300, "s2s": 300, "s2t": 50},
    "temperature": 0.8,
    "top_p": 0.95,
    "speaker": 2,
    "tries": 3,
    "judge_empty": True,
}
# Why there is no answer to a prompt without words.
NO_WORDS = "no_words"
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
    text_tokenizer: str | None
    speech_classifier: str | None
    speech_labels: list[str] | None
    context: int | None
    max_new_tokens: dict[str, int]
    temperature: float
    top_p: float
    speaker: int | str | None
    tries: int
    judge_empty: bool
    released_settings: bool
    sample_count: int


def settle(
    hparams: SentimentSettings, arguments: Sequence[str]
) -> SentimentSettings:
    """Return the settings, those of the benchmark's script where asked for.

    Arguments
    ---------
    hparams : SentimentSettings
        The recipe's; ``released_settings`` puts `RELEASED` in their place.
    arguments : sequence of str
        Of the command line.

    Raises
    ------
    ValueError
        If the command line names another value for one of them.

    Example
    -------
    >>> settle({"released_settings": True, "top_p": 0.5}, [])["speaker"]
    2
    >>> settle({"released_settings": True, "top_p": 0.5}, ["--top_p=0.5"])
    Traceback (most recent call last):
        ...
    ValueError: --top_p is 0.5, of the released settings 0.95; leave one of ...
    """
    if not hparams["released_settings"]:
        return hparams
    named = {argument.partition("=")[0] for argument in arguments}
    for name, value in RELEASED.items():
        given = hparams.get(name)
        if f"--{name}" in named and given != value:
            raise ValueError(
                f"--{name} is {given}, of the released settings {value}; leave "
                "one of the two options out"
            )
    return cast("SentimentSettings", {**hparams, **RELEASED})


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
    for name, count in (("run", hparams["runs"]), ("try", hparams["tries"])):
        if count < 1:
            raise ValueError(f"there is 1 {name} at least, got {count}")


def load_classifiers(hparams: SentimentSettings, device: Any) -> Classifiers:
    """Return the classifiers by modality, of all that is to be judged.

    Raises
    ------
    FileNotFoundError
        If none is named and the archive has none.
    """
    labels = {
        "text": hparams["text_labels"],
        "speech": hparams["speech_labels"],
    }
    return {
        modality: load_classifier(
            source,
            modality,
            device,
            labels[modality],
            hparams["text_tokenizer"] if modality == "text" else None,
            hparams["judge_empty"],
        )
        for modality, source in classifier_sources(hparams).items()
    }


def classifier_sources(hparams: SentimentSettings) -> dict[str, str]:
    """Return folders or names of the classifiers, by the modality they judge.

    Raises
    ------
    FileNotFoundError
        As of `load_classifiers`.
    """
    named = {
        "text": hparams["text_classifier"],
        "speech": hparams["speech_classifier"],
    }
    needed = {
        modality
        for name in hparams["directions"]
        for modality in DIRECTIONS[name][1:]
    }
    folder = Path(hparams["data_folder"]) / "model"
    return {
        modality: named[modality] or str(find_classifier(folder, modality))
        for modality in sorted(needed)
    }


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
        answers = self._answers(condition, records, seeds)
        said = [said_in(answer, output) for answer in answers]
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

    def _answers(
        self, condition: Condition, records: list[Record], seeds: list[int]
    ) -> list[Answer]:
        """Continue prompts, anew where nothing is said, so often as allowed."""
        output = DIRECTIONS[condition.direction].output
        answers = [Answer(Generation([], NO_WORDS), 0) for _ in records]
        left = [i for i, record in enumerate(records) if record.has_words]
        for attempt in range(self.hparams["tries"]):
            if not left:
                break
            found = self._continuer_of(condition)(
                self._segments([records[i] for i in left]),
                [_seed_of(seeds[i], attempt) for i in left],
                self.hparams["speaker"],
            )
            for i, answer in zip(left, found):
                answers[i] = answer
            left = [
                i
                for i in left
                if is_empty(said_in(answers[i], output))
                and answers[i].generation.end_reason != TOO_LONG
            ]
        return answers

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
            name = safe_file_name(f"{condition.name}_{record.id}")
            path = self.folder / f"{name}.wav"
            write_wav(path, wav)


def _seed_of(seed: int, attempt: int) -> int:
    """Return the seed of an attempt; the first has the question's own."""
    return derive_seed(seed, attempt) if attempt else seed


def said_in(answer: Answer, output: str) -> Any:
    """Return the text of an answer, or its waveform."""
    return answer.text if output == "text" else answer.generation.wav


def is_empty(said: str | Tensor | None) -> bool:
    """Tell whether there is nothing to judge: no words, or under 80 ms.

    Example
    -------
    >>> is_empty(" "), is_empty("oh"), is_empty(None)
    (True, False, True)
    """
    if isinstance(said, str):
        return not said.strip()
    return said is None or len(said) < MIN_SAMPLES


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
