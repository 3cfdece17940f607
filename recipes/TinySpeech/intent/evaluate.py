"""Measure how well a language model classifies the spoken commands of TinySpeech.

python evaluate.py hparams/evaluate.yaml --manifest_folder FOLDER --model MODEL

Shows the model some utterances with their labels, and has the next one
generated (exact match) or chosen from all labels by likelihood (--method
likelihood). Writes predictions.jsonl, summary.json, report.md and confusion.png.
Runs under torchrun, and goes on where it was stopped.
"""

from spiritlm_plugin.evaluation.intent import IntentSettings, evaluate
from spiritlm_plugin.utils.recipes import load_recipe, run


def main(arguments):
    hparams, run_opts = load_recipe(arguments, IntentSettings)
    evaluate(hparams, run_opts)


if __name__ == "__main__":
    run(main)
