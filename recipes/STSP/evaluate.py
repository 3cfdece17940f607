"""Measure whether a language model keeps the sentiment of prompts (STSP).

python evaluate.py hparams/evaluate.yaml --data_folder ARCHIVE --model MODEL

Lets the model continue texts and voices in text and in speech, behind no shots
and behind some, in several runs; classifiers of sentiment judge what it says.
Writes predictions.jsonl, the benchmark's predictions (predictions/), some
recordings (wavs/), summary.json, report.md and shots.png. Runs under torchrun,
and goes on where it was stopped.
"""

from functools import partial

import torch
from speechbrain.utils.distributed import infer_device

from spiritlm_plugin.evaluation.loop import load_model, predict
from spiritlm_plugin.evaluation.sentiment import (
    Benchmark,
    Continuation,
    SentimentSettings,
    load_classifiers,
    report,
    settings_of,
    settle,
)
from spiritlm_plugin.utils.recipes import load_recipe, run


@torch.inference_mode()
def main(arguments):
    hparams, run_opts = load_recipe(arguments, SentimentSettings)
    hparams = settle(hparams, arguments)
    benchmark = Benchmark(hparams)
    device = run_opts.get("device") or infer_device()
    classifiers = load_classifiers(hparams, device)
    lm = load_model(hparams, run_opts)
    settings = settings_of(hparams, run_opts, lm, classifiers, benchmark)
    make = partial(Continuation, hparams, lm, classifiers, benchmark)
    rows = predict(hparams, settings, benchmark.questions, make)
    if rows is not None:
        report(hparams, benchmark, rows, classifiers)


if __name__ == "__main__":
    run(main)
