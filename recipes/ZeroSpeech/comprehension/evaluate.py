"""Measure what a language model knows of words and syntax (sWUGGY, sBLIMP).

python evaluate.py hparams/evaluate.yaml --manifest_folder FOLDER --model MODEL

Compares a word with a non-word, and a sentence with one that has a mistake, by
log-likelihood: in speech (S), and in text (T) where it is known what is said.
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
