"""Measure what a language model knows of words and syntax (sWUGGY, sBLIMP).

python evaluate.py hparams/evaluate.yaml --manifest_folder FOLDER --model MODEL

Compares a word with a non-word, and a sentence with one that has a mistake, by
log-likelihood: in speech (S), and in text (T) where it is known what is said.
Writes predictions.jsonl, summary.json and report.md. Runs under torchrun, and
goes on where it was stopped.
"""

from functools import partial

import torch

from spiritlm_plugin.evaluation.comprehension import (
    ComprehensionSettings,
    Scorer,
    check,
    load_groups,
    report,
)
from spiritlm_plugin.evaluation.loop import load_model, predict, settings_of
from spiritlm_plugin.utils.recipes import load_recipe, run


@torch.inference_mode()
def main(arguments):
    hparams, run_opts = load_recipe(arguments, ComprehensionSettings)
    check(hparams)
    groups = load_groups(hparams)
    lm = load_model(hparams, run_opts)
    items = {n: i for group in groups.values() for n, i in group.items()}
    settings = settings_of(hparams, run_opts, lm, items)
    make = partial(
        Scorer, lm, groups, hparams["modalities"], hparams["batch_size"]
    )
    rows = predict(hparams, settings, groups, make)
    if rows is not None:
        report(hparams, rows, groups)


if __name__ == "__main__":
    run(main)
