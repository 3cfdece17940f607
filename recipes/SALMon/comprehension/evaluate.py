"""Measure what a language model hears besides words (SALMon).

python evaluate.py hparams/evaluate.yaml --manifest_folder FOLDER --model MODEL

Compares recordings, of which one changes or mismatches in its sentiment, speaker,
gender, background or room, by log-likelihood in speech (S).
Writes predictions.jsonl, summary.json and report.md. Runs under torchrun, and
goes on where it was stopped.
"""

from spiritlm_plugin.evaluation.comprehension import evaluate
from spiritlm_plugin.evaluation.comprehension_groups import (
    ComprehensionSettings,
)
from spiritlm_plugin.utils.recipes import load_recipe, run


def main(arguments):
    hparams, run_opts = load_recipe(arguments, ComprehensionSettings)
    evaluate(hparams, run_opts)


if __name__ == "__main__":
    run(main)
