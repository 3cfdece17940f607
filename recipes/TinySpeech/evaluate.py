"""Measure language models in all ways, and print one table.

torchrun --nproc_per_node 2 evaluate.py hparams/evaluate.yaml \
    --manifest_folder FOLDER --stsp_folder ARCHIVE --recognizer WHISPER

Runs the evaluations of the folders beside this file for each model, and writes
report.md and summary.json with their figures, shots.png, and what each evaluation
writes into a folder of its own. Goes on where it was stopped.
"""

import json
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from speechbrain.utils.distributed import ddp_barrier, if_main_process

from spiritlm_plugin.evaluation.overview import (
    OverviewSettings,
    make_jobs,
    read_summary,
    report,
)
from spiritlm_plugin.utils.recipes import load_recipe, run

HERE = Path(__file__).resolve().parent


def data_of(hparams, recipe):
    """Return the options that name data and judges."""
    given = {"seed": hparams["seed"]}
    if recipe == "sentiment":
        return given | {"data_folder": hparams["stsp_folder"]}
    given["manifest_folder"] = hparams["manifest_folder"]
    if recipe in ("tts", "vocoder"):
        given["recognizer"] = hparams["recognizer"]
    return given


def why_not(hparams, job):
    """Return why there is no data for an evaluation, nothing if there is."""
    if job.recipe == "sentiment" and not hparams["stsp_folder"]:
        return "no --stsp_folder was named"
    split = job.options.get("split", "test")
    if not any(
        p.stem == split for p in Path(hparams["manifest_folder"]).iterdir()
    ):
        return f"the corpus has no {split}"
    return ""


@cache
def load_main(recipe):
    """Return the main function of an evaluation."""
    path = HERE / recipe / "evaluate.py"
    spec = spec_from_file_location(f"evaluate_{recipe}", path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def run_job(job, hparams, run_opts):
    """Run an evaluation, and return its figures."""
    folder = Path(hparams["output_folder"]) / job.folder
    options = job.options | data_of(hparams, job.recipe)
    options["output_folder"] = str(folder)
    # JSON is YAML.
    overrides = [f"--{k}={json.dumps(v)}" for k, v in options.items()]
    if run_opts["device"]:
        overrides.append(f"--device={run_opts['device']}")
    path = HERE / job.recipe / "hparams" / "evaluate.yaml"
    load_main(job.recipe)([str(path), *overrides])
    ddp_barrier()
    return read_summary(folder)


def main(arguments):
    hparams, run_opts = load_recipe(arguments, OverviewSettings)
    jobs = make_jobs(hparams["models"], hparams["evaluations"])
    reasons = {job.evaluation: why_not(hparams, job) for job in jobs}
    for name, reason in reasons.items():
        if reason:
            print(f"{name} is left out: {reason}")
    jobs = [job for job in jobs if not reasons[job.evaluation]]
    summaries = []
    for number, job in enumerate(jobs, 1):
        if if_main_process():
            print(f"[{number}/{len(jobs)}] {job.title}, {job.model}")
        summaries.append(run_job(job, hparams, run_opts))
    if if_main_process():
        title = "Evaluations of TinySpeech"
        report(hparams["output_folder"], title, jobs, summaries)


if __name__ == "__main__":
    run(main)
