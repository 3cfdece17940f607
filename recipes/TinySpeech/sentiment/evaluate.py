"""Measure whether a language model keeps the sentiment of prompts (STSP).

python evaluate.py hparams/evaluate.yaml --data_folder ARCHIVE --model MODEL

Lets the model continue texts and voices in text and in speech, behind no shots
and behind some, in several runs; classifiers of sentiment judge what it says.
Writes predictions.jsonl, the benchmark's predictions (predictions/), some
recordings (wavs/), summary.json, report.md and shots.png. Runs under torchrun,
and goes on where it was stopped.
"""

from itertools import groupby
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import soundfile
import torch
from matplotlib.figure import Figure
from speechbrain.utils.distributed import infer_device

from spiritlm_plugin.dataio.audio.reading import read_audio
from spiritlm_plugin.dataio.batching import spread
from spiritlm_plugin.dataio.checkpoints import digest_weights
from spiritlm_plugin.dataio.corpus.stsp import (
    DIRECTIONS,
    SENTIMENTS,
    STSPArchive,
)
from spiritlm_plugin.dataio.units.segments import Speech, Text
from spiritlm_plugin.dataio.units.units import SAMPLE_RATE
from spiritlm_plugin.evaluation.loop import (
    answer_row,
    item_seeds,
    load_model,
    settings_of,
)
from spiritlm_plugin.evaluation.predictions import Predictions
from spiritlm_plugin.evaluation.reports import (
    markdown_table,
    percent,
    write_report,
)
from spiritlm_plugin.inference.continuation import Continuer
from spiritlm_plugin.inference.few_shot import TOO_LONG
from spiritlm_plugin.inference.generation import speech_of
from spiritlm_plugin.metrics.sentiment import (
    most_common,
    sentiment_accuracy,
    write_predictions,
)
from spiritlm_plugin.metrics.sentiment_classifiers import (
    find_classifier,
    load_classifier,
)
from spiritlm_plugin.utils.recipes import load_recipe, run
from spiritlm_plugin.utils.seeds import derive_seed


class Condition(NamedTuple):
    """A run in a direction behind so many shots."""

    direction: str
    shots: int
    run: int

    @property
    def name(self):
        return f"{self.direction}_{self.shots}shot_run{self.run}"


class Benchmark:
    """What is asked, in all conditions.

    Arguments
    ---------
    hparams : dict
        The recipe's.
    """

    def __init__(self, hparams):
        check(hparams)
        archive = STSPArchive(hparams["data_folder"])
        modalities = {DIRECTIONS[d].prompt for d in hparams["directions"]}
        self.records = {}
        for modality in sorted(modalities):
            found = archive.records(
                hparams[f"{modality}_datasets"], hparams["split"], modality
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

    def asked(self):
        """Return what decides about answers, as plain values."""
        records = {
            f"{modality} {record.id}": {
                "sentiment": record.sentiment,
                "prompt": str(record.prompt),
            }
            for modality, records in self.records.items()
            for record in records
        }
        shots = {c.name: {"shots": str(s)} for c, s in self.shots.items()}
        return records, shots


def check(hparams):
    """Raise ValueError for what is no direction, number of shots or runs."""
    unknown = [d for d in hparams["directions"] if d not in DIRECTIONS]
    if unknown or not hparams["directions"]:
        raise ValueError(
            f"directions are some of {', '.join(DIRECTIONS)}, got "
            f"{hparams['directions']!r}"
        )
    shots = hparams["shots"]
    if not shots or not all(isinstance(n, int) and n >= 0 for n in shots):
        raise ValueError(
            f"shots are numbers such as [0, 3, 6, 9], got {shots!r}"
        )
    if hparams["runs"] < 1:
        raise ValueError(f"there is 1 run at least, got {hparams['runs']}")


def load_classifiers(hparams, device):
    """Return the classifiers by modality, of all that is to be judged."""
    needed = {
        modality
        for name in hparams["directions"]
        for modality in DIRECTIONS[name][1:]
    }
    classifiers = {}
    for modality in sorted(needed):
        source = hparams[f"{modality}_classifier"] or find_classifier(
            Path(hparams["data_folder"]) / "model", modality
        )
        labels = hparams[f"{modality}_labels"]
        classifiers[modality] = load_classifier(
            source, modality, device, labels
        )
    return classifiers


class Asker:
    """Has a model continue prompts, and the continuations judged.

    Arguments
    ---------
    hparams : dict
        The recipe's.
    lm : SpiritLM
        The model.
    classifiers : dict
        By modality.
    benchmark : Benchmark
        What is asked.
    """

    def __init__(self, hparams, lm, classifiers, benchmark):
        self.hparams, self.lm = hparams, lm
        self.classifiers = classifiers
        self.benchmark = benchmark
        self.folder = Path(hparams["output_folder"]) / "wavs"
        self.folder.mkdir(exist_ok=True)
        self._units = {}
        self._continuer = None, None
        self._kept = {
            record.id
            for records in benchmark.records.values()
            for record in spread(records, hparams["sample_count"])
        }

    def __call__(self, condition, names):
        """Return rows of questions of one condition."""
        hparams, output = self.hparams, DIRECTIONS[condition.direction].output
        records = [self.benchmark.questions[name][1] for name in names]
        seeds = item_seeds(hparams["seed"], names)
        answers = self._continuer_of(condition)(
            self._segments(records), seeds, hparams["speaker"]
        )
        said = [
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

    def _continuer_of(self, condition):
        if self._continuer[0] != condition:
            direction = DIRECTIONS[condition.direction]
            shots = [
                (
                    half(shot.prompt, direction.prompt, 0),
                    half(shot.generation, direction.output, 1),
                )
                for shot in self.benchmark.shots[condition]
            ]
            keys = ("context", "temperature", "top_p", "batch_size")
            continuer = Continuer(
                self.lm,
                shots,
                direction.output,
                self.hparams["max_new_tokens"][condition.direction],
                **{key: self.hparams[key] for key in keys},
            )
            self._continuer = condition, continuer
        return self._continuer[1]

    def _segments(self, records):
        """Return prompts; recordings are tokenized once for all runs."""
        spoken = [r.prompt for r in records if isinstance(r.prompt, Path)]
        new = [path for path in spoken if path not in self._units]
        [units] = self.lm.with_units([[Speech(path) for path in new]])
        self._units |= zip(new, units)
        return [self._units.get(r.prompt) or Text(r.prompt) for r in records]

    def _keep(self, condition, record, wav):
        if record.id in self._kept and wav is not None and len(wav):
            name = f"{condition.name}_{record.id}.wav".replace("/", "_")
            path = self.folder / name
            soundfile.write(path, wav.cpu().numpy(), SAMPLE_RATE)


def half(content, modality, which):
    """Return a text, or the first or second half of a recording."""
    if modality == "text":
        return Text(content)
    wav = read_audio(content)
    middle = len(wav) // 2
    return Speech(wav[middle:] if which else wav[:middle])


def predict(hparams, benchmark, ask, predictions):
    """Ask what is not answered yet."""
    for names in predictions.batches(hparams["batch_size"]):
        for condition, some in groupby(
            names, key=lambda name: benchmark.questions[name][0]
        ):
            predictions.add(ask(condition, list(some)))


def score(benchmark, rows, folder):
    """Return the figures of each direction and number of shots."""
    folder = Path(folder) / "predictions"
    folder.mkdir(exist_ok=True)
    runs = {}
    for condition in benchmark.conditions:
        records = benchmark.records[DIRECTIONS[condition.direction].prompt]
        run = {
            record.id: rows[f"{condition.name}/{record.id}"]
            for record in records
        }
        runs.setdefault(condition[:2], []).append(run)
        write_predictions(folder / f"{condition.name}.jsonl", predicted_of(run))
    figures = {}
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
            "shots_dropped": sum(count - len(r["shots"]) for r in answers),
            "too_long": sum(r["end_reason"] == TOO_LONG for r in answers),
        }
    return figures


def predicted_of(run):
    return {name: row["predicted"] for name, row in run.items()}


def judge_prompts(benchmark, classifiers, batch_size):
    """Return how often the classifiers are right about the prompts."""
    figures = {}
    for modality, records in benchmark.records.items():
        found = {}
        for start in range(0, len(records), batch_size):
            some = records[start : start + batch_size]
            prompts = [record.prompt for record in some]
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


def report(hparams, benchmark, rows, classifiers):
    """Count what is right, and write it down."""
    folder = hparams["output_folder"]
    prompts = judge_prompts(benchmark, classifiers, hparams["batch_size"])
    figures = score(benchmark, rows, folder)
    chance = 100 / len(SENTIMENTS)
    summary = {
        "model": hparams["model"] or hparams["release"],
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


def accuracy_table(hparams, figures, prompts, chance):
    """Return the main table, a column for each direction."""
    rows = []
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


def detail_table(figures):
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


def draw_shots(figures, chance, path):
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


@torch.inference_mode()
def main(arguments):
    hparams, run_opts = load_recipe(arguments)
    benchmark = Benchmark(hparams)
    device = run_opts.get("device") or infer_device()
    classifiers = load_classifiers(hparams, device)
    lm = load_model(hparams, run_opts)
    settings = settings_of(hparams, run_opts, lm, *benchmark.asked())
    settings["classifiers"] = {
        modality: digest_weights(classifier.model)
        for modality, classifier in classifiers.items()
    }
    predictions = Predictions(
        hparams["output_folder"], settings, benchmark.questions
    )
    ask = Asker(hparams, lm, classifiers, benchmark)
    predict(hparams, benchmark, ask, predictions)
    rows = predictions.gather()
    if rows is not None:
        report(hparams, benchmark, rows, classifiers)


if __name__ == "__main__":
    run(main)
