"""Measure how alike speech and text are in the layers of a language model.

python evaluate.py hparams/evaluate.yaml --manifest_folder FOLDER \
    --models "{interleaved: FOLDER, not_interleaved: FOLDER}"

Reads each utterance as speech and as text, and compares the features of its
words with those of the same word and of the others (Nguyen et al., 2025, figure
6). Writes predictions.jsonl for each model, summary.json, report.md and
similarity.png. Runs under torchrun, and goes on where it was stopped.
"""

from functools import partial

import torch

from spiritlm_plugin.evaluation.alignment import (
    AlignmentSettings,
    Comparison,
    load_models,
    load_utterances,
    report,
    summarize,
)
from spiritlm_plugin.evaluation.loop import load_model, predict, settings_of
from spiritlm_plugin.utils.recipes import load_recipe, run


def compare(options, run_opts, items):
    """Compare what one model has not compared yet; return all its rows."""
    lm = load_model(options, run_opts)
    settings = settings_of(options, run_opts, lm, items)
    make = partial(Comparison, lm, items, options["pooling"])
    return predict(options, settings, items, make)


@torch.inference_mode()
def main(arguments):
    hparams, run_opts = load_recipe(arguments, AlignmentSettings)
    models, items = load_models(hparams), load_utterances(hparams)
    figures = {}
    for name, options in models.items():
        rows = compare(options, run_opts, items)
        if rows is not None:
            figures[name] = summarize(options, rows, items)
    if figures:
        report(hparams, figures, len(items))


if __name__ == "__main__":
    run(main)
