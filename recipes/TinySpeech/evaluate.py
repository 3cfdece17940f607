"""Measure language models in all ways, and print one table.

torchrun --nproc_per_node 2 evaluate.py hparams/evaluate.yaml \
    --manifest_folder FOLDER --stsp_folder ARCHIVE --recognizer WHISPER

Runs the evaluations of the folders beside this file for each model, and writes
report.md and summary.json with their figures, shots.png, and what each evaluation
writes into a folder of its own. Goes on where it was stopped.
"""

import json
import sys
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure
from speechbrain.utils.distributed import ddp_barrier, if_main_process

from spiritlm_plugin.dataio.corpus.stsp import DIRECTIONS
from spiritlm_plugin.evaluation.reports import markdown_table, write_report
from spiritlm_plugin.utils.recipes import load_recipe, run

HERE = Path(__file__).resolve().parent


class Line(NamedTuple):
    """A figure, with what it is compared with."""

    name: str
    value: float
    chance: float | None = None
    ceiling: float | None = None  # of the original audio, or the prompts


def asr_lines(summary):
    yield Line("WER ↓", summary["WER"])


def tts_lines(summary):
    for rate in ("WER", "CER"):
        if rate in summary:
            original = summary[f"original_{rate}"]
            yield Line(f"{rate} ↓", summary[rate], None, original)
    yield Line("not stopped ↓", summary["not_stopped"])


def intent_lines(summary):
    yield Line("accuracy", summary["accuracy"], summary["chance"])


def comprehension_lines(summary):
    names = {"T2S": "T→S", "S2T": "S→T"}
    for task, modalities in summary["accuracy"].items():
        for modality, found in modalities.items():
            name = f"{task} {names.get(modality, modality)}"
            yield Line(name, found["sum"], summary["chance"])


def sentiment_lines(summary):
    for direction, by_shots in summary["directions"].items():
        prompts = summary["prompts"][DIRECTIONS[direction].prompt]
        ceiling = prompts["accuracy"]["all"]["mean"]
        for shots, found in by_shots.items():
            yield Line(
                f"{DIRECTIONS[direction].name}, {shots} shots",
                found["accuracy"]["all"]["mean"],
                summary["chance"],
                ceiling,
            )


def vocoder_lines(summary):
    original, *systems = summary.values()
    for figure, name in (
        ("WER", "WER ↓"),
        ("style_accuracy", "style accuracy"),
        ("f0_frame_error", "F0 frame error ↓"),
        ("bits_per_second", "bits/s"),
    ):
        if figure in systems[0]:
            yield Line(name, systems[0][figure], None, original.get(figure))


LINES = {
    "asr": asr_lines,
    "tts": tts_lines,
    "intent": intent_lines,
    "comprehension": comprehension_lines,
    "sentiment": sentiment_lines,
    "vocoder": vocoder_lines,
}


class Job(NamedTuple):
    """An evaluation of a model."""

    evaluation: str
    shots: int | None
    model: str
    recipe: str
    options: dict

    @property
    def folder(self):
        shots = "" if self.shots is None else f"_{self.shots}_shots"
        name = self.evaluation.replace(",", "").replace(" ", "_")
        return Path(f"{name}{shots}") / self.model

    @property
    def title(self):
        shots = "" if self.shots is None else f", {self.shots} shots"
        return f"{self.evaluation}{shots}"


def make_jobs(hparams):
    """Return what is to be run, in the order of the table.

    Raises
    ------
    ValueError
        If an evaluation names no recipe of an evaluation.
    """
    # An override can leave a model or an evaluation out by null.
    models = {name: model for name, model in hparams["models"].items() if model}
    jobs = []
    for name, evaluation in hparams["evaluations"].items():
        if not evaluation:
            continue
        recipe = evaluation["recipe"]
        if recipe not in LINES:
            raise ValueError(
                f"evaluation {name!r} names recipe {recipe!r}; there are "
                f"{', '.join(LINES)}"
            )
        given = data_of(hparams, recipe)
        if given is None:
            print(f"{name} is left out: no --stsp_folder was named")
            continue
        for shots in evaluation.get("shots") or [None]:
            asked = {} if shots is None else {"shots": shots}
            options = evaluation["options"] | given | asked
            jobs += [
                Job(name, shots, model, recipe, options | loaded_by)
                for model, loaded_by in models.items()
            ]
    return jobs


def data_of(hparams, recipe):
    """Return the options that name data and judges; None if there are none."""
    given = {"seed": hparams["seed"]}
    if recipe == "sentiment":
        if not hparams["stsp_folder"]:
            return None
        return given | {"data_folder": hparams["stsp_folder"]}
    given["manifest_folder"] = hparams["manifest_folder"]
    if recipe in ("tts", "vocoder"):
        given["recognizer"] = hparams["recognizer"]
    return given


@cache
def load_main(recipe):
    """Return the main function of an evaluation."""
    path = HERE / recipe / "evaluate.py"
    spec = spec_from_file_location(f"evaluate_{recipe}", path)
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # for its dataclasses
    spec.loader.exec_module(module)
    return module.main


def run_job(job, folder, run_opts):
    """Run an evaluation, and return its figures."""
    options = job.options | {"output_folder": str(folder)}
    hparams = HERE / job.recipe / "hparams" / "evaluate.yaml"
    # JSON is YAML.
    overrides = [f"--{k}={json.dumps(v)}" for k, v in options.items()]
    if run_opts["device"]:
        overrides.append(f"--device={run_opts['device']}")
    load_main(job.recipe)([str(hparams), *overrides])
    ddp_barrier()
    return json.loads((folder / "summary.json").read_text(encoding="utf-8"))


def report(hparams, jobs, summaries):
    """Write all figures into one table."""
    table, curves = {}, {}
    for job, summary in zip(jobs, summaries):
        for line in LINES[job.recipe](summary):
            row = table.setdefault((job.title, line.name), {})
            row[job.model] = line
            if job.shots is not None:
                name = f"{job.evaluation} {line.name}"
                curve = curves.setdefault(name, {}).setdefault(job.model, [])
                curve.append((job.shots, line.value))
    models = list(dict.fromkeys(job.model for job in jobs))
    rows = []
    for (title, name), found in table.items():
        first = next(iter(found.values()))
        values = [found[m].value if m in found else None for m in models]
        rows.append([title, name, *values, first.chance, first.ceiling])
    figures = {
        f"{title}, {name}": {m: line._asdict() for m, line in found.items()}
        for (title, name), found in table.items()
    }
    folder = Path(hparams["output_folder"])
    draw_shots(curves, folder / "shots.png")
    write_report(
        folder,
        figures,
        "# Evaluations of TinySpeech",
        markdown_table(
            ["", "", *models, "chance", "original"],
            rows,
        ),
        "`original`: of the recordings or the prompts themselves. ↓: less is "
        "better.",
        "![by the number of shots](shots.png)",
    )


def draw_shots(curves, path):
    """Draw figures by the number of shots."""
    if not curves:
        return
    size = (4 * len(curves), 3.5)
    figure = Figure(figsize=size, layout="constrained")
    for axis, (name, by_model) in zip(
        figure.subplots(1, len(curves), squeeze=False)[0], curves.items()
    ):
        for model, points in by_model.items():
            axis.plot(*zip(*points), marker="o", label=model)
        axis.set(title=name, xlabel="shots", ylim=(0, None))
        axis.legend()
    figure.savefig(path, dpi=120)


def main(arguments):
    hparams, run_opts = load_recipe(arguments)
    jobs = make_jobs(hparams)
    folder = Path(hparams["output_folder"])
    summaries = []
    for number, job in enumerate(jobs, 1):
        if if_main_process():
            print(f"[{number}/{len(jobs)}] {job.title}, {job.model}")
        summaries.append(run_job(job, folder / job.folder, run_opts))
    if if_main_process():
        report(hparams, jobs, summaries)


if __name__ == "__main__":
    run(main)
