"""Measure whether a language model finds the right ending of a story likelier.

python evaluate.py hparams/evaluate.yaml --manifest_folder FOLDER --model MODEL

Compares the stories of spoken StoryCloze and topic-StoryCloze, with the right
ending and the other one, by log-likelihood: in speech (S), in text (T), speech after
text (T2S) and text after speech (S2T).
Writes predictions.jsonl, summary.json and report.md. Runs under torchrun, and
goes on where it was stopped.
"""

from functools import partial

import torch

from spiritlm_plugin.evaluation.comprehension import (
    Scorer,
    StorySettings,
    check,
    load_groups,
    report,
)
from spiritlm_plugin.evaluation.loop import load_model, predict, settings_of
from spiritlm_plugin.utils.recipes import load_recipe, run


@torch.inference_mode()
def main(arguments):
    hparams, run_opts = load_recipe(arguments, StorySettings)
    check(hparams)
    groups = load_groups(hparams)
    lm = load_model(hparams, run_opts)
    items = {n: i for group in groups.values() for n, i in group.items()}
    settings = settings_of(hparams, run_opts, lm, items)
    make = partial(
        Scorer,
        lm,
        groups,
        hparams["modalities"],
        hparams["batch_size"],
        hparams["scored"],
    )
    rows = predict(hparams, settings, groups, make)
    if rows is not None:
        report(hparams, rows, groups)


if __name__ == "__main__":
    run(main)
