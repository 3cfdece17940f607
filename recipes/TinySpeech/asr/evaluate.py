"""Measure how well a language model transcribes the speech of TinySpeech.

python evaluate.py hparams/evaluate.yaml --manifest_folder FOLDER --model MODEL

Shows the model some utterances with their transcripts, or asks behind [ASR] a
model that was trained on it (--trained_asr true --shots 0), and counts the words
that it gets wrong. Writes predictions.jsonl, wer.txt (alignments), summary.json,
report.md and wer.png. Runs under torchrun, and goes on where it was stopped.
"""

from functools import partial

import torch

from spiritlm_plugin.evaluation.asr import ASRSettings, Transcription, report
from spiritlm_plugin.evaluation.loop import (
    load_items,
    load_model,
    load_shots,
    predict,
    settings_of,
)
from spiritlm_plugin.utils.recipes import load_recipe, run


@torch.inference_mode()
def main(arguments):
    hparams, run_opts = load_recipe(arguments, ASRSettings)
    items = load_items(hparams, ["text"])
    shots = load_shots(hparams, items)
    lm = load_model(hparams, run_opts)
    settings = settings_of(hparams, run_opts, lm, items, shots)
    make = partial(Transcription, hparams, lm, items, shots)
    rows = predict(hparams, settings, items, make)
    if rows is not None:
        report(hparams, rows, shots)


if __name__ == "__main__":
    run(main)
