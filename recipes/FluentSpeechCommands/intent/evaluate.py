"""Measure how well a language model classifies Fluent Speech Commands.

python evaluate.py hparams/evaluate.yaml --manifest_folder FOLDER --model MODEL

Shows the model some utterances with their labels, and has the next one
generated (exact match) or chosen from all labels by likelihood (--method
likelihood). Writes predictions.jsonl, summary.json, report.md and confusion.png.
Runs under torchrun, and goes on where it was stopped.
"""

from functools import partial

import torch

from spiritlm_plugin.evaluation.intent import (
    Classification,
    IntentSettings,
    load_commands,
    report,
)
from spiritlm_plugin.evaluation.loop import (
    load_model,
    load_shots,
    predict,
    settings_of,
)
from spiritlm_plugin.utils.recipes import load_recipe, run


@torch.inference_mode()
def main(arguments):
    hparams, run_opts = load_recipe(arguments, IntentSettings)
    items, labels = load_commands(hparams)
    shots = load_shots(hparams, items, hparams["label"], balanced=True)
    lm = load_model(hparams, run_opts)
    settings = settings_of(hparams, run_opts, lm, items, shots)
    make = partial(Classification, hparams, lm, items, shots, labels)
    rows = predict(hparams, settings, items, make)
    if rows is not None:
        report(hparams, rows, shots, labels)


if __name__ == "__main__":
    run(main)
